"""The commands. Each exits with 0 if all is well, 1 if a problem was found, 2 if it was called wrongly.

What a command needs is imported inside it, so that `mechkit --help` answers at once. With --json, stdout holds
the JSON and nothing else.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

WORK_FOLDER, SITE_FOLDER = Path("mechkit-work"), Path("mechkit-site")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Our own errors are one sentence on stderr, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console without some character should not end a command
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except ImportError as error:
        print(f"mechkit: {error}: install the course again (`pip install mechkit-course`, or `-e .`)", file=sys.stderr)
    except KeyboardInterrupt:
        print("mechkit: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"mechkit: {error}", file=sys.stderr)
    return 1


def _is_ours(error: Exception) -> bool:
    from mechkit.network.downloads import AssetError

    return isinstance(error, AssetError | ValueError | OSError)


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    top = argparse.ArgumentParser(
        prog="mechkit",
        description="A hands-on course in mechanistic interpretability.",
        epilog="example: mechkit lab",
    )
    top.add_argument("--version", action="version", version=f"mechkit {import_module('mechkit').__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    one = _command(commands, lab, "open the course in JupyterLab", "mechkit lab my-folder --no-browser")
    one.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=WORK_FOLDER, help="where you work")
    one.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")

    one = _command(commands, doctor, "check that everything is here and right", "mechkit doctor --json")
    _json(one)

    one = _command(
        commands, fetch, "get or repair the default model; say where the word vectors are", "mechkit fetch --repair"
    )
    one.add_argument("--repair", action="store_true", help="compare every byte, and make again what is damaged")

    one = _command(commands, progress, "show what you have done", "mechkit progress --reset 05_induction_score")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--csv", action="store_true", help="print every exercise as CSV")
    what.add_argument("--reset", metavar="ID", help="forget what was done of an exercise")
    what.add_argument("--undo", action="store_true", help="bring back the exercise that was reset last")
    _json(what)

    one = _command(
        commands, report, "compare what was published, what the model shows, and what you found", "mechkit report 05 06"
    )
    one.add_argument("names", metavar="NN", nargs="*", help='such as "04"; every chapter if none is given')
    one.add_argument("--html", metavar="FILE", type=Path, help="write a page instead")
    _json(one)

    one = _command(commands, build, "make chapters from solutions (in a checkout)", "mechkit build --check 00 04")
    one.add_argument("names", metavar="NAME", nargs="*", help='such as "04"; all if none is given')
    how = one.add_mutually_exclusive_group()
    how.add_argument("--execute", action="store_true", help="run the solutions first and store their outputs")
    how.add_argument("--check", action="store_true", help="write nothing; say what differs")

    one = _command(commands, site, "write the solved course as a web site (in a checkout)", "mechkit site my-site")
    one.add_argument("folder", metavar="OUT", nargs="?", type=Path, default=SITE_FOLDER, help="where the site goes")

    _for_instructors(commands)

    one = _command(commands, exercises, "list every exercise", "mechkit exercises --json")
    _json(one)

    one = _command(commands, bench, "measure how fast something is", "mechkit bench cache --json")
    one.add_argument("name", choices=sorted(BENCHES), help="what to measure")
    one.add_argument("names", metavar="NN", nargs="*", help='chapters to measure, such as "04"; all if none is given')
    one.add_argument("--notebooks", metavar="N", type=int, help="how many are graded (default: 3, for memory 300)")
    _json(one)
    return top


def _command(
    commands: argparse._SubParsersAction, run: Callable[[argparse.Namespace], int], summary: str, example: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        run.__name__, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example: {example}"
    )
    made.set_defaults(command=run)
    return made


def _for_instructors(commands: argparse._SubParsersAction) -> None:
    one = _command(commands, grade, "grade notebooks (safely)", "mechkit grade submitted/ --out graded --jobs 2")
    _grading(one)

    one = _command(commands, export, "make a course for another system", "mechkit export nbgrader my-course 00 04")
    one.add_argument("format", choices=["nbgrader", "gradescope"], help="what it is for")
    one.add_argument(
        "target", metavar="PATH", type=Path, help="the folder of an nbgrader course, or an autograder's zip"
    )
    one.add_argument("names", metavar="NAME", nargs="*", help='such as "04"; one for Gradescope, all if none is given')


def _grading(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a notebook, a folder or a zip")
    command.add_argument("--out", metavar="DIR", type=Path, default=Path("graded"), help="where the results go")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--chapter", metavar="NN", help="the chapter, if the notebooks do not say")
    which.add_argument("--template", metavar="FILE", type=Path, help="a chapter's notebook of your own")
    command.add_argument("--jobs", metavar="N", type=int, default=1, help="answers that run at a time")
    command.add_argument("--seed", metavar="N", type=int, help="of the hidden cases (default: a random one, recorded)")
    command.add_argument("--seconds", metavar="S", type=float, default=20.0, help="for one call of one answer")
    command.add_argument("--resume", action="store_true", help="keep what an earlier run in DIR has finished")
    command.add_argument("--require-isolation", action="store_true", help="refuse to grade without namespaces")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that is to do the work")
    command.add_argument("--fill", metavar="CSV", type=Path, help="a Canvas or Moodle export, filled in as DIR/CSV")
    command.add_argument("--column", metavar="NAME", help="the assignment's column in that export")
    command.add_argument("--gradescope", metavar="FILE", type=Path, help="write one learner's results.json")
    _json(command)


def _json(command: argparse._ActionsContainer) -> None:
    command.add_argument("--json", action="store_true", help="print JSON for a program to read")


def lab(options: argparse.Namespace) -> int:
    """Copy the chapters, get the model ready, and open JupyterLab; without the model the chapters still open."""
    from mechkit.course.workspace import copy_chapters, open_lab
    from mechkit.network.assets import AssetError, default_model

    folder = options.folder.expanduser()
    copied = copy_chapters(folder)
    print(f"Your work folder is {folder.absolute()}.", *str(copied).splitlines(), sep="\n", flush=True)
    if not os.environ.get("MECHKIT_MODEL"):
        try:
            default_model()
        except AssetError as error:
            print(f"mechkit: {error}", file=sys.stderr)
    return open_lab(folder, browser=not options.no_browser)


def doctor(options: argparse.Namespace) -> int:
    from mechkit.course.doctor import examine

    checks = []
    for check in examine():
        checks.append(check)
        if not options.json:
            print(f"{'ok' if check.ok else 'PROBLEM':8} {check.name}: {check.detail}", flush=True)
    ok = all(check.ok for check in checks)
    if options.json:
        print(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        problems = sum(not check.ok for check in checks)
        print("All is well." if ok else f"Problems: {problems}. What to do stands beside each.")
    return 0 if ok else 1


def fetch(options: argparse.Namespace) -> int:
    from mechkit.methods import words
    from mechkit.network import assets

    folder = assets.fetch(repair=options.repair)
    print(f"{folder.name} is in {folder}")
    print(f"{words.GLOVE} came with the course, in {words.glove_folder()}")
    return 0


def progress(options: argparse.Namespace) -> int:
    from mechkit.course import dashboard
    from mechkit.course.progress import summary

    if options.json:
        print(json.dumps(summary(), indent=1))
    elif options.csv:
        print(dashboard.table_csv(), end="")
    elif options.reset:
        dashboard.reset(options.reset)
        print(f"{options.reset} is as if you had never tried it; `mechkit progress --undo` brings it back")
    elif options.undo:
        print(f"{dashboard.undo()} is as it was")
    else:
        print(dashboard.dashboard().text)
        print(f"Kept in {summary()['file']}")
    return 0


def report(options: argparse.Namespace) -> int:
    from mechkit.course import report as card

    rows = card.report_rows(options.names or card.NUMBERS)
    if options.html:
        options.html.write_text(card.report_html(rows), encoding="utf-8")
        print(options.html)
    else:
        print(json.dumps(card.report_json(rows), indent=1) if options.json else card.report_text(rows))
    return 0


def build(options: argparse.Namespace) -> int:
    from mechkit.course import authoring, pages

    root = _checkout()
    if options.check:
        problems = authoring.check(root, options.names) + pages.check(root)
        print(*problems, sep="\n", end="\n" if problems else "")
        return 1 if problems else 0
    for path in [*authoring.build(root, options.names, execute=options.execute), *pages.write(root)]:
        print(path.relative_to(root))
    return 0


def site(options: argparse.Namespace) -> int:
    try:
        from mechkit.course.site import build_site
    except ImportError as error:
        raise ValueError(f'wanted Sphinx to write a site with ({error}): pip install -e ".[site]"') from error

    print(build_site(_checkout(), options.folder))
    return 0


def _checkout() -> Path:
    """The checkout that we stand in, else the one that this package lies in."""
    here = Path.cwd()
    inside = (folder for folder in (here, *here.parents) if (folder / "solutions").is_dir())
    return next(inside, Path(__file__).parents[1])


def grade(options: argparse.Namespace) -> int:
    """Grade a class; 0 if everybody has a record, whatever it says, 1 if the grader failed on somebody."""
    from mechkit.grading.reports import printable
    from mechkit.grading.session import grade_paths

    records = grade_paths(options)
    if options.json:
        print(json.dumps({"out": str(options.out), "records": records}, indent=1))
        return 1 if any(record["status"] == "error" for record in records) else 0
    for record in records:
        print(
            f"{record['points']:>6g} of {record['max_points']:g}  {record['status']:18}  {printable(record['learner'])}"
        )
    levels = ", ".join(sorted({record["isolation"] for record in records}))
    print(f"{len(records)} graded (isolation: {levels}); gradebook, feedback and summary are in {options.out}")
    return 1 if any(record["status"] == "error" for record in records) else 0


def export(options: argparse.Namespace) -> int:
    from mechkit.grading.handout import lay_out, pack_gradescope

    if options.format == "nbgrader":
        print(*lay_out(options.target, _checkout(), options.names), sep="\n")
        return 0
    if len(options.names) != 1:
        raise ValueError(f"wanted one chapter for Gradescope's autograder; came {len(options.names)}: name one")
    print(pack_gradescope(options.target, _checkout(), options.names[0]))
    return 0


def exercises(options: argparse.Namespace) -> int:
    from mechkit.course.exercises import catalogue

    rows = catalogue()
    if options.json:
        print(json.dumps({"exercises": rows}, indent=1))
        return 0
    columns = ("id", "kind", "level", "points", "minutes", "mistakes", "hints", "hidden_cases", "control")
    table = [columns, *[tuple(str(row[column]) for column in columns) for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def bench(options: argparse.Namespace) -> int:
    given = {} if options.notebooks is None else {"notebooks": options.notebooks}
    if given and (not options.name.startswith("grading") or options.notebooks < 1):
        raise ValueError("--notebooks N, at least 1, goes with grading and grading-memory")
    if options.names:
        if options.name != "chapters":
            raise ValueError(f"names of chapters ({', '.join(options.names)}) go with `mechkit bench chapters`")
        given = {"names": options.names}
    found = BENCHES[options.name](**given)
    over = found.get("over", [])
    if options.json:
        print(json.dumps(found, indent=1))
        return 1 if over else 0
    for name, value in found.items():
        if isinstance(value, list):
            lines = value
        else:
            numbers = value if isinstance(value, dict) else {name: value}
            lines = [{key: f"{each:.3g}" for key, each in numbers.items()}]
        for line in lines:
            print(line if isinstance(line, str) else "  ".join(f"{key}: {each}" for key, each in line.items()))
    return 1 if over else 0


def _bench_cache() -> dict[str, Any]:
    from mechkit.course.bench import cache_ratio

    return {"ratios": {"cached run / bare forward": cache_ratio()}}


def _bench_chapters(names: Sequence[str] = ()) -> dict[str, Any]:
    from mechkit.course import authoring
    from mechkit.course.bench import course_costs

    return course_costs(authoring.solution_paths(_checkout(), names))


def _bench_patching() -> dict[str, Any]:
    try:
        from mechkit.course.rivals import patching_ratios
    except ImportError as error:
        raise ValueError(
            f'wanted TransformerLens and nnsight to compare with ({error}): pip install -e ".[test]"'
        ) from error
    return patching_ratios()


def _bench_sae() -> dict[str, Any]:
    try:
        from mechkit.course.sae_rivals import training_throughput
    except ImportError as error:
        raise ValueError(f'wanted SAELens to compare with ({error}): pip install -e ".[test]"') from error
    return training_throughput()


def _bench_grading(notebooks: int = 3) -> dict[str, Any]:
    from mechkit.grading.bench import grading_ratios

    return {"ratios": grading_ratios(_checkout(), notebooks=notebooks)}


def _bench_grading_memory(notebooks: int = 300) -> dict[str, Any]:
    from mechkit.grading.bench import grading_memory

    return {"ratios": grading_memory(_checkout(), notebooks=notebooks)}


BENCHES: dict[str, Callable[..., dict[str, Any]]] = {
    "cache": _bench_cache,
    "chapters": _bench_chapters,
    "grading": _bench_grading,
    "grading-memory": _bench_grading_memory,
    "patching": _bench_patching,
    "sae": _bench_sae,
}


if __name__ == "__main__":
    sys.exit(main())
