"""The row of a session: nothing of it from the future, its numbers worked out again, and lives that are odd."""

import math
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from lifetables import day, made_up
from polars.testing import assert_frame_equal
from smalllives import climbed

from odin_core.monitoring.performance import (
    PERFORMANCE,
    Performance,
    PerformanceConfig,
    Tables,
    entropy,
    performance_at,
    performance_of,
    tables_of,
)

TABLES = made_up()
LAST = day(89)


def values(of: Performance) -> dict:
    return of.row.row(0, named=True)


def assert_same(one: Performance, other: Performance) -> None:
    assert_frame_equal(one.row, other.row, check_exact=True)
    for name in ("sharpe", "coverage", "diversity", "anomalies", "returns"):
        assert_frame_equal(getattr(one.details, name), getattr(other.details, name), check_exact=True)
    for name in ("live", "expected", "lower", "upper"):
        np.testing.assert_array_equal(getattr(one.details.band, name), getattr(other.details.band, name))


@pytest.mark.parametrize("i", [0, 1, 24, 25, 39, 40, 41, 57, 88])
def test_later_sessions_change_nothing(i):
    at = day(i)
    whole = performance_at(TABLES, at)
    cut = Tables(
        states=TABLES.states.filter(pl.col("known") <= at),
        replay=TABLES.replay.filter(pl.col("known") <= at),
        scores=TABLES.scores.filter(pl.col("known") <= at),
    )
    assert_same(performance_at(cut, at), whole)
    later = pl.col("known") > at
    absurd = Tables(
        states=TABLES.states.with_columns(session_return=pl.when(later).then(9.0).otherwise("session_return")),
        replay=TABLES.replay.with_columns(reward=pl.when(later).then(-99.0).otherwise("reward"),
                                          risk_unit=pl.when(later).then(5.0).otherwise("risk_unit")),
        scores=TABLES.scores.with_columns(reward=pl.when(later).then(77.0).otherwise("reward"),
                                          ic=pl.when(later).then(1.0).otherwise("ic")),
    )  # fmt: skip
    assert_same(performance_at(absurd, at), whole)


def test_a_real_life_says_the_same_when_its_later_sessions_are_not_there():
    life, _ = climbed()
    sessions = life.commits()
    everything = tables_of(life)
    for at in (sessions[3], sessions[12], sessions[-2], sessions[-1]):
        assert_same(performance_of(life, at), performance_at(everything, at))
    assert_same(performance_of(life), performance_at(everything, sessions[-1]))


def test_a_real_life_fills_the_columns():
    life, _ = climbed()
    row = values(performance_of(life))
    assert (row["session"], row["phase"], row["champion"] is not None) == (life.head, 3, True)
    state = life.read("phase_state", row["session"]).row(0, named=True)
    for name in ("status", "vol_regime", "epsilon", "session_return", "equity", "drawdown", "champion_since"):
        assert row[name] == state[name], name
    replay = life.read_many("replay_buffer", life.commits())
    taken = replay.filter(status="taken")
    assert row["trades"] == taken.height, "fewer sessions than the trailing window"
    own = taken.filter(model_version=row["champion"], complete=True)
    assert row["live_reward"] == pytest.approx(own.group_by("session").agg(pl.col("reward").mean())["reward"].sum())
    assert row["live_sessions"] == own["session"].n_unique()
    assert 0 < row["predictive_entropy"] <= 1
    assert row["anomalies"] is not None


def in_window(rows: list[dict], first: date) -> list[dict]:
    return [r for r in rows if r["session"] >= first]


def test_numbers_of_trading_worked_out_again():
    row = values(performance_at(TABLES, LAST))
    rows = TABLES.replay.to_dicts()
    taken = [r for r in in_window(rows, day(30)) if r["status"] == "taken"]
    complete = [r for r in taken if r["complete"]]
    recent = in_window(complete, day(70))
    assert row["trades"] == len(taken)
    assert (row["complete_trades"], row["wins"]) == (len(recent), sum(r["reward"] > 0 for r in recent))
    assert row["win_rate"] == pytest.approx(row["wins"] / len(recent))
    assert row["mean_reward"] == pytest.approx(np.mean([r["reward"] for r in complete]))
    assert row["mean_cost"] == pytest.approx(0.001)
    assert row["unfilled"] == pytest.approx(1 - len(complete) / len(taken))
    for name, kinds in (
        ("sides", [r["side"] for r in taken]), ("sizes", [r["size"] for r in taken]),
        ("exits", [(r["stop_atr"], r["target_mult"]) for r in taken]), ("symbols", [r["symbol"] for r in taken]),
    ):  # fmt: skip
        shares = np.array(list(Counter(kinds).values())) / len(kinds)
        assert row[name] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares))), name


