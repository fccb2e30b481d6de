"""Group monitoring: has the champion's market drifted, and is the life doing what its backtest led one to expect?

The fold measures drift as it passes a session, acts on it and logs `drift_report`; asked for again, the asset shows
what lies there. `performance_report` is the evening summary; it follows from tables up to its session alone. At the
life's head it also judges the alert rules. The thinking is in `odin_core.monitoring`."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from odin_assets.instance import POOL
from odin_assets.partitions import by_session, session_of
from odin_assets.resources import OdinHome, in_line, market_of, now, reported, tell, users_mistakes
from odin_assets.versions import code_version
from odin_core.lake import write_bytes, write_text

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData
    from odin_core.monitoring.performance import Performance
    from odin_core.monitoring.rules import Facts

DAY = timedelta(days=1)
PLOTTED = (
    "equity", "drawdown", "sharpe", "sharpe_low", "sharpe_medium", "sharpe_high", "win_rate", "coverage", "symbols",
    "ic", "epsilon", "predictive_entropy", "live_reward", "expected_lower", "expected_upper",
)  # fmt: skip


class DriftPage(dg.Config):
    """What is compared."""

    version: str = Field(default="", description="A model's version; empty: the champion, or else the newest one.")


def monitoring_assets(market: str) -> list[dg.AssetsDefinition]:
    def key(name: str) -> dg.AssetKey:
        return dg.AssetKey([market, name])

    @dg.asset(
        **by_session(market, "monitoring", "team:research", "parquet", "numba"),
        deps=[key("phase_state")],
        code_version=code_version("odin_core.monitoring"),
    )
    def drift_report(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """How far the champion's features, scores and outcomes lie from its training: one row each, by session."""
        with users_mistakes():
            life = odin.life(market)
            for partition in context.partition_keys:
                shown = drift_facts(life, session_of(partition))
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=partition)

    @dg.asset(
        **by_session(market, "monitoring", "team:trading", "parquet"),
        pool=POOL,
        deps=[key("drift_report")],
        code_version=code_version("odin_core.monitoring"),
    )
    def performance_report(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """The evening summary: Sharpe by regime, coverage, diversity, IC, exploration, live against expectation."""
        from odin_core.monitoring.performance import performance_at, tables_of

        sessions = [session_of(partition) for partition in context.partition_keys]
        with users_mistakes():
            life = odin.life(market)
            finished = set(life.commits()) if life else set()
            tables = tables_of(life, sessions[-1]) if life and finished else None
            for session in sessions:
                shown: dict[str, Any] = {"status": "not_run"}
                if life and tables and session in finished:
                    found = performance_at(tables, session)
                    shown = _stored(life, session, found)
                    if session == life.head:
                        shown |= {"alerts": _alerts(context, odin, life, found)}
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=str(session))
                tell("performance_report", str(session))

    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(drift_report, partition_mapping=dg.AllPartitionMapping())],
        group_name="monitoring",
        owners=["team:research"],
        kinds={"evidently"},
        code_version=code_version("odin_core.monitoring"),
    )
    def drift_page(config: DriftPage, odin: OdinHome) -> dg.MaterializeResult:
        """The champion's training beside its last sessions, as Evidently draws it; the index by feature over time."""
        from odin_core.lifecycle.drift_review import NothingToCompare, review
        from odin_core.monitoring.drift_page import drift_markdown, drift_picture
        from odin_core.monitoring.drift_page import drift_page as write_page

        with users_mistakes():
            life = odin.life(market)
            if life is None:
                return dg.MaterializeResult(metadata={"status": "no life yet"})
            try:
                found = review(life, odin.data(market), config.version or None)
            except NothingToCompare as why:
                if config.version:
                    raise
                return dg.MaterializeResult(metadata={"status": str(why)})  # a young life, looked at every Saturday
            path = write_page(found.trained, found.met, life.reports / "drift.html", scores=found.scores)
            picture = ("drift", drift_picture(found.by_session))
            return reported(
                path, markdown=drift_markdown(found.scores), picture=picture, sessions=found.scores.sessions
            )

    return [drift_report, performance_report, drift_page]


def log_drift(context: dg.AssetExecutionContext, market: str, life: "Life", session: date) -> None:
    """Log `drift_report` of a session that the fold has just passed, or passed before."""
    key = dg.AssetKey([market, "drift_report"])
    context.log_event(dg.AssetMaterialization(key, partition=str(session), metadata=drift_facts(life, session)))


