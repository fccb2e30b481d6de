"""`odin database`, and `odin data fetch` out of what it loaded: whole ways from one home into another."""

import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from marketdatabases import ask, bars_of, server
from odincommand import odin
from polars.testing import assert_frame_equal

from odin_core.home import Home, open_home
from odin_core.market.database.connection import URL
from odin_core.market.reference.fundamentals import read_fundamentals as in_the_lake


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Home:
    """A home with bars of nse, and the server's address in the environment."""
    monkeypatch.setenv(URL, server())
    monkeypatch.chdir(tmp_path)
    home = open_home(tmp_path / "home")
    for day in (date(2021, 4, 1), date(2021, 4, 5)):
        bars = bars_of(day, "INFY", "TCS").with_columns(pl.col("ts", "known_at") - timedelta(hours=1))
        home.lake("nse").write("price_history", day, bars)  # half an hour before the close
    return home


def test_the_commands_make_fill_and_show_a_markets_schema(home: Home):
    ask("drop schema if exists nse cascade")
    assert "has no tables of ODIN yet" in odin("database", "load", "--market", "nse", home=home).mistake
    before = odin("database", "status", "--market", "nse", "--json", home=home).json
    assert (before["revision"], before["intervals"]) == (None, [])
    assert odin("database", "migrate", "--market", "nse", "--json", home=home).json["before"] is None
    (loaded,) = odin("database", "load", "--market", "nse", "--end", "2021-04-01", "--json", home=home).json["tables"]
    assert (loaded["sessions"], loaded["rows"], loaded["new"]) == (1, 10, 10)
    (loaded,) = odin("database", "load", "--market", "nse", "--json", home=home).json["tables"]
    assert (loaded["new"], loaded["unchanged"]) == (10, 10)
    after = odin("database", "status", "--market", "nse", home=home)
    assert after.status == 0
    assert "schema nse" in after.out
    assert "2021-04-05" in after.out


def test_what_one_home_loads_a_market_of_the_same_name_fetches_in_another(home: Home, tmp_path: Path):
    """Both sides take the schema with the market's name, whatever kind of source the profile has."""
    ask("drop schema if exists nse cascade")
    for step in ("migrate", "load"):
        assert odin("database", step, "--market", "nse", home=home).status == 0
    (tmp_path / "markets").mkdir()
    (tmp_path / "markets" / "nse.yaml").write_text("base: nse\nsource: {kind: postgres, symbols: [INFY, TCS]}\n")
    other = open_home(tmp_path / "other")
    asked = ("data", "fetch", "--market", "nse", "--start", "2021-04-01", "--end", "2021-04-05", "--json")
    assert odin(*asked, home=other).json["kept"] == 20
    for day in home.lake("nse").sessions("price_history"):
        theirs, ours = (lake.lake("nse").read("price_history", day) for lake in (home, other))
        assert_frame_equal(ours, theirs, check_exact=True)


def test_a_symbol_that_the_source_refuses_ends_a_fetch_with_status_1_and_the_others_are_there(
    home: Home, tmp_path: Path
):
    ask("drop schema if exists nse cascade")
    for step in ("migrate", "load"):
        odin("database", step, "--market", "nse", home=home)
    (tmp_path / "markets").mkdir()
    (tmp_path / "markets" / "nse.yaml").write_text("base: nse\nsource: {kind: postgres}\n")
    days = ("--start", "2021-04-01", "--end", "2021-04-05")
    said = odin("data", "fetch", "--market", "nse", *days, "--symbols", "TCS,NOSUCH", "--json", home=home)
    assert said.status == 1
    told = json.loads(said.out)
    assert list(told["refused"]) == ["NOSUCH"]
    assert told["bars"] == 10
    assert odin("data", "fetch", "--market", "nse", *days, "--symbols", "TCS", home=home).status == 0


def test_a_market_with_another_name_is_told_how_to_name_the_schema(home: Home, tmp_path: Path):
    ask("drop schema if exists nse cascade; drop schema if exists elsewhere cascade")
    for step in ("migrate", "load"):
        odin("database", step, "--market", "nse", home=home)
    (tmp_path / "markets").mkdir()
    profile = tmp_path / "markets" / "elsewhere.yaml"
    profile.write_text("base: nse\nsource: {kind: postgres, symbols: [INFY]}\n")
    asked = ("data", "fetch", "--market", "elsewhere", "--start", "2021-04-01", "--end", "2021-04-05", "--json")
    said = odin(*asked, home=home).mistake
    assert "schema elsewhere" in said
    assert "source: {kind: postgres, schema: …}" in said
    profile = tmp_path / "markets" / "elsewhere2.yaml"
    profile.write_text("base: nse\nsource: {kind: postgres, schema: nse, symbols: [INFY]}\n")
    told = odin("database", "status", "--market", "elsewhere2", "--json", home=home).json
    assert "schema nse" in told["database"]
    assert told["intervals"]


def test_fundamentals_come_back_from_the_database_into_another_lake(home: Home, tmp_path: Path):
    ask("drop schema if exists nse cascade")
    told = tmp_path / "told.csv"
    told.write_text(
        "symbol,known_at,figure,value,period\nINFY,2021-03-31,pe,25.5,2020Q4\nTCS,2021-03-31,pe,,\n"
        "INFY,2021-04-01,roe_pct,30,\n"
    )
    assert odin("data", "fundamentals", told, "--market", "nse", home=home).status == 0
    odin("database", "migrate", "--market", "nse", home=home)
    odin("database", "load", "--market", "nse", home=home)
    other = open_home(tmp_path / "other")
    for _ in range(2):
        assert odin("database", "fundamentals", "--market", "nse", "--json", home=other).json["values"] == 3
    columns = ["symbol", "known_at", "figure", "value"]
    assert_frame_equal(in_the_lake(other.lake("nse")).select(columns), in_the_lake(home.lake("nse")).select(columns))
    assert other.lake("nse").sessions("fundamentals") == home.lake("nse").sessions("fundamentals")


def test_a_market_without_an_address_is_told_which_secret_is_missing(home: Home, monkeypatch):
    monkeypatch.delenv(URL)
    assert URL in odin("database", "status", "--market", "nse", home=home).mistake
    monkeypatch.setenv(URL, "postgresql://me:top%zsecret@localhost/none")
    said = odin("database", "status", "--market", "nse", home=home).mistake
    assert "no address" in said
    assert "secret@" not in said
