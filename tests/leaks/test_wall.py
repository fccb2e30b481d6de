"""The wall as a whole: each deliberate leak is caught by each of the six checks, and honest features by none."""

from datetime import datetime
from typing import NamedTuple

import leakyfeatures as toys
import numpy as np
import polars as pl
import pytest
from leakyfeatures import FIVE_MINUTES, WEEK, linear, random_walks, rows_of

from odin_core.leaks import (
    Compute,
    Verdict,
    cheat_feature,
    cuts_of,
    future_perturbation,
    lag_sensitivity,
    sample_of,
    shuffled_labels,
    stamp_shift,
    to_frame,
    truncate_and_recompute,
)

CHECKS = (
    "truncate_and_recompute",
    "future_perturbation",
    "stamp_shift",
    "lag_sensitivity",
    "shuffled_labels",
    "cheat_feature",
)
HORIZONS = (1, 6)


class World(NamedTuple):
    bars: pl.DataFrame
    cuts: list[datetime]


@pytest.fixture(scope="module")
def world() -> World:
    bars = random_walks(24, symbols=tuple("ABCDEFGH"), seed=5)
    return World(bars, cuts_of(bars, 2))


def wall(compute: Compute, world: World) -> list[Verdict]:
    """Every check, the learner's over two horizons."""
    bars, cuts = world
    rows = compute(bars)
    samples = [sample_of(rows, bars, horizon) for horizon in HORIZONS]
    return [
        *truncate_and_recompute(compute, bars, cuts),
        *future_perturbation(compute, bars, cuts, np.random.default_rng(1)),
        *stamp_shift(compute, bars, cuts, shift=WEEK, delay=FIVE_MINUTES),
        *lag_sensitivity(rows, bars),
        *(shuffled_labels(linear, sample, np.random.default_rng(2)) for sample in samples),
        *(cheat_feature(linear, sample, np.random.default_rng(3)) for sample in samples),
    ]


@pytest.mark.parametrize("name", toys.LEAKS)
def test_each_leak_among_honest_features_is_caught_by_each_check_and_nothing_else_is(world: World, name: str):
    failed = [v for v in wall(rows_of(**toys.HONEST, **{name: toys.LEAKS[name]}), world) if not v.passed]
    assert {v.check for v in failed} == set(CHECKS)
    assert all(name in v.subject.split(", ") for v in failed)


def test_honest_features_are_caught_by_none(world: World):
    verdicts = wall(rows_of(**toys.HONEST), world)
    assert [v for v in verdicts if not v.passed] == []
    assert len(verdicts) == 4 * len(toys.HONEST) + 2 * len(HORIZONS)


def test_verdicts_become_a_table_in_their_order(world: World):
    verdicts = wall(rows_of(next_change=toys.LEAKS["next_change"]), world)
    table = to_frame(verdicts)
    assert table.columns == ["check", "passed", "subject", "detail", "numbers"]
    assert table["check"].to_list() == [v.check for v in verdicts]
    assert table["detail"].to_list() == [v.detail for v in verdicts]
    for numbers, verdict in zip(table["numbers"], verdicts, strict=True):
        assert {row["name"]: row["value"] for row in numbers} == verdict.numbers
    assert to_frame([]).schema == table.schema
