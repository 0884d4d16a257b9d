"""Which lines of a cell are the answer?

A solution notebook marks what the learner will write: `### BEGIN SOLUTION` to `### END SOLUTION` for an
answer, `### BEGIN HIDDEN TESTS` to `### END HIDDEN TESTS` for what only a grader may see. The markers are
nbgrader's, so nbgrader can release our sources itself; a guess at the top level of a cell is ours alone.
"""

import ast
import re
from dataclasses import dataclass

MARKER = re.compile(r"(\s*)### (BEGIN|END) (SOLUTION|HIDDEN TESTS)\s*")
MARKER_LIKE = re.compile(r"\b(BEGIN|END) (SOLUTION|HIDDEN TESTS)\b")
CODE_STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
GUESS_STUB = ("# YOUR GUESS HERE",)


@dataclass(frozen=True)
class Region:
    """One marked region of a cell.

    Args:
        kind: "SOLUTION" or "HIDDEN TESTS".
        first: Index of the line of its BEGIN marker.
        last: Index of the line of its END marker.
        indent: White space before the BEGIN marker.
        lines: What stands between the markers.
        in_function: Whether it is (part of) a function's body.
    """

    kind: str
    first: int
    last: int
    indent: str
    lines: tuple[str, ...]
    in_function: bool

    @property
    def stub(self) -> list[str]:
        """What takes its place in the chapter; a guess only gets a comment, so that its cell still runs."""
        if self.kind == "HIDDEN TESTS":
            return []
        return [self.indent + line for line in (CODE_STUB if self.in_function else GUESS_STUB)]


def find_regions(source: str) -> list[Region]:
    """All marked regions of a code cell, in order.

    Raises: ValueError, whose text completes "This cell ...", if markers are misspelt, nested, unbalanced, or
        around nothing, and if an indented region is not in a function.
    """
    regions, begun = [], None
    lines = source.split("\n")
    for number, line in enumerate(lines):
        marker = MARKER.fullmatch(line)
        if marker is None:
            if MARKER_LIKE.search(line):
                raise ValueError(f"has {line.strip()!r}; a marker is a line of its own, like '### BEGIN SOLUTION'")
        elif marker[2] == "BEGIN":
            if begun:
                raise ValueError(f"begins a {marker[3]} region inside another; end that one first")
            begun = (number, marker[1], marker[3])
        else:
            if begun is None or begun[2] != marker[3]:
                raise ValueError(f"ends a {marker[3]} region that it does not begin")
            regions.append(_region(begun, number, lines))
            begun = None
    if begun:
        raise ValueError(f"begins a {begun[2]} region and never ends it")
    return regions


def cut(source: str) -> str:
    """The learner's form of a code cell: every answer a stub, every hidden test gone."""
    lines = source.split("\n")
    for region in reversed(find_regions(source)):
        lines[region.first : region.last + 1] = region.stub
    return "\n".join(lines)


def solved(source: str) -> str:
    """The author's form of a code cell: every answer in its place, without the markers around it."""
    lines = source.split("\n")
    for region in reversed(find_regions(source)):
        del lines[region.last], lines[region.first]
    return "\n".join(lines)


def outside(source: str) -> list[str]:
    """The lines of a code cell that the learner gets to see."""
    lines = source.split("\n")
    for region in reversed(find_regions(source)):
        del lines[region.first : region.last + 1]
    return lines


def _region(begun: tuple[int, str, str], last: int, lines: list[str]) -> Region:
    first, indent, kind = begun
    inside = tuple(lines[first + 1 : last])
    if not any(line.strip() for line in inside):
        raise ValueError(f"has a {kind} region with nothing in it")
    in_function = _in_function("\n".join(lines), first + 1)
    if kind == "SOLUTION" and indent and not in_function:
        raise ValueError("has an indented SOLUTION region outside a function; put it in one or at the left margin")
    return Region(kind, first, last, indent, inside, in_function)


def _in_function(source: str, line: int) -> bool:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"has a region and is not Python: {error.msg} in its line {error.lineno}") from None
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(function.lineno < line <= function.end_lineno for function in functions)
