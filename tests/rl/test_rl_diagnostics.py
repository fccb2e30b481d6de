"""Diagnostics of policies against counts by hand, rewards summed by hand, and critics that know and that do not."""

import io
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from odin_core.diagnostic_page import MOST_BYTES
from odin_core.rl.callbacks import CURVE, curve_of
from odin_core.rl.choices import DIMENSIONS, Choices
from odin_core.rl.diagnostics import (
    ACTIONS,
    CHOICES,
    VALUES,
    action_shares,
    curves_picture,
    diagnostics,
    diagnostics_page,
    discounted_returns,
    value_picture,
    value_table,
)

DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(40)]


def made(seed: int, count: int) -> tuple[Choices, np.ndarray]:
    draws = np.random.default_rng(seed)
    return Choices.of_actions(draws.integers(0, DIMENSIONS, (count, 4))), draws.choice(np.array(DAYS[:7]), count)


@given(st.integers(0, 1000), st.integers(0, 60))
def test_shares_are_those_counted_by_hand(seed, count):
    choices, session = made(seed, count)
    table = action_shares(choices, session)
    assert table.schema == ACTIONS
    assert table.height == len(set(session)) * sum(map(len, CHOICES.values()))
    for row in table.iter_rows(named=True):
        place = CHOICES[row["part"]].index(row["choice"])
        own = [n for n in range(count) if session[n] == row["session"]]
        if row["part"] != "position":
            own = [n for n in own if choices.position[n] != 0]
        hits = sum(getattr(choices, row["part"])[n] == place for n in own)
        assert row["count"] == hits
        assert row["share"] == (pytest.approx(hits / len(own)) if own else None)
    assert table["session"].is_sorted()


def test_a_session_is_needed_for_each_choice():
    with pytest.raises(ValueError, match="one session for each choice"):
        action_shares(Choices.flat(3), DAYS[:2])


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 3), st.floats(0, 1))
def test_returns_are_rewards_summed_to_the_episodes_end(seed, steps, environments, discount):
    draws = np.random.default_rng(seed)
    rewards, ended = draws.normal(size=(steps, environments)), draws.random((steps, environments)) < 0.2
    found = discounted_returns(rewards, ended, discount, scale=100.0)
    for t, e in np.ndindex(steps, environments):
        ends = [s for s in range(t, steps) if ended[s, e]]
        if ends:
            expected = sum(100 * discount ** (s - t) * rewards[s, e] for s in range(t, ends[0] + 1))
            assert found[t, e] == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(found[t, e])


def test_returns_need_an_end_for_each_reward():
    with pytest.raises(ValueError, match="steps, environments"):
        discounted_returns(np.zeros(3), np.zeros(3, bool), 0.9)


