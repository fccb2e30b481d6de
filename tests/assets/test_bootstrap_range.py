"""Which range a bootstrap takes, and which life: what is refused before anything starts, what is carried on."""

import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from grownhomes import FIRST, LIVE, copied, run

from odin_assets.drive import OutsideThePartitions, bootstrap
from odin_core.home import open_home
from odin_core.lake import write_text
from odin_core.lifecycle.config import LifeConfig, with_settings


@pytest.mark.parametrize(
    ("start", "end"), [(None, "2023-08-31"), ("2022-09-05", "2022-09-09")], ids=["after", "before"]
)
def test_a_range_outside_the_partitions_is_refused_with_those_there_are(tmp_path: Path, start: str | None, end: str):
    home = open_home(tmp_path / "home")
    first = date.fromisoformat(start) if start else None
    with pytest.raises(OutsideThePartitions, match="partitions, 2022-10-03 to 2023-07-28"):
        bootstrap(
            home, "demo", start=first, end=date.fromisoformat(end), seed=None, edge=None, assignments=(),
            storage="sqlite", progress=False, clock=lambda: datetime.now(UTC),
        )  # fmt: skip
    assert not home.lives.exists()


def test_a_life_that_older_code_made_with_fewer_settings_is_carried_on(grown: Path, tmp_path: Path):
    home = copied(grown, tmp_path / "home")
    shutil.rmtree(home.lives)
    (home.root / "registry.db").unlink()
    config = with_settings(LifeConfig(), LIVE).to_dict()
    del config["drift"], config["promotion"]["seeds"]
    made = home.lives / "0123456789ab"
    write_text(json.dumps({"market": "demo", "first_session": str(FIRST), "config": config}), made / "life.json")
    write_text(made.name, home.current("demo"))
    told = run(home, start=None, end=date(2023, 1, 4), assignments=())
    assert (told["life"], told["sessions"]) == (made.name, 3)
    assert {p.parent.name for p in home.lives.glob("*/life.json")} == {made.name}
    again = run(home, start=None, end=date(2023, 1, 5), assignments=())
    assert (again["life"], again["sessions"]) == (made.name, 4)
