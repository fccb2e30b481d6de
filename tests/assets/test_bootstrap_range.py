"""A range that the market's partitions do not hold is refused before anything starts."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from odin_assets.drive import OutsideThePartitions, bootstrap
from odin_core.home import open_home


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
