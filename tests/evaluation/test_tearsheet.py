"""The tear sheet: its tables against plain recomputation, what it says of little, and its page, bytes and size."""

import re
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smalllives import climbed
from tearsheets import CAPITAL, CHARGE, FIRST, Read, cost_of, days, made, position, states

from odin_core.evaluation import metrics
from odin_core.evaluation.tearsheet import dealing, returns
from odin_core.evaluation.tearsheet.drawing import IN_DAGIT, LARGEST_PNG, PICTURES, png, svg
from odin_core.evaluation.tearsheet.formats import told
from odin_core.evaluation.tearsheet.markdown import markdown
from odin_core.evaluation.tearsheet.page import page
from odin_core.evaluation.tearsheet.records import TRADES, Records
from odin_core.evaluation.tearsheet.sheet import TearSheet, tear_sheet
from odin_core.lifecycle.report import records_of

RETURNS = st.lists(st.floats(-0.05, 0.05).map(lambda r: round(r, 4)), min_size=1, max_size=40)
GROUPED = ("source", "size", "side", "exit_reason", "regime", "symbol", "phase")


@pytest.fixture(scope="module")
def records() -> Records:
    """Of a whole small life: phases 0 to 3, a session without bars, positions over night."""
    return records_of(climbed()[0])


@pytest.fixture(scope="module")
def sheet(records: Records) -> TearSheet:
    return tear_sheet(records)


# Sessions


@given(RETURNS)
def test_months_and_years_add_up_to_the_whole(values: list[float]):
    records = made([], states(values))
    table = returns.months(records)
    by_month: dict[tuple[int, int], float] = {}
    for day, value in zip(days(len(values)), values, strict=True):
        by_month[day.year, day.month] = by_month.get((day.year, day.month), 0.0) + value
    told_months = {
        (row["year"], n + 1): row[name]
        for row in table.iter_rows(named=True)
        for n, name in enumerate(returns.MONTHS)
        if row[name] is not None
    }
    assert told_months == pytest.approx(by_month)
    assert table["total"].sum() == pytest.approx(sum(values))
    assert table["random"].sum() == pytest.approx(float(records.random.mean(axis=0).sum()))


@given(RETURNS)
def test_the_curve_is_a_running_sum_and_its_drawdown_the_distance_to_the_highest(values: list[float]):
    curve = returns.curve(made([], states(values)))
    total, peak = 0.0, 0.0
    for value, row in zip(values, curve.iter_rows(named=True), strict=True):
        total += value
        peak = max(peak, total)
        assert (row["total"], row["drawdown"]) == pytest.approx((total, total - peak), abs=1e-12)


@given(RETURNS)
def test_drawdowns_are_the_spells_below_a_peak_the_deepest_first(values: list[float]):
    total, peak, spells, inside = 0.0, 0.0, [], None
    every = days(len(values))
    for n, value in enumerate(values):
        total += value
        if peak - total > 1e-9:
            inside = inside or {"peak": every[n - 1] if n else None, "depth": 0.0, "sessions": 0, "recovered": None}
            inside["sessions"] += 1
            inside["depth"] = min(inside["depth"], total - peak)
        else:
            peak = max(peak, total)
            if inside:
                spells.append(inside | {"recovered": every[n]})
                inside = None
    spells += [inside] if inside else []
    wanted = sorted(spells, key=lambda spell: spell["depth"])[: returns.DRAWDOWNS]
    found = [spell for spell in returns.drawdowns(made([], states(values))).to_dicts() if spell["depth"] < -1e-9]
    assert [s["depth"] for s in found] == pytest.approx([s["depth"] for s in wanted])
    if len({round(s["depth"], 9) for s in wanted}) == len(wanted):
        assert [{k: s[k] for k in ("peak", "recovered", "sessions")} for s in found] == [
            {k: s[k] for k in ("peak", "recovered", "sessions")} for s in wanted
        ]


