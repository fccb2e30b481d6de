"""What level `money` of the gate asks besides decisions: is the lineage robust, and does the leak wall stand?

Measured where files and bars can be read, so for a live retrain and not inside the fold. What is missing is no
criterion, and the gate then says that it is missing: nothing is promoted without it."""

import polars as pl

from odin_core.evaluation.evidence import Criterion
from odin_core.lifecycle.examination import NothingToExamine, examine
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData


def portfolio_findings(life: Life, data: MarketData, version: str | None) -> dict[str, tuple[Criterion, ...]]:
    """`robustness` of a stored `version` of the lineage on the sessions after its training, as `lifecycle.examination`
    finds it, and `leak_wall` as it was last checked on this market's features and labels."""
    return {"robustness": _robustness(life, data, version), "leak_wall": _leak_wall(life)}


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
    path = life.home.reports / f"leak_wall_{life.market}.parquet"
    if not path.is_file():
        return ()
    verdicts = pl.read_parquet(path)
    failed = verdicts.filter(~pl.col("passed"))
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
