"""The fold on disk: restore the state at the head, run session after session, write each one whole, resume anywhere.

The only place where the pure fold meets files. Every way to drive ODIN (command line, Dagit, schedule) comes through
`run_sessions`, one session or a range."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

import odin_core
from odin_core.datasets.training import TABLE as TRAINING
from odin_core.datasets.training import record_window
from odin_core.errors import OdinError
from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules, VolumeKind
from odin_core.features.decision import decision_version
from odin_core.lake import logical_hash, write_text
from odin_core.lifecycle import entitlements, fold
from odin_core.lifecycle.config import identity
from odin_core.lifecycle.digest import KEYS
from odin_core.lifecycle.fold import LoopRules
from odin_core.lifecycle.life import BeforeTheLife, Commit, Life, StartsTooLate, generation_on_disk
from odin_core.lifecycle.outcomes import Venue
from odin_core.lifecycle.state import CLOSES, POSITIONS, SCORES, Day, DayRecord, LoopState, carried_from, completed
from odin_core.market.data import MarketData
from odin_core.market.profile import MarketProfile
from odin_core.market.reference import actions
from odin_core.market.reference.figures import parse_rules
from odin_core.monitoring.reference import from_json
from odin_core.policies.actions import ACTIONS
from odin_core.registry.bundle import bundle_of
from odin_core.registry.following import follow
from odin_core.registry.history import HISTORY_TABLE, promotions_on
from odin_core.replay.record import DECISION
from odin_core.training.window import SessionContexts


class NotClosedYet(OdinError):
    def __init__(self, market: str, session: date, closes: datetime, now: datetime) -> None:
        super().__init__(
            f"{market}: session {session} closes at {closes:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M}; "
            f"run it after the close, or end the range one session earlier"
        )


class RangeWithHoles(OdinError):
    def __init__(self, market: str, asked: Sequence[date], missing: date) -> None:
        super().__init__(
            f"{market}: the range from {asked[0]} to {asked[-1]} leaves out session {missing}, or is out of order; "
            f"sessions follow from one another, so ask for all of them"
        )


class SessionLost(OdinError):
    def __init__(self, life: Life, session: date) -> None:
        super().__init__(
            f"life {life.id} of {life.market} went on to {life.head} without session {session}: its commit is gone, or "
            f"the calendar has it since. Go back to before it: odin life rewind --market {life.market} --to SESSION"
        )


class BarsVanished(OdinError):
    def __init__(self, life: Life, session: date, symbols: list[str]) -> None:
        super().__init__(
            f"life {life.id} decided at the close of {session} on {', '.join(symbols[:5])}, whose bars are not in the "
            f"lake of {life.market} any more. Import them again, or go back to before that session and run on from "
            f"what there is: odin life rewind --market {life.market} --to SESSION"
        )


class RewoundMeanwhile(OdinError):
    def __init__(self, life: Life) -> None:
        super().__init__(
            f"life {life.id} was rewound while this command waited to write, so nothing was done; run it again"
        )


@dataclass(frozen=True)
class SessionResult:
    """What the caller hears of one session: `did` is ran, skipped (finished before) or outdated (inputs changed)."""

    session: date
    did: str
    summary: dict[str, Any]
    trained: bool = False


@lru_cache(maxsize=1)
def code_version() -> str:
    """Twelve hex digits over odin_core's source, recorded with each commit."""
    root = Path(odin_core.__file__).parent
    return identity([(str(p.relative_to(root)), p.read_text()) for p in sorted(root.rglob("*.py"))])


def loop_rules(life: Life, profile: MarketProfile) -> LoopRules:
    numbers = dict(profile.execution)
    latency = int(numbers.pop("latency_bars", 0))
    volume = VolumeKind.TRADED if profile.knows_trades else VolumeKind(profile.volume)
    execution = ExecutionRules(**numbers, latency_bars=latency, lot=profile.lot_size, volume=volume)
    venue = Venue(
        rules=execution,
        costs=CostSchedule.from_mapping(profile.costs),
        capital=profile.capital,
        lot_sizes=profile.lot_sizes,
        volume_units=profile.volume_units,
    )
    return LoopRules(profile=profile, config=life.config, venue=venue, features_version=decision_version())


def check_range(life: Life, data: MarketData, sessions: Sequence[date], now: datetime) -> None:
    """Raise unless the sessions follow one another, begin in the life or right after its head and are closed, and the
    life has no gap."""
    expected = data.calendar.sessions(sessions[0], sessions[-1])
    if list(sessions) != expected:
        raise RangeWithHoles(life.market, sessions, min(set(expected) - set(sessions), default=sessions[0]))
    finished = life.commits()
    head = finished[-1] if finished else None
    following = data.calendar.next(head) if head else life.first_session
    if head and (gap := set(data.calendar.sessions(life.first_session, head)) - set(finished)):
        raise SessionLost(life, min(gap))
    if sessions[0] < life.first_session:
        raise BeforeTheLife(life.market, sessions[0], life.first_session)
    if sessions[0] > following:
        raise StartsTooLate(life.market, sessions[0], following)
    closes = data.calendar.hours(sessions[-1]).close
    if now < closes:
        raise NotClosedYet(life.market, sessions[-1], closes, now)


