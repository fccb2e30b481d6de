"""`odin features`: what a person is told, what a script gets, and how mistakes end."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from odincommand import odin
from polars.testing import assert_frame_equal
from reportlake import FIRST, LAST, SESSIONS, SYMBOLS, fill

from odin_core.features.catalogue import DEFINITIONS, Feature, all_features, features_of, set_names, set_version
from odin_core.features.report.catalogue import markdown_catalogue
from odin_core.home import Home, open_home
from odin_core.market.data import MarketData

HEAD = ("--market", "nse")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = open_home(tmp_path_factory.mktemp("home"))
    fill(home.lake("nse"))
    return home


@pytest.fixture(scope="module")
def data(home: Home) -> MarketData:
    return fill(home.lake("nse"))


def test_the_catalogue_is_a_page_in_the_home(home: Home):
    said = odin("features", "catalogue", *HEAD, home=home)
    assert (said.status, said.out) == (0, f"{home.reports}/features_nse.html\n")
    page = Path(said.out.strip()).read_text("utf-8")
    assert all(f'id="{name}"' in page for name in DEFINITIONS)
    told = odin("features", "catalogue", *HEAD, "--symbol", "BB", "--session", SESSIONS[8], "--json", home=home).json
    assert (told["symbol"], told["last"]) == ("BB", str(SESSIONS[8]))
    assert told["plots"] > 50
    assert "rsi_14_5m on 5m bars of BB<" in Path(told["page"]).read_text("utf-8")


def test_the_markdown_goes_below_the_head_of_a_file_and_needs_no_home(tmp_path: Path):
    file = tmp_path / "docs" / "features.md"
    assert odin("features", "catalogue", "--markdown", file, home=tmp_path / "none").out == f"{file}\n"
    assert file.read_text("utf-8") == markdown_catalogue()
    file.write_text(f"My words.\n\n{markdown_catalogue()[:200]}", "utf-8")
    odin("features", "catalogue", "--markdown", file)
    assert file.read_text("utf-8") == f"My words.\n\n{markdown_catalogue()}"
    file.write_text("My words.\n", "utf-8")
    assert "has no line '<!-- Below: " in odin("features", "catalogue", "--markdown", file).mistake
    assert file.read_text("utf-8") == "My words.\n"


def test_the_list_names_every_feature_once_with_its_n():
    rows = odin("features", "list", "--json").json
    names = [f"{row['name']}_{i}" if i != "–" else row["name"] for row in rows for i in row["intervals"].split(",")]
    by_name = {Feature(d, v, "").name for d in DEFINITIONS.values() if not d.intervals for v in d.variants}
    assert sorted(names) == sorted([*all_features(), *by_name])
    for row in rows:
        whole = [
            f
            for f in all_features().values()
            if f.name.startswith(f"{row['name']}_") and f.definition.set == row["set"]
        ]
        assert all(f.bars == row["N"] for f in whole if Feature(f.definition, f.parameters, "").name == row["name"])
    text = odin("features", "list").out.splitlines()
    assert text[0].split() == ["name", "set", "intervals", "N", "range", "unit"]
    assert len(text) == len(rows) + 1


@pytest.mark.parametrize("name", set_names())
def test_the_list_of_a_set_is_its_columns(name: str):
    rows = odin("features", "list", "--set", name, "--json").json
    found = [f"{r['name']}_{i}" if i != "–" else r["name"] for r in rows for i in r["intervals"].split(",")]
    assert {f.name for f in features_of(name)} <= set(found)
    extra = set(found) - {f.name for f in features_of(name)}
    assert all(
        Feature(d, v, "").name in extra
        for d in DEFINITIONS.values()
        for v in d.variants
        if d.set == name and not d.intervals
    )
    assert len(extra) == sum(len(d.variants) for d in DEFINITIONS.values() if d.set == name and not d.intervals)


def test_a_function_a_feature_and_a_column_can_be_shown():
    function = odin("features", "show", "rsi", "--json").json
    assert function["says"] == DEFINITIONS["rsi"].says
    assert function["Source"] == DEFINITIONS["rsi"].source
    assert function["Intervals"] == "1m, 5m, 15m, 60m, day"
    column = odin("features", "show", "rsi_21_15m", "--json").json
    assert (column["Names"], column["Intervals"], column["N"][:8]) == ("rsi_21", "15m", "105 bars")
    text = odin("features", "show", "max_pain_distance").out
    assert DEFINITIONS["max_pain_distance"].says in text
    assert "Known at: the row's instant, from what had been published by then" in text


def test_rows_are_those_of_the_provider_whatever_the_form(home: Home, data: MarketData, tmp_path: Path):
    words = ("features", "read", *HEAD, "--set", "technical", "--interval", "15m", "--symbols", "AA, NIFTY")
    span = ("--start", SESSIONS[-3], "--end", SESSIONS[-2])
    expected = data.features(["AA", "NIFTY"], "15m", SESSIONS[-3], SESSIONS[-2], "technical")
    assert expected.height == 2 * 2 * 25
    told = odin(*words, *span, "--out", tmp_path / "rows.parquet", "--json", home=home).json
    assert told == {"file": f"{tmp_path}/rows.parquet", "rows": 100, "features": len(features_of("technical"))}
    assert_frame_equal(pl.read_parquet(tmp_path / "rows.parquet"), expected, check_exact=True)
    assert (
        f"rows.csv: 100 rows, {told['features']} features\n"
        in odin(*words, *span, "--out", tmp_path / "rows.csv", home=home).out
    )
    text = pl.read_csv(tmp_path / "rows.csv", schema=expected.schema | {"known_at": pl.String, "session": pl.String})
    assert_frame_equal(text.drop("known_at", "session"), expected.drop("known_at", "session"), check_exact=True)
    rows = odin(*words, *span, "--json", home=home).json
    assert [row["rsi_14_5m"] for row in rows] == expected["rsi_14_5m"].to_list()
    assert [row["session"] for row in rows] == expected["session"].cast(pl.String).to_list()
    shown = odin(*words, *span, home=home).out
    assert f"100 rows, {len(features_of('technical'))} features; --out FILE writes all" in shown
    assert "sma_gap_20_1m" in shown


def test_without_a_range_the_last_session_is_read_and_as_of_cuts_it_off(home: Home, data: MarketData):
    rows = odin("features", "read", *HEAD, "--json", home=home).json
    assert {row["session"] for row in rows} == {str(LAST)}
    assert len(rows) == 75 * len(SYMBOLS)
    early = odin("features", "read", *HEAD, "--as-of", f"{LAST}T12:15+05:30", "--json", home=home).json
    assert early == [row for row in rows if row["known_at"] <= f"{LAST}T06:45:00+00:00"]
    assert len(early) == 36 * len(SYMBOLS)


def test_the_report_is_told_and_its_page_written(home: Home):
    said = odin("features", "report", *HEAD, "--set", "price_action", home=home)
    assert said.out.startswith(f"**nse, price_action (version {set_version('price_action')}): ")
    assert said.out.endswith(f"\n{home.reports}/features_nse_price_action.html\n")
    assert "Completeness by session" in (home.reports / "features_nse_price_action.html").read_text("utf-8")
    told = odin("features", "report", *HEAD, "--end", SESSIONS[4], "--interval", "60m", "--json", home=home).json
    assert (told["set"], told["interval"], told["first"], told["last"]) == (
        "decision",
        "60m",
        str(FIRST),
        str(SESSIONS[4]),
    )
    assert told["rows"] == 5 * 7 * len(SYMBOLS)
    assert {row["feature"] for row in told["by_feature"]} == {f.name for f in features_of("decision")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "rsi_14_7m"), "no feature is called 'rsi_14_7m'; did you mean rsi_14_"),
        (("show", "sma_20_5m"), "no feature is called 'sma_20_5m'; did you mean sma_20?"),
        (("show", "rsy"), "did you mean rsi"),
        (("list", "--set", "tecnical"), "no set of features is called 'tecnical'; did you mean technical?"),
        (("read", *HEAD, "--set", "tecnical"), "did you mean technical?"),
        (("read", *HEAD, "--interval", "7x"), "and not of '7x'"),
        (("read", *HEAD, "--symbols", "CC"), "no bars of 'CC' in the sessions up to 2021-04-23; known: AA, BB, NIFTY"),
        (("read", *HEAD, "--out", "rows.txt"), "rows.txt names no format of tables; end it with .parquet or .csv"),
        (("read", *HEAD, "--as-of", "2021-04-23T12:00"), "has no time zone; write it as 2021-04-23T12:00Z"),
        (("read", *HEAD, "--as-of", "noon"), "'noon' is no moment; write it as 2026-03-02T12:00+05:30"),
        (("read", *HEAD, "--start", "2021-04-23", "--end", "2021-04-22"), "lies after the last"),
        (("report", *HEAD, "--set", "tecnical"), "did you mean technical?"),
        (("read", *HEAD, "--start", "2021-04-24", "--end", "2021-04-25"), "nse has no bars between 2021-04-24 and"),
        (("check", *HEAD, "--set", "fundamental"), "no feature of the set 'fundamental' can be checked"),
        (("check", *HEAD, "--interval", "day"), "'day' is not one of"),
        (("report", *HEAD, "--interval", "7x"), "and not of '7x'"),
        (("catalogue", *HEAD, "--symbol", "CC"), "there are no bars of 'CC'"),
        (("catalogue", *HEAD, "--session", "2021-01-04"), "no minute bars between 2021-01-04 and 2021-01-04"),
        (("catalogue", "--market", "crypto"), "crypto: no minute bars"),
        (("read", "--market", "crypto"), "crypto: no minute bars"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(home: Home, words: tuple[str, ...], says: str):
    assert says in odin("features", *words, home=home).mistake


def test_a_market_that_makes_its_bars_needs_no_import(tmp_path: Path):
    made = open_home(tmp_path / "home")
    rows = odin(
        "features", "read", "--set", "price_action", "--start", "2022-12-06", "--end", "2022-12-06", "--json", home=made
    ).json
    assert len(rows) == 75 * 50
    assert {row["session"] for row in rows} == {str(date(2022, 12, 6))}


def test_stored_sets_are_tables_to_sql_by_set_and_interval(home: Home):
    rows = odin("features", "read", *HEAD, "--set", "cross_section", "--interval", "day", "--json", home=home).json
    query = "select count(*) as rows from nse_features_cross_section_day"
    assert odin("sql", query, "--json", home=home).json[0]["rows"] >= len(rows) > 0