def drift_facts(life: "Life | None", session: date) -> dict[str, Any]:
    """What Dagit shows of a session's drift; the numbers are plotted."""
    commit = life.committed(session) if life else None
    if life is None or commit is None:
        return {"status": "not_run"}
    state = life.read("phase_state", session).row(0, named=True)
    if "drift_report" not in commit.tables:
        return {"status": "no_champion" if state["champion"] is None else "not_measured", "life": life.id}
    from odin_core.monitoring.drift_page import MOST_SUBJECTS, drift_table

    table = life.read("drift_report", session)
    drifted = table.filter("alarm")["subject"].to_list()
    summary = dg.MetadataValue.md(drift_table(table, most=MOST_SUBJECTS))
    shown = {"status": "measured", "life": life.id, "champion": state["champion"] or "none", "drifted": drifted,
             "alarms_in_a_row": state["drift_alarms"], "summary": summary}  # fmt: skip
    return shown | ({"score": state["drift_score"]} if state["drift_score"] is not None else {})


def _stored(life: "Life", session: date, found: "Performance") -> dict[str, Any]:
    """Write the session's row and its page; returns what Dagit shows of it."""
    from odin_core.monitoring.performance_page import evening_summary, picture

    summary = evening_summary(found.row, found.details)
    with life.home.writer(f"the performance report of {life.market}, session {session}"):
        life.lake.write("performance_report", session, found.row)
        write_text(summary, _page(life, session, "md"))
        drawn = picture(found.details) if session == life.head else None
        if drawn:
            write_bytes(drawn, _page(life, session, "png"))
    row = found.row.row(0, named=True)
    shown: dict[str, Any] = {"status": row["status"], "life": life.id, "summary": dg.MetadataValue.md(summary)}
    if drawn:
        shown["picture"] = in_line("performance", drawn)
    shown["path"] = dg.MetadataValue.path(str(_page(life, session, "md")))
    shown |= {name: row[name] for name in PLOTTED if row[name] is not None}
    return shown | {"anomalies": row["anomalies"]}


def _page(life: "Life", session: date, kind: str) -> Path:
    return life.reports / f"performance-{session}.{kind}"


def _alerts(context: dg.AssetExecutionContext, odin: OdinHome, life: "Life", found: "Performance") -> list[str]:
    """Judge the rules on the life's head; what is new is logged, and delivered by a sensor."""
    from odin_core.monitoring.alerts import check

    fresh = check(odin.open(), _with_drift(life, found), at=now())
    for alert in fresh:
        context.log.warning(f"{alert.rule}: {alert.text}")
    return [f"{alert.rule}: {alert.text}" for alert in fresh]


def facts_now(instance: dg.DagsterInstance, life: "Life", data: "MarketData", at: datetime) -> "Facts":
    """What alert rules judge at `at` besides the life's own tables: sessions that are late, and the runs of its market
    that ended within the last day."""
    ended = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], updated_after=at - DAY)
    )
    ended = [run for run in ended if market_of(run) == life.market]
    failed = [run for run in ended if run.status == dg.DagsterRunStatus.FAILURE]
    last, until = life.head or life.first_session - DAY, min(at.date(), data.calendar.last)
    owed = data.calendar.sessions(max(last, data.calendar.first), until) if life.config.live else []
    over = [s for s in owed if s > last and data.calendar.hours(s).close <= at]
    return replace(
        _with_drift(life), sessions_behind=len(over), runs=len(ended), failed_runs=len(failed),
        last_error=failed[0].job_name if failed else "",
    )  # fmt: skip


def _with_drift(life: "Life", found: "Performance | None" = None) -> "Facts":
    """The facts that follow from a life's tables at its head."""
    from odin_core.monitoring.facts import life_facts

    facts = life_facts(life, performance=found)
    head = life.head
    if head is None:
        return facts
    state = life.read("phase_state", head).row(0, named=True)
    return replace(
        facts,
        drift_score=state.get("drift_score"),
        drift_threshold=1.0,
        drift_in_a_row=state.get("drift_alarms") or 0,  # without a champion what was raised is over
        drift_subject=state.get("drift_subject") or "",
    )
