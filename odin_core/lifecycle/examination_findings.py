"""What an examination asks and what the answers have to be; `examination` makes the tables that are judged here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from odin_core.errors import OdinError
from odin_core.evaluation.robustness import Finding, kept

if TYPE_CHECKING:
    from odin_core.evaluation.information import LeakAlarm

Tables = Mapping[str, pl.DataFrame]
NAN = float("nan")
JUMPS, OUTAGES = ("gap_down", "gap_up", "crash", "squeeze"), ("drought", "outage")


@dataclass(frozen=True, kw_only=True)
class ExaminationConfig:
    """What is asked, how hard, and what the answers must be. Rewards are in units of risk."""

    seeds: int = 5
    cost_multiples: tuple[float, ...] = (1.5, 2.0)
    later_bars: tuple[int, ...] = (1, 5, 15)  # one-minute bars
    gap: float = 0.05  # fraction of the price, both ways
    crash: float = 0.08
    crash_minutes: int = 30
    crash_recovery: float = 0.5  # share of it
    drought: float = 0.95  # share of the volume that is gone
    outage_minutes: int = 60
    shock_after: int = 30  # minutes from the open to gap, crash and outage
    window_sessions: int = 5
    windows: int = 2  # of each kind
    alpha: float = 0.05  # two-sided, one look
    min_sessions: int = 10
    profit_at_dearer: float = 0.0  # mean reward at the first of `cost_multiples`
    excess_at_dearest: float = 0.0  # lower bound of candidate − random at the last
    kept_one_bar_later: float = 0.5  # share of the excess over random
    kept_in_outage: float = 0.5  # likewise, without bars or volume
    lost_in_session: float = 0.02  # of capital, most in one session under a gap or crash
    beaten_windows: float = 0.6  # share of stress windows in which random was beaten
    lowest_seed: float = 0.0  # excess over random
    kept_by_parameters: float = 0.5  # share of the excess, lowest over all changes
    kept_without_family: float = 0.25  # share of the rank correlation, lowest over families of features
    direction_adds: float = 0.0  # excess lost where the side is drawn

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.min_sessions < 2 or not self.cost_multiples or not self.later_bars:
            raise OdinError(
                f"seeds={self.seeds}, min_sessions={self.min_sessions}, cost_multiples={self.cost_multiples}, "
                f"later_bars={self.later_bars}: an examination needs two seeds, two sessions, a multiple and a delay"
            )


DEFAULT = ExaminationConfig()


def findings(tables: Tables, config: ExaminationConfig, alarm: "LeakAlarm | None" = None) -> Iterator[Finding]:
    """The answers, in the order in which people ask; `tables` as `examination.Examination` has them, `alarm` of the
    rank correlation with the next session's returns where that could be told."""
    yield from _costs_and_delay(tables["footings"], config)
    yield from _shocks(tables["footings"], config)
    yield _stress(tables["stress"], config)
    if alarm is not None:
        yield Finding(name="honest_ic", value=alarm.ceiling - alarm.lower, needed=0.0, explanation=alarm.text)
    yield from _learner(tables, config)


def _costs_and_delay(footings: pl.DataFrame, config: ExaminationConfig) -> Iterator[Finding]:
    was, (first, *_, last) = _row(footings, "as_it_was"), (config.cost_multiples[0], *config.cost_multiples)
    yield Finding(
        name="out_of_sample",
        value=was["lower"],
        needed=0.0,
        explanation=f"lower bound of model − random at {1 - config.alpha:.0%}, {was['sessions']} sessions after the "
        f"training; mean {was['excess']:.3g} units of risk",
    )
    dearer, dearest = _row(footings, f"costs_{first:g}x"), _row(footings, f"costs_{last:g}x")
    yield Finding(
        name=f"costs_{first:g}x",
        value=dearer["reward"],
        needed=config.profit_at_dearer,
        explanation=f"mean reward of the model with costs {first:g} times as high; as they were {was['reward']:.3g}",
    )
    yield Finding(
        name=f"costs_{last:g}x",
        value=dearest["lower"],
        needed=config.excess_at_dearest,
        explanation=f"lower bound of model − random with costs {last:g} times as high; mean reward then "
        f"{dearest['reward']:.3g}",
    )
    delay = min(config.later_bars)
    late = _row(footings, f"later_{delay}")
    yield Finding(
        name=f"later_{delay}",
        value=late["kept"],
        needed=config.kept_one_bar_later,
        explanation=f"share of model − random that is left with entries {delay} bar later: {late['excess']:.3g} of "
        f"{was['excess']:.3g}; an edge of one bar is a leak or cannot be traded",
    )


