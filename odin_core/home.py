"""The home: the one folder that holds everything a run writes, and the lock that keeps two writers apart.

Where each thing lies is said here and nowhere else. What the files mean is elsewhere: market and life tables in
`lake`, lives in `lifecycle`, Dagster's own storage in `odin_assets.instance`. Readers never lock; tables are replaced
whole, so they see the old one or the new one."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

from odin_core.errors import OdinError
from odin_core.lake import Lake, write_text

FORMAT = 1
REGISTRY_URL = "ODIN_REGISTRY_URL"  # the name under which the border finds the address of a registry elsewhere
MARKER = "odin.json"
# What an empty folder may hold: what git, the desktop and the file system leave, and a marker half written.
IGNORED = ("README.md", ".gitignore", ".gitkeep", ".DS_Store", "lost+found", f".{MARKER}.*.tmp")
POLL_SECONDS = 0.02


class WrongHome(OdinError):
    def __init__(self, path: Path, what: str, way_out: str) -> None:
        super().__init__(f"{path} cannot be a home directory: {what}. {way_out}")


class HomeBusy(OdinError):
    def __init__(self, home: Path, holder: str, waited: float) -> None:
        super().__init__(
            f"{home} is being written by {holder}; a home has one writer at a time and {waited:g} s of waiting were "
            f"not enough. Run the same command again when that one has ended, or give --home another directory"
        )


class TrainingBusy(OdinError):
    def __init__(self, home: Path, holder: str, waited: float) -> None:
        super().__init__(
            f"in {home} {holder} is under way; slow learners are trained one after another, and {waited:g} s of "
            f"waiting were not enough. Run the same command again when that one has ended"
        )


@dataclass(frozen=True)
class Home:
    """The layout under one root. Make one with `open_home`, which checks the folder first."""

    root: Path
    registry_url: str | None = field(default=None, repr=False)  # of a PostgreSQL that holds the registry instead

    def lake(self, dataset: str) -> Lake:
        """The market tables of one dataset, e.g. `nse` or `demo-edge0.50-seed7`."""
        return Lake(self.root / "lake" / dataset)

    @property
    def lives(self) -> Path:
        return self.root / "lives"

    def current(self, market: str) -> Path:
        """The file that names the life a market's commands mean when they name none. It may be absent."""
        return self.lives / "current" / market

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def registry(self) -> Path:
        """The registry's database; another one where the home was opened with `registry_url`."""
        return self.root / "registry.db"

    @property
    def registry_changes(self) -> Path:
        """Beside each promotion by a person: the state before it, and the change as a patch."""
        return self.root / "registry"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def tap(self) -> Path:
        """Micro-batches of live feeds, by market, see `intake.tap`."""
        return self.root / "tap"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def settings(self, component: str) -> Path:
        """The file in which a component's settings may lie, see `configuration`."""
        return self.root / "settings" / f"{component}.yaml"

    @contextmanager
    def writer(self, what: str, *, wait: float = 10.0) -> Iterator[None]:
        """Be the home's only writing process while the block runs; `what` is told to those who come second.

        A second process waits up to `wait` seconds, then gets HomeBusy. Blocks nest within a process. The kernel
        releases the lock of a process that dies, so a kill leaves nothing to clean up."""
        with _WriterLock.of(self.root / "writer.lock", HomeBusy).held(what, wait):
            yield

    @contextmanager
    def trainer(self, what: str, *, wait: float = 10.0) -> Iterator[None]:
        """Be the home's only process that trains a slow learner, since two would go on from each other's checkpoints.
        Sessions are run and written meanwhile. As `writer`, but a second process gets TrainingBusy."""
        with _WriterLock.of(self.root / "training.lock", TrainingBusy).held(what, wait):
            yield


def open_home(path: Path | str, *, create: bool = True, registry_url: str | None = None) -> Home:
    """The home at `path`, made absolute. With `create` a missing or empty folder becomes one, and it must be writable.
    `registry_url`: a PostgreSQL for the registry, of this home alone; nothing is opened yet.

    Raises WrongHome for a file, a folder that holds something else, one that cannot be written, one of a newer ODIN,
    and, without `create`, for one that is missing."""
    root = Path(path).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise WrongHome(root, "it is a file", "Give --home a directory")
    try:
        names = os.listdir(root) if root.exists() else []
        if MARKER in names:
            _check_format(root)
        elif any(not _ignored(name) for name in names):
            found = ", ".join(sorted(n for n in names if not _ignored(n))[:3])
            raise WrongHome(
                root, f"it holds other things ({found}) and no {MARKER}", "Give --home an empty or a new directory"
            )
        elif not create:
            raise WrongHome(root, "nothing is there yet", "Run `odin bootstrap` or `odin data import` first")
        else:
            root.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps({"project": "odin", "format": FORMAT}) + "\n", root / MARKER)
    except OSError as error:
        raise WrongHome(root, f"{error.strerror or error}", "Give --home a directory that you may write") from error
    if create and not os.access(root, os.W_OK | os.X_OK):
        raise WrongHome(root, "you may not write there", "Give --home a directory that you may write")
    return Home(root, registry_url)


def _ignored(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in IGNORED)


def _check_format(root: Path) -> None:
    try:
        found = json.loads((root / MARKER).read_text())["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise WrongHome(
            root, f"its {MARKER} is damaged", f'If it is a home of yours, write {{"format": {FORMAT}}} into that file'
        ) from error
    if found != FORMAT:
        raise WrongHome(
            root,
            f"it has format {found!r} and this ODIN knows format {FORMAT}",
            "Use the ODIN that wrote it, or give --home a new directory",
        )


class _WriterLock:
    """One lock file within this process: the kernel's lock keeps other processes out, the count lets blocks nest."""

    _known: ClassVar[dict[tuple[Path, int], "_WriterLock"]] = {}
    _guard = threading.Lock()

    def __init__(self, path: Path, busy: type[HomeBusy | TrainingBusy]) -> None:
        self._path, self._busy = path, busy
        self._depth = 0
        self._descriptor = -1
        self._mutex = threading.Lock()

    @classmethod
    def of(cls, path: Path, busy: type[HomeBusy | TrainingBusy]) -> "_WriterLock":
        with cls._guard:
            # A forked child is another process: it must not believe that it holds what its parent holds.
            return cls._known.setdefault((path.resolve(), os.getpid()), cls(path, busy))

    @contextmanager
    def held(self, what: str, wait: float) -> Iterator[None]:
        self.enter(what, wait)
        try:
            yield
        finally:
            self.leave()

    def enter(self, what: str, wait: float) -> None:
        with self._mutex:
            if self._depth == 0:
                self._descriptor = self._acquire(what, wait)
            self._depth += 1

    def leave(self) -> None:
        with self._mutex:
            self._depth -= 1
            if self._depth == 0:
                os.ftruncate(self._descriptor, 0)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                os.close(self._descriptor)

    def _acquire(self, what: str, wait: float) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + wait
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise self._busy(self._path.parent, _holder(descriptor), wait)
                time.sleep(POLL_SECONDS)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Who the lock file says holds it; since when is the file's own time."""
    try:
        says = json.loads(os.pread(descriptor, 4096, 0))
        since = datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
        return f"process {says['pid']} ({says['what']}, since {since:%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, KeyError, TypeError):
        return "another process"
