"""How long a promotion by a person takes: the model verified, the state before kept as a file, pointer and log moved in
one durable transaction, the patch written. And the transaction alone.

The peer replaces a pointer file durably (write, fsync, rename) and keeps no history."""

import json
import os
import tempfile
from datetime import date
from itertools import count, cycle
from pathlib import Path
from typing import Any

from registry_read import NOW, life_with_models, move, row

from odin_core.registry.history import plan_promotion

PEER = "a pointer file replaced durably"


def run() -> list[dict[str, Any]]:
    """Seconds, medians of 50."""
    with tempfile.TemporaryDirectory() as folder:
        life, versions = life_with_models(Path(folder) / "home")
        turn, pointer, number = cycle(versions), Path(folder) / "pointer.json", count()

        def promote() -> None:
            plan_promotion(life, next(turn), date(2023, 3, 1), "a bench").apply(NOW, "a bench")

        def replace() -> None:
            temporary = pointer.with_suffix(".tmp")
            with temporary.open("w") as file:
                json.dump({"version": next(turn), "revision": next(number)}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, pointer)

        return [
            row("registry_promote", promote, PEER, replace, 50),
            row("registry_deploy", lambda: life.registry.deploy(move(next(turn)), NOW, "a bench"), PEER, replace, 50),
        ]
