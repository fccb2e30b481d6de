"""How vendors are called: pace, retries, whose words are told, and pages that become one answer without a bar twice."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from fakes.serving import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.market.sources.calls import (
    LONGEST_ASKED,
    Pace,
    PassingFault,
    asked,
    asked_for,
    spans,
    status_fault,
    stitched,
    unreadable,
    with_retries,
)
from odin_core.market.sources.source import SOURCE_BARS, SourceUnavailable

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bars(minutes: list[int | None], close: float = 1.0) -> pl.DataFrame:
    """Bars of one symbol at these minutes after START; None: a bar whose time cannot be read."""
    rows = [{"symbol": "A", "ts": None if m is None else START + m * MINUTE, "close": close} for m in minutes]
    return pl.DataFrame(rows, schema=SOURCE_BARS)


def failing(times: int, after: float | None = None):
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise PassingFault("busy", after)
        return "answer"

    return call


# pace


@settings(deadline=None)
@given(st.floats(0.1, 50), st.lists(st.floats(0, 2), min_size=2, max_size=40))
def test_two_calls_are_never_closer_than_the_pace_allows(per_second: float, idle: list[float]) -> None:
    clock = Clock()
    pace, at = Pace(per_second, clock.around({})), []
    for pause in idle:
        clock.at += timedelta(seconds=pause)
        pace.wait()
        at.append(clock.now())
    assert all((later - earlier).total_seconds() >= 1 / per_second for earlier, later in pairwise(at))


def test_one_who_comes_late_is_not_made_to_wait() -> None:
    clock = Clock()
    pace = Pace(2, clock.around({}))
    for _ in range(3):
        pace.wait()
        clock.at += timedelta(seconds=1)
    assert clock.waits == []


def test_a_clock_that_is_set_back_does_not_stop_the_calls() -> None:
    clock = Clock()
    pace = Pace(2, clock.around({}))
    pace.wait()
    clock.at -= timedelta(hours=3)
    pace.wait()
    pace.wait()
    assert sum(clock.waits) <= 1.0


# retries


@pytest.mark.parametrize("faults", range(6))
def test_a_fault_that_passes_within_six_attempts_costs_only_time(faults: int) -> None:
    clock = Clock()
    assert with_retries(failing(faults), kind="k", what="bars", around=clock.around({})) == "answer"
    assert len(clock.waits) == faults
    assert all(wait <= 2**i for i, wait in enumerate(clock.waits))


def test_waits_are_spread_by_chance_and_follow_the_seed() -> None:
    def waits(seed: int) -> list[float]:
        clock = Clock()
        with_retries(failing(5), kind="k", what="bars", around=clock.around({}, seed))
        return clock.waits

    assert waits(1) == waits(1)
    assert waits(1) != waits(2)


def test_after_six_attempts_the_last_fault_is_told() -> None:
    clock = Clock()
    with pytest.raises(SourceUnavailable, match=r"k gave no bars in 6 attempts; the last one ended with: busy"):
        with_retries(failing(6), kind="k", what="bars", around=clock.around({}))
    assert len(clock.waits) == 5


def test_what_the_vendor_asks_for_is_the_least_that_is_waited() -> None:
    clock = Clock()
    with_retries(failing(2, after=20), kind="k", what="bars", around=clock.around({}))
    assert min(clock.waits) >= 20


def test_a_vendor_that_wants_hours_is_not_waited_for() -> None:
    clock = Clock()
    with pytest.raises(SourceUnavailable, match="1 attempts"):
        with_retries(failing(1, after=LONGEST_ASKED + 1), kind="k", what="bars", around=clock.around({}))
    assert clock.waits == []


def test_other_errors_pass_through_at_once() -> None:
    clock = Clock()
    with pytest.raises(KeyError):
        with_retries(lambda: {}["x"], kind="k", what="bars", around=clock.around({}))
    assert clock.waits == []


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (429, {}, None),
        (429, {"Retry-After": "30"}, 30.0),
        (503, {"Retry-After": "Mon, 01 Jan 2024 00:01:30 GMT"}, 90.0),
        (503, {"Retry-After": "Sun, 31 Dec 2023 00:00:00 GMT"}, 0.0),
        (500, {"Retry-After": "soon"}, None),
        (408, {}, None),
    ],
)
def test_statuses_that_pass_are_faults_with_the_wait_asked_for(status: int, headers: dict, after: float | None) -> None:
    fault = status_fault(status, headers, START)
    assert fault is not None
    assert fault.after == after


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404])
def test_other_statuses_are_no_passing_fault(status: int) -> None:
    assert status_fault(status, {}, START) is None


def test_the_vendors_exception_does_not_hang_on_ours() -> None:
    def vendor() -> None:
        raise ValueError("secret")

    with pytest.raises(PassingFault, match=r"cannot be read \(ValueError at test_calls.py:\d+\)") as caught:
        asked(vendor, unreadable)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# pages


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 700))
def test_spans_cover_a_range_once_in_order_and_keep_to_the_longest(minutes: int, longest: int) -> None:
    cut = list(spans(START, START + minutes * MINUTE, longest * MINUTE))
    edges = [START, *[until for _, until in cut]]
    assert [since for since, _ in cut] == edges[:-1]
    assert edges[-1] == START + minutes * MINUTE
    assert all(timedelta(0) < until - since <= longest * MINUTE for since, until in cut)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 59), unique=True).map(sorted),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=60, max_size=60),
)
def test_pages_however_they_overlap_give_the_series_back(
    minutes: list[int], longest: int, overlaps: list[tuple[int, int]]
) -> None:
    pages = []
    for (since, until), (before, behind) in zip(
        spans(START, START + 60 * MINUTE, longest * MINUTE), overlaps, strict=False
    ):
        first, last = (since - START) // MINUTE - before, (until - START) // MINUTE + behind
        pages.append(bars([m for m in minutes if first <= m < last]))
    got = stitched(pages)
    assert_frame_equal(got.sort("ts"), bars(minutes))


def test_of_a_bar_in_two_pages_the_first_counts_and_what_one_page_has_twice_stays() -> None:
    got = stitched([bars([0, 1, 1, None], close=1.0), bars([1, 2, None], close=2.0)])
    assert got["close"].to_list() == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    assert got["ts"].null_count() == 2


def test_no_page_is_an_empty_frame_of_the_schema() -> None:
    assert_frame_equal(stitched([]), SOURCE_BARS.to_frame())


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 100))), st.integers(0, 100), st.integers(0, 100), st.integers(0, 120)
)
def test_of_minute_bars_those_remain_that_start_in_the_range_and_have_ended(
    minutes: list[int | None], first: int, last: int, now: int
) -> None:
    got = asked_for(bars(minutes), "5m", START + first * MINUTE, START + last * MINUTE, START + now * MINUTE)
    assert_frame_equal(got, bars([m for m in minutes if m is None or (first <= m < last and m + 5 <= now)]))


def test_a_day_bar_remains_where_its_day_overlaps_the_range() -> None:
    day = 24 * 60
    held = bars([-day, 0, day, 2 * day, 3 * day])
    got = asked_for(held, "day", START + 9 * 60 * MINUTE, START + (2 * day + 900) * MINUTE, START)
    assert_frame_equal(got, bars([0, day, 2 * day]))
