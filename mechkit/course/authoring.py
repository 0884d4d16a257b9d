"""How does a solution become a chapter?

`solutions/NN_name.ipynb` is the source: solved, executed, outputs stored. `chapters/NN_name.ipynb` is that
notebook with its marked regions cut out, its outputs dropped and nbgrader's release metadata added, the same
to the byte wherever it is made. A chapter is never written from a solution with a fault, nor one that would
give an answer away. The answers go to a file inside the package, whence `lesson.reveal` takes them.
"""

import copy
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nbclient
import nbformat.v4
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.validator import iter_validate

from mechkit.course.exercises import WORKED
from mechkit.course.proofreading import CHECK, faults, kind_of, leaks, nbgrader, stale_outputs
from mechkit.course.regions import cut, solved

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXERCISES = "mechkit/course/exercises"
CELL_METADATA = ("nbgrader", "tags")
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 600
ANSI_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def build(root: Path, names: Sequence[str] = (), execute: bool = False) -> list[Path]:
    """Make the chapters and worked solutions of some solution notebooks, or of all, and return their paths.

    Args:
        root: The checkout, which holds `solutions/`, `chapters/` and the package.
        names: Such as "04" or "04_logit_lens"; all if empty.
        execute: Run each solution first, in a fresh kernel, and store its outputs.
    Raises: ValueError, a sentence a line, if a solution has faults, would leak or does not run. What was
        finished before it stays.
    """
    made = []
    for path in solution_paths(root, names):
        solution = _read_sound(path)
        if execute:
            solution = _run_named(solution, f"solutions/{path.name}")
            _write(path, to_text(solution))
        if found := leaks(solution, generate(solution), f"chapters/{path.name}"):
            raise ValueError("\n".join(found))
        for file, text in _made(path, solution).items():
            _write(root / file, text)
            made.append(root / file)
    return made


def check(root: Path, names: Sequence[str] = ()) -> list[str]:
    """What is wrong with the solutions, and with what was made of them, a sentence each; empty if nothing is."""
    paths = solution_paths(root, names)
    problems = [problem for path in paths for problem in _check_made(root, path)]
    if not names:
        sources = {path.name for path in paths}
        orphans = [path.name for path in _notebooks(root / "chapters") if path.name not in sources]
        problems += [f"chapters/{name} has no solution: write solutions/{name}, or delete it." for name in orphans]
        shipped = {WORKED.format(path.stem[:2]) for path in paths}
        orphans = sorted({path.name for path in (root / EXERCISES).glob(WORKED.format("*"))} - shipped)
        problems += [f"{EXERCISES}/{name} belongs to no solution; delete it." for name in orphans]
    return problems


def solution_paths(root: Path, names: Sequence[str] = ()) -> list[Path]:
    """The solution notebooks that some names stand for, in order; all if there are no names.

    Raises: ValueError if there is no `solutions/` folder, or a name stands for none in it.
    """
    if not (root / "solutions").is_dir():
        raise ValueError(f"Chapters are built in a checkout of the course, and {root} has no solutions folder.")
    paths = _notebooks(root / "solutions")
    for name in names:
        if not any(_is_called(path, name) for path in paths):
            known = ", ".join(path.stem for path in paths) or "none yet"
            raise ValueError(f"There is no solution called {name!r}. There are: {known}.")
    return [path for path in paths if not names or any(_is_called(path, name) for name in names)]


def generate(solution: NotebookNode) -> NotebookNode:
    """The chapter of a solution: answers cut, outputs dropped, metadata as nbgrader 0.9 releases it."""
    cells = [_chapter_cell(cell) for cell in solution.cells]
    return NotebookNode(cells=cells, metadata=copy.deepcopy(METADATA), nbformat=4, nbformat_minor=5)


