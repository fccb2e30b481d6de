"""Taking bars out again: an origin or a session goes with all that is known about it, and nothing else does."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from weekdaybars import FRIDAY, THURSDAY, Weekdays, at, contents, day_of, load, row

from odin_core.lake import Lake
from odin_core.market.intake.fetching import COVERAGE
from odin_core.market.intake.importing import import_files
from odin_core.market.intake.removing import NothingToRemove, plan_removal, remove
from odin_core.market.quality.accepting import accept

CALENDAR = Weekdays()
Parquet = Callable[..., Path]


@pytest.fixture
def good(parquet: Parquet) -> Path:
    """Two symbols on two sessions, one row outside the hours."""
    rows = [r for symbol in "AB" for day in (THURSDAY, FRIDAY) for r in day_of(symbol, day)]
    return parquet([*rows, row("A", 400)], "good.parquet")


@pytest.fixture
def wrong(parquet: Parquet) -> Path:
    """A third symbol, with another row outside the hours."""
    return parquet([*day_of("C"), row("C", -5)], "wrong.parquet")


def test_an_origin_that_is_removed_leaves_the_lake_as_if_it_had_never_come(lake: Lake, good: Path, wrong: Path):
    load(lake, good)
    before = contents(lake)
    load(lake, wrong)
    assert contents(lake) != before
    removal = remove(lake, CALENDAR, origin="wrong.parquet")
    assert contents(lake) == before
    assert (removal.bars, removal.quarantined, removal.sessions, removal.others) == (375, 1, (THURSDAY,), ())


def test_a_plan_says_what_would_go_and_changes_nothing(lake: Lake, good: Path):
    load(lake, good)
    before = contents(lake)
    plan = plan_removal(lake, origin="good.parquet")
    assert plan.to_dict() == {
        "bars": 1500,
        "symbols": 2,
        "sessions": [str(THURSDAY), str(FRIDAY)],
        "quarantined": 1,
        "also_from": [],
    }
    assert contents(lake) == before
    assert remove(lake, CALENDAR, origin="good.parquet") == plan
    assert contents(lake) == {}


def test_bars_of_other_origins_in_the_same_session_go_too_which_is_said(lake: Lake, parquet: Parquet, good: Path):
    late = parquet(day_of("A", minutes=range(5)), "late.parquet")
    load(lake, good)
    load(lake, late)
    removal = remove(lake, CALENDAR, origin="late.parquet")
    assert removal.others == ("good.parquet",)
    assert "good.parquet too" in removal.to_text()
    assert lake.read("price_history", THURSDAY)["symbol"].unique().to_list() == ["B"]
    assert lake.read("price_history", FRIDAY).height == 750
    kept = dict(lake.read("arrivals", THURSDAY).select("symbol", "kept").iter_rows())
    assert kept == {"A": 0, "B": 375}  # one row of A was held back, and still is
    load(lake, good)
    assert lake.read("price_history", THURSDAY).height == 750


def test_a_session_that_never_was_is_removed_with_its_findings(lake: Lake, parquet: Parquet, good: Path):
    load(lake, good)
    before = contents(lake)
    phantom = THURSDAY + timedelta(days=60)
    load(lake, parquet(day_of("A", phantom)))
    removal = remove(lake, CALENDAR, session=phantom)
    assert contents(lake) == before
    assert removal.bars == 375


def test_one_symbol_of_a_session_is_removed_and_its_neighbours_stay(lake: Lake, good: Path):
    load(lake, good)
    remove(lake, CALENDAR, session=THURSDAY, symbols=["A"])
    assert lake.read("price_history", THURSDAY)["symbol"].unique().to_list() == ["B"]
    assert lake.read("arrivals", THURSDAY)["symbol"].to_list() == ["B"]
    assert not lake.has("quarantine", THURSDAY)
    assert lake.read("price_history", FRIDAY)["symbol"].unique().sort().to_list() == ["A", "B"]
    findings = lake.read("data_quality", THURSDAY)
    assert findings.filter(symbol="A").is_empty()


def test_what_was_fetched_and_accepted_is_forgotten_so_that_it_can_be_fetched_again(lake: Lake, parquet: Parquet):
    rows = [r | {"open": 11.0, "high": 12.0, "low": 10.0, "close": 11.5} for r in day_of("A", FRIDAY)]
    load(lake, parquet([*day_of("A"), *rows]))
    accept(lake, CALENDAR, FRIDAY, symbol="A", rule="jump_without_action", why="a test")
    answers = [("A", "1m", "kite", 375), ("B", "1m", "kite", 0)]
    lake.write("coverage", FRIDAY, pl.DataFrame(answers, schema=COVERAGE, orient="row"))
    remove(lake, CALENDAR, session=FRIDAY, symbols=["A"])
    assert not lake.has("accepted_findings", FRIDAY)
    assert lake.read("coverage", FRIDAY)["symbol"].to_list() == ["B"]


def test_the_session_after_a_removed_one_is_assessed_again(lake: Lake, parquet: Parquet):
    """A jump over night is one only as long as the close before it is there."""
    rows = [r | {"open": 11.0, "high": 12.0, "low": 10.0, "close": 11.5} for r in day_of("A", FRIDAY)]
    load(lake, parquet([*day_of("A"), *rows]))
    assert "jump_without_action" in lake.read("data_quality", FRIDAY)["rule"]
    remove(lake, CALENDAR, session=THURSDAY)
    assert "jump_without_action" not in lake.read("data_quality", FRIDAY)["rule"]


def test_what_is_not_there_is_refused_with_the_origins_that_are(lake: Lake, good: Path):
    load(lake, good)
    with pytest.raises(NothingToRemove, match=r"nothing of origin god\.parquet; did you mean good\.parquet\?"):
        remove(lake, CALENDAR, origin="god.parquet")
    with pytest.raises(NothingToRemove, match="odin data show"):
        plan_removal(lake, session=THURSDAY, symbols=["Z"])


class Killed(BaseException):
    """Stands for a kill within this process."""


def test_a_removal_killed_before_any_write_is_finished_by_the_same_call(
    tmp_path: Path, good: Path, wrong: Path, monkeypatch: pytest.MonkeyPatch
):
    def filled(name: str) -> Lake:
        lake = Lake(tmp_path / name)
        load(lake, good)
        load(lake, wrong)
        return lake

    whole = filled("whole")
    remove(whole, CALENDAR, origin="good.parquet")
    expected = contents(whole)
    write, take = Lake.write, Lake.remove
    for dies_at in range(20):
        lake, calls = filled(f"killed{dies_at}"), iter(range(dies_at))

        def dying(act: Callable[..., object]) -> Callable[..., object]:
            def acts(*args: object) -> object:
                if next(calls, None) is None:  # noqa: B023
                    raise Killed
                return act(*args)

            return acts

        with monkeypatch.context() as patched:
            patched.setattr(Lake, "write", dying(write))
            patched.setattr(Lake, "remove", dying(take))
            try:
                remove(lake, CALENDAR, origin="good.parquet")
                done = True
            except Killed:
                done = False
        if done:
            assert dies_at > 5
            break
        remove(lake, CALENDAR, origin="good.parquet")
        assert contents(lake) == expected
    else:
        pytest.fail("it never came to an end")


def test_a_corrected_file_that_replaces_leaves_none_of_the_bars_that_it_lacks(lake: Lake, parquet: Parquet, good: Path):
    """A file read in a wrong zone, then the right one that lacks a row: the wrong bar must not stay there."""
    shifted = [row("A", minute, open=99.0, high=99.0, low=99.0, close=99.0) for minute in range(375)]
    load(lake, parquet([*shifted, *day_of("B")], "shifted.parquet"))
    corrected = parquet(day_of("A", minutes=[m for m in range(375) if m != 100]), "right.parquet")
    merged = load(lake, corrected)
    assert merged.files[0].removed == 0
    assert 99.0 in lake.read("price_history", THURSDAY).filter(symbol="A")["close"]
    report = import_files([corrected], lake=lake, calendar=CALENDAR, replaces=True)
    stored = lake.read("price_history", THURSDAY)
    assert at(100) not in stored.filter(symbol="A")["ts"]
    assert 99.0 not in stored.filter(symbol="A")["close"]
    assert stored.filter(symbol="B").height == 375  # another symbol, which the file does not speak of
    assert report.files[0].removed == 1
    assert "1 stored bars that the file lacks were removed" in report.to_text()
    assert lake.read("arrivals", THURSDAY).filter(symbol="A")["origin"].to_list() == ["right.parquet"]
    before = contents(lake)
    assert import_files([corrected], lake=lake, calendar=CALENDAR, replaces=True).files[0].written == ()
    assert contents(lake) == before


def test_an_import_says_which_sessions_its_data_block(lake: Lake, parquet: Parquet):
    tenth = [r | {name: r[name] / 10 for name in ("open", "high", "low", "close")} for r in day_of("A", FRIDAY)]
    report = load(lake, parquet([*day_of("A"), *tenth]))
    assert list(report.blocked) == [FRIDAY]
    assert "1 session blocked by errors in the data" in report.to_text()
    assert "A jump_without_action" in report.to_text()
    assert load(lake, parquet(day_of("B"))).blocked.keys() == {FRIDAY}  # assessed again as the session after
