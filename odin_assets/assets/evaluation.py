"""Group evaluation, beside the weekly report: what a stored model's result hangs on, examined when somebody asks."""

import dagster as dg
from pydantic import Field

from odin_assets.resources import OdinHome, reported, users_mistakes
from odin_assets.versions import code_version


class Examined(dg.Config):
    """What is examined."""

    version: str = Field(default="", description="A model's version; empty: the champion.")
    seeds: int = Field(default=5, description="How many seeds of the learner are compared.")


def evaluation_assets(market: str) -> list[dg.AssetsDefinition]:
    @dg.asset(
        key_prefix=market,
        deps=[
            dg.AssetDep(dg.AssetKey([market, name]), partition_mapping=dg.AllPartitionMapping())
            for name in ("registry_pointer", "replay_buffer")
        ],
        group_name="evaluation",
        owners=["team:research"],
        kinds={"lightgbm", "matplotlib"},
        code_version=code_version("odin_core.evaluation"),
    )
    def robustness_report(context: dg.AssetExecutionContext, config: Examined, odin: OdinHome) -> dg.MaterializeResult:
        """A model's choices filled again: dearer, one bar later, under shocks; and its learner with other seeds, other
        parameters and fewer features."""
        from odin_core.lifecycle.examination import examine
        from odin_core.lifecycle.examination_page import footings_picture, to_html, to_markdown
        from odin_core.registry.history import champion_as_of

        with users_mistakes():
            life = odin.life(market)
            champion = champion_as_of(life, life.head) if life and life.head else None
            version = config.version or (champion.version if champion else "")
            if life is None or not version:
                return dg.MaterializeResult(metadata={"status": "no champion yet; the launchpad takes a version"})
            found = examine(
                life,
                odin.data(market),
                version,
                seeds=config.seeds,
                progress=lambda done, total, at: context.log.info(f"{done} of {total}: {at}"),
            )
        page = life.reports / f"examination-{version}.html"
        failed = sum(not finding.passed for finding in found.findings)
        return reported(
            page,
            markdown=to_markdown(found),
            html=to_html(found),
            picture=("footings", footings_picture(found)),
            findings=len(found.findings),
            failed=failed,
        )

    return [robustness_report]
