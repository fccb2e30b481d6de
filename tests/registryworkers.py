"""Processes that use one registry at the same time, for tests. As a script: `registryworkers.py WORK HOME LIFE URL …`;
each waits for a line on its standard input, so that all begin together. URL "-" is the home's own file."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from odin_core.home import open_home
from odin_core.lake import write_text
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.registry.entries import Move

EFFECTIVE = date(2023, 3, 1)


def move(version: str | None, why: str = "a race") -> Move:
    return Move(event="by_person", version=version, effective=EFFECTIVE, why=why, source="outside")


def started(work: str, life: Life, arguments: Sequence[Sequence[object]]) -> "list[subprocess.Popen[str]]":
    """One process for each list of arguments; all have imported what they need and wait."""
    base = [sys.executable, __file__, work, str(life.home.root), life.id, life.home.registry_url or "-"]
    running = [
        subprocess.Popen(
            [*base, *map(str, own)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for own in arguments
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1][-500:]
    return running


def ended(running: "list[subprocess.Popen[str]]") -> list[str]:
    """Let them go; what each said."""
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), [err[-500:] for _, err in said]
    return [out.strip() for out, _ in said]


def main(work: str, home: str, life_id: str, url: str, *arguments: str) -> None:
    opened = open_home(Path(home), registry_url=None if url == "-" else url)
    life = lives.load(opened, life_id)
    import odin_core.registry.store  # noqa: F401 - before the race, not in it

    print("ready", flush=True)
    sys.stdin.readline()
    {"open": opens, "promote": promotes, "read": reads, "die": dies}[work](life, *arguments)


def opens(life: Life) -> None:
    print(",".join(life.registry.versions()))


def promotes(life: Life, version: str, count: str) -> None:
    for n in range(int(count)):
        life.registry.deploy(move(version, f"{version} {n}"), datetime.now(UTC), version)


def reads(life: Life, seconds: str) -> None:
    """Until the time is over: each look must show a whole state."""
    until, looks, seen = datetime.now(UTC).timestamp() + float(seconds), 0, set()
    while datetime.now(UTC).timestamp() < until:
        pointer, bundle = life.registry.in_charge()
        assert bundle is not None
        assert (pointer.version, pointer.effective) == (bundle.version, EFFECTIVE)
        seen.add(pointer.version)
        looks += 1
    print(looks, len(seen))


def dies(life: Life, version: str, moment: str) -> None:
    """Promote as a person does, and be killed at a moment of it."""
    from sqlalchemy import Engine, event

    from odin_core.registry import difference
    from odin_core.registry.history import plan_promotion

    promotion = plan_promotion(life, version, EFFECTIVE, "killed")

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_at(*told: object, **_: object) -> None:
        if str(told[2]).startswith("UPDATE pointers"):
            die()

    def die_over_the_patch(text: str, path: Path) -> None:
        if path.suffix == ".patch":
            die()
        write_text(text, path)

    if moment == "between its line and the pointer":
        event.listen(Engine, "before_cursor_execute", die_at)
    if moment == "before its commit":
        event.listen(Engine, "before_cursor_execute", lambda *told: event.listen(told[0].engine, "commit", die)
                     if str(told[2]).startswith("UPDATE pointers") else None)  # fmt: skip
    if moment == "before its patch":
        difference.write_text = die_over_the_patch
    promotion.apply(datetime.now(UTC), "me")


if __name__ == "__main__":
    main(*sys.argv[1:])
