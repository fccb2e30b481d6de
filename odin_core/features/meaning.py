"""What a function's results follow from, as text: its source, and that of every function of ours that it calls."""

import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

PACKAGE = "odin_core."


def meaning_of(function: Callable[..., Any]) -> str:
    """The source of `function`, and of the functions and constants of this project that it names, and theirs, each
    once. So it changes with a helper, a kernel or a constant, and not with what stands beside them."""
    found: dict[str, str] = {}
    _collect(_plain(function), found)
    return "\0".join(found[name] for name in sorted(found))


def _collect(function: FunctionType, found: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in found:
        return
    found[name] = inspect.getsource(function)
    for named, value in _named_by(function):
        other = _plain(value)
        if isinstance(other, FunctionType):
            if other.__module__.startswith(PACKAGE):
                _collect(other, found)
        elif isinstance(value, type):
            if value.__module__.startswith(PACKAGE):
                found[f"{value.__module__}.{value.__qualname__}"] = inspect.getsource(value)
        elif isinstance(value, (int, float, str, tuple, dict)):
            found[f"{name}:{named}"] = f"{named} = {value!r}"
        elif isinstance(value, frozenset):
            found[f"{name}:{named}"] = f"{named} = {sorted(value)!r}"  # a set's own order changes with the process


def _named_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Globals that a function names, and attributes that it takes of modules of ours."""
    names = _names(function)
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield name, value
        elif value.__name__.startswith(PACKAGE):
            yield from ((f"{name}.{n}", getattr(value, n)) for n in names if hasattr(value, n))


def _names(function: FunctionType) -> list[str]:
    """In the order of the alphabet, so that the text is the same in every process."""
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return sorted(names)


def _plain(value: Any) -> Any:
    """The Python function behind a compiled or cached one."""
    while (inner := getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)) is not None:
        value = inner
    return value