def test_metrics_beside_the_baselines_are_those_of_one_series_at_a_time(records: Records, sheet: TearSheet):
    mine = records.sessions["session_return"].to_numpy()
    drawn = np.array(records.sessions["random_returns"].to_list())
    table = {row["metric"]: row for row in sheet.tables["performance"].iter_rows(named=True)}
    assert table["total return"]["odin"] == pytest.approx(mine.sum())
    assert table["Sharpe ratio"]["odin"] == pytest.approx(mine.mean() / mine.std(ddof=1) * np.sqrt(252))
    sharpes = [column.mean() / column.std(ddof=1) * np.sqrt(252) for column in drawn.T]
    assert table["Sharpe ratio"]["random"] == pytest.approx(np.mean(sharpes))
    assert table["Sharpe ratio"]["random_low"] == pytest.approx(np.quantile(sharpes, 0.05))
    assert table["Sharpe ratio"]["below"] == np.mean(np.array(sharpes) < table["Sharpe ratio"]["odin"])
    deepest = min(float((np.cumsum(c) - np.maximum.accumulate(np.maximum(np.cumsum(c), 0))).min()) for c in drawn.T)
    assert np.min(metrics.max_drawdown(records.random, compounded=False)) == pytest.approx(deepest)
    assert table["deepest drawdown"]["odin"] == pytest.approx(
        (np.cumsum(mine) - np.maximum.accumulate(np.maximum(np.cumsum(mine), 0))).min()
    )
    assert table["sessions above zero"]["odin"] == np.mean(mine > 0)


def test_every_candidate_that_was_trained_counts_as_a_trial(records: Records, sheet: TearSheet):
    told_of, mine = sheet.headline, records.sessions["session_return"].to_numpy()
    assert told_of["trials"] == records.reports["version"].drop_nulls().n_unique() > 1
    assert replace(records, first=date(2023, 2, 1)).trials == told_of["trials"], "those before the range count too"
    early = records.reports.filter(pl.col("session") <= date(2023, 1, 20))["version"].drop_nulls().n_unique()
    assert replace(records, last=date(2023, 1, 20)).trials == early < told_of["trials"]
    best = metrics.expected_maximum_sharpe(int(told_of["trials"] or 0), 1 / mine.size)
    z = (mine - mine.mean()) / mine.std()
    wanted = metrics.probabilistic_sharpe_ratio(
        mine.mean() / mine.std(ddof=1), mine.size, (z**3).mean(), (z**4).mean(), best
    )
    assert told_of["sharpe_deflated"] == pytest.approx(wanted)
    assert told_of["sharpe_deflated"] < told_of["sharpe_above_zero"]


@pytest.mark.parametrize("column", ["decided_regime", "decided_phase"])
def test_sessions_by_group_add_up_to_all_sessions(records: Records, column: str):
    table = returns.by_group(records, column)
    assert table["sessions"].sum() == records.sessions.height
    assert table["total"].sum() == pytest.approx(records.sessions["session_return"].sum())
    assert table["random"].sum() == pytest.approx(float(records.random.mean(axis=0).sum()))
    assert table["trades"].sum() == records.sessions["trades"].sum()


def test_a_session_belongs_to_the_phase_and_regime_in_which_it_was_decided():
    told_states = states([0.01, 0.02, 0.03], phase=[0, 1, 1], phase_before=[0, 0, 1], vol_regime=["low", "high", "low"])
    phases = {r["group"]: r["total"] for r in returns.by_group(made([], told_states), "decided_phase").to_dicts()}
    assert phases == pytest.approx({"0": 0.03, "1": 0.03})
    regimes = {r["group"]: r["total"] for r in returns.by_group(made([], told_states), "decided_regime").to_dicts()}
    assert regimes == pytest.approx({"not known": 0.01, "low": 0.02, "high": 0.03})


