"""What docs/market-data.md and docs/actions.md tell a user to type runs, and does what they say."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nsefiles
import polars as pl
import psycopg2
import pytest
from marketdatabases import server
from odincommand import odin
from polars.testing import assert_frame_equal

from odin_core.home import Home, open_home
from odin_core.market.bars import BARS
from odin_core.market.database.connection import URL
from odin_core.market.intake.importing import import_files

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home `data` where odin is started, as in the pages."""
    monkeypatch.chdir(tmp_path)
    return open_home("data")


@pytest.fixture
def filled(home: Home, tmp_path: Path) -> Home:
    """With minutes of INFY, RELIANCE, SBIN and TCS from April 2021."""
    sessions = nsefiles.CALENDAR.sessions(nsefiles.FIRST, nsefiles.LAST)
    file = nsefiles.written(nsefiles.of(sessions), tmp_path / "bars.parquet")
    import_files([file], lake=home.lake("nse"), calendar=nsefiles.CALENDAR)
    return home


def test_bars_are_read_as_the_page_does(filled: Home):
    (code,) = blocks("market-data.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    bars = names["bars"]
    assert set(bars["symbol"]) == {"TCS", "INFY"}
    assert bars["known_at"].max() <= names["moment"]


def test_factors_are_asked_for_as_the_page_does(home: Home, tmp_path: Path, market_file: Callable[[str], Path]):
    """FEDERALBNK's bonus of 2 on 2015-07-03."""
    minutes = pl.read_parquet(market_file("nse_equity_1m_2015.parquet")).filter(pl.col("symbol") == "FEDERALBNK")
    bars = minutes.with_columns(known_at=pl.col("ts") + timedelta(minutes=1), oi=pl.lit(None, pl.Float64))
    for session in nsefiles.CALENDAR.sessions(date(2015, 7, 1), date(2015, 7, 6)):
        rows = bars.filter(pl.col("ts").dt.date() == session).select(BARS.names())
        home.lake("nse").write("price_history", session, rows)
    (tmp_path / "events.csv").write_text("symbol,ex_date,kind,ratio\nFEDERALBNK,2015-07-03,bonus,2\n")
    assert odin("data", "actions", tmp_path / "events.csv", "--market", "nse", home=home).status == 0
    names: dict[str, Any] = {}
    (code,) = blocks("actions.md", "python")
    exec(code, names)
    assert names["factors"]["split"].to_list() == [0.5, 0.5, 1.0, 1.0]
    returns = names["bars"].sort("ts")["close"].pct_change().abs()
    assert returns.max() < 0.1  # raw, the night of the bonus is a fall by half


def test_a_database_is_made_filled_and_read_back_as_the_page_says(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The statements, the address, the commands and the market file are the page's own; the server is the tests'."""
    page = (DOCS / "market-data.md").read_text().partition("## PostgreSQL")[2].partition("\n## ")[0]
    where = urlsplit(server()).query
    (statements,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    as_administrator(server(), *statements.strip().splitlines())
    (address,) = re.findall(rf"{URL}=(\S+)", page)
    monkeypatch.setenv(URL, address.replace("@localhost:5432/odin_market", f"@/odin_market?{where}"))
    commands = re.findall(r"^    odin (database .*?)(?: +#.*)?$", page, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["migrate", "load", "status"]
    for command in commands:
        assert odin(*command.split(), home=filled).status == 0, command
    (profile,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "markets").mkdir()
    (tmp_path / "markets" / "nse.yaml").write_text(profile)
    (fetch,) = re.findall(r"`odin (data fetch .*?)`", page)
    grants = (
        "create user reader",
        "grant usage on schema nse to reader",
        "grant select on all tables in schema nse to reader",
    )
    as_administrator(f"postgresql://odin@/odin_market?{where}", *grants)
    sessions = filled.lake("nse").sessions("price_history")
    theirs = filled.lake("nse").read_many("price_history", sessions).filter(pl.col("symbol").is_in(["TCS", "INFY"]))
    for user in (None, "reader"):
        if user:
            monkeypatch.setenv(URL, f"postgresql://{user}@/odin_market?{where}")
        other = open_home(tmp_path / f"other {user}")
        assert odin(*fetch.split(), "--end", nsefiles.LAST, home=other).status == 0
        assert_frame_equal(other.lake("nse").read_many("price_history", sessions), theirs, check_exact=True)


def as_administrator(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True  # a database is not made in a transaction
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()
