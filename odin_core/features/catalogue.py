"""The catalogue of features: what a feature is, how one is added, which ones exist, which sets they form.

To add one, write a function in a module named in `MODULES` and decorate it; the module is the set that it belongs to.
The provider, the set's version, the docs, the leak wall and the contract tests find it here.

A name is the function's, its parameters and the interval: `rsi_14_5m`. A part of an indicator that has several is
written after the parameters, as in `macd_12_26_9_signal`; where one computes on bars at hand there is no interval."""

import hashlib
import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Final, Literal, TypeAlias, TypeVar

from odin_core.errors import OdinError, nearest
from odin_core.features.meaning import meaning_of
from odin_core.features.series import FloatArray
from odin_core.market.bars import resample_sessions
from odin_core.market.history import read_bars
from odin_core.market.reference.actions import looked

MODULES: Final = ("technical", "price_action", "cross_section", "open_interest", "fundamental")
INTERVALS: Final = ("1m", "5m", "15m", "60m", "day")
INTRADAY: Final = INTERVALS[:-1]
ENGINE: Final = ("series", "panel", "facts", "intervals", "filling", "engine", "provider")
"""Modules that every value goes through, whose text is part of every version."""

Formula: TypeAlias = Callable[..., FloatArray]
F = TypeVar("F", bound=Formula)
Kind = Literal["bars", "panel", "facts"]
ANYTHING: Final = (-math.inf, math.inf)
LONGEST: Final = 100_000
"""What no parameter exceeds: more bars than a year of minutes of NSE has."""


class UnknownFeature(OdinError):
    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no feature is called {name!r}; {nearest(name, list(known))}")


class BadParameter(OdinError):
    def __init__(self, name: str, parameter: str, value: float, rule: str) -> None:
        super().__init__(f"feature {name!r}: its {parameter} cannot be {value:g}; write {rule}")


class UnknownSet(OdinError):
    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no set of features is called {name!r}; {nearest(name, list(known))}")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One function of the catalogue, and what its decorator says of it.

    kind: "bars", from a symbol's own bars, formula(bars, runs, *parameters); "panel", from other features of all
    symbols at one instant, formula(panel, *parameters); "facts", from tables as of the row, formula(facts).
    warm_up: parameters to N, the bars before a session's first one that its values follow from.
    needs: columns beyond prices without which it is NaN. inputs: of a panel's formula, the features that it reads.
    mirror: its value with prices upside down is 2 · mirror − value; None where that is not so."""

    name: str
    set: str
    kind: Kind
    formula: Formula
    intervals: tuple[str, ...]
    variants: tuple[tuple[float, ...], ...]
    warm_up: Callable[..., int]
    unit: str
    bounds: tuple[float, float]
    source: str
    needs: frozenset[str]
    inputs: Callable[..., tuple[str, ...]]
    mirror: float | None

    @property
    def says(self) -> str:
        """The docstring, without its indentation."""
        return inspect.cleandoc(self.formula.__doc__ or "")


@dataclass(frozen=True)
class Feature:
    """One column: a definition with its parameters, on bars of an interval ("" for facts, and for bars at hand)."""

    definition: Definition
    parameters: tuple[float, ...]
    interval: str

    @cached_property
    def name(self) -> str:
        numbers = [f"{value:g}" for value in self.parameters]
        return "_".join([self.definition.name, *numbers, *([self.interval] if self.interval else [])])

    @cached_property
    def bars(self) -> int:
        """N: how many bars before a session's first one its values follow from, inputs included."""
        return int(self.definition.warm_up(*self.parameters))

    @cached_property
    def inputs(self) -> "tuple[Feature, ...]":
        return tuple(
            named(f"{name}_{self.interval}" if self.interval else name)
            for name in self.definition.inputs(*self.parameters)
        )

    @property
    def meaning(self) -> str:
        """Everything that the value follows from, beside the engine."""
        d = self.definition
        own = f"{self.name}|{self.bars}|{d.kind}|{d.mirror}|{sorted(d.needs)}|{_meaning(d.formula)}"
        return "\0".join([own, *(feature.meaning for feature in self.inputs)])


DEFINITIONS: Final[dict[str, Definition]] = {}
"""By the function's name, in the order in which they are defined, which is the order of the columns."""


def feature(**of: Any) -> Callable[[F], F]:
    """Enter a function of a symbol's bars: formula(bars: Bars, runs: Runs, *parameters) → (rows,) float64.

    intervals, unit, source and warm_up must be said; bounds, needs, mirror and variants may be. `variants` are tuples
    of parameters; default: the function's own defaults. The function may use numpy element by element and the compiled
    kernels, and reads of a run only rows from `start` on. ValueError for a name that is taken."""
    return _enter("bars", of)


def across(**of: Any) -> Callable[[F], F]:
    """Enter a function of other features of all symbols at the same instant: formula(panel: Panel, *parameters).
    `inputs`: parameters to their names without the interval. As `feature` otherwise."""
    return _enter("panel", of)


def known(**of: Any) -> Callable[[F], F]:
    """Enter a function of facts as of each row: formula(facts: Facts) → (rows,) float64. It has no interval."""
    return _enter("facts", {"intervals": ("",), "warm_up": lambda: 0} | of)


