"""Group catalog: DuckDB views over the lake, and the report that people read. Both follow from tables alone."""

from typing import Final

import dagster as dg
from dagster_duckdb import DuckDBResource

from odin_assets.resources import OdinHome, in_line, users_mistakes
from odin_core.catalog import build_catalog, create_views

OWNERS = ["team:platform"]
PLOTTED: Final = ("sessions", "phase", "total_return", "sharpe", "max_drawdown", "trades", "mean_net", "mean_cost")
"""Numbers that Dagit draws over the reports of a life."""


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
        """The current life's tear sheet: return against its baselines, trades, costs, by regime and phase, as one
        page, with the summary and the pictures here."""
        from odin_core.lifecycle.report import write_report  # brings numba

        with users_mistakes():
            life = odin.life(market)
            if life is None or life.head is None:
                return dg.MaterializeResult(metadata={"status": "no session yet"})
            report = write_report(life)
            told = report.sheet.headline
        pictures = {name: in_line(name, image) for name, image in report.pictures.items()}
        numbers = {name: value for name in PLOTTED if (value := told[name]) is not None}
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(str(report.path)),
                "summary": dg.MetadataValue.md(report.markdown),
                **pictures,
                **numbers,
                "champion": told["champion"] or "none",
            }
        )

    return [catalog, life_report]