def worked(solution: NotebookNode) -> str:
    """The file of a solution's answers: each exercise's id, and its answer cell as solved, line by line."""
    metas = [(nbgrader(cell), cell) for cell in solution.cells if nbgrader(cell)]
    exercises = {meta["grade_id"].removesuffix(CHECK) for meta, _ in metas if meta["grade"]}
    answers = {meta["grade_id"]: solved(cell.source).split("\n") for meta, cell in metas if meta["solution"]}
    shown = {name: lines for name, lines in answers.items() if name in exercises}
    return json.dumps(shown, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def checksum(cell: NotebookNode) -> str:
    """nbgrader's checksum of a cell, by which it sees that a cell was changed."""
    meta = cell.metadata["nbgrader"]
    locked = not meta["solution"] and (meta["grade"] or meta["locked"])
    parts = [cell.source, cell.cell_type, meta["grade"], meta["solution"], locked, meta["grade_id"]]
    if meta["grade"]:
        parts.append(float(meta["points"]))
    return hashlib.md5("".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def run(notebook: NotebookNode, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """The notebook with the outputs of a fresh run from top to end; what changes from run to run is dropped.

    It runs in an empty folder and, unless the environment says otherwise, with a progress file of its own:
    nobody's progress is touched.

    Raises: ValueError if a cell fails, hangs or kills the kernel.
    """
    fresh = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = nbclient.NotebookClient(
            fresh,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": folder}},
        )
        progress = {"MECHKIT_HOME": str(Path(folder, "progress"))}
        try:
            client.execute(env={**os.environ, **progress, **(environment or {})})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise ValueError(f"does not run to its end. {ANSI_COLOUR.sub('', str(error))}") from error
        except AssertionError as error:  # nbclient, interrupted, puts its kernel away twice
            raise KeyboardInterrupt from error
    return settled(fresh)


def settled(executed: NotebookNode) -> NotebookNode:
    """An executed notebook as the repository stores it: without what differs between two equal runs."""
    fresh = copy.deepcopy(executed)
    for cell in fresh.cells:
        _settle(cell)
    fresh.metadata = copy.deepcopy(METADATA)
    return fresh


def read(path: Path) -> NotebookNode:
    """A notebook exactly as it is on disk: no upgrade, no ids made up.

    Raises: ValueError, whose text completes a sentence about the notebook, if it is not one of format 4.5.
    """
    try:
        notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
        version = (notebook["nbformat"], notebook["nbformat_minor"])
        error = next(iter_validate(notebook), None)
    except (ValueError, AttributeError, TypeError, KeyError) as problem:
        raise ValueError(f"is not a notebook: {problem}.") from problem
    if version < (4, 5):
        raise ValueError("is in a format before 4.5, which has no cell ids; save it again in JupyterLab.")
    if error:
        cell = f"cell {error.absolute_path[1] + 1} " if len(error.absolute_path) > 1 else ""
        raise ValueError(f"is not a valid notebook: {cell}{error.message}.")
    return notebook


def to_text(notebook: NotebookNode) -> str:
    """A notebook's file: keys sorted, one space of indent, a newline at the end."""
    return nbformat.v4.writes(notebook) + "\n"


def _check_made(root: Path, path: Path) -> list[str]:
    name, chapter_name = f"solutions/{path.name}", f"chapters/{path.name}"
    try:
        solution = _read_sound(path)
    except ValueError as error:
        return str(error).splitlines()
    problems = stale_outputs(solution, name)
    for file, text in _made(path, solution).items():
        if not (root / file).is_file():
            problems.append(f"{file} is missing; run `mechkit build`.")
        elif (root / file).read_bytes() != text.encode():
            problems.append(f"{file} is not what {name} generates; run `mechkit build`.")
    try:
        return problems + leaks(solution, read(root / chapter_name), chapter_name)
    except FileNotFoundError:
        return problems
    except ValueError as error:
        return [*problems, f"{chapter_name} {error}"]


def _made(path: Path, solution: NotebookNode) -> dict[str, str]:
    """The files that are made of a solution, by their place in a checkout."""
    return {
        f"chapters/{path.name}": to_text(generate(solution)),
        f"{EXERCISES}/{WORKED.format(path.stem[:2])}": worked(solution),
    }


def _read_sound(path: Path) -> NotebookNode:
    name = f"solutions/{path.name}"
    try:
        solution = read(path)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if found := faults(solution, name):
        raise ValueError("\n".join(found))
    return solution


def _run_named(solution: NotebookNode, name: str) -> NotebookNode:
    try:
        return run(solution)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def _chapter_cell(cell: NotebookNode) -> NotebookNode:
    made = NotebookNode(cell_type=cell.cell_type, id=cell.id, metadata=_kept_metadata(cell), source=cell.source)
    if cell.cell_type == "code":
        made.update(source=cut(cell.source), outputs=[], execution_count=None)
    if "attachments" in cell:
        made.attachments = copy.deepcopy(cell.attachments)
    if kind := kind_of(cell):
        made.metadata["nbgrader"].update(checksum=checksum(made), cell_type=cell.cell_type)
        made.metadata["deletable"] = False
        if kind in ("check", "read-only"):
            made.metadata["editable"] = False
    return made


def _kept_metadata(cell: NotebookNode) -> NotebookNode:
    return NotebookNode({key: copy.deepcopy(cell.metadata[key]) for key in CELL_METADATA if key in cell.metadata})


def _settle(cell: NotebookNode) -> None:
    """Drop from an executed cell what differs between two equal runs, and what a page without a kernel cannot show.

    A widget is only an error or a blank there: a progress bar has nothing more to say, and of an explorer the twin
    that `show_live` displays beside it stays. In how many pieces a text arrives differs too, so it becomes one.
    """
    cell.metadata = _kept_metadata(cell)
    if cell.cell_type == "code":
        cell.outputs = _in_one_piece(output for output in cell.outputs if WIDGET not in output.get("data", {}))
    for output in cell.get("outputs", []):
        if "data" in output:
            output.metadata = NotebookNode()


def _in_one_piece(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which the pieces of a text that follow one another are joined."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and "name" in output and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _is_called(path: Path, name: str) -> bool:
    wanted = Path(name).name.removesuffix(".ipynb")
    return path.stem == wanted or path.stem.startswith(f"{wanted}_")


def _notebooks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def _write(path: Path, text: str) -> None:
    """Replace a file at once, and only if it changes."""
    data = text.encode()
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