def run_sessions(
    life: Life, data: MarketData, sessions: Sequence[date], *, clock: Callable[[], datetime]
) -> Iterator[SessionResult]:
    """Run consecutive `sessions` of a life, writing each as it ends. Finished ones are verified and left alone."""
    check_range(life, data, sessions, clock())
    done = _finished(life, sessions)
    yield from verified(life, data, done)
    if len(done) == len(sessions):
        return
    with life.home.writer(f"the loop of {life.market}, sessions {sessions[len(done)]} to {sessions[-1]}"):
        if generation_on_disk(life) != life.generation:
            raise RewoundMeanwhile(life)
        meanwhile = _finished(life, sessions)[len(done) :]  # by the process that wrote before this one
        yield from verified(life, data, meanwhile)
        data.figures.require(parse_rules(life.config.filter.fundamentals))
        rules = loop_rules(life, data.profile)
        follow(life, clock())
        state = restore(life, data, rules)
        for session in sessions[len(done) + len(meanwhile) :]:
            started = perf_counter()
            day = day_of(life, data, session)
            state, record = fold.advance(state, day, rules)
            write_session(life, data, day, record, state.window, at=clock())
            if HISTORY_TABLE in record.tables:
                follow(life, clock())
            life.note(
                clock(), "session", session=session, seconds=round(perf_counter() - started, 4), trained=record.trained
            )
            yield SessionResult(session, "ran", record.summary, record.trained)


def _finished(life: Life, sessions: Sequence[date]) -> list[date]:
    """Those of consecutive `sessions` that the life has done: the first ones, as it never leaves a gap."""
    commits = set(life.commits())
    return [s for s in sessions if s in commits]


def day_of(life: Life, data: MarketData, session: date) -> Day:
    hours = data.calendar.hours(session)
    following = data.calendar.next(session)
    return Day(
        session=session,
        opens=hours.open,
        minutes=data.calendar.minutes(session),
        next_session=following,
        ends_week=data.calendar.is_last_session_of_week(session),
        bars=data.bars(session),
        features=data.decision_rows(session),
        actions=data.actions.taking_effect(session),
        fundamentals=_fundamentals(life, data, session),
        promotions=_promotions(life, following),
    )


def _said(felt: pl.DataFrame) -> str:
    """Hash of what corporate actions say, whoever told them."""
    return logical_hash(felt.drop("origin", "origin_id"), actions.KEY)


def _fundamentals(life: Life, data: MarketData, session: date) -> pl.DataFrame:
    """The figures known at a close; empty for a life whose filter names none."""
    return data.fundamentals(session) if parse_rules(life.config.filter.fundamentals) else pl.DataFrame()


def _promotions(life: Life, effective: date) -> tuple[dict[str, Any], ...]:
    entries = promotions_on(life, effective)
    return tuple(
        e | {"model": life.registry.model(v), "reference": _reference(life, v)} if (v := e["version"]) else e | NOBODY
        for e in entries
    )


NOBODY = {"model": None, "reference": None}


def _reference(life: Life, version: str) -> str | None:
    """The drift reference of a stored model as JSON; None for one that was made before drift was watched."""
    return life.registry.bundle(version).parts.get("reference")


def write_session(
    life: Life,
    data: MarketData,
    day: Day,
    record: DayRecord,
    window: Sequence[SessionContexts],
    *,
    at: datetime | None = None,
) -> None:
    """Models, tables, the manifest of the `window` that was learned from at a week's end, and last the commit: a kill
    before it leaves the session to be run again. `at`: when the models were made; default: the session's close."""
    made_at = at or data.calendar.hours(day.session).close
    for version, model in record.models.items():
        facts = model_facts() | record.facts[version]
        life.registry.save(bundle_of(life, version, model, record.references[version], facts), made_at)
    for name, page in record.reports.items():
        write_text(page, life.reports / name)
    for table in life.lake.tables_with(day.session) - record.tables.keys():
        life.lake.remove(table, day.session)
    for table, frame in record.tables.items():
        life.lake.write(table, day.session, frame)
    if TRAINING in record.tables:
        record_window(life, data, record.tables[TRAINING], window, code_version())
    inputs = {
        "price_history": logical_hash(day.bars, KEYS["price_history"]),
        "features": logical_hash(day.features, KEYS["features"]),
        "corporate_actions": _said(day.actions),
        "fundamentals": logical_hash(day.fundamentals),
    }
    tables = {table: logical_hash(frame, KEYS[table]) for table, frame in record.tables.items()}
    life.commit(Commit(day.session, inputs, tables, code_version()))


