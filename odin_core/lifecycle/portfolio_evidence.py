"""What level `money` of the gate asks besides decisions: is the lineage robust, and does the leak wall stand?

Measured where files and bars can be read, so for a live retrain and not inside the fold. What is missing is no
criterion, and the gate then says that it is missing: nothing is promoted without it."""

from typing import Final

import polars as pl

from odin_core.evaluation.evidence import Criterion
from odin_core.leaks.kept import kept_wall
from odin_core.lifecycle.examination import NothingToExamine, examine
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData
from odin_core.registry.history import history

SESSIONS: Final = 20
"""After its training, that a version of the lineage should have to be examined on."""


def portfolio_findings(life: Life, data: MarketData) -> dict[str, tuple[Criterion, ...]]:
    """`robustness` of the lineage as `lifecycle.examination` finds it of its newest version that has SESSIONS sessions
    after its training (the oldest one where none has), and `leak_wall` as it was last checked on this market's features
    and labels. A kind without criteria could not be measured."""
    return {"robustness": _robustness(life, data, examined_version(life)), "leak_wall": _leak_wall(life)}


def examined_version(life: Life) -> str | None:
    """Which of the life's candidates stands for its lineage; None before the first one."""
    commits = life.commits()
    tried = history(life).filter(pl.col("event").is_in(["promoted", "refused", "insufficient"]))
    for version, through in tried.select("version", "trained_through").reverse().iter_rows():
        if sum(session > through for session in commits) >= SESSIONS:
            return version
    return tried["version"][0] if tried.height else None


def _robustness(life: Life, data: MarketData, version: str | None) -> tuple[Criterion, ...]:
    if version is None:
        return ()
    try:
        found = examine(life, data, version)
    except NothingToExamine:
        return ()
    failed = [finding for finding in found.findings if not finding.passed]
    said = "; ".join(f"{finding.name}: {finding.explanation}" for finding in failed) or "all met"
    return (
        Criterion(
            name="robustness",
            value=float(len(failed)),
            relation="<=",
            threshold=0.0,
            unit="findings",
            explanation=f"of {len(found.findings)} about {version}, {found.sessions} sessions: {said}",
        ),
    )


def _leak_wall(life: Life) -> tuple[Criterion, ...]:
    verdicts = kept_wall(life.home, life.market)
    if verdicts is None or verdicts.is_empty():
        return ()
    failed = verdicts.filter(~pl.col("passed").fill_null(False))
    said = ", ".join(f"{c} of {s}" for c, s in failed.select("check", "subject").head(5).iter_rows()) or "none failed"
    return (
        Criterion(
            name="leak_wall",
            value=float(failed.height),
            relation="<=",
            threshold=0.0,
            unit="failed checks",
            explanation=f"of {verdicts.height} over features and labels: {said}",
        ),
    )
