"""What may an answer see? Its own cell and what it is given, never the rest of the notebook."""

import builtins
import contextlib
import dis
import functools
import linecache
import symtable
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any


def isolate(function: Callable[..., Any], allowed: Mapping[str, Any]) -> Callable[..., Any]:
    """The same function with globals that hold only `allowed` and what its own cell defines.

    Functions of the same cell are rebuilt too, so a helper cannot lean on the notebook either. A callable
    that is not a plain function is returned as it is.
    """
    written = unwrapped(function)
    if not isinstance(function, types.FunctionType) or not isinstance(written, types.FunctionType):
        return function
    notebook = written.__globals__
    own = {name: notebook[name] for name in _names_of_cell(written) if name in notebook}
    scope = {"__builtins__": builtins, "__name__": "answer", **allowed, **own}
    for name, each in _functions_of_cell(function).items():
        scope[name] = _rebuild(each, notebook, scope)
    return scope[written.__name__]


def imports_of(filename: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    """The names that a cell's own import statements bind, with their values; all modules if it has no source."""
    symbols = _symbols(filename)
    if symbols is None:
        return {name: value for name, value in scope.items() if isinstance(value, types.ModuleType)}
    names = (each.get_name() for each in symbols if each.is_imported())
    return {name: scope[name] for name in names if name in scope}


def borrowed(function: Callable[..., Any], names: Collection[str]) -> set[str]:
    """Which of these names an answer, or a helper in its cell, takes from elsewhere: an import or an attribute."""
    own = _functions_of_cell(function)
    found, written = set(), map(unwrapped, own.values())
    codes = [each.__code__ for each in written if isinstance(each, types.FunctionType)]
    while codes:
        code = codes.pop()
        steps = [step for step in dis.get_instructions(code) if step.opcode in dis.hasname]
        found |= {step.argval for step in steps if step.opname != "LOAD_GLOBAL" or step.argval not in own}
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found & set(names)


def unwrapped(function: Any) -> Any:
    """What the learner wrote, inside partials and decorators."""
    if isinstance(function, functools.partial):
        return unwrapped(function.func)
    decorated = isinstance(function, types.FunctionType | functools._lru_cache_wrapper)
    return unwrapped(vars(function)["__wrapped__"]) if decorated and "__wrapped__" in vars(function) else function


def _rebuild(function: types.FunctionType, notebook: dict[str, Any], scope: dict[str, Any]) -> types.FunctionType:
    closure, wrapped = function.__closure__, function.__dict__.get("__wrapped__")
    if closure and isinstance(wrapped, types.FunctionType):
        inside = types.CellType(_rebuild(wrapped, notebook, scope))
        closure = tuple(inside if cell.cell_contents is wrapped else cell for cell in closure)
    scope = scope if function.__globals__ is notebook else function.__globals__
    rebuilt = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    rebuilt.__kwdefaults__ = function.__kwdefaults__
    rebuilt.__dict__.update(function.__dict__)
    return rebuilt


def _functions_of_cell(function: Callable[..., Any]) -> dict[str, types.FunctionType]:
    """The functions of an answer's own cell by name, and the answer itself, whatever its name means by now."""
    written = unwrapped(function)
    if not isinstance(written, types.FunctionType):
        return {}
    file, notebook = file_of(written), written.__globals__
    named = ((name, notebook.get(name)) for name in _names_of_cell(written))
    own = {name: each for name, each in named if type(each) is types.FunctionType and file_of(each) == file}
    return own | {written.__name__: function if isinstance(function, types.FunctionType) else written}


def _names_of_cell(function: types.FunctionType) -> set[str]:
    """The names that an answer's own cell binds; all of the notebook's if that cannot be told."""
    symbols = _symbols(function.__code__.co_filename)
    if symbols is None:
        return set(function.__globals__)
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}


def _symbols(filename: str) -> list[symtable.Symbol] | None:
    """What a cell's top level names; None if that cannot be told: no source, magics, a star import."""
    source = "".join(linecache.getlines(filename))
    with contextlib.suppress(SyntaxError):
        if source and "import *" not in source:
            return symtable.symtable(source, filename, "exec").get_symbols()
    return None


def file_of(function: Any) -> str:
    """Where a learner's function, or the class of a callable object, was written; "" if in C."""
    written = unwrapped(function)
    kind = written if isinstance(written, type) else type(written)
    methods = [written, getattr(written, "__func__", None), *vars(kind).values()]
    return next((each.__code__.co_filename for each in methods if isinstance(each, types.FunctionType)), "")
