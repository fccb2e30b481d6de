"""Slow learners: the week's PPO, REINFORCE and the policy distilled of PPO; and what they and all others that are not
in charge would have done.

The fold never waits for these. They are trained by assets, week by week, and run as shadows: `shadow_decisions` asks
every version at each close and carries out what it chose, beside the champion, with the fold's own fills. A distilled
policy is a joint one, which a person may promote. The thinking is in `odin_core.lifecycle.learner_weeks` and
`odin_core.lifecycle.shadow`."""

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from odin_assets.instance import POOL, TRAINING
from odin_assets.partitions import BEFORE, ONE_RUN, by_session, partitions_of, session_of
from odin_assets.resources import OdinHome, now, reported, tell, users_mistakes
from odin_assets.versions import code_version

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData

Made = Callable[[dg.AssetExecutionContext, "Life", "MarketData", date], pl.DataFrame]
UPDATES_BETWEEN = 10  # updates of a training between two lines of the log
NUMBERS = ("net_return", "excess", "sharpe", "hit_rate", "p_value", "trades")


def learner_assets(market: str) -> list[dg.AssetsDefinition]:
    return [
        _weekly(market, "ppo_policy", ("training_dataset", "embeddings"), {"pytorch"}, _ppo,
                "Proximal policy optimisation on the market's own bars: five seeds, judged on sessions that none saw."),
        _weekly(market, "reinforce_policy", ("training_dataset",), {"pytorch"}, _reinforce,
                "REINFORCE from the replay buffer with its propensities: no market is simulated."),
        _weekly(market, "distilled_policy", ("ppo_policy",), {"lightgbm"}, _distilled,
                "The week's PPO as a joint policy, which a person may promote; what the translation costs."),
        _shadow_decisions(market),
        _shadow_report(market),
        _learner_report(market),
    ]  # fmt: skip


def _weekly(
    market: str, name: str, upstream: tuple[str, ...], kinds: set[str], make: Made, description: str
) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        key_prefix=market,
        partitions_def=partitions_of(market).weeks,
        deps=[dg.AssetKey([market, other]) for other in upstream],
        backfill_policy=ONE_RUN,
        pool=TRAINING,
        group_name="learning",
        owners=["team:research"],
        kinds=kinds,
        code_version=code_version("odin_core.rl"),
        description=description,
    )
    def weekly(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        with users_mistakes():
            life, data = odin.life(market), odin.data(market)
            for key in context.partition_keys:
                last = data.calendar.sessions_of_week(date.fromisoformat(key))[-1:]
                shown: dict[str, Any] = {"status": "incomplete"}
                if life and last and life.committed(last[0]):
                    shown = _shown(make(context, life, data, last[0]))
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=key)
                tell(name, key)

    return weekly


def _shown(week: pl.DataFrame) -> dict[str, Any]:
    """What Dagit shows of a learner's week: the first row is the candidate's; numbers are plotted."""
    row = week.row(0, named=True)
    shown: dict[str, Any] = {"status": row["outcome"], "candidate": row["version"] or "none", "reason": row["reason"]}
    shown |= {name: row[name] for name in NUMBERS if row.get(name) is not None and row[name] == row[name]}
    if "excess" in week.columns and week["excess"].count():
        shown |= {"seeds": week.height, "excess_worst": week["excess"].min(), "excess_best": week["excess"].max()}
    return shown | {"report": dg.MetadataValue.md(row["report"])}


def _ppo(context: dg.AssetExecutionContext, life: "Life", data: "MarketData", session: date) -> pl.DataFrame:
    from odin_core.lifecycle.learner_weeks import ppo_week

    def told(done: int, total: int, at: str) -> None:
        if done % UPDATES_BETWEEN == 0 or done == total:
            context.log.info(f"PPO of the week to {session}: update {done} of {total}, {at}")

    return ppo_week(life, data, session, told)


