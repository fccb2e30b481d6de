"""Whole lives on the synthetic exchange: with a planted edge they climb and beat random; without, none is promoted.

Each life is the demo's range with default settings, run without Dagster in a process of its own, two at a time. As a
program, `python tests/slow/test_lives.py 40` prints the table of docs/evidence.md. A second number is the first seed.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
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
EDGE, FIVE, FORTY = 0.5, range(1, 6), range(1001, 1041)  # the forty were never looked at while anything was tuned
FALSE_PROMOTIONS = 6  # of 40 lives at 5 % each, this many or fewer with probability 0.997

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@dataclass(frozen=True)
class Lived:
    """What became of one life. Rewards are in units of risk; `sharpe` is annualised."""

    edge: float
    seed: int
    reached: int  # the highest phase
    final: int
    promotions: int
    scored: int  # sessions on which a champion was judged, all after its training
    excess: float  # mean reward of champions above random's on those sessions; NaN without any
    lower: float  # its one-sided 95 % bound
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
        phases = phase_table(life)
        scored = [life.lake.read("candidate_scores", s) for s in life.lake.sessions("candidate_scores")]
        mine = pl.concat(scored).filter(pl.col("champion") & pl.col("reward").is_not_null())
        excess = (mine["reward"] - mine["random"]).to_numpy()
        interval = cluster_mean_interval(excess, np.arange(len(excess)), 0.1)
        performance = summarise(life)["performance"]
        return Lived(
            edge=edge,
            seed=seed,
            reached=int(phases["phase"].to_numpy().max()),
            final=int(phases["phase"][-1]),
            promotions=history(life).filter(pl.col("event") == "promoted").height,
            scored=len(excess),
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


def table(results: Sequence[Lived]) -> str:
    """Markdown: one column per edge, shares of lives with Wilson's 95 % interval, medians over lives."""
    groups = {edge: [r for r in results if r.edge == edge] for edge in sorted({r.edge for r in results}, reverse=True)}
    rows = [("", *(f"edge {edge:g}" for edge in groups)), ("---", *("---" for _ in groups))]
    rows.append(("lives (seeds)", *(f"{len(g)} ({g[0].seed}–{g[-1].seed})" for g in groups.values())))
    shares = {
        "reached phase 2": lambda r: r.reached >= 2,
        "reached phase 3": lambda r: r.reached == 3,
        "fell back from the highest phase": lambda r: r.final < r.reached,
        "promoted at least once": lambda r: r.promotions > 0,
        "champion above random (95 %, one look)": lambda r: r.lower > 0,
        "Sharpe above random's": lambda r: r.sharpe > r.sharpe_random,
    }
    for name, holds in shares.items():
        rows.append((name, *(share(sum(map(holds, g)), len(g)) for g in groups.values())))
    medians = {
        "promotions a life, mean": lambda g: f"{np.mean([r.promotions for r in g]):.2f}",
        "champion's reward above random, median": lambda g: _median([r.excess for r in g]),
        "sessions behind that, median": lambda g: _median([r.scored for r in g if r.scored]),
        "Sharpe, median": lambda g: _median([r.sharpe for r in g]),
        "Sharpe of random, median": lambda g: _median([r.sharpe_random for r in g]),
    }
    rows += [(name, *(of(g) for g in groups.values())) for name, of in medians.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _median(values: list[float]) -> str:
    known = [v for v in values if not np.isnan(v)]
    return f"{np.median(known):.3g} (of {len(known)} lives)" if known else "–"


def share(successes: int, n: int, z: float = 1.96) -> str:
    """A share and its 95 % interval. Source: Wilson 1927."""
    p, shrink = successes / n, 1 + z**2 / n
    centre, half = (p + z**2 / (2 * n)) / shrink, z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / shrink
    return f"{successes} of {n} = {p:.0%} ({max(centre - half, 0):.0%} to {min(centre + half, 1):.0%})"


def main(count: int = 40, first_seed: int = FORTY[0]) -> None:
    seeds = range(first_seed, first_seed + count)
    print(f"{count} lives of each, {date.today()}", file=sys.stderr)
    print(table([*many(EDGE, seeds), *many(0.0, seeds)]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
