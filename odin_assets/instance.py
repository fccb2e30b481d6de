"""Dagster's instance of a home: which storage, which settings, opened in this process or served by Dagit.

How the top-level `dagster.yaml` and `--home` meet: `environment` copies that file to `<home>/dagster/dagster.yaml`
(without its `storage` section where the home uses SQLite) and points DAGSTER_HOME there. The embedded server itself is
`postgres`; what the graph computes is elsewhere. Environment variables are read and set here and nowhere else."""

import ctypes
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from odin_assets.postgres import PostgresUnavailable, serve
from odin_core.errors import OdinError, nearest
from odin_core.home import Home
from odin_core.lake import write_text

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

PROJECT = Path(__file__).resolve().parents[1]
SETTINGS = PROJECT / "dagster.yaml"
WORKSPACE = PROJECT / "workspace.yaml"
EMBEDDED = "postgres"
SQLITE = "sqlite"
POOL = "odin_writer"  # of every asset that writes a life: `@dg.multi_asset(pool=POOL)` makes such runs queue
TRAINING = "odin_training"  # of every asset that trains a slow learner: one after another, and sessions go on meanwhile
URL_VARIABLE = "ODIN_POSTGRES_URL"
# One planned event for a whole range and materialisations in batches: a range of sessions is recorded ten times faster.
SWITCHES = {"DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1", "DAGSTER_EVENT_BATCH_SIZE": "500"}

log = logging.getLogger("odin")


class UnknownStorage(OdinError):
    def __init__(self, storage: str) -> None:
        super().__init__(
            f"storage {storage!r} is not one of {EMBEDDED}, {SQLITE} or a URL postgresql://user@host/database; "
            f"{nearest(storage, [EMBEDDED, SQLITE])}"
        )


class ServerUnavailable(OdinError):
    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"the PostgreSQL server {url} does not answer: {why}. Start it or mend the URL (its password can be given "
            f"in {URL_VARIABLE}, PGPASSWORD or ~/.pgpass), or give --storage {EMBEDDED} or {SQLITE}"
        )


class PortTaken(OdinError):
    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} of 127.0.0.1 is in use by another program; give --port another number")


class AlreadyServed(OdinError):
    def __init__(self, home: Home) -> None:
        super().__init__(
            f"{home.root} is open in another Dagit already, and Dagster's daemon must be alone; end that one"
        )


class RunRecordDamaged(OdinError):
    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"Dagster's record of runs in {folder} cannot be opened ({why}). No table of a life or market lies there: "
            f"move that folder away and run the same command again, and Dagster hears of every finished session anew"
        )


class NotACheckout(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is missing; ODIN runs from its source folder: run `make install` there")


@contextmanager
def environment(home: Home, storage: str | None = None) -> Iterator[dict[str, str]]:
    """The environment variables with which any Dagster process works on `home`, while its storage is up.

    `storage` is `postgres` (embedded), `sqlite` or a server's URL; None means what the home used before, and the
    embedded server for a new home, or SQLite with a warning where that cannot start. The choice is remembered in the
    home, a URL without its password. Raises UnknownStorage, PostgresUnavailable, ServerUnavailable, NotACheckout."""
    home.dagster.mkdir(exist_ok=True)
    remembered = _remembered(home)
    chosen = _chosen(storage, remembered)
    with ExitStack() as stack:
        url = None
        if chosen == EMBEDDED:
            try:
                with _importing("dagster_postgres.storage"):
                    url = stack.enter_context(serve(home.dagster / "postgres"))
            except PostgresUnavailable as error:
                if storage or remembered:
                    raise
                log.warning("warning: %s\nThis home records its runs in SQLite from now on, which is slower.", error)
                chosen = SQLITE
        elif chosen != SQLITE:
            url = chosen
            _check_server(url)
        _write_settings(home, with_postgres=url is not None)
        _remember(home, chosen, remembered)
        variables = {"DAGSTER_HOME": str(home.dagster), "ODIN_HOME": str(home.root), **SWITCHES}
        yield variables | ({URL_VARIABLE: url} if url else {})


@contextmanager
def open_instance(home: Home, storage: str | None = None) -> Iterator["DagsterInstance"]:
    """Dagster's instance of `home` in this process, with the environment variables set while the block runs.

    Runs that a dead process left unfinished are recorded as failed first, unless the storage is a server, which other
    machines may use too. `storage` as in `environment`."""
    with environment(home, storage) as variables, _set(variables), _instance(home) as instance:
        # Storages of PostgreSQL open a connection per query otherwise; the others ignore it.
        instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=-1)
        if _remembered(home) in (EMBEDDED, SQLITE):
            fail_dead_runs(instance)
        yield instance