def test_the_first_session_of_a_range_knows_what_was_decided_before_it():
    whole = made([], states([0.01, 0.02, 0.03], vol_regime=["low", "high", "medium"]))
    part = replace(whole, first=days(3)[1])
    assert part.sessions["decided_regime"].to_list() == ["low", "high"]
    assert tear_sheet(part).headline["total_return"] == pytest.approx(0.05)


@given(st.integers(0, 10_000))
def test_the_difference_of_sharpe_ratios_is_that_of_the_metric_and_turns_around(seed: int):
    rng = np.random.default_rng(seed)
    mine, theirs = rng.normal(0.001, 0.01, (2, 40))
    found, low, high = returns.sharpe_difference(mine, theirs[None], 252)
    assert found == pytest.approx(metrics.sharpe_ratio(mine, 252) - metrics.sharpe_ratio(theirs, 252))
    assert low < high
    assert returns.sharpe_difference(theirs, mine[None], 252) == pytest.approx((-found, -high, -low))
    assert returns.sharpe_difference(mine, mine[None], 252) == pytest.approx((0, 0, 0))
    alone, _, _ = returns.sharpe_difference(mine, np.zeros((1, 40)), 252)
    assert alone == pytest.approx(metrics.sharpe_ratio(mine, 252))


def test_intervals_of_the_difference_of_sharpe_ratios_hold_about_as_often_as_they_say():
    rng, inside, times = np.random.default_rng(5), 0, 120
    for _ in range(times):
        common = rng.normal(0, 0.01, 120)
        mine, theirs = 0.0005 + common + rng.normal(0, 0.005, 120), common + rng.normal(0, 0.005, 120)
        truth = 0.0005 / np.hypot(0.01, 0.005) * np.sqrt(252)
        _, low, high = returns.sharpe_difference(mine, theirs[None], 252)
        inside += low <= truth <= high
    assert 0.86 <= inside / times <= 1.0


def test_too_few_sessions_give_a_difference_without_bounds():
    found, low, high = returns.sharpe_difference(np.array([0.01, 0.02, -0.01]), np.array([[0.0, 0.01, 0.02]]), 252)
    assert np.isfinite(found)
    assert np.isnan([low, high]).all()


# Trades

POSITIONS = st.lists(
    st.tuples(
        st.integers(0, 9), st.integers(0, 4), st.sampled_from(["long", "short"]), st.floats(100, 5_000), st.booleans()
    ),
    max_size=25,
)


@given(POSITIONS)
def test_exposure_is_the_notional_of_everything_open_in_a_session(drawn):
    every = days(10)
    positions = [
        position(n, every[start], None if still else every[min(start + held, 9)], side=side, notional=notional)
        for n, (start, held, side, notional, still) in enumerate(drawn)
    ]
    records = made(positions, states([0.0] * 10))
    found = dict(zip(("long", "short"), returns.exposure(records), strict=True))
    part = dict(zip(("long", "short"), returns.exposure(replace(records, first=every[4], last=every[7])), strict=True))
    for side, values in found.items():
        wanted = [
            sum(
                p["notional"]
                for p in positions
                if p["side"] == side and p["entered"] <= day <= (p["resolved"] or date.max)
            )
            / CAPITAL
            for day in every
        ]
        assert values == pytest.approx(wanted, abs=1e-12)
        assert part[side] == pytest.approx(wanted[4:8], abs=1e-12)


@given(st.lists(st.tuples(st.floats(-0.05, 0.05), st.floats(500, 5_000), st.floats(0, 5)), min_size=1, max_size=20))
def test_costs_are_what_the_legs_paid_and_profit_is_what_is_left(drawn):
    every = days(5)
    positions = [
        position(n, every[n % 4], every[n % 4 + n % 2], gross=gross, notional=notional, spread=spread)
        for n, (gross, notional, spread) in enumerate(drawn)
    ]
    records = made(positions, states([0.0] * 5))
    amount = dict(dealing.costs(records).select("part", "amount").iter_rows())
    assert amount["spread"] == pytest.approx(sum(2 * p["spread"] for p in positions))
    assert amount["charges"] == pytest.approx(2 * CHARGE * len(positions))
    assert amount["all costs"] == pytest.approx(sum(map(cost_of, positions)))
    assert amount["gross profit"] == pytest.approx(sum(p["gross"] * p["notional"] for p in positions))
    assert amount["net profit"] == pytest.approx(amount["gross profit"] - amount["all costs"])