def _reinforce(context: dg.AssetExecutionContext, life: "Life", data: "MarketData", session: date) -> pl.DataFrame:
    from odin_core.lifecycle.learner_weeks import reinforce_week

    return reinforce_week(life, data, session)


def _distilled(context: dg.AssetExecutionContext, life: "Life", data: "MarketData", session: date) -> pl.DataFrame:
    from odin_core.lifecycle.learner_weeks import distilled_week

    return distilled_week(life, data, session, now())


def _shadow_decisions(market: str) -> dg.AssetsDefinition:
    @dg.asset(
        **by_session(market, "learning", "team:research", "parquet", "numba"),
        pool=POOL,
        deps=[
            dg.AssetKey([market, "recommendations"]),
            dg.AssetKey([market, "embeddings"]),
            dg.AssetDep(dg.AssetKey([market, "shadow_decisions"]), partition_mapping=BEFORE),
        ],
        code_version=code_version("odin_core.lifecycle"),
    )
    def shadow_decisions(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """What every version that is not in charge would have done at each close, with the outcome it would have had,
        and why the PPO chose what it was surest of."""
        from odin_core.lifecycle.learners import shadows_of

        with users_mistakes():
            life, data = odin.life(market), odin.data(market)
            for key in context.partition_keys:
                session = session_of(key)
                shown: dict[str, Any] = {"status": "not_run"}
                if life and life.committed(session):
                    shown = {"status": "asked", "life": life.id} | shadows_of(life, data, session)
                    for missing in shown.get("missing", ()):
                        context.log.warning(missing)
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=key)
                tell("shadow_decisions", key)

    return shadow_decisions


def _shadow_report(market: str) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(dg.AssetKey([market, "shadow_decisions"]), partition_mapping=dg.AllPartitionMapping())],
        group_name="learning",
        owners=["team:research"],
        kinds={"matplotlib"},
        code_version=code_version("odin_core.lifecycle"),
    )
    def shadow_report(odin: OdinHome) -> dg.MaterializeResult:
        """All versions side by side on the same contexts: reward, hit rate and the difference to the champion."""
        from odin_core.diagnostic_page import Diagnostic, page
        from odin_core.lifecycle.shadow_report import NothingShadowed, compare, shadow_markdown, shadow_picture

        with users_mistakes():
            life = odin.life(market)
            if life is None:
                return dg.MaterializeResult(metadata={"status": "no life yet"})
            try:
                found = compare(life)
            except NothingShadowed as why:
                return dg.MaterializeResult(metadata={"status": str(why)})
        picture = shadow_picture(found.by_session)
        told = "Mean reward by session, summed, of the newest version of each learner at each close."
        shown = Diagnostic(name="shadows", title="Shadows", told=told, table=found.series, picture=picture)
        html = page(f"Shadows of life {life.id}", f"{market}, {found.versions.height} versions", [shown])
        return reported(
            life.reports / "shadows.html", markdown=shadow_markdown(found.series), html=html,
            picture=("shadows", picture), versions=found.versions.height,
        )  # fmt: skip

    return shadow_report


def _learner_report(market: str) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(dg.AssetKey([market, "ppo_policy"]), partition_mapping=dg.AllPartitionMapping())],
        group_name="learning",
        owners=["team:research"],
        kinds={"matplotlib"},
        code_version=code_version("odin_core.rl"),
    )
    def learner_report(odin: OdinHome) -> dg.MaterializeResult:
        """The newest PPO: learning curves of all seeds, its actions by session, its forecasts beside what came."""
        from odin_core.lifecycle.learner_review import NoLearner, review_ppo

        with users_mistakes():
            life = odin.life(market)
            if life is None:
                return dg.MaterializeResult(metadata={"status": "no life yet"})
            try:
                found = review_ppo(life, odin.data(market))
            except NoLearner as why:
                return dg.MaterializeResult(metadata={"status": str(why)})
        page = life.reports / f"ppo-{found.version}.html"
        return reported(page, markdown=found.markdown, html=found.html, picture=found.picture, sessions=found.sessions)

    return learner_report