def _enter(kind: Kind, of: Mapping[str, Any]) -> Callable[[F], F]:
    def enter(formula: F) -> F:
        name = formula.__name__
        if name in DEFINITIONS:
            raise ValueError(f"feature {name} is defined twice")
        defaults = tuple(
            p.default
            for p in inspect.signature(formula).parameters.values()
            if p.default is not inspect.Parameter.empty
        )
        general: dict[str, Any] = {
            "variants": (defaults,),
            "bounds": ANYTHING,
            "needs": frozenset(),
            "mirror": None,
            "inputs": lambda *_: (),
        }
        said: dict[str, Any] = general | dict(of) | {"needs": frozenset(of.get("needs", ()))}
        DEFINITIONS[name] = Definition(
            name=name, set=formula.__module__.rpartition(".")[2], kind=kind, formula=formula, **said
        )
        return formula

    return enter


def features_of(name: str) -> tuple[Feature, ...]:
    """The features of a set, in the order of the columns. Raises UnknownSet."""
    if name in SELECTIONS:
        return tuple(map(named, SELECTIONS[name]))
    definitions = [d for d in DEFINITIONS.values() if d.set == name]
    if not definitions:
        raise UnknownSet(name, set_names())
    return tuple(Feature(d, v, i) for d in definitions for v, i in product(d.variants, d.intervals))


def set_names() -> list[str]:
    return [*SELECTIONS, *MODULES]


def all_features() -> dict[str, Feature]:
    """Every feature of every set, by name."""
    return {f.name: f for name in MODULES for f in features_of(name)}


@lru_cache(maxsize=4096)
def named(name: str) -> Feature:
    """The feature of that name, with any parameters and with or without an interval. Raises UnknownFeature,
    BadParameter."""
    stem, interval = _without_interval(name)
    found = re.fullmatch(r"([a-z_]+?)((?:_\d+(?:\.\d+)?)*)((?:_[a-z_]+)?)", stem)
    if found:
        function, numbers, part = found.groups()
        definition = DEFINITIONS.get(function + part)
        parameters = tuple(_number(n) for n in numbers.split("_") if n)
        if definition and len(parameters) == len(definition.variants[0]):
            _require_fit(name, definition, parameters)
            return Feature(definition, parameters, interval)
    raise UnknownFeature(name, [*all_features(), *(Feature(d, d.variants[0], "").name for d in DEFINITIONS.values())])


def _number(text: str) -> float:
    """As 20 where it is written 20.0."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _require_fit(name: str, definition: Definition, parameters: tuple[float, ...]) -> None:
    """Raise BadParameter for a number that counts no bars, or more than LONGEST; only a width (annotated float) may
    have decimals."""
    arguments = inspect.signature(definition.formula).parameters.values()
    numbers = [a for a in arguments if a.annotation in (int, float)]
    for argument, value in zip(numbers, parameters, strict=True):
        is_whole = isinstance(value, int)
        if not 0 < value <= LONGEST or (argument.annotation is int and not is_whole):
            numbers_allowed = "a whole number from 1" if argument.annotation is int else "a number above 0, up"
            raise BadParameter(name, argument.name, value, f"{numbers_allowed} to {LONGEST:,}")


def _without_interval(name: str) -> tuple[str, str]:
    stem, _, last = name.rpartition("_")
    return (stem, last) if stem and re.fullmatch(r"\d+m|day", last) else (name, "")


def set_version(name: str) -> str:
    """Twelve hex digits that change with any definition of the set: a formula's text, that of a helper, constant or
    kernel behind it, its parameters, interval or N, or the engine. Rows of different versions are not comparable.
    Raises UnknownSet."""
    parts = [feature.meaning for feature in features_of(name)]
    parts += [_source(f"odin_core.features.{module}") for module in ENGINE]
    parts += map(_meaning, (resample_sessions, read_bars, looked))  # how bars come to be what formulas get
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


_meaning = lru_cache(maxsize=1024)(meaning_of)


@lru_cache(maxsize=16)
def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


SELECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "decision": (
        *("rsi_14_5m", "rsi_14_15m", "rsi_14_60m"),
        *("sma_cross_5_20_15m", "sma_cross_5_20_60m", "ema_cross_12_26_15m"),
        *("natr_14_5m", "natr_14_15m", "natr_14_60m"),
        *("realised_volatility_75_5m", "realised_volatility_18_5m", "parkinson_21_60m"),
        *("volume_z_18_75_5m", "volume_z_2_60_15m", "volume_z_1_10_day"),
        *("gap_day", "simple_return_18_5m", "trend_18_5m"),
        *("session_return_day", "simple_return_3_day", "simple_return_5_day"),
        *("range_position_1_day", "range_position_5_day"),
    ),
    "sequence": (
        *("log_return_1_5m", "log_return_12_5m", "bar_gap_5m", "bar_range_5m"),
        *("body_5m", "upper_wick_5m", "lower_wick_5m", "realised_volatility_18_5m", "realised_volatility_75_5m"),
        *("log_return_1_15m", "log_return_3_15m", "log_return_12_15m", "bar_range_15m"),
        *("body_15m", "upper_wick_15m", "lower_wick_15m", "realised_volatility_18_15m"),
        *("log_return_1_60m", "log_return_3_60m", "log_return_12_60m", "bar_range_60m"),
        *("body_60m", "upper_wick_60m", "lower_wick_60m", "parkinson_20_60m"),
        "session_elapsed_5m",
    ),
}
"""Sets that pick from the others. `decision`: what a life learns from and decides on; few, for it has few sessions.
`sequence`: what a sequence encoder is told of each bar, price action alone; its candles of 15 and 60 minutes are the
last whole ones at the row."""

for _module in MODULES:  # whoever imports the catalogue finds it filled
    importlib.import_module(f"odin_core.features.{_module}")
