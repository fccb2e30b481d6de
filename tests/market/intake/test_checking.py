"""What `odin data check` and `odin data fetch` say before anything was brought in, and of a range that cannot be."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from odincommand import Said, odin

from odin_core.home import Home, open_home
from odin_core.market.database.connection import URL


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home where `asked` has a source that does not answer, and `given` is a market of files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL, "postgresql://me@localhost:1/none")
    (tmp_path / "markets").mkdir()
    (tmp_path / "markets" / "asked.yaml").write_text("base: nse\nsource: {kind: postgres, symbols: [TCS]}\n")
    (tmp_path / "markets" / "given.yaml").write_text("base: nse\nsource: {kind: files}\n")
    return open_home(tmp_path / "home")


def details(said: Said) -> str:
    assert said.status == 1
    return said.out


def test_an_empty_market_is_told_the_whole_command_that_fills_it(home: Home):
    assert "odin data fetch --market asked --start YYYY-MM-DD" in details(odin("data", "check", "--market", "asked",
                                                                               home=home))  # fmt: skip
    said = details(odin("data", "check", "--market", "given", home=home))
    assert "odin data import FILE… --market given" in said
    assert "--start" not in said


def test_a_market_that_only_lags_behind_needs_no_start(home: Home):
    home.lake("asked").write("price_history", date(2021, 4, 1), pl.DataFrame({"symbol": ["TCS"]}))
    said = details(odin("data", "check", "--market", "asked", home=home))
    assert "odin data fetch --market asked" in said
    assert "--start" not in said


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        pytest.param(("--start", "2021-05-01", "--end", "2021-04-01"),
                     "first session, 2021-05-01, lies after the last, 2021-04-01; exchange", id="the wrong way round"),
        pytest.param(("--end", "2021-04-01"),
                     "2021-04-08, lies after the last, 2021-04-01; that of the lake of asked", id="before the lake"),
    ],
)  # fmt: skip
def test_a_range_that_ends_before_it_begins_is_refused(home: Home, options: tuple[str, ...], rule: str):
    home.lake("asked").write("price_history", date(2021, 4, 8), pl.DataFrame({"symbol": ["TCS"]}))
    assert rule in odin("data", "fetch", "--market", "asked", *options, home=home).mistake


def test_only_a_fetch_says_that_what_was_fetched_is_kept(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    days = ("--start", "2021-04-01", "--end", "2021-04-01")
    said = odin("data", "fetch", "--market", "asked", *days, home=home).mistake
    assert "Run the same command again later. What was fetched is kept" in said
    assert "What was fetched" not in details(odin("data", "check", "--market", "asked", home=home))
