"""Driving the graph from the command line: the same assets as in Dagit, one in-process run over the range.

Chooses the life, checks the range before anything starts, runs what is missing, and says where the life got to."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from odin_core.errors import OdinError
from odin_core.home import Home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, configured, settings, with_settings
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import REPORT, Life
from odin_core.lifecycle.run import check_range
from odin_core.lifecycle.summary import summarise
from odin_core.market.data import PRICES, MarketData
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    import polars as pl
    from dagster import DagsterInstance

Clock = Callable[[], datetime]
RANGE = "dagster/asset_partition_range"  # tag of a run, with _start and _end


class UnsoundBars(OdinError):
    def __init__(self, data: MarketData, session: date, rule: str) -> None:
        super().__init__(
            f"the bars of {session} in {data.lake.path(PRICES, session)} break the rule that {rule}, so nothing was "
            f"decided on them: they were changed after they were stored. Delete that folder; a market that makes its "
            f"own bars brings them back by itself, others by an import"
        )


class ErrorsInBars(OdinError):
    def __init__(self, market: str, session: date, found: "pl.DataFrame") -> None:
        symbol, interval, rule, detail = found.select("symbol", "interval", "rule", "detail").row(0)
        more = f" and {found.height - 1} more" if found.height > 1 else ""
        super().__init__(
            f"the bars of {session} have an error, so nothing was decided on them: {symbol} {interval} {rule} "
            f"({detail}){more}. Import or fetch better ones, or say that they are right: "
            f"odin data accept --market {market} --session {session} --symbol {symbol} --rule {rule} --why TEXT"
        )


class OutsideThePartitions(OdinError):
    def __init__(self, market: str, asked: tuple[date, date], held: tuple[date, date]) -> None:
        super().__init__(
            f"{market}: the range {asked[0]} to {asked[1]} is not within the market's partitions, {held[0]} to "
            f"{held[1]}; choose --start and --end within, or change the profile's first_partition or last_partition"
        )


def bootstrap(
    home: Home,
    market: str,
    *,
    start: date | None,
    end: date | None,
    seed: int | None,
    edge: float | None,
    assignments: tuple[str, ...],
    storage: str | None,
    progress: bool,
    clock: Clock,
) -> dict[str, Any]:
    """Run the sessions start..end of a life through Dagster; returns the summary with report and digest."""
    before = lives.current(home, market)
    life, data, sessions = _target(home, market, start, end, seed, edge, assignments)
    check_range(life, data, sessions, clock())
    fresh, late = _missing(life, sessions), []
    if fresh or not (lives.is_current(life) and _came_to_its_end(life)):
        # Which life is current may only change while nobody runs one.
        with home.writer(f"odin bootstrap --market {market}, sessions {sessions[0]} to {sessions[-1]}"):
            if life.made_as:  # one on disk, whose id may be of older code that knew fewer settings
                lives.use(home, life)
            else:
                lives.create(home, market, life.config, life.first_session)
            fresh = _missing(life, sessions)
            if fresh or not _came_to_its_end(life):
                late = _run(life, fresh, sessions[-1], storage, progress)
    notes = [*_another(before, life), *_recorded_late(late), *_without_bars(data, fresh)]
    notes += [] if fresh else _outdated(life, data, sessions)
    through = sessions[-1]
    result = summarise(life, through)
    return result | {
        "did": f"{len(fresh)} run now" if fresh else "all finished before: nothing to do",
        "notes": notes,
        "report": str(life.reports / REPORT),
        "dagit": f"odin dev --home {home.root}",
        "lake_digest": life_digest(life, through).digest,
    }


def _missing(life: Life, sessions: list[date]) -> list[date]:
    finished = set(life.commits())
    return [s for s in sessions if s not in finished]


def _came_to_its_end(life: Life) -> bool:
    """Whether the last bootstrap did all that it does after its last session: the report is written last."""
    report = life.reports / REPORT
    head = life.head
    return head is None or (report.is_file() and report.stat().st_mtime_ns >= life.committed_at(head))


def _recorded_late(sessions: list[date]) -> list[str]:
    if not sessions:
        return []
    span = f"{sessions[0]} to {sessions[-1]}" if len(sessions) > 1 else f"{sessions[0]}"
    return [f"finished before by a run that died, and recorded in Dagster now: {span}"]


def _another(before: Life | None, life: Life) -> list[str]:
    """That this is not the life that was current before, and in what it differs."""
    if before is None or before.id == life.id:
        return []
    was, now = (settings(x.config) | {"first session": x.first_session} for x in (before, life))
    differs = ", ".join(f"{name} {was[name]} → {now[name]}" for name in now if was[name] != now[name])
    return [f"this is another life than {before.id} ({differs}); back to it: odin life use {before.id}"]


def _without_bars(data: MarketData, fresh: list[date]) -> list[str]:
    if not fresh:
        return []
    have = set(data.sessions(fresh[0], fresh[-1]))
    empty = [s for s in fresh if s not in have]
    tail = [s for s in empty if s > max(have, default=date.min)]
    notes = []
    if len(empty) > len(tail):
        notes.append(f"{len(empty) - len(tail)} sessions within the range have no bars and were carried through")
    if tail:
        notes.append(
            f"the last {len(tail)} sessions ({tail[0]} to {tail[-1]}) have no bars and were carried through; to use "
            f"bars imported later: odin life rewind --market {data.profile.name} --to {data.calendar.previous(tail[0])}"
        )
    return notes


def _target(
    home: Home,
    market: str,
    start: date | None,
    end: date | None,
    seed: int | None,
    edge: float | None,
    assignments: tuple[str, ...],
) -> tuple[Life, MarketData, list[date]]:
    """The life that is meant, its data, and the sessions asked for."""
    load_profile(market).require_synthetic(edge)
    present = lives.current(home, market)
    config = _config(present, seed, edge, assignments)
    data = MarketData.of(home, market, config)
    first, last = data.default_range()
    life = _matching(home, market, config, present, start) or Life(
        home, market, config, data.calendar.require(start or first)
    )
    begin = start or life.first_session
    end = end or max(last, begin)
    if begin > end:
        raise OdinError(f"the range from {begin} to {end} is empty; give an --end on or after {begin}")
    sessions = data.calendar.sessions(begin, end)
    if not sessions:
        raise OdinError(f"{market} has no session between {begin} and {end}; choose a longer range")
    data.require(begin, end)
    _require_partitions(data, sessions)
    return life, data, sessions


def _require_partitions(data: MarketData, sessions: list[date]) -> None:
    profile = data.profile
    end = profile.last_partition or profile.calendar_last
    if sessions[0] < profile.first_partition or sessions[-1] >= end:
        held = data.calendar.sessions(profile.first_partition, end - timedelta(days=1))
        raise OutsideThePartitions(profile.name, (sessions[0], sessions[-1]), (held[0], held[-1]))


def _config(present: Life | None, seed: int | None, edge: float | None, assignments: tuple[str, ...]) -> LifeConfig:
    """The current life's configuration with what was told now; a new market begins from the defaults."""
    if present is None:
        return configured(seed=seed, edge=edge, assignments=assignments)
    told = [f"seed={seed}"] * (seed is not None) + [f"edge={edge}"] * (edge is not None)
    return with_settings(present.config, [*told, *assignments])