def test_trades_of_a_life_earn_its_returns_and_their_legs_paid_their_costs(records: Records):
    """Three ways to the same money: the fold's equity, the replay's returns, the executions' prices."""
    trades = records.trades
    earned = trades.group_by("resolved").agg(pl.col("profit").sum() / records.capital).sort("resolved")
    states_ = records.sessions.filter(pl.col("session_return") != 0).select("session", "session_return")
    assert earned["resolved"].to_list() == states_["session"].to_list()
    assert earned["profit"].to_numpy() == pytest.approx(states_["session_return"].to_numpy(), abs=1e-15)
    paid = (trades["spread"] + trades["slippage"] + trades["charges"]).to_numpy()
    assert paid == pytest.approx((trades["cost"] * trades["notional"]).to_numpy(), rel=1e-9)
    assert (trades["resolved"] > trades["entered"]).any(), "a position over night is among them"
    entries = records.executions.filter(pl.col("leg") == "entry").height
    assert entries == trades.height + records.held["resolved"].null_count()


@pytest.mark.parametrize("column", GROUPED)
def test_trades_by_group_add_up_to_all_trades(records: Records, column: str):
    table, trades = dealing.by(records, column), records.trades
    assert table["trades"].sum() == trades.height
    assert table["profit"].sum() == pytest.approx(trades["profit"].sum() / records.capital)
    assert (table["reward"] * table["trades"]).sum() == pytest.approx(trades["reward"].sum())
    assert (table["won"] * table["trades"]).sum() == pytest.approx((trades["net_return"] > 0).sum())


def test_decisions_by_status_are_all_decisions(records: Records):
    table = dealing.decided(records)
    assert table["decisions"].sum() == records.decisions.height
    assert table["status"].unique(maintain_order=True).to_list() == ["taken", "skipped", "rejected"]
    for row in table.to_dicts():
        mine = records.decisions.filter(
            (pl.col("status") == row["status"]) & pl.col("reject_reason").eq_missing(row["reject_reason"])
        )
        known = [reward for reward in mine["reward"].to_list() if reward is not None]
        assert row["reward"] == pytest.approx(sum(known) / len(known))
        assert row["outcomes"] == len(known)


def test_confidence_is_held_against_decisions_that_were_not_taken_too():
    every, rng = days(4), np.random.default_rng(2)
    positions = [
        position(n, every[n % 4], every[n % 4], confidence=c, gross=g, status="taken" if n % 3 else "skipped")
        for n, (c, g) in enumerate(zip(rng.uniform(0.3, 0.7, 64), rng.choice([-0.05, 0.05], 64), strict=True))
    ]
    records = made(positions, states([0.0] * 4))
    table = dealing.calibration(records, 2)
    middle = table["low"][1]
    halves = [[p for p in positions if (p["confidence"] >= middle) == above] for above in (False, True)]
    assert table["rows"].to_list() == [len(half) for half in halves]
    assert table["rows"].sum() == len(positions)
    assert table["rows"].min() > 25
    assert table["probability"].to_list() == pytest.approx([np.mean([p["confidence"] for p in h]) for h in halves])
    assert table["happened"].to_list() == pytest.approx([np.mean([p["gross"] > 0 for p in h]) for h in halves])
    scores = dealing.calibration_scores(records)
    assert scores["brier"] == pytest.approx(np.mean([(p["confidence"] - (p["gross"] > 0)) ** 2 for p in positions]))


# The page


