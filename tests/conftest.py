"""Fixtures that every folder of tests shares. Its place also puts `tests/` on the path (`import realdata`)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import realdata


@pytest.fixture(scope="session")
def market_file() -> Callable[[str], Path]:
    """Path of a recorded market file by its name; the test is skipped where this machine has none."""
    return realdata.market_file
