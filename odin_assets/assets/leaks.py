"""The leak wall of a market as one asset, whose checks are red or green: nothing used was unknowable then.

What the checks do is `odin_core.leaks`. They recompute features and labels from a market's own bars, so they are made
when somebody asks, and not with every session."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from odin_assets.resources import OdinHome, users_mistakes
from odin_assets.versions import code_version

if TYPE_CHECKING:
    from odin_core.leaks import Verdict

NAMED = 20  # failures that a check's metadata spells out
OVER_FEATURES = {
    "truncate_and_recompute": "No feature changes when the bars known after it are removed.",
    "future_perturbation": "No feature changes when the bars known after it are scrambled.",
    "stamp_shift": "Features move with the stamps of their bars, and wait for bars that become known later.",
    "lag_sensitivity": "No feature knows the next returns too well, or loses all it knows when it comes one bar late.",
    "shuffled_labels": "The learner finds nothing in shuffled outcomes, and not too much in the true ones.",
    "cheat_feature": "The learner finds a feature that cheats, and the features do not know already what it tells.",
}
OVER_LABELS = {
    "labels_truncate_and_recompute": "No label changes when the bars known after its end are removed.",
    "labels_future_perturbation": "No label changes when the bars known after its end are scrambled.",
    "labels_stamp_shift": "Labels move with the stamps of their bars.",
}


class Wall(dg.Config):
    """What is checked."""

    sets: list[str] = Field(
        default=["decision", "technical", "price_action", "cross_section"], description="Sets of `odin features list`."
    )
    interval: str = Field(default="5m", description="On bars of 1m, 5m, 15m or 60m.")
    trees: int = Field(default=30, description="Of the learner that looks for leaks.")


def leak_assets(market: str) -> list[dg.AssetsDefinition]:
    key = dg.AssetKey([market, "leak_wall"])
    specs = [dg.AssetCheckSpec(n, asset=key, description=d) for n, d in (OVER_FEATURES | OVER_LABELS).items()]
    upstream = [
        dg.AssetDep(dg.AssetKey([market, name]), partition_mapping=dg.AllPartitionMapping())
        for name in ("features", "labels")
    ]

    @dg.asset(
        key_prefix=market,
        deps=upstream,
        group_name="features",
        owners=["team:research"],
        kinds={"lightgbm"},
        check_specs=specs,
        code_version=code_version("odin_core.leaks"),
    )
    def leak_wall(context: dg.AssetExecutionContext, config: Wall, odin: OdinHome) -> dg.MaterializeResult:
        """Six checks over every feature of the sets and three over every label, on the market's newest sessions."""
        from odin_core.leaks import joint_learner
        from odin_core.leaks.kept import keep_wall
        from odin_core.leaks.wall import wall_around_features, wall_around_labels
        from odin_core.lifecycle.config import LearnerConfig

        verdicts: list[Verdict] = []
        left_out: list[str] = []
        with users_mistakes():
            data = odin.data(market)
            last = data.newest()
            fit = joint_learner(LearnerConfig(trees=config.trees), seed=0)
            for name in config.sets:
                wall = wall_around_features(data, name, last, fit=fit, interval=config.interval)
                verdicts, left_out = verdicts + wall.verdicts, left_out + wall.left_out
                context.log.info(f"{market}: {name} looked at")
            of_labels = wall_around_labels(data, last)
            path = keep_wall(odin.open(), market, [*verdicts, *of_labels])
        told = [_told(name, [v for v in verdicts if v.check == name]) for name in OVER_FEATURES]
        told += [_told(name, [v for v in of_labels if f"labels_{v.check}" == name]) for name in OVER_LABELS]
        facts = {"last_session": str(last), "verdicts": len(verdicts) + len(of_labels), "needs_more_sessions": left_out}
        return dg.MaterializeResult(metadata=facts | {"path": dg.MetadataValue.path(str(path))}, check_results=told)

    return [leak_wall]


def _told(name: str, verdicts: Sequence["Verdict"]) -> dg.AssetCheckResult:
    """One check over all that it looked at; red where one failed, or nothing was looked at."""
    failed = {v.subject: v.detail for v in verdicts if not v.passed}
    facts = {"looked_at": len(verdicts), "failed": len(failed), "first": dict(list(failed.items())[:NAMED])}
    return dg.AssetCheckResult(check_name=name, passed=bool(verdicts) and not failed, metadata=facts)
