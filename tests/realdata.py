"""Recorded market data for tests. It may not be copied into the repository: it lies beside it, or tests are skipped."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "market"


def market_file(name: str) -> Path:
    """The recorded file `name`; the calling test is skipped where this machine has none."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"needs the recorded market data {name}, which is not beside this checkout ({FOLDER})")
    return path
