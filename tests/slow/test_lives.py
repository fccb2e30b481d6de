"""Whole lives on the synthetic exchange: with a planted edge they climb and beat random; without, none is promoted.

Each life is the demo's range with default settings, run without Dagster in a process of its own, two at a time. As a
program, `python tests/slow/test_lives.py 40` prints the table of docs/evidence.md. A second number is the first seed.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from math import sqrt

import numpy as np
import polars as pl
import pytest

from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.run import run_sessions
from odin_core.lifecycle.summary import phase_table, summarise
from odin_core.market.data import MarketData
from odin_core.registry.history import history

PROCESSES = 2
EDGE, FIVE, FORTY = 0.5, range(1, 6), range(1, 41)
FALSE_PROMOTIONS = 6  # of 40 lives at 5 % each, this many or fewer with probability 0.997

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@dataclass(frozen=True)
class Lived:
    """What became of one life. Rewards are in units of risk; Sharpe ratios are annualised, of the whole life."""

    edge: float
    seed: int
    reached: int  # the highest phase
    demoted: bool
    drifted: bool  # drift halted entries at least once, although nothing was planted to drift
    promotions: int
    first_promotion: date | None
    phase_2: date | None  # when it was reached
    excess: float  # mean reward of champions above random's on the sessions after their training; NaN without any
    lower: float  # its one-sided 95 % bound, a session being one observation
    sharpe: float
    sharpe_random: float


def lived(edge: float, seed: int) -> Lived:
    """One life from nothing over the range that the demo's profile names."""
    with tempfile.TemporaryDirectory(prefix="odin-life-") as root:
        home, config = open_home(root), LifeConfig(edge=edge, seed=seed)
        data = MarketData.of(home, "demo", config)
        first, last = data.default_range()
        life = lives.create(home, "demo", config, first)
        for _ in run_sessions(life, data, data.calendar.sessions(first, last), clock=lambda: datetime.now(UTC)):
            pass
        phases, events = phase_table(life), history(life)
        promoted = events.filter(pl.col("event") == "promoted")["session"].to_list()
        in_2 = phases.filter(pl.col("phase") >= 2)["session"].to_list()
        scored = [life.lake.read("candidate_scores", s) for s in life.lake.sessions("candidate_scores")]
        mine = pl.concat(scored).filter(pl.col("champion") & pl.col("reward").is_not_null())
        excess = (mine["reward"] - mine["random"]).to_numpy()
        interval = cluster_mean_interval(excess, np.arange(len(excess)), 0.1)
        performance = summarise(life)["performance"]
        return Lived(
            edge=edge,
            seed=seed,
            reached=int(phases["phase"].to_numpy().max()),
            demoted=bool((events["event"] == "demoted").any()),
            drifted=bool(phases["drift_retrained"].is_not_null().any()),
            promotions=len(promoted),
            first_promotion=min(promoted, default=None),
            phase_2=min(in_2, default=None),
            excess=interval.mean,
            lower=interval.lower,
            sharpe=performance["sharpe"] or 0.0,
            sharpe_random=performance["vs_random"]["sharpe"] or 0.0,
        )


def many(edge: float, seeds: Sequence[int]) -> list[Lived]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        return list(pool.map(partial(lived, edge), seeds))


def test_with_an_edge_four_of_five_lives_reach_phase_2_and_their_champions_beat_random():
    results = many(EDGE, FIVE)
    climbed = [r for r in results if r.reached >= 2]
    assert len(climbed) >= 4, table(results)
    assert all(r.excess > 0 for r in climbed), table(results)
    assert sum(r.lower > 0 for r in climbed) >= 4, table(results)


def test_without_an_edge_no_life_of_five_reaches_phase_3_and_at_most_one_promotes():
    results = many(0.0, FIVE)
    assert not any(r.reached == 3 for r in results), table(results)
    assert sum(r.promotions > 0 for r in results) <= 1, table(results)


def test_forty_lives_of_each_edge_keep_what_five_promise(capsys: pytest.CaptureFixture[str]):
    with_edge, without = many(EDGE, FORTY), many(0.0, FORTY)
    with capsys.disabled():
        print("\n" + table([*with_edge, *without]))
    assert sum(r.reached >= 2 for r in with_edge) >= 0.8 * len(with_edge)
    assert sum(r.promotions > 0 for r in without) <= FALSE_PROMOTIONS
    assert not any(r.reached == 3 for r in without)


SHARES: dict[str, Callable[[Lived], bool]] = {
    "at least one promotion": lambda r: r.promotions > 0,
    "more than one promotion": lambda r: r.promotions > 1,
    "reach phase 2": lambda r: r.reached >= 2,
    "reach phase 3": lambda r: r.reached == 3,
    "champion beats random out of sample, mean": lambda r: r.excess > 0,
    "… and so does its lower 95 % bound": lambda r: r.lower > 0,
    "demoted": lambda r: r.demoted,
    "halted by drift": lambda r: r.drifted,
}


def table(results: Sequence[Lived]) -> str:
    """Markdown, one column per edge: lives of which something holds, with Wilson's 95 % interval; then medians."""
    edges = sorted({r.edge for r in results}, reverse=True)
    groups = [[r for r in results if r.edge == edge] for edge in edges]
    seeds = f"{len(groups[0])} lives each, seeds {results[0].seed} to {results[-1].seed} (95 % Wilson intervals)"
    rows = [(seeds, *(f"edge {edge:g}" for edge in edges)), ("---",) * (len(edges) + 1)]
    rows += [(name, *(share(sum(map(holds, g)), len(g)) for g in groups)) for name, holds in SHARES.items()]
    rows += [
        ("first promotion, median", *(_middle_date([r.first_promotion for r in g]) for g in groups)),
        ("phase 2 begins, median", *(_middle_date([r.phase_2 for r in g]) for g in groups)),
        ("Sharpe ratio of the whole life, quartiles", *(_quartiles([r.sharpe for r in g]) for g in groups)),
        ("Sharpe ratio of random with the same turnover, median",
         *(f"{np.median([r.sharpe_random for r in g]):.1f}" for g in groups)),
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _middle_date(days: list[date | None]) -> str:
    known = sorted(day for day in days if day)
    return str(known[len(known) // 2]) if known else "–"


def _quartiles(values: list[float]) -> str:
    return ", ".join(f"{q:.2f}" for q in np.quantile(values, (0.25, 0.5, 0.75)))


def share(successes: int, n: int, z: float = 1.96) -> str:
    """A count and the 95 % interval of its share of n. Source: Wilson 1927."""
    p, shrink = successes / n, 1 + z**2 / n
    centre, half = (p + z**2 / (2 * n)) / shrink, z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / shrink
    return f"{successes} ({max(centre - half, 0):.0%} to {min(centre + half, 1):.0%})"


def main(count: int = 40, first_seed: int = FORTY[0]) -> None:
    seeds = range(first_seed, first_seed + count)
    print(f"{count} lives of each, {date.today()}", file=sys.stderr)
    print(table([*many(EDGE, seeds), *many(0.0, seeds)]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