def model_facts() -> dict[str, Any]:
    """Where a model that is being stored came from, besides what its trial says."""
    return {"code_version": code_version(), "features_version": decision_version()}


def verified(life: Life, data: MarketData, sessions: Iterable[date]) -> Iterator[SessionResult]:
    """Consecutive finished sessions as `verify` finds them; from the first outdated one on all are, because each
    session follows from the one before."""
    is_outdated = False
    for session in sessions:
        result = verify(life, data, session)
        is_outdated = is_outdated or result.did == "outdated"
        yield replace(result, did="outdated") if is_outdated else result


def verify(life: Life, data: MarketData, session: date) -> SessionResult:
    """A finished session: compare its inputs with what they are now; nothing is written."""
    commit = life.committed(session)
    now = {
        "price_history": logical_hash(data.bars(session), KEYS["price_history"]),
        "corporate_actions": _said(data.actions.taking_effect(session)),
        "fundamentals": logical_hash(_fundamentals(life, data, session)),
    }
    row = life.read("phase_state", session).row(0, named=True)
    summary = fold.summary_of(row, life.read("replay_buffer", session))
    changed = commit is not None and any(commit.inputs.get(name, found) != found for name, found in now.items())
    return SessionResult(session, "outdated" if changed else "skipped", summary)


def restore(life: Life, data: MarketData, rules: LoopRules) -> LoopState:
    """The state after the life's head, read back from its tables; before the first session, the warm-up's plan."""
    head = life.head
    if head is None:
        before = data.calendar.previous(life.first_session)
        if before < data.profile.first_partition:
            return LoopState()
        return fold.begin(day_of(life, data, before), rules)
    sessions = life.commits()
    row = life.read("phase_state", head).row(0, named=True)
    carried = carried_from(row)
    plan = completed(life.read("recommendations", head), DECISION)
    lookback = sessions[-life.config.learner.lookback_sessions :]
    scores = [life.read("candidate_scores", s) for s in life.sessions_with("candidate_scores")]
    versions = dict.fromkeys([*carried["candidates"], carried["champion"]])
    since = carried["phase_since"] or date.min
    return LoopState(
        **carried,
        plan=plan,
        positions=completed(life.read("open_decisions", head), POSITIONS),
        contexts=_contexts(life, data, head, plan["symbol"]),
        closes=_last_closes(life, data, head),
        window=tuple(contexts_with_outcomes(life, data, s) for s in lookback),
        models={v: life.registry.model(v) for v in versions if v},
        references={v: from_json(text) for v in versions if v and (text := _reference(life, v))},
        returns=tuple(life.read("phase_state", s)["session_return"][0] for s in sessions if s > since),
        scores=pl.concat([LoopState().scores, *(completed(frame, SCORES) for frame in scores)]),
    )


def _contexts(life: Life, data: MarketData, decided: date, symbols: pl.Series) -> pl.DataFrame:
    """The features that a plan for `symbols` was made from, at the close of `decided`. Raises BarsVanished."""
    found = data.decision_rows(decided).filter(pl.col("symbol").is_in(symbols.to_list())).sort("symbol")
    if found.height != len(symbols):
        raise BarsVanished(life, decided, sorted(set(symbols) - set(found["symbol"])))
    return found


def contexts_with_outcomes(life: Life, data: MarketData, session: date) -> SessionContexts:
    """What the fold knew of a finished session for its learner, read back from the tables. Raises BarsVanished."""
    grid = life.read("action_outcomes", session)
    commit = life.committed(session)
    assert commit is not None
    contexts = _contexts(life, data, data.calendar.previous(session), grid["symbol"])
    net_return = (
        grid["net_return"].cast(pl.Array(pl.Float32, ACTIONS)).to_numpy()
        if grid.height
        else np.empty((0, ACTIONS), np.float32)
    )
    rows = {"action_outcomes": grid.height, "replay_buffer": life.read("replay_buffer", session).height}
    return fold.session_contexts(session, contexts, net_return, rows, commit.tables)


def _last_closes(life: Life, data: MarketData, head: date) -> pl.DataFrame:
    """Closes of the last session up to the head that had bars, restated for the sessions since."""
    first = data.calendar.previous(life.first_session)
    since: list[date] = []
    for session in reversed(data.calendar.sessions(max(first, data.profile.first_partition), head)):
        features = data.decision_rows(session)
        if features.height:
            closes = features.select(CLOSES.names())
            for later in reversed(since):
                closes = entitlements.restated(closes, data.actions.taking_effect(later))
            return closes
        since.append(session)
    return LoopState().closes