def dev(home: Home, *, port: int = 3000, storage: str | None = None, workspace: Path = WORKSPACE) -> int:
    """Dagit and Dagster's daemon on `home` at 127.0.0.1:`port` until a signal ends them; the exit status.

    The first SIGINT, SIGTERM or SIGHUP lets Dagster finish, a second one kills it. `storage` as in `environment`."""
    _check_port(port)
    with _served_once(home) as lock:
        with open_instance(home, storage) as instance:  # creates the tables before several processes want to
            make_pool_known(instance)
        with environment(home, storage) as variables:
            # What Dagster says about `dg dev` is for projects that it scaffolded.
            command = [sys.executable, "-W", "ignore:Function `dev_command`", "-m", "dagster", "dev"]
            command += ["--workspace", str(workspace), "--host", "127.0.0.1", "--port", str(port)]
            # Dagster warns of a dagster.yaml that it does not use when it is started in a folder that has one.
            return _supervise(command, variables=os.environ | variables, folder=home.dagster, keep_open=lock)


def make_pool_known(instance: "DagsterInstance") -> None:
    """Enter POOL and TRAINING into the instance's list of pools: Dagster's queue overlooks a pool the first time it
    meets it, and its PostgreSQL storage fails on entering one twice."""
    storage = instance.event_log_storage
    for pool in {POOL, TRAINING} - set(storage.get_concurrency_keys()):
        storage.initialize_concurrency_limit_to_default(pool)


def fail_dead_runs(instance: "DagsterInstance") -> list[str]:
    """Record as failed each run whose processes, on this machine, are all gone; the ids of those runs.

    Dagster itself leaves such a run `started` for ever, and it would keep others of its pool waiting."""
    from dagster import DagsterRunStatus, RunsFilter

    unfinished = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    failed: list[str] = []
    for run in instance.get_runs(unfinished):
        processes = _processes(instance, run)
        if processes and not any(_alive(pid, seen) for pid, seen in processes):
            pids = ", ".join(str(pid) for pid, _ in processes)
            instance.report_run_failed(
                run, f"The process that ran it (pid {pids}) ended without a word: it was killed."
            )
            failed.append(run.run_id)
    return failed


def _processes(instance: "DagsterInstance", run: "DagsterRun") -> list[tuple[int, float]]:
    """Process ids that a run's engine events name, each with the time (seconds since 1970) when it was seen alive."""
    from dagster import DagsterEventType

    found: dict[int, float] = {}
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        metadata: dict[str, Any] = dict(entry.get_dagster_event().engine_event_data.metadata)
        pid = getattr(metadata.get("pid"), "value", None)
        if pid is not None:
            found[int(pid)] = entry.timestamp
    return sorted(found.items())


