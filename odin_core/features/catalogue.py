"""The catalogue of features: what a feature is, how one is added, which ones exist, and the version of them all.

To add one, write a function in `technical` (or in a new module named in `MODULES`) and decorate it with `@feature`;
the provider, the version and the contract tests find it here. Formulas are in those modules, their arithmetic in
`kernels`, how bars become windows in `provider`."""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from odin_core.features import kernels, regime
from odin_core.features.kernels import FloatArray
from odin_core.market.bars import INTERVALS, Interval

SESSIONS_NEEDED: Final = 12
"""How many sessions, the decision's own included, are searched for a window's bars: ten for the longest daily window
and for the volatility regime, and two that a symbol may miss."""

MODULES: Final = ("odin_core.features.technical",)


class Window(NamedTuple):
    """The last N bars of one interval of each symbol: arrays (symbols, N), float64, oldest bar first, on the scale of
    the last session's shares. Volume is NaN where the source has none."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray


Formula: TypeAlias = Callable[[Window], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One catalogue entry. Its value depends on exactly the last `bars` bars of `interval` and is null before a symbol
    has so many; `needs_volume` says that it is also null where the source has no volume."""

    name: str
    interval: Interval
    bars: int
    unit: str
    needs_volume: bool
    mirror: float | None
    formula: Formula

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS or self.bars < 1:
            raise ValueError(f"feature {self.name}: {self.bars} bars of {self.interval!r}; intervals are {INTERVALS}")

    @property
    def definition(self) -> str:
        """What the value follows from, beside the kernels: window and source text."""
        return f"{self.name}|{self.interval}|{self.bars}|{self.mirror}|{inspect.getsource(self.formula)}"


FEATURES: Final[dict[str, Feature]] = {}
"""All features by name, in the order in which they are defined, which is the order of the columns."""


def feature(
    *, interval: Interval, bars: int, unit: str, needs_volume: bool = False, mirror: float | None = None
) -> Callable[[Formula], Formula]:
    """Enter a formula into the catalogue under its function's name.

    The function gets a Window of (symbols, `bars`) and returns (symbols,) float64, NaN where undefined; each row must
    follow from that row alone. It may use numpy element by element and `kernels`, nothing else, so that
    `features_version` sees every change of its meaning. ValueError for a name that is taken."""

    def enter(formula: Formula) -> Formula:
        name = formula.__name__
        if name in FEATURES:
            raise ValueError(f"feature {name} is defined twice")
        FEATURES[name] = Feature(
            name=name,
            interval=interval,
            bars=bars,
            unit=unit,
            needs_volume=needs_volume,
            mirror=mirror,
            formula=formula,
        )
        return formula

    return enter


def features_version() -> str:
    """Twelve hex digits that change with any definition: a formula's text, its interval or bars, a kernel, the regime,
    or the number of sessions searched. Rows of different versions are not comparable."""
    parts = [FEATURES[name].definition for name in sorted(FEATURES)]
    parts += [inspect.getsource(kernels), inspect.getsource(regime), str(SESSIONS_NEEDED)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


for _module in MODULES:  # whoever imports the catalogue finds it filled
    importlib.import_module(_module)
