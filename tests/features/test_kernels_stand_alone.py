"""Compiled functions are kept on disk, and numba watches one file for each: what is compiled in from another module
would go stale there without a word, and `set_version` would not see it."""

import ast
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import odin_core
from odin_core.rl.kernel import DIGESTED

PACKAGES = ("features", "labels", "structure", "execution", "evaluation", "monitoring", "rl")
KNOWN = {("odin_core.execution.fills", "odin_core.execution.orders")} | {
    (f"odin_core.rl.{name}", theirs) for name in ("kernel", "kernel_bar") for theirs in DIGESTED
}
"""Modules whose kernels read another's, as their docstrings say. What the environment's read is in its cache's key."""

LEAKY = """
from odin_core.features import rolling
from odin_core.features.recursive import signed
from odin_core.features.series import compiled
from odin_core.structure.observations import KNOWN_NEEDED as NEEDED

OWN = 2.0

@compiled
def reads(values):
    return signed(values, values)[:NEEDED] + OWN + rolling.difference(values)

@compiled
def reads_its_own(values):
    return values * OWN
"""

MODULES = [
    found.name
    for package in PACKAGES
    for found in pkgutil.walk_packages([f"{odin_core.__path__[0]}/{package}"], f"odin_core.{package}.")
]


def kernels(module: ModuleType) -> Iterator[Any]:
    """The Python functions that are compiled in a module and were written there."""
    for value in vars(module).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Dispatcher) and one.py_func.__module__ == module.__name__:
                yield one.py_func


def imported(module: ModuleType) -> dict[str, tuple[str, str]]:
    """Names that a module has from others of ours: the module, and the name there ("" for the module itself)."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(Path(inspect.getfile(module)).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("odin_core"):
            found |= {a.asname or a.name: (str(node.module), a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.asname or a.name.split(".")[0]: (a.name, "") for a in node.names if "odin_core" in a.name}
    return found


def read_from_elsewhere(module: ModuleType) -> list[str]:
    """What kernels read of other modules: "kernel: module.name"."""
    theirs = imported(module)
    return [
        f"{kernel.__name__}: {'.'.join(filter(None, theirs[name]))}"
        for kernel in kernels(module)
        for name in kernel.__code__.co_names
        if name in theirs and name in kernel.__globals__ and (module.__name__, theirs[name][0]) not in KNOWN
    ]


@pytest.mark.parametrize("name", MODULES)
def test_a_kernel_reads_nothing_of_another_module_of_ours(name: str):
    assert read_from_elsewhere(importlib.import_module(name)) == []


def test_kernels_are_found_by_name():
    every = {kernel.__name__ for name in MODULES for kernel in kernels(importlib.import_module(name))}
    assert {"directional_movement", "change_probabilities", "step", "act", "advance"} <= every


def test_a_kernel_that_reads_a_constant_or_a_kernel_of_another_module_is_told(tmp_path: Path):
    (tmp_path / "leaky.py").write_text(LEAKY)
    spec = importlib.util.spec_from_file_location("leaky", tmp_path / "leaky.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert read_from_elsewhere(module) == [
        "reads: odin_core.features.recursive.signed",
        "reads: odin_core.structure.observations.KNOWN_NEEDED",
        "reads: odin_core.features.rolling",
    ]
