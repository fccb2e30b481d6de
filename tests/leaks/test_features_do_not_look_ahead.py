"""No stored feature changes when what lies after it, or before what it looks back on, is scrambled or removed.

Here through the lake, for whole sets; `tests/features/test_engine_rows.py` asks the same of every feature in memory."""

import os
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from smalllives import quick, small_market

from odin_core.features.catalogue import features_of, set_names
from odin_core.home import open_home
from odin_core.leaks import scrambled
from odin_core.market.data import PRICES, MarketData
from odin_core.market.intake.knowntables import rewrite
from odin_core.market.reference import fundamentals
from odin_core.market.reference.fundamentals import FUNDAMENTALS

FIRST, CUT_IN, LAST = date(2022, 12, 28), date(2022, 12, 30), date(2023, 1, 3)
BARS_SETS = [name for name in set_names() if any(f.definition.kind != "facts" for f in features_of(name))]
MINUTES = pytest.mark.parametrize("minutes", [5, 140, 375])
FUTURES = pytest.mark.parametrize("future", ["scrambled", "removed"])


def demo(folder: Path) -> MarketData:
    """Four symbols of the synthetic exchange, of which nothing is generated that lies in the lake or behind LAST."""
    return small_market(open_home(folder), quick(), symbols=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all bars up to LAST, open interest too. For `copied` alone."""
    data = demo(tmp_path_factory.mktemp("made"))
    first = data.profile.first_partition
    data.generate(data.calendar.sessions(first, LAST))
    rewritten(data, lambda b: b.with_columns(oi=1e6 + pl.col("volume").cum_sum()), first, LAST)
    return data.lake.root.parents[1]


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return copied(made, tmp_path_factory.mktemp("whole") / "home")


def copied(made: Path, to: Path) -> MarketData:
    shutil.copytree(made, to, copy_function=os.link)  # files are replaced, never changed
    return demo(to)


def rewritten(data: MarketData, edit: Callable[[pl.DataFrame], pl.DataFrame], first: date, last: date) -> MarketData:
    for session in data.calendar.sessions(first, last):
        data.lake.write(PRICES, session, edit(data.lake.read(PRICES, session)))
    return data


def without_knowledge(data: MarketData, moment: datetime, future: str) -> MarketData:
    """The same lake with another future, or none."""
    ahead = pl.col("known_at") > moment
    rng = np.random.default_rng(7)
    edit = (lambda b: scrambled(b, ahead, rng)) if future == "scrambled" else (lambda b: b.filter(~ahead))
    return rewritten(data, edit, CUT_IN, LAST)


def moment_of(data: MarketData, minutes: int) -> datetime:
    return data.calendar.hours(CUT_IN).open + timedelta(minutes=minutes)


@pytest.mark.parametrize("set_name", BARS_SETS)
@MINUTES
@FUTURES
def test_no_row_of_a_set_changes_with_bars_that_became_known_after_it(
    made: Path, whole: MarketData, tmp_path: Path, set_name: str, minutes: int, future: str
):
    moment, known = moment_of(whole, minutes), pl.col("known_at") <= moment_of(whole, minutes)
    other = without_knowledge(copied(made, tmp_path / "home"), moment, future)
    left, right = (data.features(None, "5m", FIRST, LAST, set_name) for data in (whole, other))
    assert_frame_equal(left.filter(known), right.filter(known), check_exact=True)
    assert left.filter(known).height == 4 * (2 * 75 + minutes // 5)
    assert not left.equals(right)


@MINUTES
@FUTURES
def test_what_is_told_as_of_a_moment_is_what_later_stands_in_the_rows_up_to_it(
    made: Path, whole: MarketData, tmp_path: Path, minutes: int, future: str
):
    moment = moment_of(whole, minutes)
    other = without_knowledge(copied(made, tmp_path / "home"), moment, future)
    seen = other.features(None, "5m", FIRST, LAST, "technical", moment)
    later = whole.features(None, "5m", FIRST, LAST, "technical").filter(pl.col("known_at") <= moment)
    assert_frame_equal(seen, later, check_exact=True)


@FUTURES
def test_no_decision_changes_with_what_comes_after_its_session(
    made: Path, whole: MarketData, tmp_path: Path, future: str
):
    moment = moment_of(whole, 375)
    other = without_knowledge(copied(made, tmp_path / "home"), moment, future)
    for session in whole.calendar.sessions(FIRST, LAST):
        left, right = whole.decision_rows(session), other.decision_rows(session)
        if session <= CUT_IN:
            assert_frame_equal(left, right, check_exact=True)
        else:
            assert not left.equals(right)


def test_a_decision_follows_from_the_sessions_that_it_names_and_from_no_older_one(
    made: Path, whole: MarketData, tmp_path: Path
):
    names, rng = whole._decisions.history(LAST), np.random.default_rng(8)
    other = copied(made, tmp_path / "home")
    oldest = other.calendar.previous(names[0])
    rewritten(other, lambda b: scrambled(b, pl.lit(True), rng), other.profile.first_partition, oldest)
    assert other.profile.first_partition < oldest
    assert_frame_equal(other.decision_rows(LAST), whole.decision_rows(LAST), check_exact=True)
    rewritten(other, lambda b: scrambled(b, pl.lit(True), rng), names[-3], names[-3])
    assert not other.decision_rows(LAST).equals(whole.decision_rows(LAST))


def test_no_row_sees_a_figure_before_it_was_known(made: Path, tmp_path: Path):
    data, rng = copied(made, tmp_path / "whole"), np.random.default_rng(9)
    opened = data.calendar.hours(FIRST).open
    symbols = data.bars(FIRST)["symbol"].unique().sort()
    told = pl.DataFrame(
        [
            {"symbol": symbol, "known_at": opened + timedelta(minutes=int(rng.integers(-2000, 8000))), "figure": "pe",
             "value": float(rng.integers(5, 50)), "period": None, "origin": "by hand", "origin_id": "0" * 16}
            for symbol in symbols for _ in range(6)
        ],
        schema=FUNDAMENTALS,
    ).sort(*fundamentals.KEY)  # fmt: skip
    moment = moment_of(data, 140)
    other = copied(made, tmp_path / "blind")
    for each, figures in ((data, told), (other, told.filter(pl.col("known_at") <= moment))):
        rewrite(each.lake, fundamentals.TABLE, figures, each.calendar)
    left, right = (demo(d.lake.root.parents[1]).features(None, "5m", FIRST, LAST, "fundamental") for d in (data, other))
    known = pl.col("known_at") <= moment
    assert_frame_equal(left.filter(known), right.filter(known), check_exact=True)
    assert not left.equals(right)
    assert left.filter(known)["earnings_yield"].n_unique() > 4