def _alive(pid: int, seen: float) -> bool:
    """Whether the process of that id lives and is not a younger one that took the id over."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < seen + 1
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _importing(module: str) -> Iterator[None]:
    """Import a module beside the block: it costs as much as creating a cluster, and that is another process's work."""
    thread = threading.Thread(target=import_module, args=[module])
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def _instance(home: Home) -> Iterator["DagsterInstance"]:
    from dagster import AssetKey, DagsterInstance
    from sqlalchemy.exc import DatabaseError

    try:
        opened = DagsterInstance.from_config(str(home.dagster))
        opened.event_log_storage.has_asset_key(AssetKey("any"))  # SQLite opens the event log at the first question
    except DatabaseError as error:
        raise RunRecordDamaged(home.dagster, str(error.orig).strip()) from error
    with opened as instance:
        yield instance


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _chosen(storage: str | None, remembered: str | None) -> str:
    """`postgres`, `sqlite` or a URL, with its password where this process was told one."""
    if storage is None:
        if remembered in (None, EMBEDDED, SQLITE):
            return remembered or EMBEDDED
        told = os.environ.get(URL_VARIABLE, "")
        return told if _without_password(told) == remembered else remembered
    if storage not in (EMBEDDED, SQLITE) and not storage.startswith("postgresql://"):
        raise UnknownStorage(storage)
    if remembered and _without_password(storage) != remembered:
        log.warning("warning: runs recorded in %s stay there and are not shown with %s", remembered, storage)
    return storage


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def _remembered(home: Home) -> str | None:
    try:
        return (home.dagster / "odin-storage").read_text(errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _remember(home: Home, chosen: str, remembered: str | None) -> None:
    if _without_password(chosen) != remembered:
        write_text(_without_password(chosen) + "\n", home.dagster / "odin-storage")


def _write_settings(home: Home, *, with_postgres: bool) -> None:
    if not SETTINGS.is_file():
        raise NotACheckout(SETTINGS)
    settings = yaml.safe_load(SETTINGS.read_text())
    if not with_postgres:
        del settings["storage"]
    text = f"# Written by ODIN from {SETTINGS}; change that file, not this one.\n{yaml.safe_dump(settings)}"
    target = home.dagster / "dagster.yaml"
    if not target.is_file() or target.read_text(errors="replace") != text:
        write_text(text, target)


def _check_server(url: str) -> None:
    import psycopg2

    try:
        with closing(psycopg2.connect(url, connect_timeout=5)):
            pass
    except psycopg2.Error as error:
        raise ServerUnavailable(_without_password(url), str(error).strip().replace("\n", " ")) from error


@contextmanager
def _served_once(home: Home) -> Iterator[int]:
    """Hold the home's lock for Dagit; its descriptor, for the process that serves to hold as well."""
    home.dagster.mkdir(exist_ok=True)
    descriptor = os.open(home.dagster / "dagit.lock", os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyServed(home) from error
        yield descriptor


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(port) from error


def _supervise(command: list[str], *, variables: dict[str, str], folder: Path, keep_open: int) -> int:
    """Run a command in a process group of its own, hand signals on to it, leave none of the group behind."""
    with _handling() as received:
        child = subprocess.Popen(
            command,
            env=variables,
            cwd=folder,
            pass_fds=[keep_open],
            start_new_session=True,
            preexec_fn=_interrupted_by_our_death(),
        )
        handed = 0
        while child.poll() is None:
            if len(received) > handed:
                os.killpg(child.pid, signal.SIGKILL) if handed else child.send_signal(signal.SIGINT)
                handed += 1
            time.sleep(0.05)
        _end_group(child.pid)
    return 0 if received else child.returncode


def _interrupted_by_our_death() -> Callable[[], None] | None:
    """What a child calls before it becomes its program, so that a SIGKILL of this process does not leave it behind."""
    if sys.platform != "linux":
        return None
    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, signal.SIGINT)


@contextmanager
def _handling() -> Iterator[list[int]]:
    """Collect the signals that ask this process to end, instead of ending."""
    received: list[int] = []
    handler: Callable[[int, Any], None] = lambda number, _: received.append(number)  # noqa: E731
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _end_group(group: int) -> None:
    """End what is left of a process group (a run that Dagster was executing): politely, after 10 s by force."""
    import psutil

    left = [process for process in psutil.process_iter() if _group(process.pid) == group]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
