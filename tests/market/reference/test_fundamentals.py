"""Fundamentals: what was known at a close against a slow twin and the recorded files, units, rules, imports again."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from companyevents import CALENDAR, INDIA, NSE, action, actions
from hypothesis import given, settings
from hypothesis import strategies as st
from odincommand import odin

from odin_core.lake import Lake
from odin_core.market.intake.knowntables import NO_SESSION, rewrite
from odin_core.market.reference.actionimport import TABLE as ACTIONS_TABLE
from odin_core.market.reference.actions import ActionBook
from odin_core.market.reference.figures import BadRule, Rule, parse_rules
from odin_core.market.reference.fundamentalfiles import (
    FundamentalReport,
    UnknownFundamentalLayout,
    WhenKnown,
    import_fundamentals,
)
from odin_core.market.reference.fundamentals import (
    FUNDAMENTALS,
    TABLE,
    FundamentalBook,
    fundamentals_as_of,
    judged,
    read_fundamentals,
)

Find = Callable[[str], Path]
START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6))


def bring(folder: Path, *paths: Path, known_at: date | None = None) -> list[FundamentalReport]:
    return import_fundamentals(paths, lake=Lake(folder), calendar=CALENDAR, zone=INDIA, known_at=known_at)


def at_close(folder: Path, session: date) -> pl.DataFrame:
    lake = Lake(folder)
    return FundamentalBook(lake, CALENDAR).at_close(session, ActionBook(lake, CALENDAR))


def of(figures: pl.DataFrame, symbol: str) -> dict[str, Any]:
    return figures.filter(pl.col("symbol") == symbol).row(0, named=True)


def rows(told: list[tuple[str, int, str, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"symbol": s, "known_at": START + timedelta(days=d), "figure": f, "value": v, "period": None,
             "origin": "by hand", "origin_id": "0" * 16}
            for s, d, f, v in told
        ],
        schema=FUNDAMENTALS,
    )  # fmt: skip


TOLD = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 30), st.sampled_from(["pe", "roe"]), VALUES),
    max_size=30,
    unique_by=lambda row: row[:3],
)


@settings(max_examples=80, deadline=None)
@given(TOLD, st.integers(-1, 31))
def test_the_value_known_latest_counts_as_in_the_slow_twin(told: list[Any], day: int):
    found = fundamentals_as_of(rows(told), START + timedelta(days=day))
    latest: dict[tuple[str, str], float | None] = {}
    for symbol, known, figure, value in sorted(told, key=lambda row: row[1]):
        if known <= day:
            latest[symbol, figure] = value
    assert found["symbol"].to_list() == sorted({symbol for symbol, _ in latest})
    assert found.columns == ["symbol", *sorted({figure for _, figure in latest})]
    for row in found.iter_rows(named=True):
        for figure in found.columns[1:]:
            assert row[figure] == latest.get((row["symbol"], figure))


@settings(max_examples=40, deadline=None)
@given(TOLD, TOLD, st.integers(0, 30))
def test_nothing_told_later_changes_what_was_known(told: list[Any], more: list[Any], day: int):
    asked = START + timedelta(days=day)
    later = [row for row in more if row[1] > day]
    assert fundamentals_as_of(rows(told + later), asked).equals(fundamentals_as_of(rows(told), asked))


def test_a_recorded_table_is_seen_as_of_each_of_its_dates_and_not_before(tmp_path: Path, market_file: Find):
    """README of the recordings: P/E changes between quarters, growth and return on equity with the fiscal year."""
    path = market_file("fundamentals_nse_pit.parquet")
    (report,) = bring(tmp_path, path)
    given_ = pl.read_parquet(path)
    assert (report.rows, report.values, report.quarantined) == (3312, 4 * 3312, {})
    assert report.missing == sum(given_[figure].null_count() for figure in report.figures) == 1296
    for as_of in given_["as_of"].unique().sort():
        day = given_.filter(pl.col("as_of") == as_of).sort("symbol")
        first = CALENDAR.next(as_of)  # a date is known when it is over
        figures = at_close(tmp_path, first)
        mine = figures.filter(pl.col("symbol").is_in(day["symbol"].implode()))
        assert mine.select(day.select("symbol", *report.figures).columns).equals(day.select("symbol", *report.figures))
        before = at_close(tmp_path, CALENDAR.previous(first))
        assert before.is_empty() == (as_of == given_["as_of"].min())
    reliance = [at_close(tmp_path, date(2025, month, 2)) for month in (1, 6, 7)]
    assert [of(f, "RELIANCE")["pe"] for f in reliance] == [23.9, 24.8, 24.19]
    assert [of(f, "RELIANCE")["eps_cagr_pct"] for f in reliance] == [12.07, 12.07, 5.84]


def test_a_snapshot_is_known_from_when_it_is_said_to_be_and_counts_in_rupees(tmp_path: Path, market_file: Find):
    path = market_file("fundamentals_nse_snapshot.parquet")
    with pytest.raises(WhenKnown, match="--known-at"):
        bring(tmp_path, path)
    (report,) = bring(tmp_path, path, known_at=date(2026, 8, 21))
    assert at_close(tmp_path, date(2026, 8, 21)).is_empty()
    figures, raw = at_close(tmp_path, date(2026, 8, 24)), pl.read_parquet(path)
    one = raw.filter(pl.col("symbol") == "RELIANCE").row(0, named=True)
    assert of(figures, "RELIANCE")["net_profit"] == one["net_profit_cr"] * 1e7
    assert of(figures, "RELIANCE")["market_cap"] == one["mcap_lakh_20230331"] * 1e5 > 1e13  # 15.8 trillion rupees
    period = read_fundamentals(Lake(tmp_path)).filter(pl.col("figure") == "market_cap")["period"].unique()
    assert period.to_list() == ["2023-03-31"]
    assert figures["market_cap"].null_count() == 187  # listed later
    assert figures["pe"].null_count() == 33  # no P/E is 0
    assert (figures["pledge_pct"] == 0).sum() == 529  # nothing pledged is a value
    assert of(figures, "IDEA")["debt_equity"] is None  # 0 where there is no equity either
    assert (figures["debt_equity"] == 0).sum() > 0
    assert report.zeros_missing > 33
    assert report.left_out == ("name", "cap_class_20230331")


def test_a_snapshot_with_nulls_keeps_its_zeros(tmp_path: Path, market_file: Find):
    path = market_file("fundamentals_sp500_snapshot.parquet")
    (report,) = bring(tmp_path, path, known_at=date(2026, 8, 21))
    figures, raw = at_close(tmp_path, date(2026, 8, 24)), pl.read_parquet(path).sort("symbol")
    assert report.zeros_missing == 0
    assert figures["pe"].null_count() == raw["pe"].null_count() == 37
    assert figures["52_week_high"].equals(raw["52_week_high"])


def test_a_figure_that_became_unavailable_hides_the_older_one(tmp_path: Path):
    path = tmp_path / "told.csv"
    path.write_text("symbol,known_at,figure,value\nA,2024-01-01,PE,20\nA,2024-03-01,pe,\nA,2024-03-01,roe,5\n")
    (report,) = bring(tmp_path / "lake", path)
    assert (report.layout, report.values, report.missing) == ("long", 3, 1)
    assert of(at_close(tmp_path / "lake", date(2024, 2, 1)), "A") == {"symbol": "A", "pe": 20.0}
    assert of(at_close(tmp_path / "lake", date(2024, 4, 1)), "A") == {"symbol": "A", "pe": None, "roe": 5.0}


def test_rows_that_break_a_rule_go_to_quarantine_with_their_content(tmp_path: Path):
    told = {
        "A,2024-01-01,pe,20": None,
        ",2024-01-01,pe,20": "no_symbol",
        "B,someday,pe,20": "bad_known_at",
        "C,2024-01-01,pe,much": "bad_value",
        "D,2024-01-01,,7": "no_figure",
        "E,2033-01-01,pe,7": "outside_calendar",
        "A,2024-01-01, pe ,20.0": "duplicate",
        "A,2024-01-01,pe,21": "conflict",
    }
    path = tmp_path / "told.csv"
    path.write_text("\n".join(["symbol,known_at,figure,value", *told]) + "\n")
    (report,) = bring(tmp_path / "lake", path)
    held_back = Lake(tmp_path / "lake").read("quarantine_fundamentals", NO_SESSION)
    assert dict(held_back.select("row", "rule").iter_rows()) == {i: r for i, r in enumerate(told.values()) if r}
    assert json.loads(held_back.filter(pl.col("row") == 3)["content"].item())["value"] == "much"
    assert report.values + sum(report.quarantined.values()) == report.rows


def test_a_value_lies_in_the_session_at_whose_close_it_was_first_known_and_again_changes_nothing(
    tmp_path: Path, market_file: Find
):
    path = market_file("fundamentals_nse_pit.parquet")
    bring(tmp_path, path)
    lake = Lake(tmp_path)
    for session in lake.sessions(TABLE):
        known = lake.read(TABLE, session)["known_at"]
        assert (known <= CALENDAR.hours(session).close).all()
        assert (known > CALENDAR.hours(CALENDAR.previous(session)).close).all()
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.parquet"))}
    (again,) = bring(tmp_path, path)
    assert again.sessions == ()
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.parquet"))} == before


def test_a_later_file_corrects_the_same_value_and_leaves_the_others(tmp_path: Path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("symbol,as_of,pe,roe\nA,2024-01-01,20,1\nB,2024-01-01,30,2\n")
    second.write_text("symbol,as_of,pe\nA,2024-01-01,22\n")
    reports = bring(tmp_path / "lake", first, second)
    assert [r.corrected for r in reports] == [0, 1]
    figures = at_close(tmp_path / "lake", date(2024, 1, 2))
    assert figures.rows() == [("A", 22.0, 1.0), ("B", 30.0, 2.0)]


def test_a_symbol_keeps_its_figures_under_its_new_name(tmp_path: Path):
    path = tmp_path / "told.csv"
    path.write_text("symbol,as_of,pe\nOLD,2024-01-01,20\nNEW,2024-01-01,99\n")
    bring(tmp_path / "lake", path)
    renamed = actions(action("OLD", date(2024, 2, 1), "rename", other="NEW"))
    rewrite(Lake(tmp_path / "lake"), ACTIONS_TABLE, renamed, CALENDAR)
    assert at_close(tmp_path / "lake", date(2024, 1, 31)).rows() == [("NEW", 99.0), ("OLD", 20.0)]
    assert at_close(tmp_path / "lake", date(2024, 2, 1)).rows() == [("NEW", 20.0)]


def test_files_without_figures_are_refused_with_what_is_needed(tmp_path: Path, market_file: Find):
    with pytest.raises(UnknownFundamentalLayout, match="give symbol, known_at, figure, value"):
        bring(tmp_path / "lake", market_file("raw/aapl_factor_file_future_sentinel_date.csv"))
    words = tmp_path / "words.csv"
    words.write_text("symbol,as_of,name\nA,2024-01-01,Alpha\n")
    with pytest.raises(UnknownFundamentalLayout):
        bring(tmp_path / "lake", words)


def test_rules_are_read_in_order_and_none_are_none():
    assert parse_rules(" pe <= 60,roe_pct>=-5.5 , 52_week_low < 1e3") == (
        Rule("pe", "<=", 60.0), Rule("roe_pct", ">=", -5.5), Rule("52_week_low", "<", 1000.0)
    )  # fmt: skip
    assert parse_rules("") == parse_rules("  ") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pe", "'pe' is no comparison"), ("pe = 4", "no comparison"), ("pe <= ", "no comparison"),
        ("pe <= 4,", "'' is no comparison"), ("pe <= many", "'many', which is no number"),
        ("pe <= nan", "NaN"), ("p e <= 4", "no comparison"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_refused_with_its_text(text: str, why: str):
    with pytest.raises(BadRule, match=why) as error:
        parse_rules(text)
    assert "pe <= 60, roe_pct >= 5" in str(error.value)


COMPARE = {"<=": le, ">=": ge, "<": lt, ">": gt}
FIGURE = st.one_of(st.none(), st.sampled_from([1.0, 5.0, 9.0, float("nan")]))


@given(st.lists(st.tuples(FIGURE, FIGURE), max_size=6), st.sampled_from(["<=", ">=", "<", ">"]))
def test_a_symbol_passes_only_if_every_figure_is_known_and_holds(told: list[Any], operator: str):
    figures = pl.DataFrame(
        {"symbol": [f"S{i}" for i in range(len(told))], "pe": [t[0] for t in told], "roe": [t[1] for t in told]},
        schema={"symbol": pl.String, "pe": pl.Float64, "roe": pl.Float64},
    )
    symbols = pl.Series("symbol", [*figures["symbol"], "UNHEARD"])
    found = judged(symbols, figures, parse_rules(f"pe {operator} 5, roe > 1"))

    def holds(pe: float | None, roe: float | None) -> str:
        known = [v is not None and v == v for v in (pe, roe)]
        each = [known[0] and COMPARE[operator](pe, 5), known[1] and roe > 1]
        if any(k and not e for k, e in zip(known, each, strict=True)):
            return "fails"
        return "passes" if all(known) else "unknown"

    assert found.to_list() == [holds(*t) for t in told] + ["unknown"]


def test_without_rules_everybody_passes_and_without_figures_nobody():
    symbols = pl.Series("symbol", ["A", "B"])
    assert judged(symbols, pl.DataFrame(), ()).to_list() == ["passes"] * 2
    assert judged(symbols, pl.DataFrame(), parse_rules("pe < 4")).to_list() == ["unknown"] * 2
    only_roe = pl.DataFrame({"symbol": ["A"], "roe": [3.0]})
    assert judged(symbols, only_roe, parse_rules("pe < 4, roe > 5")).to_list() == ["fails", "unknown"]


def test_the_command_says_what_was_done_and_what_it_needs(tmp_path: Path):
    path = tmp_path / "told.csv"
    path.write_text("symbol,pe,note\nA,20,x\n")
    command = ("data", "fundamentals", path, "--market", NSE.name)
    assert "--known-at" in odin(*command, home=tmp_path / "home").mistake
    told = odin(*command, "--known-at", "2024-01-01", home=tmp_path / "home")
    assert "1 rows, 1 values of 1 figures" in told.out
    (file,) = odin(*command, "--known-at", "2024-01-01", "--json", home=tmp_path / "home").json["files"]
    assert (file["figures"], file["left_out"], file["sessions"]) == (["pe"], ["note"], 0)
    settings_ = odin("life", "settings", home=tmp_path / "home")
    assert settings_.status == 0
    assert "filter.fundamentals" in settings_.out