def test_sharpe_ratios_are_of_the_regime_and_phase_of_the_close_before():
    row, states = values(performance_at(TABLES, LAST)), TABLES.states.to_dicts()
    trailing = range(30, 90)

    def ratio(chosen: list[int]) -> float:
        r = np.array([states[i]["session_return"] for i in chosen])
        return r.mean() / r.std(ddof=1) * math.sqrt(252)

    assert row["sharpe"] == pytest.approx(ratio(list(trailing)))
    for regime in ("low", "medium", "high"):
        decided = [i for i in trailing if states[i - 1]["vol_regime"] == regime]
        assert row[f"sharpe_{regime}"] == pytest.approx(ratio(decided))
    assert row["sharpe_phase"] == pytest.approx(ratio([i for i in trailing if states[i - 1]["phase"] == 3]))
    assert row["sharpe_champion"] == pytest.approx(ratio(list(range(40, 90))))


def test_coverage_counts_entries_by_regime_and_third_of_volatility():
    found = performance_at(TABLES, LAST)
    units = sorted(r["risk_unit"] for r in TABLES.replay.to_dicts())
    low, high = np.quantile(units, [1 / 3, 2 / 3])
    cells: Counter = Counter()
    for r in in_window(TABLES.replay.to_dicts(), day(30)):
        if r["status"] == "taken":
            third = "low" if r["risk_unit"] <= low else "medium" if r["risk_unit"] <= high else "high"
            cells[r["vol_regime"], third] += 1
    table = found.details.coverage
    assert {(r["vol_regime"], r["volatility"]): r["decisions"] for r in table.to_dicts() if r["decisions"]} == cells
    assert table["share"].sum() == pytest.approx(1)
    shares = np.array(list(cells.values())) / sum(cells.values())
    assert values(found)["coverage"] == pytest.approx(-(shares * np.log(shares)).sum() / math.log(9))
    assert values(found)["cells"] == sum(n >= PerformanceConfig().cell_rows for n in cells.values())


def test_the_champions_own_numbers_worked_out_again():
    row = values(performance_at(TABLES, LAST))
    scored = [r for r in TABLES.scores.to_dicts() if r["version"] == "joint-a"][-20:]
    assert row["ic"] == pytest.approx(np.mean([r["ic"] for r in scored]))
    assert (row["ic_sessions"], row["ic_lower"] < row["ic"]) == (20, True)
    p = np.array([r["confidence"] for r in in_window(TABLES.replay.to_dicts(), day(70)) if r["model_version"]])
    assert row["predictive_entropy"] == pytest.approx(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))


@pytest.mark.parametrize("first", [40, 42], ids=["after a week", "by a person within a week"])
def test_live_is_the_champions_own_trades_and_the_backtest_what_was_known_at_its_promotion(first):
    tables = made_up(champion_from=first)
    found = performance_at(tables, LAST)
    band, row = found.details.band, values(found)
    own = [r for r in tables.replay.to_dicts() if r["model_version"] == "joint-a" and r["status"] == "taken"]
    means = {s: np.mean([r["reward"] for r in own if r["session"] == s and r["complete"]]) for s in band.sessions}
    assert min(means) >= day(first)
    assert row["live_reward"] == pytest.approx(sum(means.values()))
    known = [r["reward"] for r in tables.scores.to_dicts() if r["known"] < day(first) and r["reward"] is not None]
    assert band.backtest_sessions == len(known)
    assert row["expected_reward"] == pytest.approx(len(means) * np.mean(known))
    assert row["inside"] is (row["expected_lower"] <= row["live_reward"] <= row["expected_upper"])


