"""Truncate and recompute: whatever comes after a session, mid-week or not, changes no table up to it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from smalllives import (
    CLIMBED,
    CLIMBING,
    FIRST,
    LAST,
    Edit,
    begin,
    climbed,
    plain_edge,
    quick,
    rough,
    run_to,
    small_market,
    tables,
)  # fmt: skip

from odin_core.lifecycle import fold
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import day_of, loop_rules, restore, write_session
from odin_core.lifecycle.state import Day
from odin_core.market.data import MarketData

Frames = dict[tuple[str, date], pl.DataFrame]


def unchanged(session: date, bars: pl.DataFrame) -> pl.DataFrame:
    return bars


def scrambled(session: date, bars: pl.DataFrame) -> pl.DataFrame:
    """Another history altogether: prices halved or doubled by symbol, upside down in time, volume redrawn."""
    rng = np.random.default_rng(session.toordinal())
    names = bars["symbol"].unique().sort()
    factor = pl.DataFrame({"symbol": names, "times": rng.choice([0.5, 2.0], len(names))})
    joined = bars.join(factor, on="symbol", maintain_order="left")
    prices = [(pl.col(p).reverse().over("symbol") * pl.col("times")).alias(p) for p in ("open", "high", "low", "close")]
    return joined.with_columns(*prices, volume=pl.Series(rng.uniform(1, 1e6, bars.height))).select(bars.columns)


def removed(session: date, bars: pl.DataFrame) -> pl.DataFrame:
    return bars.clear()


def cut(before: Edit, after: Edit, last: date) -> Edit:
    """`before` up to session `last`, both included, and `after` on top from the next one on."""

    def edit(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        true = before(session, bars)
        return true if session <= last else after(session, true)

    return edit


def first_difference(mine: Frames, theirs: Frames) -> str | None:
    if mine.keys() != theirs.keys():
        return f"tables {sorted(mine.keys() ^ theirs.keys(), key=str)[:3]}"
    different = sorted(((s, t) for (t, s), frame in mine.items() if not frame.equals(theirs[t, s])))
    return f"{different[0][1]} of {different[0][0]}" if different else None


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Life:
    life, data = begin(tmp_path_factory.mktemp("original") / "home", edit=unchanged)
    run_to(life, data)
    return life


@pytest.mark.parametrize("after", [scrambled, removed])
@pytest.mark.parametrize(
    "last", [date(2023, 1, 4), date(2023, 1, 6), date(2023, 1, 12)]
)  # a Wednesday, Friday, Thursday
def test_running_on_over_another_future_changes_nothing_up_to_the_cut(
    tmp_path: Path, original: Life, after: Edit, last: date
):
    life, data = begin(tmp_path / "home", edit=cut(unchanged, after, last))
    for session in data.calendar.sessions(FIRST, LAST):
        data.bars(session)  # the whole history lies there before the first session is run
    run_to(life, data)
    kept = [s for s in life.commits() if s <= last]
    assert first_difference(tables(life, kept), tables(original, kept)) is None
    assert [life.committed(s) for s in kept] == [original.committed(s) for s in kept]
    following = data.calendar.next(last)
    assert first_difference(tables(life, [following]), tables(original, [following])) is not None


Look = Callable[[Life, MarketData, date], Day]


def run_blind(folder: Path, after: Edit, look: Look = day_of) -> tuple[Life, str | None]:
    """The life that climbed, each session run while everything after that very session is different; and where its
    tables first differ from the original's, None where nowhere."""
    original, _ = climbed()
    life, warm = begin(folder, quick(*CLIMBING), edit=cut(rough(plain_edge()), after, date(2022, 12, 30)))
    rules = loop_rules(life, warm.profile)
    state = restore(life, warm, rules)
    for session in warm.calendar.sessions(FIRST, CLIMBED):
        data = small_market(life.home, life.config, edit=cut(rough(plain_edge()), after, session))
        day = look(life, data, session)
        state, record = fold.advance(state, day, rules)
        write_session(life, data, day, record, state.window)
        difference = first_difference(tables(life, [session]), tables(original, [session]))
        if difference:
            return life, difference
    return life, None


@pytest.mark.parametrize("after", [scrambled, removed])
def test_no_session_of_a_life_up_to_its_last_phase_knows_what_comes_after_it(tmp_path: Path, after: Edit):
    life, difference = run_blind(tmp_path / "home", after)
    assert difference is None
    assert life.head == CLIMBED
    last = life.read("phase_state", CLIMBED).row(0, named=True)
    assert (last["phase"], last["champion"] is not None) == (3, True)


def peeking(life: Life, data: MarketData, session: date) -> Day:
    """A driver that hands the fold tomorrow's features: what the two tests above are there to find."""
    return replace(day_of(life, data, session), features=data.decision_rows(data.calendar.next(session)))


def test_the_test_notices_a_driver_that_peeks_one_session_ahead(tmp_path: Path):
    assert run_blind(tmp_path / "home", scrambled, peeking)[1] is not None
