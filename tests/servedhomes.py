"""A home served by Dagit and Dagster's daemon, as `odin dev` starts them, for tests that talk to both."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import drivers
import requests

from odin_core.home import Home

# The daemon looks for work every 30 s, which nobody can set; a `sitecustomize` of its process makes that 2 s.
EAGER = """
import sys
if "dagster._daemon" in sys.orig_argv:
    from dagster._daemon import controller
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
"""
READY = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }"""


class Dagit(NamedTuple):
    port: int
    home: Home

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"http://127.0.0.1:{self.port}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def is_ready(self) -> bool:
        """The graph is loaded and every daemon that this instance needs has reported."""
        try:
            answer = self.ask(READY)
        except requests.ConnectionError:
            return False
        daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
        loaded = answer["repositoriesOrError"].get("nodes")
        return bool(loaded) and all(d["healthy"] for d in daemons if d["required"])


@contextmanager
def started(
    home: Home, folder: Path, *, eager: bool = True, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[Dagit, Path]]:
    """`odin dev` as a process while the block runs, and the file of what it says; wait for `is_ready`. What it needs
    besides goes into `folder`."""
    (folder / "site").mkdir()
    if eager:
        (folder / "site" / "sitecustomize.py").write_text(EAGER)
    dagit, said = Dagit(free_port(), home), folder / "log"
    surroundings = os.environ | {"PYTHONPATH": str(folder / "site")} | dict(variables or {})
    with said.open("w") as log:
        process = subprocess.Popen(
            [*drivers.odin("dev", home), "--port", str(dagit.port)], env=surroundings, stdout=log, stderr=log
        )
        try:
            yield dagit, said
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
