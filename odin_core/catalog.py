"""DuckDB as a lens: views over the lake's Parquet, named `<market>_<table>`. Nothing is copied and nothing is locked.

`create_views` works on any connection (a notebook's own, in memory); `build_catalog` writes a file of the same views,
whole, under a temporary name, and replaces the old one."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from odin_core.home import Home
from odin_core.lake import has_sessions
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.data import MarketData
from odin_core.market.profile import profile_names

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger("odin")


def create_views(connection: "DuckDBPyConnection", home: Home) -> list[str]:
    """One view per table of each market's dataset and of its current life, each row with its `session`: the partition's
    where the table has none of its own. A table with a damaged file is left out with a warning that names the file; the
    others are not the worse for it."""
    made = []
    for market in profile_names():
        life = lives.current(home, market)
        data = MarketData.of(home, market, life.config if life else LifeConfig())
        tables = {t: data.lake.root / t for t in data.lake.tables() if not t.startswith("features_")}
        if data.lake.sessions(data.features_table):
            tables["features"] = data.lake.root / data.features_table
        tables |= _feature_sets(data)
        if life:
            tables |= {t: life.lake.root / t for t in life.lake.tables()}
        made += [v for table, folder in sorted(tables.items()) if (v := _view(connection, f"{market}_{table}", folder))]
    return made


def _feature_sets(data: MarketData) -> dict[str, Path]:
    """Stored rows of whole sets, features_<set>_<interval>, of today's definitions."""
    stored = [name for name in data.lake.tables() if name.startswith("features_") and name != data.features_table]
    if not stored:
        return {}
    from odin_core.features.catalogue import set_names, set_version

    current = {f"features_{name}": set_version(name) for name in set_names()}
    parts = [(table.rpartition("_"), table) for table in stored]
    return {
        view: data.lake.root / table
        for (view, _, version), table in parts
        if current.get(view.rpartition("_")[0]) == version
    }


def build_catalog(home: Home) -> Path:
    """The catalog file of a home, made anew."""
    import duckdb

    temporary = home.catalog.with_name(f".{home.catalog.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with duckdb.connect(str(temporary)) as connection:
        create_views(connection, home)
    os.replace(temporary, home.catalog)
    return home.catalog


def connect(home: Home) -> "DuckDBPyConnection":
    """A connection in memory with every view, for a notebook: `connect(open_home("data")).sql("select …").pl()`."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "1GB"})
    create_views(connection, home)
    return connection


def _view(connection: "DuckDBPyConnection", name: str, folder: Path) -> str | None:
    import duckdb

    files = str(folder / "session=*" / "part.parquet").replace("'", "''")
    partitions = "hive_partitioning=true, hive_types={'session': date}"
    if has_sessions(folder):  # a weekly table: the partition's date would take the place of the row's
        partitions = "hive_partitioning=false"
    source = f"read_parquet('{files}', {partitions}, union_by_name=true)"
    try:
        connection.execute(f'create or replace view "{name}" as select * from {source}')
    except duckdb.Error as error:
        log.warning("warning: the view %s is left out: %s", name, str(error).splitlines()[0])
        return None
    return name
