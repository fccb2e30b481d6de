"""`odin drift` and `odin performance`: has the champion's market moved, and is the life doing what was expected?"""

from datetime import date
from pathlib import Path
from typing import Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, emit, life_option, the_life
from odin_core.errors import OdinError

LEGEND = (
    "index: population stability index against the training; limit: where it is an alarm, none (–) for slow features "
    "whose index chance alone carries as far; KS: Kolmogorov-Smirnov distance; Wasserstein: in standard deviations; z: "
    "of the mean, in its standard errors; outside: share of values beyond the training's range"
)


@click.command("drift")
@click.argument("version", required=False)
@common
@life_option
@click.option("--page", is_flag=True, help="Also write Evidently's page (some seconds, 4 MB) into the life's reports.")
@as_json
def drift(version: str | None, home: Path, market: str, life_id: str | None, page: bool, json_output: bool) -> None:
    """How far the last sessions lie from what a model was trained on (default: the champion, or the newest one)."""
    from odin_core.lifecycle.drift_review import review
    from odin_core.market.data import MarketData

    chosen = the_life(home, market, life_id)
    found = review(chosen, MarketData.of(chosen.home, chosen.market, chosen.config), version)
    result: dict[str, Any] = {
        "version": found.version, "alarm": found.scores.alarm, "finding": found.scores.reason,
        "sessions": found.scores.sessions, "subjects": found.scores.table.to_dicts(),
    }  # fmt: skip
    if page:
        from odin_core.monitoring.drift_page import drift_page

        result["page"] = drift_page(found.trained, found.met, chosen.reports / "drift.html", scores=found.scores)
    emit(result, json_output, lambda r: _drift_text(r, found))


def _drift_text(result: dict[str, Any], found: Any) -> str:
    order = found.scores.table.sort("alarm", "score", "psi", descending=True, nulls_last=True)
    rows = [
        {
            "subject": row["subject"], "kind": row["kind"], "index": row["psi"], "limit": row["limit"],
            "of limit": _percent(row["score"]), "KS": row["ks"], "Wasserstein": row["wasserstein"], "z": row["z"],
            "missing": _percent(row["missing"]), "outside": _percent(row["out_of_range"]),
            "": row["fault"] or ("ALARM" if row["alarm"] else ""),
        }
        for row in order.iter_rows(named=True)
    ]  # fmt: skip
    lines = [f"{result['version']}, last {result['sessions']} sessions: {result['finding']}", text.table(rows), LEGEND]
    return "\n".join([*lines, *([f"page        {result['page']}"] if "page" in result else [])])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


@click.command("performance")
@common
@life_option
@click.option("--session", type=SESSION, help="As it was known at this session's close; default: the head.")
@as_json
def performance(home: Path, market: str, life_id: str | None, session: date | None, json_output: bool) -> None:
    """The evening summary of a session: Sharpe by regime, coverage, diversity, IC, live results against expectation."""
    from odin_core.monitoring.performance import performance_of
    from odin_core.monitoring.performance_page import evening_summary

    chosen = the_life(home, market, life_id)
    if chosen.head is None:
        raise OdinError(f"life {chosen.id} has no finished session yet; run `odin bootstrap --market {chosen.market}`")
    if session and session not in chosen.commits():
        raise OdinError(f"life {chosen.id} has not run session {session}; it ends with {chosen.head}")
    found = performance_of(chosen, session)
    emit(found.row.to_dicts()[0], json_output, lambda _: evening_summary(found.row, found.details))
