"""`odin registry`: the difference before it happens, the files that a decision leaves, and the way back."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree, which

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


def test_where_nobody_is_in_charge_before_or_after_only_parts_and_numbers_are_shown(home: Home, life: Life, other: str):
    away = odin("registry", "rollback", "--dry-run", home=home).out
    for part in ("→ none", "model: removed", "features removed: none", "settings: none to compare", "beats_random"):
        assert part in away
    assert "guardrails" not in away
    odin("registry", "rollback", home=home)
    back = odin("registry", "promote", other, "--dry-run", "--json", home=home).json
    assert (back["parts"]["model"], back["settings"], back["features_added"]) == ("added", {}, [])
    assert all(before is None for before, _ in back["metrics"].values())


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


@pytest.mark.skipif(which("patch") is None, reason="needs the program patch")
def test_the_patch_makes_the_state_after_out_of_the_state_before(home: Home, life: Life, other: str, tmp_path: Path):
    """Both as JSON with two blanks and sorted names, without the parts' own texts, which only a backup holds."""
    done = odin("registry", "promote", other, "--json", home=home).json
    after = odin("registry", "rollback", "--json", home=home).json["backup"]  # it begins with the state after the first
    states = [json.loads(Path(path).read_text()) for path in (done["backup"], after)]
    for state in states:
        del state["format"], state["texts"]
    text = [json.dumps(state, indent=2, sort_keys=True) + "\n" for state in states]
    (tmp_path / "state.json").write_text(text[0])
    subprocess.run(["patch", tmp_path / "state.json", done["patch"]], check=True, capture_output=True)
    assert (tmp_path / "state.json").read_text() == text[1]
    subprocess.run(["patch", "-R", tmp_path / "state.json", done["patch"]], check=True, capture_output=True)
    assert (tmp_path / "state.json").read_text() == text[0]


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


def test_a_decision_that_would_change_nothing_is_refused(home: Home, life: Life, other: str):
    champion = life.registry.pointer().version
    for more in ((), ("--dry-run",)):
        said = odin("registry", "promote", champion, *more, home=home).mistake
        assert f"{champion} is in charge from" in said
        assert "nothing would change" in said
    odin("registry", "promote", other, home=home)
    assert "nothing would change" in odin("registry", "promote", other, home=home).mistake
    assert odin("registry", "rollback", "--json", home=home).json["to"] == champion, "a second promotion hid the first"


def test_the_same_version_may_be_promoted_for_an_earlier_session(home: Home, other: str):
    late = odin("registry", "promote", other, "--effective", "2023-02-15", "--json", home=home).json
    soon = odin("registry", "promote", other, "--json", home=home).json
    assert (late["effective"], soon["effective"], soon["applied"]) == ("2023-02-15", "2023-02-10", True)


def test_models_that_are_gone_with_their_database_are_told_of(home: Home, life: Life):
    count = len(life.registry.versions())
    for file in home.root.glob("registry.db*"):
        file.unlink()
    verified = odin("registry", "verify", home=home)
    assert verified.status == 1
    assert f"{count} of {count} models of life {life.id} are not in the registry (" in verified.out
    assert "backup of the home" in verified.out


def test_a_backup_that_is_not_there_is_refused(home: Home, tmp_path: Path):
    assert "does not exist" in odin("registry", "restore", tmp_path / "none.json", home=home).mistake
    assert "is a directory" in odin("registry", "restore", tmp_path, home=home).mistake