def _matching(home: Home, market: str, config: LifeConfig, present: Life | None, start: date | None) -> Life | None:
    """A life with this configuration that `start` can belong to: the current one first. An earlier start is another."""
    candidates = [life for life in (present, *lives.lives(home, market)) if life and life.config == config]
    return next((life for life in candidates if start is None or start >= life.first_session), None)


def _outdated(life: Life, data: MarketData, sessions: list[date]) -> list[str]:
    from odin_core.lifecycle.run import verified

    changed = [result.session for result in verified(life, data, sessions) if result.did == "outdated"]
    if not changed:
        return []
    return [
        f"the inputs of {changed[0]} changed since it was decided on, which outdates {len(changed)} session(s) from it "
        f"on; odin life rewind --market {life.market} --to SESSION, the one before it, recomputes them"
    ]


def _run(life: Life, fresh: list[date], last: date, storage: str | None, progress: bool) -> list[date]:
    """Run the fresh sessions; returns finished ones up to `last` that Dagster had not heard the end of, and now has."""
    from odin_assets.instance import open_instance

    with open_instance(life.home, storage) as instance, _bars(progress, len(fresh)):
        late = _unrecorded(instance, life, last)
        _materialise(instance, life, sorted({*fresh, *late}))
    return late


def _unrecorded(instance: "DagsterInstance", life: Life, last: date) -> list[date]:
    """Finished sessions that Dagster never heard the end of, because the run that made them was killed."""
    import dagster as dg

    known = instance.get_materialized_partitions(dg.AssetKey([life.market, "recommendations"]))
    return [s for s in life.commits() if s <= last and str(s) not in known]


def _materialise(instance: "DagsterInstance", life: Life, sessions: list[date]) -> None:
    """One run from the first to the last of the sessions, where there are any, and one for what people read."""
    import dagster as dg

    from odin_assets.build import build_definitions
    from odin_assets.jobs import report_job_name, session_job_name
    from odin_assets.resources import OdinHome

    market = life.market
    definitions = build_definitions([market])
    resources = {"odin": OdinHome(path=str(life.home.root))}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    jobs: list[tuple[str, dict[str, str]]] = [(report_job_name(market), {})]
    if sessions:
        span = {f"{RANGE}_start": str(sessions[0]), f"{RANGE}_end": str(sessions[-1])}
        jobs.insert(0, (session_job_name(market), span))
    for name, with_tags in jobs:
        job = definitions.resolve_job_def(name)
        try:
            job.execute_in_process(instance=instance, tags=with_tags, run_config=quiet, resources=resources)
        except dg.Failure as failure:
            raise _user_mistake(failure) or failure from failure
        except dg.DagsterExecutionInterruptedError as stopped:
            raise KeyboardInterrupt from stopped
        except dg.DagsterError as error:
            raise _unsound(life, sessions) or error from error


def _unsound(life: Life, sessions: list[date]) -> OdinError | None:
    """The first of the sessions with bars that the graph's blocking checks stop a run at."""
    from odin_assets.assets.market import fault_of
    from odin_core.market.quality.assessing import blocking

    data = MarketData.of(life.home, life.market, life.config)
    for session in sessions:
        if fault := fault_of(data.bars(session)):
            return UnsoundBars(data, session, fault)
        if data.has(session) and (errors := blocking(data.defects(session))).height:
            return ErrorsInBars(life.market, session, errors)
    return None


def _user_mistake(error: BaseException | None) -> OdinError | None:
    while error is not None and not isinstance(error, OdinError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def _bars(shown: bool, sessions: int) -> Iterator[None]:
    """A progress bar per asset of the range, on standard error."""
    from odin_assets.resources import listening

    if not shown:
        with nullcontext():
            yield
        return
    from tqdm import tqdm

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    bars: dict[str, Any] = {}

    def progress(asset: str, session: str) -> None:
        if asset not in bars:
            bars[asset] = tqdm(desc=f"{asset:<14}", total=sessions, unit=" sessions", position=len(bars))
        bars[asset].set_postfix_str(session, refresh=False)
        bars[asset].update()

    with listening(progress):
        try:
            yield
        finally:
            for bar in bars.values():
                bar.close()
