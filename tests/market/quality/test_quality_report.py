"""The report of a market's data: its numbers are those of the findings, and its page stands alone."""

import json
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import odin_core.market.quality
from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.quality.assessing import RULES, assess_sessions
from odin_core.market.quality.report import LARGEST_PICTURE, MEANINGS, Report, meaning, quality_report

PROFILE = load_profile("nse")
CALENDAR = session_calendar(PROFILE)
FIRST, LAST = date(2021, 3, 1), date(2021, 4, 30)
MISSING = [date(2021, 3, 16), date(2021, 3, 17), date(2021, 4, 8)]
SHORT, JUMP = date(2021, 3, 10), date(2021, 4, 20)


def bars(session: date, symbol: str, ratio: float = 1.0, minutes: int = 375) -> pl.DataFrame:
    rng = np.random.default_rng([session.toordinal(), len(symbol)])
    close = 100 * ratio * np.exp(np.cumsum(rng.normal(0, 1e-4, 375)))[:minutes]
    ts = [CALENDAR.hours(session).open + MINUTE * n for n in range(minutes)]
    prices = {"open": close, "high": close * 1.0001, "low": close * 0.9999, "close": close}
    frame = pl.DataFrame({"symbol": symbol, "ts": ts} | prices).with_columns(
        known_at=pl.col("ts") + MINUTE, volume=10.0, oi=pl.lit(None, pl.Float64)
    )
    return frame.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two months of two symbols: three sessions missing, one short, and one with a jump."""
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for session in CALENDAR.sessions(FIRST, LAST):
        if session not in MISSING:
            minutes, ratio = (75 if session == SHORT else 375), (0.5 if session >= JUMP else 1.0)
            lake.write(
                "price_history", session, pl.concat([bars(session, "AA", ratio), bars(session, "B", 1.0, minutes)])
            )
    return lake


@pytest.fixture(scope="module")
def report(lake: Lake) -> Report:
    return quality_report(lake, PROFILE, CALENDAR, FIRST, LAST)


def test_the_numbers_are_those_of_the_lake(lake: Lake, report: Report):
    told = report.to_dict()
    sessions = CALENDAR.sessions(FIRST, LAST)
    assert (told["sessions"], told["with_bars"]) == (len(sessions), len(sessions) - 3)
    assert told["missing_sessions"] == [["2021-03-16", "2021-03-17", 2], ["2021-04-08", "2021-04-08", 1]]
    assert told["blocked_sessions"] == [str(JUMP)]
    rows, expected = lake.scan("price_history").select(pl.len()).collect().item(), 2 * 375 * (len(sessions) - 3)
    assert told["coverage"] == pytest.approx(rows / expected, abs=1e-4)
    found = pl.concat([frame for _, frame in assess_sessions(lake, CALENDAR, report.stored)])
    counts = {(r["severity"], r["rule"]): r["findings"] for r in told["rules"]}
    assert counts == {(s, r): n for s, r, n in found.group_by("severity", "rule").len().rows()}
    assert told["rules"][0]["severity"] == "error"
    assert [row["session"] for row in told["worst"]][:2] == [str(JUMP), str(SHORT)]
    assert json.loads(json.dumps(told)) == told


def test_the_markdown_names_what_blocks_and_fits_on_a_screen(report: Report):
    assert report.markdown.startswith(f"**nse: {len(report.stored)} of {len(report.sessions)} sessions have bars, 98.")
    assert "blocked sessions: 1, errors: 1" in report.markdown
    assert f"- **{JUMP} AA jump_without_action**: opens at 0.5" in report.markdown
    assert "Sessions without bars: 2021-03-16 to 2021-03-17 (2), 2021-04-08." in report.markdown
    assert len(report.markdown.splitlines()) < 40


class Links(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_but_itself_and_its_picture_is_small(report: Report):
    page = Links()
    page.feed(report.html)
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]
    assert report.picture.startswith(b"\x89PNG")
    assert len(report.picture) < LARGEST_PICTURE
    assert f"<td>{JUMP}</td><td>AA</td>" in report.html


def test_the_picture_stays_small_for_many_symbols_and_years():
    rng = np.random.default_rng(1)
    sessions = CALENDAR.sessions(date(2015, 1, 1), date(2022, 12, 31))
    symbols = [f"SYMBOL{n:03}" for n in range(60)]
    pairs = pl.DataFrame({"session": sessions}).join(pl.DataFrame({"symbol": symbols}), how="cross")
    coverage = pairs.with_columns(share=pl.Series(rng.random(pairs.height)))
    findings = pairs.select(
        "symbol", interval=pl.lit("1m"), rule=pl.lit("missing_bars"), severity=pl.lit("warning"), count=pl.lit(3),
        detail=pl.lit("of 375 bars"), session="session",
    )  # fmt: skip
    report = Report(
        market="nse", first=sessions[0], last=sessions[-1], interval="1m", sessions=sessions, stored=sessions,
        findings=findings, coverage=coverage,
    )  # fmt: skip
    assert 5_000 < len(report.picture) < LARGEST_PICTURE


def test_stored_findings_are_read_and_missing_or_older_ones_are_assessed(tmp_path: Path, report: Report, lake: Lake):
    other = Lake(tmp_path)
    (tmp_path / "price_history").symlink_to(lake.root / "price_history")
    stored = dict(assess_sessions(lake, CALENDAR, report.stored))
    for session in report.stored[:20]:
        other.write("data_quality", session, stored[session])
    other.write("data_quality", report.stored[20], stored[report.stored[20]].drop("interval"))
    assert quality_report(other, PROFILE, CALENDAR, FIRST, LAST).to_dict() == report.to_dict()
    assert len(other.sessions("data_quality")) == 21
    marked = stored[SHORT].with_columns(rule=pl.lit("few_bars"))
    other.write("data_quality", SHORT, marked)
    again = quality_report(other, PROFILE, CALENDAR, SHORT, SHORT)
    assert set(again.findings["rule"]) == {"few_bars"}


def test_a_market_without_bars_has_a_report_too(tmp_path: Path):
    empty = quality_report(Lake(tmp_path), PROFILE, CALENDAR, FIRST, LAST)
    assert empty.to_dict()["with_bars"] == 0
    assert empty.to_dict()["coverage"] is None
    assert "0 of 40 sessions have bars" in empty.markdown
    assert len(empty.html) > 1000


def test_larger_bars_are_covered_by_their_own_interval(tmp_path: Path):
    lake = Lake(tmp_path)
    for session in CALENDAR.sessions(FIRST, FIRST + timedelta(days=9)):
        day = bars(session, "A", minutes=1).with_columns(
            pl.lit(CALENDAR.hours(session).close).cast(BARS["ts"]).alias("known_at")
        )
        lake.write("bars_day", session, day)
    report = quality_report(lake, PROFILE, CALENDAR, FIRST, FIRST + timedelta(days=9))
    assert (report.interval, report.to_dict()["coverage"]) == ("day", 1.0)


def test_every_rule_that_a_finding_can_name_has_a_meaning():
    """Rules are written where findings are made, in the source of the quality modules."""
    folder = Path(odin_core.market.quality.__path__[0])
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "report.py")
    named = set(re.findall(r'Finding\(\s*[\w\[\].]+,\s*"([a-z_]+)"', source))
    assert len(named) > 20
    assert named == set(MEANINGS)
    assert all(meaning(f"quarantined_{rule}") for rule in RULES)


def test_the_documentation_names_every_rule_with_its_meaning():
    page = (Path(__file__).parents[3] / "docs" / "quality.md").read_text()
    told = dict(re.findall(r"^\| `([a-z_]+)` \| [a-z, ]+ \| (.+) \|$", page, flags=re.MULTILINE))
    assert told == MEANINGS
