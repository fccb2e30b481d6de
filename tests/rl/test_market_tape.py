"""A market's tape: what it says of a bar is what the encoder, the heatmap and the features say, and nothing later."""

import math
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import smalllives
from slowlearners import learned

from odin_core.encoder.store import kept_embeddings, months, stored
from odin_core.home import open_home
from odin_core.market.bars import table_of
from odin_core.market.data import MarketData
from odin_core.market.reference.actions import ACTIONS
from odin_core.rl.market_tape import NothingOnTape, market_tape
from odin_core.rl.tape import Tape
from odin_core.structure.heatmap import BINS

FIRST, MIDDLE, LAST = date(2023, 1, 9), date(2023, 1, 10), date(2023, 1, 12)


@pytest.fixture(scope="module")
def market():
    _, data = learned()
    return data, stored(data.lake, months(data.lake)[-1].version)


@pytest.fixture(scope="module")
def tape(market) -> Tape:
    return market_tape(market[0], FIRST, LAST, market[1])


def rows(tape: Tape, first: date, last: date) -> dict[str, np.ndarray]:
    """Everything that a tape says of some sessions, by symbol and time."""
    kept = (tape.session >= first.toordinal()) & (tape.session <= last.toordinal())
    names = np.array(tape.symbols)[tape.symbol]
    columns = {"symbol": names, "session": tape.session, "state": tape.state, "heatmap": tape.heatmap,
               "volatility": tape.volatility, "risk_unit": tape.risk_unit, "decidable": tape.decidable,
               **tape.bars._asdict()}  # fmt: skip
    return {name: column[kept] for name, column in columns.items()}


def test_a_row_holds_what_is_known_at_its_bars_end(market, tape: Tape):
    data, encoder = market
    symbol = tape.symbols[3]
    begin, end = tape.rows_of(symbol)
    vectors = kept_embeddings(data, encoder, LAST).filter(symbol=symbol)["embedding"].to_numpy()
    np.testing.assert_array_equal(tape.state[begin:end][-len(vectors) :], vectors)
    told = data.features([symbol], "5m", FIRST, LAST, "decision")
    np.testing.assert_array_equal(tape.risk_unit[begin:end], told["natr_14_60m"].cast(float).to_numpy())
    per_bar = told["realised_volatility_75_5m"].cast(float).to_numpy() * math.sqrt(5 / 375)
    np.testing.assert_array_equal(tape.volatility[begin:end], per_bar)
    bars = data.read([symbol], FIRST, LAST, "5m")
    np.testing.assert_array_equal(tape.bars.close[begin:end], bars["close"].to_numpy())
    assert tape.heatmap.shape == (tape.rows, BINS)
    assert tape.heatmap[tape.decidable].sum() > 0


def test_a_tape_that_ends_earlier_says_the_same_of_what_it_holds(market, tape: Tape):
    data, encoder = market
    short = rows(market_tape(data, FIRST, MIDDLE, encoder), FIRST, MIDDLE)
    for name, column in rows(tape, FIRST, MIDDLE).items():
        np.testing.assert_array_equal(short[name], column, name)


def test_a_tape_that_begins_later_says_the_same_of_what_it_holds(market, tape: Tape):
    data, encoder = market
    late = rows(market_tape(data, LAST, LAST, encoder), LAST, LAST)
    for name, column in rows(tape, LAST, LAST).items():
        np.testing.assert_array_equal(late[name], column, name)


def test_within_a_session_nothing_later_than_as_of_is_read(market, tape: Tape):
    data, encoder = market
    at = data.calendar.hours(LAST).open + timedelta(minutes=100)
    cut, whole = rows(market_tape(data, LAST, LAST, encoder, as_of=at), LAST, LAST), rows(tape, LAST, LAST)
    per_symbol = 20  # bars of five minutes
    assert len(cut["close"]) == per_symbol * len(tape.symbols)
    first = np.r_[0, np.flatnonzero(whole["symbol"][1:] != whole["symbol"][:-1]) + 1]
    kept = (first[:, None] + np.arange(per_symbol)).ravel()
    for name, column in whole.items():
        np.testing.assert_array_equal(cut[name], column[kept], name)


def test_a_new_name_leaves_what_was_known_under_the_old_one(market, tape: Tape, tmp_path: Path):
    shutil.copytree(learned()[0].home.root, tmp_path / "home")
    data = smalllives.small_market(open_home(tmp_path / "home"), learned()[0].config)
    old, new = tape.symbols[3], "RENAMED"
    known = data.calendar.hours(FIRST).open
    row = {"symbol": old, "ex_date": LAST, "known_at": known, "kind": "rename", "ratio": None, "amount": None,
           "other": new, "origin": "test", "origin_id": "0"}  # fmt: skip
    data.lake.write("corporate_actions", FIRST, pl.DataFrame([row], schema=ACTIONS))
    bars = data.bars(LAST).with_columns(pl.col("symbol").replace(old, new))
    data.lake.write("price_history", LAST, bars.sort("symbol", "ts"))
    renamed = market_tape(data, FIRST, LAST, market[1])
    for symbol, first, last in ((old, FIRST, MIDDLE), (new, LAST, LAST)):
        found, told = rows(renamed, first, last), rows(tape, first, last)
        mine, theirs = found["symbol"] == symbol, told["symbol"] == old
        assert mine.sum() == theirs.sum()
        for name in ("heatmap", "state", "decidable", "close"):
            np.testing.assert_array_equal(found[name][mine], told[name][theirs], f"{symbol} {name}")
        assert found["heatmap"][mine].sum() > 0


def test_a_heatmap_reads_the_same_sessions_wherever_the_tape_begins(market, tmp_path: Path):
    shutil.copytree(learned()[0].home.root, tmp_path / "home")
    data = MarketData(open_home(tmp_path / "home").lake(market[0].lake.root.name), market[0].profile)
    data.lake.write(table_of("5m"), MIDDLE, market[0].bars_of(MIDDLE, "5m"))
    data.lake.remove("price_history", MIDDLE)  # a vendor gave larger bars alone
    wide, narrow = (market_tape(data, first, LAST, market[1]) for first in (MIDDLE, LAST))
    np.testing.assert_array_equal(rows(wide, LAST, LAST)["heatmap"], rows(narrow, LAST, LAST)["heatmap"])


def test_a_range_without_bars_is_refused(market):
    data, encoder = market
    with pytest.raises(NothingOnTape, match="odin data show"):
        market_tape(data, date(2022, 9, 1), date(2022, 9, 2), encoder)
