"""The last leak wall of a market as a file in the home, which stands for the features that it was made for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import polars as pl

from odin_core.features.decision import decision_version
from odin_core.home import Home
from odin_core.lake import read_parquet, write_parquet
from odin_core.leaks.verdict import Verdict, to_frame

VERSION: Final = "odin.features"


def wall_file(home: Home, market: str) -> Path:
    return home.reports / f"leak_wall_{market}.parquet"


def keep_wall(home: Home, market: str, verdicts: Iterable[Verdict] | pl.DataFrame) -> Path:
    """Write the verdicts of a wall that was just made, with the version of the features that lives decide on."""
    frame = verdicts if isinstance(verdicts, pl.DataFrame) else to_frame(verdicts)
    write_parquet(frame, wall_file(home, market), {VERSION: decision_version()})
    return wall_file(home, market)


def kept_wall(home: Home, market: str) -> pl.DataFrame | None:
    """The verdicts, as `to_frame` has them; None where no wall was made, or only one around features of another
    version. Raises PartitionUnreadable."""
    path = wall_file(home, market)
    if not path.is_file():
        return None
    frame = read_parquet(path)
    return frame if pl.read_parquet_metadata(path).get(VERSION) == decision_version() else None