def test_the_numbers_on_the_page_are_those_of_the_tables(records: Records, sheet: TearSheet):
    read = Read(page(sheet))
    mine, trades = records.sessions["session_return"], records.trades
    baselines = {row[0]: row[1:] for row in read.tables["Return/Against the baselines"][1:]}
    assert baselines["total return"][0] == told(mine.sum(), "percent")
    assert baselines["total return"][-1] == told(records.sessions["hold_return"].sum(), "percent")
    (year,) = read.tables["By time/Months"][1:]
    in_january = records.sessions.filter(pl.col("session").dt.month() == 1)["session_return"].sum()
    assert year[0] == "2023"
    assert f"{year[1]} %" == told(in_january, "percent")
    assert year[3:13] == ["–"] * 10
    costs = {row[0]: row[1:] for row in read.tables["Exposure and costs/What trading cost"][1:]}
    assert costs["charges"][0] == told(trades["charges"].sum(), "whole")
    assert costs["net profit"][1] == told(mine.sum(), "fine_percent")
    by_source = {row[0]: row[1:] for row in read.tables["Trades/By who decided"][1:]}
    assert {name: row[0] for name, row in by_source.items()} == {
        name: told(count, "whole") for name, count in trades.group_by("source").len().iter_rows()
    }
    changes = [row[:3] for row in read.tables["By regime and phase/Changes of phase"][1:]]
    assert [row[1:] for row in changes] == [["0", "1"], ["1", "2"], ["2", "3"]]
    assert len(read.tables["Retrains/Each week's candidate"]) - 1 == records.reports["session"].n_unique()


