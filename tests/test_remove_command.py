"""`odin data remove` and `odin data import --replace`: told first, done with --yes; what it means for lives is said."""

from pathlib import Path

import nsefiles
import pytest
from odincommand import odin

from odin_core.commands.common import outdated
from odin_core.home import open_home
from odin_core.lifecycle import life as lives

DAY = nsefiles.CALENDAR.sessions(nsefiles.FIRST, nsefiles.LAST)[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = nsefiles.written(nsefiles.of([DAY]), tmp_path / "bars.parquet")
    assert odin("data", "import", path, "--market", "nse", home=tmp_path / "home").status == 0
    return tmp_path / "home"


def test_a_removal_is_only_told_until_it_is_confirmed(home: Path):
    lake = open_home(home).lake("nse")
    told = odin("data", "remove", "--origin", "bars.parquet", "--market", "nse", home=home)
    assert told.status == 0
    assert told.out.startswith("would remove: 1,500 bars of 4 symbols")
    assert "add --yes" in told.out
    assert lake.read("price_history", DAY).height == 1500
    done = odin("data", "remove", "--origin", "bars.parquet", "--market", "nse", "--yes", "--json", home=home).json
    assert (done["removed"], done["bars"], done["outdates"]) == (True, 1500, [])
    assert lake.tables() == []


def test_a_removal_of_nothing_in_particular_is_refused(home: Path):
    assert "--origin" in odin("data", "remove", "--market", "nse", "--yes", home=home).mistake
    mistake = odin("data", "remove", "--origin", "bar.parquet", "--market", "nse", home=home).mistake
    assert "did you mean bars.parquet" in mistake


def test_a_file_that_replaces_takes_out_what_it_lacks(home: Path, tmp_path: Path):
    path = nsefiles.written(nsefiles.of([DAY], "TCS")[:300], tmp_path / "less.parquet")
    assert odin("data", "import", path, "--market", "nse", "--json", home=home).json["files"][0]["removed"] == 0
    said = odin("data", "import", path, "--market", "nse", "--replace", home=home)
    assert "75 stored bars that the file lacks were removed" in said.out
    assert open_home(home).lake("nse").read("price_history", DAY).height == 1425


def test_a_life_that_decided_on_changed_sessions_is_named_with_how_many_are_outdated(grown: Path):
    home = open_home(grown)
    life = lives.current(home, "demo")
    assert life is not None
    commits = life.commits()
    [line] = outdated(home, "demo", [commits[-2]])
    assert line.startswith(f"outdates 2 sessions of life {life.id} from {commits[-2]} on")
    assert outdated(home, "demo", []) == []
    assert outdated(home, "demo", [nsefiles.FIRST]) == []


def test_a_damaged_life_does_not_keep_data_out(home: Path, tmp_path: Path):
    (home / "lives" / "broken").mkdir(parents=True)
    (home / "lives" / "broken" / "life.json").write_text("{")
    path = nsefiles.written(nsefiles.of([nsefiles.LAST]), tmp_path / "more.parquet")
    said = odin("data", "import", path, "--market", "nse", home=home)
    assert said.status == 0
    assert "which lives this outdates cannot be told" in said.out