def test_a_life_whose_rewards_collapse_leaves_the_band_and_one_that_goes_on_does_not():
    def judged(shift: float) -> bool | None:
        fallen = pl.when(pl.col("session") >= day(40)).then(pl.col("reward") * 0.2 + shift).otherwise("reward")
        return values(performance_at(replace(TABLES, replay=TABLES.replay.with_columns(reward=fallen)), LAST))["inside"]

    assert judged(0.3) is True
    assert judged(-3.0) is False
    assert judged(4.0) is False


def test_anomalies_are_told_in_the_session_that_they_are_of():
    shocked = TABLES.states.with_columns(
        session_return=pl.when(pl.col("session") == day(80)).then(-0.09).otherwise("session_return")
    )
    tables = replace(TABLES, states=shocked)
    [told] = values(performance_at(tables, day(80)))["anomalies"]
    before = [r["session_return"] for r in TABLES.states.to_dicts()[20:80]]
    spread = 1.4826 * np.median(np.abs(before - np.median(before)))
    away = (-0.09 - np.median(before)) / spread
    assert told == f"return -9.000% of capital, {away:+.1f} robust deviations from the median"
    after = values(performance_at(tables, day(81)))
    assert (after["anomalies"], after["unusual_returns"]) == ([], 1)
    assert values(performance_at(TABLES, day(80)))["unusual_returns"] == 0
    missing = values(performance_at(TABLES, day(25)))
    assert missing["anomalies"] == ["the session has no bars"]
    assert values(performance_at(TABLES, day(50)))["no_data"] == 1
    assert values(performance_at(TABLES, LAST))["no_data"] == 0, "it has left the trailing window"
    unfilled = TABLES.replay.with_columns(complete=pl.when(pl.col("session") == LAST).then(False).otherwise("complete"))
    [told] = values(performance_at(replace(TABLES, replay=unfilled), LAST))["anomalies"]
    assert told.endswith("entries did not fill")


def test_a_life_without_trades_scores_or_champion_has_a_row_all_the_same():
    bare = Tables(states=TABLES.states.head(1), replay=TABLES.replay.clear(), scores=TABLES.scores.clear())
    row = values(performance_at(bare, day(0)))
    assert row["trades"] == row["complete_trades"] == row["live_sessions"] == row["ic_sessions"] == row["cells"] == 0
    for name in ("sharpe", "win_rate", "mean_reward", "coverage", "sides", "ic", "predictive_entropy", "inside",
                 "unfilled", "live_reward", "expected_lower", "sharpe_champion"):  # fmt: skip
        assert row[name] is None, name
    assert performance_at(bare, day(0)).row.schema == PERFORMANCE


def test_no_number_of_a_row_is_nan_or_infinite():
    frame = pl.concat([performance_at(TABLES, day(i)).row for i in range(0, 90, 7)])
    numbers = frame.select(pl.selectors.float())
    assert numbers.select(pl.all().is_finite().fill_null(True).all()).row(0) == (True,) * numbers.width


def test_the_same_tables_give_the_same_row_and_stay_untouched():
    before = TABLES.replay.clone()
    assert_same(performance_at(TABLES, LAST), performance_at(TABLES, LAST))
    assert_frame_equal(TABLES.replay, before)


def test_a_session_that_is_not_there_is_a_mistake():
    for session in (LAST + timedelta(days=1), day(0) - timedelta(days=1)):
        with pytest.raises(ValueError, match="not among the sessions"):
            performance_at(TABLES, session)


def test_entropy_of_even_shares_is_the_logarithm_and_of_one_is_nothing():
    for n in (1, 2, 9):
        assert entropy(np.full(n, 1 / n)) == pytest.approx(math.log(n))
    assert entropy(np.array([1.0, 0.0, 0.0])) == 0
    assert entropy(np.array([0.9, 0.1])) < entropy(np.array([0.6, 0.4]))


def test_a_damaged_file_is_named():
    import shutil
    import tempfile
    from pathlib import Path

    from odin_core.home import open_home
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.life import SessionDamaged

    life, _ = climbed()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(life.home.root / "lives", Path(folder) / "home" / "lives")
        shutil.copy(life.home.root / "odin.json", Path(folder) / "home")
        copy = lives.load(open_home(Path(folder) / "home"), life.id)
        broken = copy.commits()[4]
        copy.lake.path("replay_buffer", broken).write_bytes(b"nothing")
        with pytest.raises(SessionDamaged, match=str(broken)):
            tables_of(copy)
