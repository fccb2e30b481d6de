"""Many processes at one registry, on SQLite and on PostgreSQL: one consistent history, and never half a state."""

import signal
import subprocess
from collections import Counter
from datetime import date
from pathlib import Path

import marketdatabases
import pytest
import registryworkers
from smalllives import MARKET, NOW, quick

from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import bundle_of
from odin_core.registry.difference import read_backup
from odin_core.registry.history import plan_promotion

PROCESSES, EACH = 8, 5


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    url = marketdatabases.new_server_database() if request.param == "postgres" else None
    return open_home(tmp_path / "home", registry_url=url)


@pytest.fixture
def life(home: Home) -> Life:
    return lives.create(home, MARKET, quick(), date(2023, 1, 2))


def with_models(life: Life, count: int) -> list[str]:
    models = [JointPolicy(("gap",), date(2023, 1, 6), {"enter": f"tree {n}"}, (0.0, 1.0)) for n in range(count)]
    for model in models:
        life.registry.save(bundle_of(life, version_of(model), model), NOW)
    return [version_of(model) for model in models]


def test_eight_processes_that_open_a_new_registry_at_once_find_one_and_take_over_once(home: Home, life: Life):
    model = JointPolicy(("gap",), date(2023, 1, 6), {"enter": "tree"}, (0.0, 1.0))
    (life.folder / "models").mkdir()
    (life.folder / "models" / f"{version_of(model)}.json").write_text(model.to_json())
    running = registryworkers.started("open", life, [[]] * PROCESSES)
    assert registryworkers.ended(running) == [version_of(model)] * PROCESSES
    assert life.registry.verify() == []
    assert life.registry.model(version_of(model)) == model
    assert [p.name for p in home.root.glob(".registry*")] == []


def test_eight_processes_promoting_at_once_leave_one_consistent_history(life: Life):
    versions = with_models(life, PROCESSES)
    registryworkers.ended(registryworkers.started("promote", life, [[version, EACH] for version in versions]))
    log = life.registry.log()
    assert [entry.revision for entry in log] == list(range(1, PROCESSES * EACH + 1))
    assert [entry.from_version for entry in log] == [None, *(entry.to_version for entry in log[:-1])]
    assert Counter(entry.to_version for entry in log) == dict.fromkeys(versions, EACH)
    for version in versions:  # each process's own decisions in the order in which it made them
        assert [e.why for e in log if e.operator == version] == [f"{version} {n}" for n in range(EACH)]
    pointer = life.registry.pointer()
    assert (pointer.version, pointer.revision) == (log[-1].to_version, PROCESSES * EACH)
    assert life.registry.verify() == []


@pytest.mark.parametrize("moment", ["between its line and the pointer", "before its commit", "before its patch"])
def test_a_promotion_that_is_killed_has_happened_whole_or_not_at_all_and_blocks_nobody(life: Life, moment: str):
    old, new = with_models(life, 2)
    plan_promotion(life, old, registryworkers.EFFECTIVE, "the first").apply(NOW, "me")
    (process,) = registryworkers.started("die", life, [[new, moment]])
    process.communicate("go\n", timeout=120)
    assert process.returncode == -signal.SIGKILL
    happened = moment == "before its patch"
    pointer, bundle = life.registry.in_charge()
    assert bundle is not None
    assert (pointer.revision, bundle.version) == ((2, new) if happened else (1, old))
    assert life.registry.verify() == []
    again = plan_promotion(life, new, registryworkers.EFFECTIVE, "again").apply(NOW, "me")
    assert [entry.to_version for entry in life.registry.log()] == [old, new, *([new] if happened else [])]
    assert read_backup(life, again.backup)[0] == (new if happened else old)
    assert life.registry.verify() == []


def test_who_reads_while_somebody_rolls_back_sees_the_old_state_or_the_new_one_whole(life: Life):
    old, new = with_models(life, 2)
    life.registry.deploy(registryworkers.move(new), NOW, "a test")
    running: list[subprocess.Popen[str]] = registryworkers.started("read", life, [["1.5"], ["1.5"]])
    running += registryworkers.started("promote", life, [[old, 40], [new, 40]])
    said = registryworkers.ended(running)
    assert [text.split()[1] for text in said[:2]] == ["2", "2"]  # both states were seen
    assert life.registry.verify() == []
