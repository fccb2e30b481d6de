"""How long it takes to ask the registry of a home who is in charge, and to load that model, verified.

The peers do without a registry: a pointer as a small JSON file, and the model as one JSON file, read, not verified."""

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from timing import seconds

from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.life import Life
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import bundle_of
from odin_core.registry.entries import Move

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MODELS = 26  # half a year of weekly candidates
LEAVES = 380_000  # characters of a model of the demo
FEATURES = tuple(f"feature_{n}" for n in range(25))


def run() -> list[dict[str, Any]]:
    """Seconds, medians of 300 and of 30."""
    with tempfile.TemporaryDirectory() as folder:
        life, versions = life_with_models(Path(folder) / "home")
        life.registry.deploy(move(versions[0]), NOW, "a bench")
        pointer, model = Path(folder) / "pointer.json", Path(folder) / "model.json"
        pointer.write_text(json.dumps({"version": versions[0], "effective": "2023-03-01"}))
        model.write_text(life.registry.model(versions[0]).to_json())
        return [
            row("registry_read", life.registry.pointer, "a pointer in a file", lambda: json.loads(pointer.read_text())),
            row(
                "registry_load",
                lambda: life.registry.model(versions[0]),
                "a model in a file, not verified",
                lambda: JointPolicy.from_json(model.read_text()),
                30,
            ),
        ]


def life_with_models(folder: Path) -> tuple[Life, list[str]]:
    """A life without sessions and with a half-year's models of the size of the demo's."""
    life = lives.create(open_home(folder), "demo", LifeConfig(), date(2023, 1, 2))
    versions = []
    for number in range(MODELS):
        heads = {head: f"{number} " + "0.123 " * (LEAVES // 24) for head in ("direction", "enter", "size", "exit")}
        model = JointPolicy(FEATURES, date(2023, 1, 2), heads, (0.1, 1 / 3))
        versions.append(version_of(model))
        life.registry.save(bundle_of(life, versions[-1], model), NOW)
    return life, versions


def move(version: str) -> Move:
    return Move(event="by_person", version=version, effective=date(2023, 3, 1), why="a bench", source="outside")


def row(
    bench: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object], repeats: int = 300
) -> dict[str, Any]:
    return {
        "bench": bench, "value": seconds(ours, repeats), "unit": "s", "peer": peer,
        "peer_value": seconds(theirs, repeats),
    }  # fmt: skip
