"""Ways to drive one life of the demo market, for the tests that compare them.

The life is small in sessions and permissive in its gates, so that everything that could differ is on its path:
retrains, a promotion, three phases, and a week that is not over. The market is the whole demo market."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from odin_assets import drive
from odin_assets.assets.learning import WEEKLY
from odin_assets.build import build_definitions
from odin_assets.instance import open_instance
from odin_assets.jobs import LOOP_NAMES, UPSTREAM, session_job_name
from odin_assets.resources import OdinHome, duckdb_in_memory
from odin_core.home import Home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, configured
from odin_core.lifecycle.digest import Digest, life_digest
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import SessionResult, run_sessions
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile

MARKET = "demo"
FIRST, LAST = date(2023, 1, 2), date(2023, 2, 1)  # 22 sessions: four weeks, the last of four sessions, then Mon to Wed
SEED, EDGE = 11, 1.0
SETTINGS = (
    "learner.min_sessions=5", "learner.min_contexts=100", "learner.trees=30", "learner.leaves=4", "learner.min_leaf=20",
    "promotion.min_sessions=10", "promotion.min_decisions=10", "promotion.alpha=0.99",
    "phases.executed_trades=20", "phases.rank_agreement=-1", "phases.min_sessions=3", "phases.confidence=0.999",
)  # fmt: skip
CALENDAR = session_calendar(load_profile(MARKET))
SESSION_ASSETS = (*UPSTREAM, *LOOP_NAMES)
WEEKLY_ASSETS = tuple(WEEKLY)


def clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def config() -> LifeConfig:
    return configured(seed=SEED, edge=EDGE, assignments=SETTINGS)


def sessions(first: date = FIRST, last: date = LAST) -> list[date]:
    return CALENDAR.sessions(first, last)


def weeks(days: Iterable[date]) -> list[date]:
    """The Mondays of the weeks in which the days lie."""
    return sorted({CALENDAR.week_of(day) for day in days})


def made(home: Home) -> Life:
    """The life, current in this home; made where it is not there yet."""
    return lives.create(home, MARKET, config(), FIRST)


def in_python(home: Home, first: date = FIRST, last: date = LAST) -> list[SessionResult]:
    """Without Dagster: the core's own loop."""
    data = MarketData.of(home, MARKET, config())
    return list(run_sessions(made(home), data, sessions(first, last), clock=clock))


def bootstrap(home: Home, first: date | None = None, last: date = LAST, storage: str | None = None) -> dict[str, Any]:
    """What `odin bootstrap` does, in this process; `storage` None is what the home has, PostgreSQL where it is new."""
    return drive.bootstrap(home, MARKET, start=first or FIRST, end=last, seed=SEED, edge=EDGE, assignments=SETTINGS,
                           storage=storage, progress=False, clock=clock)  # fmt: skip


@cache
def definitions() -> dg.Definitions:
    return build_definitions([MARKET])


def session_job(home: Home, instance: dg.DagsterInstance, session: date) -> None:
    """One partition of the job that the schedule asks for, run as Dagit's executor runs it."""
    job = definitions().resolve_job_def(session_job_name(MARKET))
    done = job.execute_in_process(
        instance=instance, partition_key=str(session), resources={"odin": OdinHome(path=str(home.root))}
    )
    assert done.success


def weekly_assets(home: Home, instance: dg.DagsterInstance, week: str) -> None:
    """A week of every weekly asset, as chosen in Dagit."""
    done = dg.materialize(assets(), partition_key=week, instance=instance, resources=resources(home),
                          selection=dg.AssetSelection.assets(*map(key, WEEKLY_ASSETS)))  # fmt: skip
    assert done.success


def assets() -> list[dg.AssetsDefinition]:
    """Every asset of the market."""
    return [a for a in definitions().assets or [] if isinstance(a, dg.AssetsDefinition)]


def resources(home: Home) -> dict[str, Any]:
    return {"odin": OdinHome(path=str(home.root)), "duckdb": duckdb_in_memory()}


def python_command(home: Home, last: date = LAST) -> list[str]:
    """`in_python` as a process of its own; it needs `tests/` on its path, see `started`."""
    code = "import sys, datetime, drivers; from odin_core.home import open_home; " \
           "drivers.in_python(open_home(sys.argv[1]), last=datetime.date.fromisoformat(sys.argv[2]))"  # fmt: skip
    return [*odin_python(code), str(home.root), str(last)]


def odin_python(code: str) -> list[str]:
    """Python code as a process; its arguments follow."""
    return [sys.executable, "-c", code]


def command(home: Home, last: date = LAST, storage: str = "postgres") -> list[str]:
    """`odin bootstrap …` as a process of its own is started."""
    told = [part for assignment in SETTINGS for part in ("--set", assignment)]
    return [*odin("bootstrap", home), "--start", str(FIRST), "--end", str(last), "--seed", str(SEED),
            "--edge", str(EDGE), *told, "--storage", storage, "--json"]  # fmt: skip


def odin(name: str, home: Home) -> list[str]:
    return [sys.executable, "-c", "from odin_core.cli import main; main()", *name.split(), "--home", str(home.root)]


def started(argv: list[str], variables: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | dict(variables or {})
    return subprocess.Popen(argv, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> str:
    """Output of a process that must succeed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def digest(home: Home, through: date | None = None) -> Digest:
    return life_digest(made(home), through)


def share_market(source: Home, target: Home) -> None:
    """Give `target` the bars and features of `source`, by hard links: files of the lake are replaced, never changed."""
    for path in (source.root / "lake").rglob("*.parquet"):
        link = target.root / path.relative_to(source.root)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)


def recorded(home: Home) -> dict[str, set[str]]:
    """Asset → partitions that Dagster holds for materialised; a week only where its last word is that it is over."""
    with open_instance(home) as instance:
        found = {name: set(instance.get_materialized_partitions(key(name))) for name in SESSION_ASSETS}
        whole = {name: {w for w in instance.get_materialized_partitions(key(name))
                        if shown(instance, name, w)["status"] == "found"} for name in WEEKLY_ASSETS}  # fmt: skip
    return found | whole


def shown(instance: dg.DagsterInstance, asset: str, partition: str) -> dict[str, Any]:
    """Metadata of the last materialisation of a partition."""
    chosen = dg.AssetRecordsFilter(asset_key=key(asset), asset_partitions=[partition])
    [record] = instance.fetch_materializations(chosen, limit=1).records
    event = record.asset_materialization
    return {name: value.value for name, value in event.metadata.items()} if event else {}


def to_be_recorded(last: date = LAST) -> dict[str, set[str]]:
    """What Dagster must hold after the life came to `last`."""
    days = sessions(FIRST, last)
    over = {str(CALENDAR.week_of(day)) for day in days if CALENDAR.is_last_session_of_week(day)}
    return {name: set(map(str, days)) for name in SESSION_ASSETS} | {name: over for name in WEEKLY_ASSETS}


def key(asset: str) -> dg.AssetKey:
    return dg.AssetKey([MARKET, asset])


def written(folder: Path) -> dict[str, int]:
    """Every file of a folder with the time it was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}
