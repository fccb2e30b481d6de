"""Groups learning, evaluation and registry: what each week's retraining left behind, one weekly partition each.

The fold trains, evaluates and promotes as it passes a week's last session and logs these assets for that week; asked
for again they verify what lies there and return at once. A week whose last session is not in the life is
`incomplete`."""

from datetime import date
from typing import Any

import dagster as dg

from odin_assets.partitions import ONE_RUN, partitions_of
from odin_assets.resources import OdinHome, users_mistakes
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.weeks import WeekRecord, week_record

WEEKLY = {  # asset → (group, upstream, kinds, description)
    "training_dataset": (
        "learning",
        "replay_buffer",
        {"parquet"},
        "Manifest of what the week's candidate learned from: files, hashes, counts, range.",
    ),
    "joint_policy": (
        "learning",
        "training_dataset",
        {"lightgbm"},
        "The week's candidate: enter, direction, size, exit and confidence.",
    ),
    "evaluation_report": (
        "evaluation",
        "joint_policy",
        {"parquet"},
        "The gate's verdict: PASS or FAIL with number and threshold per criterion.",
    ),
    "registry_pointer": (
        "registry",
        "evaluation_report",
        {"parquet"},
        "Which version is champion from when, which one before, and why.",
    ),
}


def weekly_assets(market: str) -> list[dg.AssetsDefinition]:
    return [_weekly(market, name) for name in WEEKLY]


def log_week(context: dg.AssetExecutionContext, market: str, life: Life, week: date, *, fresh: bool) -> None:
    """Log the weekly assets of a week that the fold has just passed, or passed in a run that died before it could."""
    record = week_record(life, week)
    for name in WEEKLY:
        key = dg.AssetKey([market, name])
        if fresh or not _logged_whole(context.instance, key, str(week)):
            context.log_event(dg.AssetMaterialization(key, partition=str(week), metadata=_metadata(name, record)))


def _logged_whole(instance: dg.DagsterInstance, key: dg.AssetKey, week: str) -> bool:
    """Whether the week's last materialisation is there and of a week that was over."""
    of_week = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[week])
    last = instance.fetch_materializations(of_week, limit=1).records
    event = last[0].asset_materialization if last else None
    status = event.metadata.get("status") if event else None
    return status is not None and status.value != "incomplete"


def _weekly(market: str, name: str) -> dg.AssetsDefinition:
    group, upstream, kinds, description = WEEKLY[name]

    @dg.asset(
        name=name,
        key_prefix=market,
        partitions_def=partitions_of(market).weeks,
        deps=[dg.AssetKey([market, upstream])],
        backfill_policy=ONE_RUN,
        group_name=group,
        owners=["team:research"],
        kinds=kinds,
        code_version="1",
        description=description,
    )
    def weekly(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        with users_mistakes():
            life = odin.life(market)
            for key in context.partition_keys:
                record = week_record(life, date.fromisoformat(key)) if life else None
                facts = _metadata(name, record) if record else {"status": "incomplete"}
                context.add_asset_metadata(facts, asset_key=context.asset_key, partition_key=key)

    return weekly


def _metadata(name: str, record: WeekRecord) -> dict[str, Any]:
    """What Dagit shows of a week; numbers are plotted."""
    if record.session is None:
        return {"status": "incomplete"}
    shown: dict[str, Any] = {"status": "found", "session": str(record.session), "outcome": record.outcome}
    if name == "training_dataset":
        shown |= {"version": record.dataset, "contexts": record.contexts, "files": record.files}
    if name in ("joint_policy", "evaluation_report") and record.candidate:
        shown |= {"candidate": record.candidate}
    if name == "evaluation_report":
        shown |= {"reason": record.reason, "report": dg.MetadataValue.md(record.report)}
        shown |= {c: v for c, v in record.values.items() if v is not None}
    if name == "registry_pointer":
        shown |= {"champion": record.champion or "none", "has_champion": int(record.champion is not None)}
    return shown
