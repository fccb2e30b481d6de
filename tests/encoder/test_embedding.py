"""A session's embeddings: each follows from the same rows, to the bit, whatever else there is."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from smalllives import quick, small_market

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.embedding import (
    AT_ONCE,
    SPARE_SESSIONS,
    ColumnsMissing,
    embeddings,
    embeddings_schema,
    session_embeddings,
    session_rows,
    sessions_read,
)
from odin_core.encoder.heads import Heads
from odin_core.encoder.model import Scaling, TrainedEncoder
from odin_core.encoder.networks import build
from odin_core.encoder.samples import sequence_rows
from odin_core.features.catalogue import features_of
from odin_core.home import open_home
from odin_core.market.calendar import NotASession
from odin_core.market.data import MarketData
from odin_core.market.history import NaiveMoment

SESSION = date(2022, 11, 11)
FIRST = date(2022, 10, 27)
SYMBOLS = 11  # more than one group, the last not full


def encoder(architecture: str = "tcn", **changes: object) -> TrainedEncoder:
    """With random weights and a scaling that is about right."""
    config = EncoderConfig.of(
        {"architecture": architecture, "length": 100, "levels": 6, "width": 16, "heads": 2, "embedding": 12,
         "threads": 1, **changes}
    )  # fmt: skip
    names = tuple(f.name for f in features_of("sequence"))
    scaling = Scaling(np.zeros(len(names), np.float32), np.full(len(names), 0.01, np.float32))
    parts = build(config, len(names)), Heads(config, len(names))
    return TrainedEncoder(
        config=config, features=names, scaling=scaling, encoder=parts[0], heads=parts[1], trained_through=FIRST
    )


def halting(session: date, bars: pl.DataFrame) -> pl.DataFrame:
    """One symbol has no bar on SESSION, one none before it, and one misses an hour of it."""
    first, second, third = bars["symbol"].unique().sort().head(3)
    symbol, hour = pl.col("symbol"), pl.col("ts").dt.hour()
    if session == SESSION:
        return bars.filter(symbol != first, ~((symbol == third) & (hour == 6)))
    return bars.filter(symbol != second) if session < SESSION else bars


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    home = open_home(tmp_path_factory.mktemp("home"))
    return small_market(home, quick(), symbols=SYMBOLS, edit=halting)


@pytest.fixture(scope="module")
def rows(data: MarketData) -> pl.DataFrame:
    """Features of SESSION, of enough sessions before it and of two after it."""
    last = date(2022, 11, 15)
    return sequence_rows(data, FIRST, last, "5m", as_of=data.calendar.hours(last).close)


@pytest.fixture(scope="module", params=["tcn", "transformer", "lstm"])
def model(request: pytest.FixtureRequest) -> TrainedEncoder:
    return encoder(request.param)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same_bits(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert one.drop("embedding").equals(other.drop("embedding"))
    assert one["embedding"].to_numpy().tobytes() == other["embedding"].to_numpy().tobytes()


def test_each_bar_of_the_session_that_is_known_has_an_embedding(data: MarketData):
    found = session_embeddings(data, encoder(), SESSION)
    assert found.schema == embeddings_schema(12)
    known = data.features(None, "5m", SESSION, SESSION, "sequence").drop_nulls()
    assert known["symbol"].n_unique() == SYMBOLS - 2  # no bar on the day; nothing before it
    assert found.drop("embedding").equals(known.select("symbol", "known_at", "session").sort("symbol", "known_at"))
    numbers = found["embedding"].to_numpy()
    assert np.isfinite(numbers).all()
    assert len(np.unique(numbers, axis=0)) == len(numbers)


def test_an_embedding_is_the_encoders_on_the_rows_up_to_its_bar(
    data: MarketData, rows: pl.DataFrame, model: TrainedEncoder
):
    """Row by row against the definition: the session's bars up to this one, and length − 1 rows before the first."""
    assert_by_definition(model, rows, SESSION, embeddings(model, rows, data.calendar, SESSION))


@pytest.mark.parametrize(("session", "bars"), [(date(2022, 10, 24), 12), (date(2022, 10, 25), 75)])
def test_an_evening_session_of_an_hour_and_the_session_after_it_are_no_exception(
    data: MarketData, session: date, bars: int
):
    model = encoder()
    close = data.calendar.hours(session).close
    found = session_embeddings(data, model, session)
    assert found.group_by("symbol").len()["len"].to_list() == [bars] * (SYMBOLS - 1)
    assert_by_definition(model, session_rows(data, model, session, close), session, found)