def critic(knows: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, realised and session of 40 · 50 decisions; realised is `knows` · value, the session's shock and noise."""
    draws = np.random.default_rng(seed)
    value = draws.normal(size=2000)
    shock = 0.5 * np.repeat(draws.normal(size=40), 50)
    return value, knows * value + shock + draws.normal(size=2000), np.repeat(np.array(DAYS), 50)


def test_a_calibrated_critic_has_slope_one_and_an_ignorant_one_zero():
    _, line = value_table(*critic(1.0))
    assert line.lower < 1 < line.upper
    assert line.upper - line.lower < 0.3
    assert line.correlation > 0.5
    assert (line.rows, line.sessions) == (2000, 40)
    _, nothing = value_table(*critic(0.0))
    assert nothing.lower < 0 < nothing.upper
    assert abs(nothing.rank_correlation) < 0.1


def test_the_line_is_that_of_least_squares():
    value, realised, session = critic(0.4)
    _, line = value_table(value, realised, session)
    slope, intercept = np.polyfit(value, realised, 1)
    assert (line.slope, line.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert line.correlation == pytest.approx(np.corrcoef(value, realised)[0, 1])
    assert line.rank_correlation == pytest.approx(spearmanr(value, realised).statistic)


def test_the_slopes_interval_holds_over_sessions_that_have_their_own_slope():
    """Clustered errors, where treating decisions as independent would hold far less often than 95 %."""
    held = 0
    for seed in range(150):
        draws = np.random.default_rng(seed)
        value = np.repeat(draws.normal(size=30), 20) + 0.2 * draws.normal(size=600)
        realised = 0.5 * value + np.repeat(draws.normal(size=30), 20)
        _, line = value_table(value, realised, np.repeat(np.arange(30), 20))
        held += line.lower <= 0.5 <= line.upper
    assert held >= 130


def test_bins_hold_as_many_decisions_each_and_unknown_ones_none():
    value, realised, session = critic(1.0)
    realised = np.where(np.arange(2000) % 5 == 0, np.nan, realised)
    table, line = value_table(value, realised, session, bins=8)
    assert table.schema == VALUES
    assert table["rows"].to_list() == [200] * 8
    assert line.rows == 1600
    assert table["value"].is_sorted()
    weighed = (table["rows"] * table["realised"]).sum() / 1600
    assert weighed == pytest.approx(np.nanmean(realised))
    assert (table["lower"] < table["realised"]).all()


@pytest.mark.parametrize("value", [[], [1.0], [1.0, 1.0, 1.0, 1.0]])
def test_where_there_is_too_little_to_say_nothing_is_said(value):
    table, line = value_table(value, value, DAYS[: len(value)])
    assert np.isnan(line.slope)
    assert table["rows"].sum() == len(value)
    assert len(value_picture(value, value, DAYS[: len(value)])) <= MOST_BYTES
    with pytest.raises(ValueError, match="of one length"):
        value_table([1.0, 2.0], [1.0], DAYS[:2])


@pytest.mark.parametrize(
    ("realised", "days", "said"),
    [
        pytest.param([np.nan] * 4, DAYS[:4], "0 sessions whose return is known. Too few", id="nothing known"),
        pytest.param([1.0, 3.0, 2.0, 4.0], [DAYS[0]] * 4, "of one session, so without an interval", id="one session"),
        pytest.param([2.0] * 4, DAYS[:4], "What came never varied; slope 0.00", id="nothing varies"),
    ],
)
def test_what_is_not_known_is_not_told_as_a_number(realised, days, said):
    choices = Choices.flat(4)
    found = diagnostics(choices=choices, session=days, value=[1, 2, 3, 4], realised=realised, curves=curves())[1]
    assert said in found.told
    assert "nan" not in found.told


def curves() -> pl.DataFrame:
    draws = np.random.default_rng(0)
    of_seeds = []
    for seed in range(5):
        rows = [
            {"update": n, "steps": 1000 * n, "episode_reward": float(n + draws.normal()), "entropy": 3.0 - 0.1 * n}
            for n in range(1, 15 - seed)
        ]
        of_seeds.append(curve_of(rows).with_columns(seed=pl.lit(seed)))
    return pl.concat(of_seeds)


def test_all_diagnostics_stand_on_one_page_with_small_pictures():
    value, realised, session = critic(0.7)
    choices = Choices.of_actions(np.random.default_rng(0).integers(0, DIMENSIONS, (2000, 4)))
    found = diagnostics(choices=choices, session=session, value=value, realised=realised, curves=curves())
    assert [each.name for each in found] == ["actions", "value", "learning_curves"]
    for each in found:
        assert 3_000 < len(each.picture) <= MOST_BYTES
        assert Image.open(io.BytesIO(each.picture)).format == "PNG"
    assert found[2].table.columns == [*CURVE, "seed"]
    assert "5 seeds" in found[2].told
    again = diagnostics(choices=choices, session=session, value=value, realised=realised, curves=curves())
    drawn = diagnostics_page("Diagnostics of policy-x", "On planted bars.", found)
    assert drawn == diagnostics_page("Diagnostics of policy-x", "On planted bars.", again)
    assert drawn.count("data:image/png") == 3
    assert "http" not in drawn


def test_pictures_tell_when_there_is_nothing():
    empty = diagnostics(
        choices=Choices.flat(0), session=[], value=[], realised=[], curves=curves().clear().select("seed", "steps")
    )
    for each in empty:
        assert len(each.picture) <= MOST_BYTES
        assert "nan" not in each.told
    assert curves_picture(curves()) != empty[2].picture
