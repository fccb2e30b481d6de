"""A life's training window as a dataset: the files behind the contexts that a week's candidate learned from.

Which files belong to it is decided where the candidate is trained (`lifecycle.learning`); here they become a manifest,
with their bytes' hashes while they are fresh. Paths are relative to the home."""

import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from odin_core.datasets.manifest import DataFile, Manifest, sha256_of
from odin_core.datasets.registry import record
from odin_core.lake import FILE, Lake, read_parquet

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData
    from odin_core.training.window import SessionContexts

TABLE = "training_dataset"
FEATURES, OUTCOMES = "features", "action_outcomes"
CACHED_FILES = 4096  # a window moves by a week: most of its files were in the one before


def record_window(
    life: "Life", data: "MarketData", rows: pl.DataFrame, window: Sequence["SessionContexts"], code_version: str
) -> None:
    """Put a window into the home's registry. `rows`: the table `training_dataset`; `window`: what was learned from,
    for the share of features that were known. The files must be written already."""
    if rows.height:
        record(life.home, _manifest(life, data, rows, _completeness(window), code_version, kept=True), life.home.root)


def window_of(life: "Life", session: date, rows: pl.DataFrame) -> Manifest:
    """The window of the week that ended with a finished session, from that week's table, which may not be empty."""
    from odin_core.market.data import MarketData

    commit = life.committed(session)
    assert commit is not None
    data = MarketData.of(life.home, life.market, life.config)
    return _manifest(life, data, rows, {}, commit.code_version, kept=False)


def origins(lake: Lake, sessions: Iterable[date]) -> list[dict[str, Any]]:
    """What the bars of these sessions came from: origin, its id, interval, and how many rows of it were kept."""
    paths = (lake.path("arrivals", session) for session in sessions)
    parts = [_arrivals(*_state(path)) for path in paths if path.is_file()]
    if not parts:
        return []
    by = ["origin", "origin_id", "interval"]
    return pl.concat(parts).group_by(by).agg(pl.col("kept").sum()).sort(by).to_dicts()


def sources_of(data: "MarketData", sessions: Iterable[date], seed: int, edge: float) -> tuple[dict[str, Any], ...]:
    """As `origins`; of a synthetic market, the exchange and what it was told."""
    if data.profile.source["kind"] == "synthetic":
        return ({"origin": "synthetic", "seed": seed, "edge": edge},)
    return tuple(origins(data.lake, sessions))


def _manifest(
    life: "Life",
    data: "MarketData",
    rows: pl.DataFrame,
    completeness: dict[str, dict[str, float]],
    code_version: str,
    *,
    kept: bool,
) -> Manifest:
    files = []
    features, own = data.lake.root / data.features_table, life.lake
    for row in rows.iter_rows(named=True):
        of_features = row["table"] == FEATURES
        path = (
            features / row["path"].removeprefix(f"{FEATURES}/") / FILE if of_features else own.root / row["path"] / FILE
        )
        files.append(DataFile(
            table=row["table"], session=row["session"], path=path.relative_to(life.home.root).as_posix(),
            rows=row["rows"], hash=row["hash"], sha256=_sha256(*_state(path)) if kept else None,
        ))  # fmt: skip
    sessions = sorted(set(rows["session"]))
    outcomes = (own.path(OUTCOMES, session) for session in sessions)
    symbols = {symbol for path in outcomes if path.is_file() for symbol in _symbols(*_state(path))}
    return Manifest(
        version=rows["version"][0],
        kind="training",
        market=life.market,
        form="parquet",
        first=sessions[0],
        last=sessions[-1],
        symbols=tuple(sorted(symbols)),
        files=tuple(files),
        sources=sources_of(data, sessions, life.config.seed, life.config.edge),
        completeness=completeness,
        features_version=data.features_table.removeprefix(f"{FEATURES}_"),
        code_version=code_version,
        life=life.id,
    )


def _completeness(window: Sequence["SessionContexts"]) -> dict[str, dict[str, float]]:
    decided = [contexts for contexts in window if len(contexts.features)]
    if not decided:
        return {}
    known = np.mean(np.isfinite(np.concatenate([contexts.features for contexts in decided])), axis=0)
    return {FEATURES: dict(zip(decided[-1].names, map(float, known), strict=True))}


def _state(path: Path) -> tuple[str, int, int]:
    """What a cached answer about a file depends on."""
    status = os.stat(path)
    return str(path), status.st_size, status.st_mtime_ns


@lru_cache(CACHED_FILES)
def _sha256(path: str, size: int, changed_at: int) -> str:
    return sha256_of(Path(path))


@lru_cache(CACHED_FILES)
def _symbols(path: str, size: int, changed_at: int) -> tuple[str, ...]:
    return tuple(read_parquet(Path(path))["symbol"].unique().sort())


@lru_cache(CACHED_FILES)
def _arrivals(path: str, size: int, changed_at: int) -> pl.DataFrame:
    return read_parquet(Path(path)).select("origin", "origin_id", "interval", "kept")
