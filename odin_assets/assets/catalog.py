"""Group catalog: DuckDB views over the lake, and the report that people read. Both follow from tables alone."""

import dagster as dg
from dagster_duckdb import DuckDBResource

from odin_assets.resources import OdinHome, users_mistakes
from odin_core.catalog import build_catalog, create_views
from odin_core.lifecycle.report import write_report
from odin_core.lifecycle.summary import summarise

OWNERS = ["team:platform"]


def catalog_assets(market: str) -> list[dg.AssetsDefinition]:
    upstream = [dg.AssetDep(dg.AssetKey([market, name]), partition_mapping=dg.AllPartitionMapping())
                for name in ("replay_buffer", "phase_state")]  # fmt: skip

    @dg.asset(key_prefix=market, deps=upstream, group_name="catalog", owners=OWNERS, kinds={"duckdb"}, code_version="1")
    def catalog(context: dg.AssetExecutionContext, odin: OdinHome, duckdb: DuckDBResource) -> dg.MaterializeResult:
        """A DuckDB file of views over the lake, for any SQL client; built whole and replaced, it blocks nobody."""
        with users_mistakes():
            home = odin.open()
            with duckdb.get_connection() as connection:
                views = create_views(connection, home)
                rows = {v: connection.execute(f'select count(*) from "{v}"').fetchall()[0][0] for v in views}
            path = build_catalog(home)
        return dg.MaterializeResult(
            metadata={"file": dg.MetadataValue.path(str(path)), "views": len(views), "rows": rows}
        )

    @dg.asset(
        key_prefix=market, deps=upstream, group_name="catalog", owners=OWNERS, kinds={"matplotlib"}, code_version="1"
    )
    def life_report(context: dg.AssetExecutionContext, odin: OdinHome) -> dg.MaterializeResult:
        """Where the current life got to: phases, equity against its baselines, decisions and retrains, as one page."""
        with users_mistakes():
            life = odin.life(market)
            if life is None or life.head is None:
                return dg.MaterializeResult(metadata={"status": "no session yet"})
            path, picture = write_report(life)
            summary = summarise(life)
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(str(path)),
                "plot": dg.MetadataValue.md(f"![equity and phases](data:image/png;base64,{picture})"),
                "sessions": summary["sessions"],
                "phase": summary["phase"]["final"],
                "champion": (summary["champion"] or {}).get("version", "none"),
            }
        )

    return [catalog, life_report]
