"""Where encoders lie: one a month, in force afterwards, found again, and never half there."""

import json
from datetime import date

import polars as pl
import pytest
from slowlearners import ENCODER, MONTH, learned

from odin_core.encoder import store
from odin_core.encoder.store import MonthUnreadable, NoEncoder, in_force, kept_embeddings, months, require_in_force
from odin_core.market.data import MarketData


@pytest.fixture(scope="module")
def data() -> MarketData:
    return learned()[1]


def test_an_encoder_is_in_force_in_the_sessions_after_its_month_alone(data: MarketData):
    (found,) = months(data.lake)
    assert (found.month, found.trained_through) == (MONTH, date(2022, 12, 30))
    assert in_force(data.lake, date(2022, 12, 30)) is None
    assert in_force(data.lake, date(2023, 1, 2)) == found
    with pytest.raises(NoEncoder, match="in force after 2022-12-30"):
        require_in_force(data, date(2022, 12, 30))


def test_a_month_that_was_trained_is_found_and_not_trained_again(data: MarketData, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object, **__: object) -> None:
        pytest.fail("it lies there")

    monkeypatch.setattr("odin_core.encoder.training.train_encoder", never)
    assert store.train_month(data, MONTH, ENCODER) == months(data.lake)[0]
    with pytest.raises(pytest.fail.Exception):
        store.train_month(data, MONTH, ENCODER.model_copy(update={"seed": 8}))


def test_a_month_whose_last_session_has_no_bars_is_not_trained(data: MarketData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "has", lambda session: session < date(2023, 1, 31))
    assert store.train_month(data, date(2023, 1, 1), ENCODER) is None


def test_embeddings_are_stored_by_encoder_and_read_again(data: MarketData, monkeypatch: pytest.MonkeyPatch):
    model = store.stored(data.lake, months(data.lake)[0].version)
    session = date(2023, 1, 16)
    found = kept_embeddings(data, model, session)
    assert found.schema["embedding"] == pl.Array(pl.Float32, ENCODER.embedding)
    assert data.lake.has(f"embeddings_{model.version.removeprefix('encoder-')}", session)
    monkeypatch.setattr("odin_core.encoder.embedding.session_embeddings", lambda *_: pytest.fail("it lies there"))
    assert kept_embeddings(data, model, session).equals(found)


def test_a_damaged_entry_is_named_with_what_to_do(data: MarketData, tmp_path):
    lake = type(data.lake)(tmp_path)
    (tmp_path / store.FOLDER).mkdir()
    (tmp_path / store.FOLDER / "month=2022-12.json").write_text(json.dumps({"version": "encoder-1"}))
    with pytest.raises(MonthUnreadable, match=r"month=2022-12\.json is damaged .* train that month's encoder again"):
        months(lake)
