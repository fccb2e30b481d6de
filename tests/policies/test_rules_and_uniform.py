"""The rules' two set-ups, case by case, and the uniform policy's frequencies."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from odin_core.policies import rules, uniform
from odin_core.policies.actions import ACTIONS, FLAT, decode
from odin_core.randomness import stream

QUIET: dict[str, float | None] = {
    "rsi_14_15m": 50.0,
    "volume_z_18_75_5m": 0.0,
    "sma_cross_5_20_15m": 0.0,
    "natr_14_60m": 0.01,
}


def chosen(**changes: float | None) -> Any:
    """(side of the action or 0 for flat, side of the lean, confidence, score) of one context."""
    made = rules.propose(pl.DataFrame([QUIET | changes], schema=dict.fromkeys(QUIET, pl.Float64)))
    lean = decode(made.lean)
    assert made.action[0] in (FLAT, made.lean[0])
    assert (lean.size[0], lean.stop[0], lean.target[0]) == (0.0025, 2.0, 1.5)
    return (0.0 if made.action[0] == FLAT else lean.side[0], lean.side[0], made.confidence[0], made.score[0])


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({"rsi_14_15m": 29.9, "volume_z_18_75_5m": 1.1}, 1),
        ({"rsi_14_15m": 70.1, "volume_z_18_75_5m": 1.1}, -1),
        ({"rsi_14_15m": 29.9, "volume_z_18_75_5m": 1.0}, 0),  # no spike
        ({"rsi_14_15m": 30.0, "volume_z_18_75_5m": 5.0}, 0),  # not oversold
        ({"sma_cross_5_20_15m": 0.00101}, 1),  # more than a tenth of the hourly ATR
        ({"sma_cross_5_20_15m": -0.00101}, -1),
        ({"sma_cross_5_20_15m": 0.00099}, 0),
        ({"rsi_14_15m": 20.0, "volume_z_18_75_5m": 2.0, "sma_cross_5_20_15m": -0.02}, 1),  # reversal wins
        ({"rsi_14_15m": None, "volume_z_18_75_5m": 2.0}, 0),
        ({"rsi_14_15m": 20.0, "volume_z_18_75_5m": None}, 0),
        ({"sma_cross_5_20_15m": None}, 0),
        ({"sma_cross_5_20_15m": 0.02, "natr_14_60m": None}, 0),
        ({"rsi_14_15m": None, "volume_z_18_75_5m": None, "sma_cross_5_20_15m": -0.02}, -1),  # a trend needs no RSI
    ],
)
def test_the_rules_take_reversals_and_trends_and_nothing_unknown(changes: dict[str, float | None], side: int):
    action, lean, confidence, score = chosen(**changes)
    assert action == side
    assert score == side
    assert confidence == (0.5 if side else 0.4)
    assert side in (0, lean)


def test_a_flat_rule_leans_with_the_averages():
    assert chosen(sma_cross_5_20_15m=-0.0005)[1] == -1
    assert chosen(sma_cross_5_20_15m=0.0005)[1] == 1
    assert chosen(sma_cross_5_20_15m=None)[1] == 1


def test_the_rules_keep_the_order_of_contexts_and_leave_them_untouched():
    contexts = pl.DataFrame([QUIET | {"sma_cross_5_20_15m": x} for x in (0.02, -0.02, 0.0)])
    before = contexts.clone()
    assert rules.propose(contexts).score.tolist() == [1, -1, 0]
    assert contexts.equals(before)
    assert rules.propose(contexts.clear()).action.tolist() == []


def test_uniform_proposals_are_uniform_over_the_grid_and_taken_as_often_as_told():
    n = 128 * 400
    made = uniform.propose(n, 0.35, stream(7, date(2023, 1, 2), "test"))
    counts = np.bincount(made.lean, minlength=ACTIONS)
    assert ((counts - 400) ** 2 / 400).sum() < 181.993  # chi square, 127 degrees, 0.1 %
    assert np.mean(made.action != FLAT) == pytest.approx(0.35, abs=4 * np.sqrt(0.35 * 0.65 / n))
    assert (made.action[made.action != FLAT] == made.lean[made.action != FLAT]).all()


@pytest.mark.parametrize("take", [0.0, 0.35, 1.0])
def test_the_probabilities_of_all_actions_and_of_staying_flat_sum_to_one(take: float):
    assert uniform.probability(np.arange(-1, ACTIONS), take).sum() == pytest.approx(1, abs=1e-12)
    made = uniform.propose(500, take, stream(1, date(2023, 1, 2), "test"))
    assert (uniform.probability(made.action, take) > 0).all()
