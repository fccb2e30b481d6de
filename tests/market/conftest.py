"""Fixtures of the market tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from weekdaybars import SOURCE

from odin_core.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake" / "nse")


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[dict[str, Any]], name: str = "bars.parquet") -> Path:
        pl.DataFrame(rows, schema=SOURCE).write_parquet(tmp_path / name)
        return tmp_path / name

    return write