def assert_by_definition(model: TrainedEncoder, rows: pl.DataFrame, session: date, found: pl.DataFrame) -> None:
    before = model.config.length - 1
    for symbol in found["symbol"].unique().sort().to_list()[::4]:
        own = rows.filter(pl.col("symbol") == symbol, pl.col("session") <= session).sort("known_at")
        begin = int((own["session"] < session).sum())
        numbers = own.select(model.features).to_numpy().astype(np.float32)
        valid = np.logical_and.reduce(np.isfinite(numbers), axis=1)
        values = np.where(valid[:, None], numbers, 0.0).astype(np.float32)
        of_symbol = found.filter(symbol=symbol)
        for i in {begin, begin + 1, min(begin + 30, len(own) - 1), len(own) - 1}:
            window = slice(max(begin - before, 0), i + 1)
            alone, _ = model.predictions(values[None, window], valid[None, window])
            told = of_symbol.filter(known_at=own["known_at"][i])["embedding"].to_numpy()[0]
            np.testing.assert_allclose(told, alone[0, -1].numpy(), atol=2e-5)


def test_what_lies_before_after_and_beside_changes_no_bit(data: MarketData, rows: pl.DataFrame, model: TrainedEncoder):
    whole = embeddings(model, rows, data.calendar, SESSION)
    until = rows.filter(pl.col("session") <= SESSION)
    assert_same_bits(embeddings(model, until, data.calendar, SESSION), whole)
    recent = data.calendar.sessions(FIRST, SESSION)[-4:]
    assert_same_bits(embeddings(model, rows.filter(pl.col("session").is_in(recent)), data.calendar, SESSION), whole)
    assert_same_bits(embeddings(model, rows.sort("known_at", descending=True), data.calendar, SESSION), whole)
    for names in (["SYN003"], ["SYN005", "SYN009", "SYN010"], sorted(rows["symbol"].unique())[2:]):
        some = embeddings(model, rows.filter(pl.col("symbol").is_in(names)), data.calendar, SESSION)
        assert_same_bits(some, whole.filter(pl.col("symbol").is_in(names)))


@pytest.mark.parametrize("bars", [1, 7, 40])
def test_the_rest_of_the_session_changes_no_bit_of_what_was_known(data: MarketData, model: TrainedEncoder, bars: int):
    whole = session_embeddings(data, model, SESSION)
    moment = data.calendar.hours(SESSION).open + bars * timedelta(minutes=5)
    assert_same_bits(session_embeddings(data, model, SESSION, as_of=moment), whole.filter(pl.col("known_at") <= moment))
    assert whole.filter(pl.col("known_at") <= moment).height >= bars


def test_a_market_that_ends_with_the_session_says_the_same(data: MarketData, model: TrainedEncoder, tmp_path: Path):
    data.features(None, "5m", SESSION, date(2022, 11, 18), "sequence")
    fresh = small_market(open_home(tmp_path), quick(), symbols=SYMBOLS, edit=halting)
    assert_same_bits(session_embeddings(fresh, model, SESSION), session_embeddings(data, model, SESSION))


def test_enough_sessions_are_read_for_the_windows(data: MarketData):
    read = sessions_read(data.calendar, SESSION, 75, 512)
    assert read[-1] == SESSION
    assert len(read) == 1 + 7 + SPARE_SESSIONS
    assert len(sessions_read(data.calendar, SESSION, 75, 76)) == 2 + SPARE_SESSIONS
    assert AT_ONCE < SYMBOLS


def test_a_session_without_bars_has_no_embeddings_and_wrong_questions_are_refused(data: MarketData):
    model = encoder()
    assert session_embeddings(data, model, date(2022, 9, 30)).equals(embeddings_schema(12).to_frame())
    with pytest.raises(NotASession):
        session_embeddings(data, model, date(2022, 11, 12))
    with pytest.raises(NaiveMoment):
        session_embeddings(data, model, SESSION, as_of=data.calendar.hours(SESSION).close.replace(tzinfo=None))
    frame = data.features(None, "5m", SESSION, SESSION, "sequence").drop("body_15m", "bar_gap_5m")
    with pytest.raises(ColumnsMissing, match=r"reads bar_gap_5m, body_15m, which the rows do not have"):
        embeddings(model, frame, data.calendar, SESSION)
