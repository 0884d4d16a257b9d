"""Who handed in what? From folders and zips as Canvas, Moodle, nbgrader and people make them.

A learner is a folder, or what a file's name begins with. Names are only ever shown: no path is made of them
except through `safe_name`, and a zip is read entry by entry, never unpacked to where its names point.
"""

import hashlib
import re
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mechkit.grading.submission import LARGEST, SubmissionError, Template, read_cells

ENTRIES, UNPACKED = 50_000, 4 * 2**30
# surname_given_LATE_user_file_name.ipynb, with -1, -2 … for resubmissions
CANVAS = re.compile(
    r"(?P<name>[^_]+)_(?:LATE_)?(?P<user>\d+)_(?P<file>\d+)_(?P<rest>.+?)(?:-(?P<again>\d+))?\.ipynb", re.I
)
MOODLE = re.compile(r"(?P<name>.+)_(?P<user>\d+)_assignsubmission_file_?")
TAKEN = re.compile(r"^(con|nul|prn|aux|com\d|lpt\d)$|-[0-9a-f]{12}$")  # by Windows; by names that were changed
IGNORED = re.compile(r"(^|/)(\.|__MACOSX(/|$)|__pycache__(/|$))")


@dataclass(frozen=True)
class HandedIn:
    """One learner's notebooks.

    Args:
        learner: Who, as the files say; for showing.
        notebooks: In the order in which they are to be preferred, latest first; empty if there is none.
    """

    learner: str
    notebooks: tuple[Path, ...]


def collect(paths: Sequence[Path], unpacked: Path) -> list[HandedIn]:
    """Everything handed in, by learner, in order of their names.

    Args:
        paths: Notebooks, folders and zips.
        unpacked: An empty folder of ours, for the notebooks in zips.
    Raises: ValueError if a path does not exist or is none of these, or if there is nothing to grade.
    """
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for number, path in enumerate(paths):
        for name, file in _unwrapped(list(_files(path, unpacked / str(number))), zipped=path.is_file()):
            learner, rank = _learner(name)
            if learner and file is None:
                found.setdefault(learner, [])
            elif file is not None:
                found[learner].append((rank, file))
    if not found:
        raise ValueError(f"wanted notebooks to grade; found none in {', '.join(map(str, paths))}")
    latest = {learner: sorted(files, key=lambda each: each[0], reverse=True) for learner, files in found.items()}
    return [HandedIn(learner, tuple(file for _, file in latest[learner])) for learner in sorted(latest)]


def choose(handed: HandedIn, template: Template) -> tuple[Path | None, str]:
    """The notebook of a learner's that answers a chapter, and a warning if there was more than one, or none."""
    if not handed.notebooks:
        return None, "No notebook was handed in."
    asked = {exercise.id for exercise in template.exercises}
    answers = [len(asked & _marks(path)) for path in handed.notebooks]
    best = handed.notebooks[answers.index(max(answers))]
    if len(handed.notebooks) == 1:
        return best, ""
    return best, f"{len(handed.notebooks)} notebooks were handed in; {best.name!r} is graded."


def chapter_of(handed: Sequence[HandedIn]) -> str:
    """The number of the chapter that most of these notebooks are of.

    Raises: ValueError if none of them is of a chapter.
    """
    votes: dict[str, int] = defaultdict(int)
    for path in (path for each in handed[:50] for path in each.notebooks):
        for number in {mark[:2] for mark in _marks(path) if re.match(r"\d\d_", mark)}:
            votes[number] += 1
    if not votes:
        raise ValueError("wanted notebooks of a chapter; none of these has its marks: say which with --chapter")
    return max(sorted(votes), key=lambda number: votes[number])


def safe_name(learner: str) -> str:
    """A file name for a learner: small letters, digits, - and _ as they are, else with a few of its own at the end.

    No two learners share one, whatever they call themselves, also where capitals are the same as small letters.
    """
    plain = unicodedata.normalize("NFKD", learner).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_-")[:60]
    if plain and plain == learner == learner.lower() and not TAKEN.search(plain):
        return plain
    digest = hashlib.sha256(learner.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain or 'learner'}-{digest}"


