"""One call of `mechkit grade`: everything that can be said beforehand is said before anything runs."""

import contextlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mechkit.course.workspace import chapters_folder
from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.cluster import Cluster
from mechkit.grading.collect import HandedIn, chapter_of, collect
from mechkit.grading.exports import Sheet, gradescope, read_sheet
from mechkit.grading.folders import WorkFolder, sweep
from mechkit.grading.grade import Grader
from mechkit.grading.records import write_json
from mechkit.grading.sandbox import Limits
from mechkit.grading.submission import read_template


def grade_paths(options: Namespace) -> list[dict[str, Any]]:
    """Grade what the command line names; a progress bar tells the time left.

    Args:
        options: As `mechkit grade` parses them.
    Raises: ValueError, before anything runs, if the options do not fit together or with what is there.
    """
    if options.jobs < 1 or options.seconds <= 0:
        raise ValueError("wanted at least one job and some seconds for it; give --jobs and --seconds above 0")
    if options.fill and (options.fill.name == "gradebook.csv" or _lies_in(options.fill, options.out)):
        taken = options.out / options.fill.name
        raise ValueError(f"wanted to write {taken}, which is taken: give the export another name or folder")
    sweep()
    with WorkFolder("unpacked") as unpacked:
        handed = _handed(options, unpacked)
        template = _template(options, handed)
        learners = [each.learner for each in handed]
        sheet = read_sheet(options.fill, learners, options.column) if options.fill else None
        with _graders(options) as (opened, jobs), tqdm(total=len(handed), unit="learner", disable=None) as bar:
            wishes = Wishes(
                jobs=jobs,
                seed=options.seed,
                resume=options.resume,
                required=options.require_isolation,
                limits=Limits(seconds=options.seconds, whole=2 * options.seconds + 10),
                hidden=(*options.paths, unpacked),
            )
            told = {"told": lambda record: bar.update(), "open_grader": opened}
            records = grade_class(handed, template, options.out, wishes, **told)
    _export(options, records, sheet)
    return records


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().parent == folder.resolve()


@contextlib.contextmanager
def _graders(options: Namespace) -> Iterator[tuple[Callable[..., Any], int]]:
    """What opens a grader, here or on a cluster, and how many may work at a time."""
    if not options.scheduler:
        yield Grader, options.jobs
        return
    with contextlib.closing(Cluster(options.scheduler)) as cluster:
        yield cluster.open_grader, cluster.threads


def _handed(options: Namespace, unpacked: Path) -> list[HandedIn]:
    """Who handed in what; for Gradescope everything is one learner's, and may be nothing."""
    if not options.gradescope:
        return collect(options.paths, unpacked)
    missing = [path for path in options.paths if not path.exists()]
    if missing:
        raise ValueError(f"wanted a submission to grade; there is no {missing[0]}")
    with contextlib.suppress(ValueError):  # none that can be read
        found = collect(options.paths, unpacked)
        return [HandedIn("submission", tuple(path for each in found for path in each.notebooks))]
    return [HandedIn("submission", ())]


def _template(options: Namespace, handed: Sequence[HandedIn]) -> Path:
    if options.template:
        read_template(options.template)
        return options.template
    number = options.chapter or chapter_of(handed)
    folder = chapters_folder()
    found = sorted(folder.glob(f"{number}_*.ipynb"))
    if not found:
        known = ", ".join(path.stem for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")))
        raise ValueError(f"wanted chapter {number!r} to grade by; there are {known}")
    return found[0]


def _export(options: Namespace, records: Sequence[dict[str, Any]], sheet: Sheet | None) -> None:
    if sheet:
        (options.out / options.fill.name).write_bytes(sheet.filled(records))
    if options.gradescope:
        write_json(options.gradescope, gradescope(records[0]))
