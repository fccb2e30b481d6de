"""`odin registry`: the difference before it happens, the files that a decision leaves, and the way back."""

import json
import sys
from pathlib import Path
from shutil import copytree

import pytest
from odincommand import odin
from registrydamage import change_a_leaf
from smalllives import CLIMBED, climbed

from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.registry.history import history


@pytest.fixture
def home(tmp_path: Path) -> Home:
    copytree(climbed()[0].home.root, tmp_path / "home")
    return open_home(tmp_path / "home")


@pytest.fixture
def life(home: Home) -> Life:
    found = lives.current(home, "demo")
    assert found is not None
    return found


@pytest.fixture
def other(life: Life) -> str:
    return history(life)["version"][0]


def test_a_dry_run_shows_what_would_change_and_changes_nothing(home: Home, life: Life, other: str):
    champion, log = life.registry.pointer().version, life.registry.log()
    told = odin("registry", "promote", other, "--dry-run", "--why", "a test", home=home).out
    assert f"champion {champion} → {other} (a test)" in told
    assert "dry run: nothing was changed" in told
    for part in ("model: changed", "filter: unchanged", "calibrator.slope", "features added: none", "decided by"):
        assert part in told
    shown = odin("registry", "promote", other, "--dry-run", "--json", home=home).json
    assert (shown["from"], shown["to"], shown["effective"], shown["applied"]) == (champion, other, "2023-02-10", False)
    assert shown["parts"]["thresholds"] == "unchanged"
    before, after = (life.registry.bundle(v or "").part("calibrator") for v in (champion, other))
    assert shown["settings"]["calibrator.slope"] == [before["slope"], after["slope"]]
    assert set(shown["settings"]) == {"calibrator.intercept", "calibrator.slope"}
    metrics = [life.registry.facts(v or "")["metrics"] for v in (champion, other)]
    for name, pair in shown["metrics"].items():
        assert pair == [metrics[0].get(name), metrics[1].get(name)]
    assert life.registry.log() == log
    assert not home.registry_changes.exists()


def test_a_promotion_leaves_the_state_before_and_a_patch(home: Home, life: Life, other: str):
    champion = life.registry.pointer().version
    done = odin("registry", "promote", other, "--json", home=home).json
    assert (done["applied"], done["revision"]) == (True, 2)
    backup, patch = json.loads(Path(done["backup"]).read_text()), Path(done["patch"]).read_text()
    assert (backup["pointer"]["version"], backup["revision"]) == (champion, 1)
    assert backup["texts"] == life.registry.bundle(champion or "").parts
    assert f'-    "version": "{champion}"' in patch
    assert f'+    "version": "{other}"' in patch
    assert patch.startswith("--- revision 1\n+++ revision 2\n")
    log = odin("registry", "log", "--json", home=home).json["deployments"]
    assert [(e["revision"], e["event"], e["to_version"]) for e in log][1] == (2, "by_person", other)
    assert "by_person" in odin("registry", "log", home=home).out
    listed = odin("registry", "list", "--json", home=home).json
    assert listed["pending"] == {"version": other, "effective": "2023-02-10", "why": "by a person"}
    assert f"from 2023-02-10 on: {other}" in odin("registry", "list", home=home).out


def test_one_command_rolls_back(home: Home, life: Life, other: str):
    champion = life.registry.pointer().version
    odin("registry", "promote", other, home=home)
    done = odin("registry", "rollback", "--json", home=home).json
    assert (done["from"], done["to"], done["event"]) == (other, champion, "rollback")
    assert life.registry.pointer().version == champion


def test_a_backup_brings_back_the_champion_and_mends_its_parts(home: Home, life: Life, other: str):
    champion = life.registry.pointer().version
    assert champion is not None
    backup = odin("registry", "promote", other, "--json", home=home).json["backup"]
    change_a_leaf(life, champion)
    verified = odin("registry", "verify", "--json", home=home)
    assert verified.status == 1
    assert champion in json.loads(verified.out)["findings"][0]
    assert "is damaged" in odin("registry", "rollback", home=home).mistake
    dry = odin("registry", "restore", backup, "--dry-run", "--json", home=home).json
    assert (dry["to"], dry["applied"]) == (champion, False)
    assert odin("registry", "verify", home=home).status == 1
    assert odin("registry", "restore", backup, "--json", home=home).json["to"] == champion
    assert life.registry.pointer().version == champion
    assert "sound" in odin("registry", "verify", home=home).out
    assert life.registry.log()[-1].why.startswith(f"restored from {Path(backup).name}")


def test_restoring_no_champion_takes_the_champion_away(home: Home, life: Life):
    champion = life.registry.pointer().version
    odin("registry", "rollback", home=home)
    backup = odin("registry", "promote", champion, "--json", home=home).json["backup"]
    assert odin("registry", "restore", backup, "--json", home=home).json["to"] is None
    assert life.registry.pointer().version is None


CHANGES = {
    "another life": lambda text, champion: text.replace('"life": "', '"life": "0'),
    "another format": lambda text, champion: text.replace("state 1", "state 2"),
    "a changed leaf": lambda text, champion: text.replace("leaf_value=", "leaf_value=1", 1),
    "another name": lambda text, champion: text.replace(f'"version": "{champion}"', '"version": "joint-0"'),
    "a part missing": lambda text, champion: text.replace('"filter": "{', '"filtre": "{'),
    "no JSON": lambda text, champion: text[:-5],
    "a list": lambda text, champion: "[]",
}


@pytest.mark.parametrize("how", sorted(CHANGES))
def test_a_backup_that_does_not_fit_is_refused_by_name(home: Home, life: Life, other: str, how: str):
    champion, path = life.registry.pointer().version, home.root / "changed.json"
    backup = Path(odin("registry", "promote", other, "--json", home=home).json["backup"])
    path.write_text(CHANGES[how](backup.read_text(), champion))
    said = odin("registry", "restore", path, home=home).mistake
    assert "changed.json is no backup of the registry that can be used" in said
    assert life.registry.pointer().version == other


def test_show_tells_where_a_model_comes_from(home: Home, life: Life, other: str):
    shown = odin("registry", "show", other, "--json", home=home).json
    assert shown["bundle"] == life.registry.bundle(other).id
    assert shown["parts"] == life.registry.parts(other)
    assert shown["facts"]["metrics"] == life.registry.facts(other)["metrics"]
    assert other in odin("registry", "show", other, home=home).out


def test_a_rewind_by_command_is_in_the_log(home: Home, life: Life):
    odin("life", "rewind", "--to", "2023-01-13", "--yes", home=home)
    assert [e.event for e in life.registry.log()] == ["promoted", "rewound"]
    assert life.registry.pointer().version is None
    assert CLIMBED not in lives.load(home, life.id).commits()


def test_mlflow_without_its_client_is_a_warning_and_no_failure(
    home: Home, life: Life, other: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    said = odin("registry", "promote", other, "--json", home=home)
    assert said.json["applied"]
    assert said.err.startswith("warning: not logged to MLflow: its client is not installed")