def _marks(path: Path) -> set[str]:
    try:
        return {cell.grade_id for cell in read_cells(path)}
    except SubmissionError:
        return set()


def _unwrapped(files: list[tuple[str, Path | None]], *, zipped: bool) -> list[tuple[str, Path | None]]:
    """The same without a folder that everything in a zip was put into; nbgrader's `submitted` is one anywhere."""
    tops = {name.split("/")[0] for name, _ in files}
    if "submitted" in tops:
        files, tops = [each for each in files if each[0].startswith("submitted/")], {"submitted"}
    notebooks = [name for name, file in files if file is not None]
    inside = all("/" in name for name, _ in files)
    if tops != {"submitted"} and not (zipped and len(tops) == 1 and inside and len(notebooks) > 1):
        return files
    inner = [(name.partition("/")[2], file) for name, file in files]
    folders = {f"{name.split('/')[0]}/": None for name, _ in inner if "/" in name}
    return [*folders.items(), *((name, file) for name, file in inner if file is not None)]


def _files(path: Path, unpacked: Path) -> Iterator[tuple[str, Path | None]]:
    """Names as they were handed in, with forward slashes, and where each file is; None for a learner without one."""
    if path.is_dir():
        yield from _folder(path)
    elif path.suffix.lower() == ".zip":
        yield from _zip(path, unpacked)
    elif path.is_file():
        yield path.name, path
    else:
        raise ValueError(f"wanted notebooks, folders or zips to grade; there is no {path}")


def _folder(root: Path) -> Iterator[tuple[str, Path | None]]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or IGNORED.search(name) or not path.resolve().is_relative_to(root.resolve()):
            continue
        if path.suffix.lower() == ".ipynb" and path.is_file():
            yield name, path
        elif path.is_dir() and path.parent == root:
            yield f"{name}/", None


def _zip(path: Path, unpacked: Path) -> Iterator[tuple[str, Path | None]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > ENTRIES:
                raise ValueError(f"wanted a zip of at most {ENTRIES:,} files; {path} has {len(entries):,}")
            wanted = [each for each in entries if not IGNORED.search(each.filename)]
            yield from _unzip(archive, wanted, unpacked)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"wanted a zip of submissions; {path} cannot be read ({error})") from None


def _unzip(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], unpacked: Path
) -> Iterator[tuple[str, Path | None]]:
    """Notebooks are written under numbers, so that no name in a zip can point anywhere; at most so much of each."""
    unpacked.mkdir(parents=True)
    total = 0
    for number, entry in enumerate(entries):
        name = entry.filename.replace("\\", "/")
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
        if len(parts) > 1 or entry.is_dir():
            yield f"{parts[0] if parts else ''}/", None
        link = (entry.external_attr >> 28) == 0xA
        if entry.is_dir() or link or not parts or not name.lower().endswith(".ipynb"):
            continue
        target = unpacked / str(number) / safe_name(parts[-1][:-6])
        target.parent.mkdir()
        target = target.with_suffix(".ipynb")
        data = _entry(archive, entry)
        total += len(data)
        if total > UNPACKED:
            raise ValueError(f"wanted a zip of at most {UNPACKED:,} bytes of notebooks; {archive.filename} has more")
        target.write_bytes(data)
        yield "/".join(parts), target


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file in a zip, up to one byte more than is read of a notebook; nothing if it is broken or locked."""
    try:
        with archive.open(entry) as source:
            return source.read(LARGEST + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError):
        return b""


def _learner(name: str) -> tuple[str, str]:
    """Who handed in a file, by its name, and what tells an earlier one from a later one."""
    parts = name.split("/")
    if len(parts) > 1 and parts[0] == "submitted":  # nbgrader's submitted/STUDENT/ASSIGNMENT
        parts = parts[1:]
    for part in parts[:-1]:
        if moodle := MOODLE.fullmatch(part):
            return f"{moodle['name']} ({moodle['user']})", name
    if canvas := CANVAS.fullmatch(parts[-1]):
        again = int(canvas["again"] or 0)
        return f"{canvas['name']} ({canvas['user']})", f"{again:06d} {int(canvas['file']):020d}"
    if len(parts) > 1 and parts[0]:
        return parts[0], name
    return parts[-1].removesuffix(".ipynb") or parts[-1], name