def test_the_page_loads_nothing_and_has_no_number_that_is_none(sheet: TearSheet):
    text = page(sheet)
    read = Read(text)
    assert read.loads == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert not re.search(r"(?i)\b(nan|inf|none|null)\b", " ".join(read.text).replace("None. From", ""))
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="([^"]+)"', text))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(re.findall(r'\bid="([^"]+)"', text))


def test_the_same_tables_give_the_same_bytes_in_any_order_of_their_rows(records: Records, sheet: TearSheet):
    shuffled = replace(
        records,
        replay=records.replay.sample(fraction=1.0, shuffle=True, seed=3),
        states=records.states.sample(fraction=1.0, shuffle=True, seed=4),
    )
    again = tear_sheet(shuffled)
    assert page(again) == page(sheet)
    assert markdown(again) == markdown(sheet)
    assert png(again, "equity") == png(sheet, "equity")


def test_making_a_sheet_leaves_its_tables_as_they_were(records: Records):
    before = {name: getattr(records, name).clone() for name in ("states", "replay", "executions", "scores", "reports")}
    tear_sheet(replace(records))
    for name, frame in before.items():
        assert getattr(records, name).equals(frame), name


def test_words_of_the_tables_cannot_become_markup():
    nasty = "<script>alert('&')</script> | `x`"
    told_states = states([0.01, 0.02], phase=[1, 2], phase_before=[1, 1], reason=["-", nasty])
    sheet = tear_sheet(made([], told_states))
    assert Read(page(sheet)).loads == []
    assert Read(page(sheet)).tables["By regime and phase/Changes of phase"][1][3] == nasty
    assert nasty.replace("|", "\\|") in markdown(sheet)


def test_the_summary_has_every_headline_and_whole_tables(sheet: TearSheet):
    text = markdown(sheet)
    assert told(sheet.headline["total_return"], "percent") in text
    assert all(reason in text for reason in sheet.tables["phases"]["reason"])
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_pictures_for_dagit_are_small_and_of_every_session_those_of_the_page_are_text(sheet: TearSheet):
    assert len(IN_DAGIT) <= 4
    for name in IN_DAGIT:
        image = png(sheet, name)
        assert image.startswith(b"\x89PNG")
        assert len(image) <= LARGEST_PNG
    for name in PICTURES:
        assert svg(sheet, name).startswith("<svg")
    assert "drawdown" in svg(sheet, "equity")


def test_a_life_of_five_years_still_is_one_small_page():
    rng = np.random.default_rng(0)
    n = 1_300
    every = days(n)
    positions = [
        position(k, every[k % n], every[k % n], symbol=f"S{k % 300:03d}", gross=float(g), confidence=float(c))
        for k, (g, c) in enumerate(zip(rng.normal(0, 0.01, 6_500), rng.uniform(0.3, 0.7, 6_500), strict=True))
    ]
    sheet = tear_sheet(made(positions, states(rng.normal(1e-4, 1e-3, n).tolist(), portfolios=20)))
    assert len(page(sheet).encode()) < 1_000_000
    assert all(len(png(sheet, name)) <= LARGEST_PNG for name in IN_DAGIT)
    assert sheet.tables["months"].height == 6


# Little


@pytest.mark.parametrize("sessions", [0, 1, 2, 11, 12])
def test_a_short_life_gets_a_page_that_says_what_is_missing(sessions: int):
    sheet = tear_sheet(made([], states([0.001] * sessions)))
    text = page(sheet)
    assert all(line in Read(text).text or f"{line}." in Read(text).text for line in sheet.missing)
    assert all(f"- {line}" in markdown(sheet) for line in sheet.missing)
    if sessions == 0:
        assert sheet.missing == ("no finished session lies in the range, so there is nothing to show",)
        assert "no session" in markdown(sheet)
        assert Read(text).tables == {}
    else:
        assert any("no trade was closed" in line for line in sheet.missing)
        assert any("are few" in line for line in sheet.missing)
        assert any("rolling" in line for line in sheet.missing) == (sessions < 12)
        assert sheet.headline["sharpe"] is None, "equal returns have no Sharpe ratio"
        assert sheet.trades.schema == TRADES


def test_a_life_without_portfolios_has_no_band_and_says_so():
    sheet = tear_sheet(made([], states([0.001, -0.002, 0.003], portfolios=0)))
    assert any("random portfolios" in line for line in sheet.missing)
    assert sheet.tables["curve"]["random"].null_count() == 3
    assert sheet.tables["performance"]["random"].null_count() == len(returns.METRICS)
    against = {row["baseline"]: row for row in sheet.tables["against"].to_dicts()}
    assert against["random portfolios"]["difference"] is None
    assert "<svg" in page(sheet)


def test_sessions_without_data_are_counted_and_told():
    told_states = states([0.0, 0.01, 0.0], status=["ok", "ok", "no_data"], hold_return=[None, None, None])
    sheet = tear_sheet(made([], told_states))
    assert sheet.headline["sessions_without_data"] == 1
    assert any("1 of 3 sessions have no bars" in line for line in sheet.missing)
    hold = {row["metric"]: row["hold"] for row in sheet.tables["performance"].to_dicts()}
    assert hold["Sharpe ratio"] is None
    assert "<svg" in page(sheet)


def test_nothing_that_happens_after_the_range_changes_it():
    every = days(6)
    positions = [position(n, every[n], every[n], gross=0.01 * n) for n in range(5)]
    early = made(positions[:3], states([0.01, 0.02, 0.03]))
    late = made(positions, states([0.01, 0.02, 0.03, 0.9, -0.9]), last=every[2])
    assert tear_sheet(late).to_dict() | {"facts": {}} == tear_sheet(early).to_dict() | {"facts": {}}


@settings(max_examples=25)
@given(RETURNS, POSITIONS)
def test_whatever_the_tables_hold_there_is_a_page(values: list[float], drawn):
    every = days(len(values))
    positions = [
        position(n, every[min(start, len(every) - 1)], None if still else every[min(start + held, len(every) - 1)],
                 side=side, notional=notional)
        for n, (start, held, side, notional, still) in enumerate(drawn)
    ]  # fmt: skip
    records = made(positions, states(values))
    sheet = tear_sheet(records)
    assert sheet.trades.height == sum(not still for *_, still in drawn)
    assert markdown(sheet)


assert FIRST + timedelta(days=1) == days(2)[1]
