"""What `odin dataset` says about a name that means no dataset."""

from datetime import date
from pathlib import Path

import pytest
from marketdatabases import bars_of
from odincommand import odin

from odin_core.home import open_home

SESSION = date(2021, 4, 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `home` is a home with one export, `out`."""
    monkeypatch.chdir(tmp_path)
    home = open_home(tmp_path / "home")
    home.lake("nse").write("price_history", SESSION, bars_of(SESSION, "TCS"))
    assert odin("dataset", "export", "--market", "nse", "--to", "out", home=home).status == 0
    return tmp_path


@pytest.mark.parametrize("command", ["verify", "show"])
def test_a_folder_that_lost_its_manifest_is_said_to_have_none(folder: Path, command: str):
    (folder / "out" / "manifest.json").unlink()
    said = odin("dataset", command, "out", home=folder / "home").mistake
    assert "the folder out has no manifest.json" in said
    assert "odin dataset export --to" in said


def test_a_mistyped_name_is_not_taken_for_the_homes(folder: Path):
    said = odin("dataset", "verify", "outt", home=folder / "none").mistake
    assert "'outt' is no folder with a manifest.json, and there is no home to look it up in" in said
    assert "outt" in odin("dataset", "verify", "outt", home=folder / "home").mistake


def test_a_range_the_wrong_way_round_is_refused(folder: Path):
    days = ("--start", "2021-05-01", "--end", "2021-04-01", "--market", "nse")
    for command in (("dataset", "export", "--to", "other"), ("data", "quality"), ("database", "load")):
        assert "lies after the last" in odin(*command, *days, home=folder / "home").mistake
