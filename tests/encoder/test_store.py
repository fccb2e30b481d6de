"""Where encoders lie: one a month, in force afterwards, found again, and never half there."""

import json
import os
import shutil
from datetime import date, timedelta

import polars as pl
import pytest
from slowlearners import ENCODER, MONTH, learned

from odin_core.encoder import store
from odin_core.encoder.embedding import sessions_read
from odin_core.encoder.model import FACTS, EncoderUnreadable, TrainedEncoder, _version
from odin_core.encoder.store import MonthUnreadable, NoEncoder, in_force, kept_embeddings, months, require_in_force
from odin_core.lake import write_folder
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


def test_embeddings_follow_from_bars_that_their_features_look_back_on_and_from_code(
    data: MarketData, monkeypatch: pytest.MonkeyPatch
):
    model = store.stored(data.lake, months(data.lake)[0].version)
    session = date(2023, 1, 16)
    found = kept_embeddings(data, model, session)
    read = sessions_read(data.calendar, session, data.per_session["5m"], model.config.length)
    earliest = data.sessions_before(read[0], "sequence", "5m")[0]
    assert earliest < read[0]
    path = data.lake.path("price_history", earliest)
    times, made = path.stat(), []
    monkeypatch.setattr("odin_core.encoder.embedding.session_embeddings", lambda *_: made.append(session) or found)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    kept_embeddings(data, model, session)
    assert len(made) == 1
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    kept_embeddings(data, model, session)
    assert len(made) == 2
    monkeypatch.setattr(store, "version_of", lambda *_: "other code")
    kept_embeddings(data, model, session)
    assert len(made) == 3


def test_a_month_that_is_not_over_is_not_trained(data: MarketData):
    close = data.calendar.hours(date(2022, 12, 30)).close
    assert store.train_month(data, MONTH, ENCODER, now=close - timedelta(minutes=1)) is None
    assert store.train_month(data, MONTH, ENCODER, now=close) == months(data.lake)[0]


@pytest.mark.parametrize("month", [date(1990, 1, 1), date(2090, 1, 1)])
def test_a_month_that_the_calendar_does_not_know_has_no_last_session(data: MarketData, month: date):
    assert store.last_session(data, month) is None


def test_a_month_leaves_no_checkpoints_of_other_settings_behind(data: MarketData):
    folder = data.lake.root / store.FOLDER / ".training-2022-12-of-other-settings"
    folder.mkdir()
    other = ENCODER.model_copy(update={"steps": 3, "seed": 9})
    try:
        assert store.train_month(data, MONTH, other) != store.train_month(data, MONTH, ENCODER)
        assert not list(folder.parent.glob(".training-*"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_folder_that_another_process_wrote_meanwhile_stays(tmp_path):
    folder = tmp_path / "of-one-content"

    def save(half):
        half.mkdir()
        (half / "mine").touch()
        folder.mkdir()
        (folder / "theirs").touch()

    write_folder(save, folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["of-one-content", "theirs"]


def test_a_damaged_entry_is_named_with_what_to_do(data: MarketData, tmp_path):
    lake = type(data.lake)(tmp_path)
    (tmp_path / store.FOLDER).mkdir()
    (tmp_path / store.FOLDER / "month=2022-12.json").write_text(json.dumps({"version": "encoder-1"}))
    with pytest.raises(MonthUnreadable, match=r"month=2022-12\.json is damaged .* train that month's encoder again"):
        months(lake)


def test_an_encoder_of_before_a_setting_existed_is_still_that_encoder(data: MarketData, tmp_path):
    model = store.stored(data.lake, months(data.lake)[0].version)
    model.save(tmp_path)
    told = json.loads((tmp_path / FACTS).read_text())
    del told["config"]["sessions"]
    told["version"] = _version({k: v for k, v in told.items() if k != "version"}, model._tensors)
    (tmp_path / FACTS).write_text(json.dumps(told))
    found = TrainedEncoder.load(tmp_path)
    assert found.version == told["version"] != model.version
    assert found.config == model.config
    told["features"] = told["features"][::-1]
    (tmp_path / FACTS).write_text(json.dumps(told))
    with pytest.raises(EncoderUnreadable, match="its content is that of"):
        TrainedEncoder.load(tmp_path)
