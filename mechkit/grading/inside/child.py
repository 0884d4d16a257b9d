"""What happens beside a learner's code: it is built from its source, called, and what it returns is sent back.

The judge is another process. It sends a source, the arguments and what the answer may use; it never sends an
expected value. Earlier answers that are not the learner's own stay with the judge, who is asked for each call.
"""

import ast
import dis
import functools
import linecache
import re
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mechkit.course.answer import run_answer, within
from mechkit.course.compare import alike
from mechkit.course.exercise import MODEL, Tiny, Words
from mechkit.course.scope import borrowed
from mechkit.grading.inside.wire import Channel
from mechkit.methods.words import load_words
from mechkit.network.tiny import tiny_model

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
NAMED = (ast.Name, ast.Attribute)


class Trouble(Exception):
    """Why there is no answer to call: one sentence for the learner."""


def answer(channel: Channel, model: Any) -> None:
    """Take one exercise from the channel, run the answer on its cases and send what came of each.

    Args:
        model: What `MODEL` stands for.
    """
    task = channel.receive()
    try:
        tree = _parsed(task["source"])
        # Said before any line of the answer runs, so that no line of it can take it back.
        channel.send({"kind": "borrowed", "names": sorted(_static_names(tree) & set(task["teaches"]))})
        function = _build(task, tree, _allowed(task, channel, model))
    except Trouble as trouble:
        return channel.send({"kind": "trouble", "message": str(trouble)})
    channel.send({"kind": "borrowed", "names": sorted(_dynamic_names(function, task["teaches"]))})
    if not callable(function):
        return channel.send({"kind": "uncallable", "type": type(function).__name__})
    for case in task["cases"]:
        outcome = run_answer(function, [_stand_in(each, model) for each in case], task["seconds"])
        fields = {name: getattr(outcome, name) for name in ("result", "trouble", "attempted", "printed")}
        channel.send({"kind": "outcome"} | fields)
        if outcome.trouble or not outcome.attempted:
            break
    return channel.send({"kind": "done"})


def _allowed(task: dict, channel: Channel, model: Any) -> dict[str, Any]:
    """What an answer sees besides its arguments: the setup's imports and the earlier answers it may use."""
    allowed: dict[str, Any] = {}
    exec(task["imports"], allowed)
    names = {id(model): MODEL} if model is not None else {}
    ours = {name: _asking(name, channel, names) for name in task["ours"]}
    for earlier in task["earlier"]:
        known = allowed | {each: ours[each] for each in earlier["uses"]}
        function = _build(earlier | {"seconds": task["seconds"]}, _parsed(earlier["source"]), known)
        ours[earlier["name"]] = _in_form(function, earlier["form"])
    return {name: value for name, value in allowed.items() if name != "__builtins__"} | {
        name: ours[name] for name in task["uses"]
    }


def _in_form(function: Callable[..., Any], form: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: alike(function(*args, **kwargs), form)


def _asking(name: str, channel: Channel, names: dict[int, Any]) -> Callable[..., Any]:
    """An earlier answer of ours: the judge computes it."""

    def ask(*args: Any, **kwargs: Any) -> Any:
        known = names | {id(value): key for key, value in _MADE.items()}
        plain = [known.get(id(each), each) for each in args]
        named = {key: known.get(id(each), each) for key, each in kwargs.items()}
        channel.send({"kind": "call", "name": name, "args": plain, "kwargs": named})
        reply = channel.receive()
        if reply["trouble"]:
            raise ValueError(reply["trouble"])
        return reply["result"]

    ask.__name__ = name
    return ask


_MADE: dict[Tiny | Words, Any] = {}


def _stand_in(argument: Any, model: Any) -> Any:
    if argument is MODEL:
        return model
    if not isinstance(argument, Tiny | Words):
        return argument
    if argument not in _MADE:
        _MADE[argument] = _make(argument)
    return _MADE[argument]


def _make(wanted: Tiny | Words) -> Any:
    if isinstance(wanted, Words):
        return load_words(wanted.limit)
    return tiny_model(wanted.family, seed=wanted.seed, d_model=wanted.d_model)


# from source to function --------------------------------------------------------------------------------------


def _parsed(source: str) -> ast.Module:
    try:
        return _parse(source)
    except SyntaxError as error:
        first = error
    except Exception as error:  # null bytes, nesting too deep for the parser
        raise Trouble(f"Its cell is not Python: {error}.") from None
    plain = re.sub(r"^(\s*)(?:[%!].*|[^#\n]*\?)$", r"\1pass", source, flags=re.M)  # IPython's magics
    try:
        return _parse(plain)
    except Exception:
        raise Trouble(f"Its cell is not Python: {first.msg} in line {first.lineno}.") from None


def _parse(source: str) -> ast.Module:
    return compile(source, "answer", "exec", flags=FLAGS)


def _build(task: dict, tree: ast.Module, allowed: dict[str, Any]) -> Any:
    """What the answer's cell calls by its name, once the cell's statements have run.

    A bare expression binds nothing (most are calls of `lesson.check`) and is left out; a statement that fails,
    for want of a notebook variable, say, is only said where the name is then missing.
    """
    name, source, file = task["name"], task["source"], f"<{task['name']}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope, first = {"__name__": "answer", **allowed}, ""
    scope.pop(name, None)
    for statement in tree.body:
        if isinstance(statement, ast.Expr):
            continue
        try:
            code = compile(ast.Module([statement], []), file, "exec")
            within(task["seconds"], functools.partial(exec, code, scope))
        except BaseException as error:
            first = first or f"At line {statement.lineno} of your cell it raised {type(error).__name__}: {error}"[:400]
    if name not in scope:
        raise Trouble(first or f"Wanted the function `{name}`; its cell does not define it.")
    return scope[name]


def _static_names(tree: ast.Module) -> set[str]:
    """The names that the cell's functions take from elsewhere, read off its code without running it."""
    own = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}
    for each in tree.body:
        if isinstance(each, ast.Assign) and not isinstance(each.value, NAMED):
            own |= {target.id for target in each.targets if isinstance(target, ast.Name)}
    steps = [step for code in map(_compiled, filter(_defines, tree.body)) for step in _steps(code)]
    taken = (step for step in steps if step.opcode in dis.hasname and step.opname.startswith(("LOAD", "IMPORT")))
    return {step.argval for step in taken if not _is_own(step, own)}


def _defines(statement: ast.stmt) -> bool:
    """Whether a statement holds a function: what others call at the top level is no part of an answer."""
    return any(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for each in ast.walk(statement))


def _compiled(statement: ast.stmt) -> types.CodeType:
    try:
        module = ast.Module([statement], [])
        return compile(module, "answer", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except Exception as error:  # such as `return` outside a function
        raise Trouble(f"Its cell is not Python: {error}.") from None


def _steps(module: types.CodeType) -> Iterator[dis.Instruction]:
    return (step for code in _codes_inside(module) for step in dis.get_instructions(code))


def _is_own(step: dis.Instruction, own: Collection[str]) -> bool:
    return step.opname == "LOAD_GLOBAL" and step.argval in own


def _codes_inside(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes_inside(constant)


def _dynamic_names(function: Any, teaches: Collection[str]) -> set[str]:
    try:
        return borrowed(function, teaches)
    except Exception:  # an object of the learner's own making
        return set()
