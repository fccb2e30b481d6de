"""Fixtures that every folder of tests shares. Its place also puts `tests/` on the path (`import realdata`)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import realdata
from hypothesis import settings

settings.register_profile("odin", deadline=None)  # a busy machine is no failure
settings.load_profile("odin")


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that the real graph has run on, see `grownhomes`; not to be written to."""
    from grownhomes import grow

    return grow(tmp_path_factory.mktemp("grown") / "home")


@pytest.fixture(scope="session")
def market_file() -> Callable[[str], Path]:
    """Path of a recorded market file by its name; the test is skipped where this machine has none."""
    return realdata.market_file
