"""Where a market's encoders lie, and which one is in force: one a month, in the market's lake beside its bars.

    <lake>/encoders/<version>/            an encoder as `model` writes it; named by its content, never changed
    <lake>/encoders/month=YYYY-MM.json    which version was trained through that month's last session, and from what
    <lake>/embeddings_<version>/          tables of what it says of sessions: vectors of two encoders have nothing in
                                          common, so each has its own

An encoder is in force in the sessions after those that it was trained on, so none has seen the bars that it is asked
about. Several lives on one market share them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from odin_core.errors import OdinError
from odin_core.lake import Lake, write_folder, write_text
from odin_core.market.derived import derived, mark_of, mark_of_bars, version_of

if TYPE_CHECKING:
    import polars as pl

    from odin_core.encoder.config import EncoderConfig
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.market.data import MarketData

FOLDER = "encoders"
DAY = timedelta(days=1)


class NoEncoder(OdinError):
    def __init__(self, market: str, session: date, first: date | None) -> None:
        known = f"the first one is in force after {first}" if first else "there is none"
        super().__init__(
            f"{market}: no encoder is in force on {session} ({known}); train one on earlier months "
            f"(odin encoder train --market {market} --month YYYY-MM)"
        )


class MonthUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged ({why}); delete it and train that month's encoder again: it is the same")


@dataclass(frozen=True)
class EncoderMonth:
    """An entry of the store. `made_from` says what it follows from: configuration, features, bars."""

    month: date  # its first day
    version: str
    trained_through: date
    made_from: str


def month_of(session: date) -> date:
    """The first day of the session's month."""
    return session.replace(day=1)


def months(lake: Lake) -> list[EncoderMonth]:
    """All months with an encoder, ascending. Raises MonthUnreadable."""
    return [_read(path) for path in sorted((lake.root / FOLDER).glob("month=*.json"))]


def in_force(lake: Lake, session: date) -> EncoderMonth | None:
    """The encoder that decisions of a session may use: of those trained on earlier sessions alone, the newest."""
    return max((m for m in months(lake) if m.trained_through < session), key=lambda m: m.trained_through, default=None)


def require_in_force(data: "MarketData", session: date) -> EncoderMonth:
    """`in_force`, or NoEncoder."""
    found = in_force(data.lake, session)
    if found is None:
        first = min((m.trained_through for m in months(data.lake)), default=None)
        raise NoEncoder(data.profile.name, session, first)
    return found


def stored(lake: Lake, version: str) -> "TrainedEncoder":
    """An encoder by its version, kept in memory. Raises what `TrainedEncoder.load` raises."""
    return _loaded(_folder(lake, version))


@lru_cache(maxsize=4)
def _loaded(folder: Path) -> "TrainedEncoder":
    from odin_core.encoder.model import TrainedEncoder

    return TrainedEncoder.load(folder)


def train_month(
    data: "MarketData",
    month: date,
    config: "EncoderConfig",
    progress: Callable[[int, int, str], None] | None = None,
    *,
    now: datetime | None = None,
) -> EncoderMonth | None:
    """The encoder trained on all bars up to the end of `month` (its first day): the one that lies there, or a new one,
    stored. None while the month's last session has no bars or, at `now` (aware), is not over. A killed training goes on
    from its last checkpoint; one process at a time may be at it (`Home.trainer`)."""
    from odin_core.encoder.training import made_from, train_encoder

    last = last_session(data, month, now)
    if last is None:
        return None
    mark = made_from(data, last, config)
    path = data.lake.root / FOLDER / f"month={month:%Y-%m}.json"
    if path.is_file() and (found := _read(path)).made_from == mark and _folder(data.lake, found.version).is_dir():
        return found
    checkpoints = data.lake.root / FOLDER / f".training-{month:%Y-%m}-{mark}"
    model = train_encoder(data, last, config, checkpoints=checkpoints, progress=progress)
    write_folder(model.save, _folder(data.lake, model.version))
    made = {"version": model.version, "trained_through": str(last), "made_from": mark}
    write_text(json.dumps(made, sort_keys=True), path)
    for old in checkpoints.parent.glob(f".training-{month:%Y-%m}-*"):
        shutil.rmtree(old, ignore_errors=True)
    return _read(path)


def kept_embeddings(data: "MarketData", model: "TrainedEncoder", session: date) -> "pl.DataFrame":
    """`embedding.session_embeddings` at the session's close, from the lake if its inputs are unchanged, else computed
    and stored. Raises what that raises."""
    from odin_core.encoder import embedding, networks, samples
    from odin_core.encoder.embedding import session_embeddings, sessions_read
    from odin_core.features.catalogue import set_version

    config = model.config
    read = sessions_read(data.calendar, session, data.per_session[config.interval], config.length)
    history = [*data.sessions_before(read[0], samples.SET, config.interval), *read]
    have = [s for s in history if data.has_any(s)]
    data.generate(have)
    bars = mark_of_bars(data, [s for s in have if s != session] + [session])
    mark = mark_of([bars, set_version(samples.SET), version_of(embedding, networks, samples)])
    table = f"embeddings_{model.version.removeprefix('encoder-')}"
    return derived(data.lake, table, session, mark, lambda: session_embeddings(data, model, session))


def last_session(data: "MarketData", month: date, now: datetime | None = None) -> date | None:
    """The month's last session, where it has bars and is over at `now`: until then nothing is trained on the month."""
    first, last = month_of(month), month_of(month_of(month) + 31 * DAY) - DAY
    if last < data.calendar.first or first > data.calendar.last:
        return None
    sessions = data.calendar.sessions(max(first, data.calendar.first), min(last, data.calendar.last))
    if not sessions or not data.has(sessions[-1]):
        return None
    return sessions[-1] if now is None or data.calendar.hours(sessions[-1]).close <= now else None


def _folder(lake: Lake, version: str) -> Path:
    return lake.root / FOLDER / version


def _read(path: Path) -> EncoderMonth:
    try:
        made = json.loads(path.read_text())
        month = date.fromisoformat(f"{path.stem.removeprefix('month=')}-01")
        return EncoderMonth(month, made["version"], date.fromisoformat(made["trained_through"]), made["made_from"])
    except (ValueError, KeyError, TypeError) as error:
        raise MonthUnreadable(path, f"{type(error).__name__}: {error}") from error