def _shocks(footings: pl.DataFrame, config: ExaminationConfig) -> Iterator[Finding]:
    jumps = footings.filter(pl.col("footing").is_in(JUMPS)).drop_nulls("worst_session").sort("worst_session")
    worst = jumps.row(0, named=True) if jumps.height else {"footing": "gap or crash", "worst_session": NAN}
    yield Finding(
        name="shock_loss",
        value=worst["worst_session"],
        needed=-config.lost_in_session,
        explanation=f"the worst session's return of capital under a gap of {config.gap:.0%} or a crash of "
        f"{config.crash:.0%} in every session: {worst['footing']}",
    )
    for name in OUTAGES:
        row = _row(footings, name)
        yield Finding(
            name=name,
            value=row["kept"],
            needed=config.kept_in_outage,
            explanation=f"share of model − random that is left: {row['excess']:.3g} over {row['sessions']} sessions, "
            f"{row['trades']} trades",
        )


def _stress(stress: pl.DataFrame, config: ExaminationConfig) -> Finding:
    known = stress.drop_nulls("excess")
    beaten = known.filter(pl.col("excess") > 0).height
    return Finding(
        name="stress_windows",
        value=beaten / known.height if known.height else NAN,
        needed=config.beaten_windows,
        explanation=f"share of the market's {known.height} worst windows (return, volatility, drawdown, spread) in "
        f"which the model beat random: {beaten}",
    )


def _learner(tables: Tables, config: ExaminationConfig) -> Iterator[Finding]:
    seeds = tables["seeds"]["excess"]
    yield Finding(
        name="seeds",
        value=_lowest(seeds),
        needed=config.lowest_seed,
        explanation=f"lowest excess over random of {len(seeds)} seeds in the walk-forward of its training window; mean "
        f"{seeds.mean():.3g}, standard deviation {seeds.std():.2g}",
    )
    changed = tables["parameters"].fill_nan(None).sort("kept", nulls_last=False)
    worst = changed.row(0, named=True)
    yield Finding(
        name="parameters",
        value=NAN if worst["kept"] is None else worst["kept"],
        needed=config.kept_by_parameters,
        explanation=f"lowest share of the excess that is left when one parameter changes: {worst['parameter']} "
        f"{worst['unchanged']:g} → {worst['value']:g}",
    )
    families = tables["families"].with_columns(whole=pl.col("ic") + pl.col("lost_ic")).sort("lost_ic", descending=True)
    most = families.row(0, named=True)
    yield Finding(
        name="feature_families",
        value=kept(most["ic"], most["whole"]),
        needed=config.kept_without_family,
        explanation=f"share of the rank correlation that is left without the family of features that matters most: "
        f"{most['group']} ({most['features']} features), {most['whole']:.3g} → {most['ic']:.3g}",
    )
    heads = tables["heads"].filter(of="out of sample")
    yield Finding(
        name="direction_head",
        value=_row(heads, "direction", "head")["lost_excess"],
        needed=config.direction_adds,
        explanation="what the trades lose out of sample when their side is drawn; "
        + ", ".join(
            f"{head} {lost:.3g}" for head, lost in heads.select("head", "lost_excess").iter_rows() if lost is not None
        ),
    )


def _row(table: pl.DataFrame, name: str, column: str = "footing") -> dict[str, float]:
    """The row of that name; numbers that are not known are NaN."""
    row = table.row(by_predicate=pl.col(column) == name, named=True)
    return {key: NAN if value is None else value for key, value in row.items()}


def _lowest(values: pl.Series) -> float:
    """The lowest of all; NaN where one of them is not known."""
    numbers = values.cast(pl.Float64).fill_null(NAN).to_numpy()
    return float(numbers.min()) if len(numbers) else NAN
