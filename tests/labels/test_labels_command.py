"""`odin labels show`: a summary, the rows of a label, a file with all, and how mistakes end."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from odincommand import odin
from polars.testing import assert_frame_equal

from odin_core.commands.common import plain
from odin_core.home import Home, open_home
from odin_core.labels import labels_at
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.bars import BARS, MINUTE, MINUTE_TABLE
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile

NSE = ("--market", "nse")
CALENDAR = session_calendar(load_profile("nse"))
SESSIONS = CALENDAR.sessions(date(2021, 6, 1), date(2021, 6, 14))
LAST = SESSIONS[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home, rng = open_home(tmp_path_factory.mktemp("home")), np.random.default_rng(4)
    for session in SESSIONS:
        starts = pl.datetime_range(
            *CALENDAR.hours(session), "1m", closed="left", time_unit="us", time_zone="UTC", eager=True
        )
        parts = []
        for symbol in ("INFY", "ITC"):
            close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(starts))))
            prices = {"open": close, "high": close * 1.0003, "low": close * 0.9997, "close": close}
            columns = {"symbol": pl.lit(symbol), "ts": starts, "known_at": starts + MINUTE, **prices}
            parts.append(pl.select(**columns, volume=pl.lit(1.0), oi=pl.lit(None, pl.Float64)).select(BARS.names()))
        home.lake("nse").write(MINUTE_TABLE, session, pl.concat(parts))
    return home


@pytest.fixture(scope="module")
def rows(home: Home) -> pl.DataFrame:
    return labels_at(MarketData.of(home, "nse", LifeConfig()), LAST)


def test_the_summary_has_a_line_for_each_label_and_interval(home: Home, rows: pl.DataFrame):
    told = odin("labels", "show", *NSE, "--json", home=home).json
    assert [(line["interval"], line["label"]) for line in told] == sorted(set(rows["interval", "label"].rows()))
    for line in told:
        mine = rows.filter(interval=line["interval"], label=line["label"])
        values = mine["value"].drop_nulls().to_numpy()
        assert line["rows"] == mine.height
        assert line["session_closed"] + line["no_bars"] == mine["value"].null_count()
        assert line["mean"] == pytest.approx(values.mean())
        assert line["above_zero"] == pytest.approx((values > 0).mean())
        assert line["below_zero"] == pytest.approx((values < 0).mean())
    said = odin("labels", "show", *NSE, home=home)
    title, _, head, *lines = said.out.splitlines()
    assert title == f"{rows.height:,} labels of nse became known in {LAST}"
    assert head.split()[:3] == ["interval", "label", "rows"]
    assert len(lines) == len(told)


def test_one_label_is_shown_by_its_rows_on_the_clock_of_the_market(home: Home, rows: pl.DataFrame):
    chosen = ("--label", "return_5m", "--symbols", "ITC")
    mine = rows.filter(label="return_5m", symbol="ITC")
    assert odin("labels", "show", *NSE, *chosen, "--json", home=home).json == plain(mine.to_dicts())
    said = odin("labels", "show", *NSE, *chosen, home=home)
    assert f"{mine.height} rows of return_5m that became known in {LAST}" in said.out
    assert f"{LAST} 09:20:00 IST" in said.out
    assert "INFY" not in said.out


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv"])
def test_a_file_has_all_rows(home: Home, rows: pl.DataFrame, tmp_path: Path, name: str):
    out = tmp_path / name
    said = odin("labels", "show", *NSE, "--out", out, home=home)
    assert (said.status, said.out) == (0, f"{out}: {rows.height:,} rows\n")
    if out.suffix == ".parquet":
        assert_frame_equal(pl.read_parquet(out), rows, check_exact=True)
    else:
        assert out.read_text().count("\n") == rows.height + 1
    told = odin("labels", "show", *NSE, "--out", out, "--label", "return_1_session", "--json", home=home).json
    assert told == {"file": str(out), "rows": 2}


def test_a_session_without_bars_has_the_labels_that_end_in_it(home: Home):
    nothing = CALENDAR.next(LAST)
    told = odin("labels", "show", *NSE, "--session", nothing, "--json", home=home).json
    assert told
    assert all(line["no_bars"] == line["rows"] for line in told)
    earliest = odin("labels", "show", *NSE, "--session", CALENDAR.previous(SESSIONS[0]), home=home)
    assert earliest.out.endswith("\n\nnone\n")


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (("--label", "retun_5m"), "there is no label 'retun_5m' in session 2021-06-14; did you mean return_5m"),
        (("--symbols", "ITCC"), "there is no symbol 'ITCC' in session 2021-06-14; did you mean ITC?"),
        (("--session", "2021-05-28", "--symbols", "ITC"), "no symbol 'ITC' in session 2021-05-28; nor any other"),
        (("--session", "2021-06-13"), "2021-06-13 is no session of market 'nse'"),
        (("--out", "labels.txt"), "labels.txt names no format of tables; end it with .parquet or .csv"),
    ],
)
def test_mistakes_are_one_line(home: Home, words: tuple[str, ...], mistake: str):
    assert mistake in odin("labels", "show", *NSE, *words, home=home).mistake


def test_the_page_names_every_column_and_label_and_its_commands_run(
    home: Home, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = (Path(__file__).parents[2] / "docs" / "labels.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    assert [name for name in (*rows.columns, *rows["label"].unique()) if f"`{name}`" not in page] == []
    commands = [line.split("#")[0].split()[1:] for line in page.splitlines() if line.startswith("odin ")]
    assert len(commands) == 3
    for command in commands:
        assert odin(*(word.replace("2021-06-11", str(LAST)) for word in command), home=home).status == 0
    assert pl.read_parquet("labels.parquet").height == rows.height
