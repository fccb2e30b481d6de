"""A copy of the grown home for each test that asks for one, and Dagster's instance in it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from grownhomes import copied

from odin_assets.instance import open_instance
from odin_core.home import Home


@pytest.fixture
def home(grown: Path, tmp_path: Path) -> Home:
    return copied(grown, tmp_path / "home")


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as opened:
        yield opened
