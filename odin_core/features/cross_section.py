"""The cross-section's set: where a symbol stands among all symbols of the market at the same instant, and how these
stand together. Ranks, breadth, dispersion, relative strength.

Members are the symbols that have a bar ending at the instant and a known input, whichever the market's universe is; the
index is none of them, and has NaN for a rank. Kernels are in `panel`."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from odin_core.features import panel
from odin_core.features.catalogue import across, named
from odin_core.features.panel import Panel
from odin_core.features.series import FloatArray

INTERVALS: Final = ("5m", "60m", "day")


def _of(input_name: str) -> dict[str, Callable[..., Any]]:
    """`inputs` and `warm_up` of a formula that reads one feature, named by a template of the parameters."""
    return {
        "inputs": lambda *parameters: (input_name.format(*parameters),),
        "warm_up": lambda *parameters: named(input_name.format(*parameters)).bars,
    }


@across(
    **_of("log_return_{}"), intervals=INTERVALS, variants=((1,), (12,)), unit="rank", bounds=(0.0, 1.0), mirror=0.5,
    source="Jegadeesh & Titman 1993, as ranks",
)  # fmt: skip
def return_rank(rows: Panel, count: int = 1) -> FloatArray:
    """Rank of log_return among the members, (rank − ½) / members, ties averaged. NaN where the return is, and in the
    index's rows."""
    return panel.rank(rows.members, rows.starts)


@across(
    **_of("realised_volatility_{}"), intervals=INTERVALS, unit="rank", bounds=(0.0, 1.0),
    source="Ang, Hodrick, Xing & Zhang 2006, as ranks",
)  # fmt: skip
def volatility_rank(rows: Panel, count: int = 18) -> FloatArray:
    """Rank of realised_volatility among the members, (rank − ½) / members, ties averaged. NaN where the volatility is,
    and in the index's rows."""
    return panel.rank(rows.members, rows.starts)


@across(
    **_of("volume_z_{}_{}"), intervals=INTERVALS, unit="rank", bounds=(0.0, 1.0), needs={"volume"},
    source="Gervais, Kaniel & Mingelgrin 2001, as ranks",
)  # fmt: skip
def volume_rank(rows: Panel, short: int = 1, long: int = 20) -> FloatArray:
    """Rank of volume_z among the members, (rank − ½) / members, ties averaged. NaN where volume_z is, and in the
    index's rows."""
    return panel.rank(rows.members, rows.starts)


@across(
    **_of("log_return_{}"), intervals=INTERVALS, variants=((1,), (12,)), unit="share", bounds=(0.0, 1.0), mirror=0.5,
    source="advance-decline ratio, Zweig 1986, as a share",
)  # fmt: skip
def advancing(rows: Panel, count: int = 1) -> FloatArray:
    """Breadth: share of the members with a positive log_return, those unchanged counting half; one value for all rows
    of an instant. NaN where no return is known."""
    return panel.share_positive(rows.members, rows.starts)


@across(
    **_of("sma_gap_{}"), intervals=INTERVALS, unit="share", bounds=(0.0, 1.0), mirror=0.5,
    source="share of stocks above their moving average, Pring 2002",
)  # fmt: skip
def above_average(rows: Panel, count: int = 20) -> FloatArray:
    """Breadth: share of the members whose close lies above its simple moving average, those on it counting half; one
    value for all rows of an instant. NaN where no average is known."""
    return panel.share_positive(rows.members, rows.starts)


@across(
    **_of("log_return_{}"), intervals=INTERVALS, variants=((1,), (12,)), unit="log of a ratio", bounds=(0.0, np.inf),
    source="cross-sectional standard deviation, Christie & Huang 1995",
)  # fmt: skip
def dispersion(rows: Panel, count: int = 1) -> FloatArray:
    """Standard deviation (ddof 1) of log_return over the members; one value for all rows of an instant. NaN with fewer
    than two known returns."""
    return panel.standard_deviation(rows.members, rows.starts)


@across(
    **_of("log_return_{}"), intervals=INTERVALS, variants=((1,), (12,)), unit="log of a ratio", mirror=0.0,
    source="relative strength, Levy 1967, as a difference of logarithms",
)  # fmt: skip
def relative_strength(rows: Panel, count: int = 1) -> FloatArray:
    """log_return minus the index's; minus the members' mean where the index's is not known at the instant. 0 in the
    index's own rows. NaN where the return is."""
    market = panel.of_index(rows.values[0], rows.starts, rows.is_index)
    return rows.values[0] - np.where(np.isnan(market), panel.mean(rows.members, rows.starts), market)
