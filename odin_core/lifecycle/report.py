"""The report of a life: its tables read, its tear sheet written as a page. What it says: `evaluation.tearsheet`."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from odin_core.errors import OdinError
from odin_core.evaluation.tearsheet.markdown import markdown
from odin_core.evaluation.tearsheet.page import page
from odin_core.evaluation.tearsheet.records import Records
from odin_core.evaluation.tearsheet.sheet import TearSheet, tear_sheet
from odin_core.lake import write_text
from odin_core.lifecycle.life import REPORT, Life
from odin_core.lifecycle.outcomes import EXECUTIONS
from odin_core.lifecycle.state import PHASE_STATE, SCORES
from odin_core.lifecycle.summary import PERIODS
from odin_core.market.profile import load_profile
from odin_core.replay.record import REPLAY

STATES = pl.Schema(
    (name, PHASE_STATE[name])
    for name in (
        "session", "status", "phase", "phase_before", "reason", "epsilon", "champion", "vol_regime", "session_return",
        "traded_notional", "trades", "random_returns", "hold_return",
    )
)  # fmt: skip
DECIDED = pl.Schema(
    (name, REPLAY[name])
    for name in (
        "decision_id", "session", "symbol", "phase", "source", "vol_regime", "side", "size", "confidence", "status",
        "reject_reason", "entry_ts", "exit_ts", "exit_reason", "gross_return", "cost", "net_return", "reward",
        "complete",
    )
)  # fmt: skip
SCORED = pl.Schema(
    (name, SCORES[name])
    for name in ("session", "version", "candidate", "champion", "decisions", "reward", "random", "rules", "ic")
)
EVALUATED = pl.Schema({"version": pl.String(), "outcome": pl.String(), "reason": pl.String(), "contexts": pl.Int64()})

"""What is read of the tables: a life may have been made by code with other columns beside these."""


class EmptyRange(OdinError):
    def __init__(self, life: Life, first: date | None, last: date | None, sessions: list[date]) -> None:
        asked = f"from {first or 'the beginning'} to {last or 'the end'}"
        super().__init__(
            f"life {life.id} has no finished session {asked}; it has {len(sessions)}, {sessions[0]} to {sessions[-1]}"
        )


class NotAPage(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no page; end it with .html or .md")


@dataclass(frozen=True)
class Report:
    """A tear sheet and where its page lies."""

    path: Path
    sheet: TearSheet

    @cached_property
    def markdown(self) -> str:
        return markdown(self.sheet)

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        """PNGs of at most 50 kB each, by name."""
        from odin_core.evaluation.tearsheet.drawing import IN_DAGIT, png

        return {name: png(self.sheet, name) for name in IN_DAGIT}

    def to_dict(self) -> dict[str, Any]:
        return {"report": str(self.path), **self.sheet.to_dict()}


def write_report(life: Life, *, first: date | None = None, last: date | None = None, out: Path | None = None) -> Report:
    """Write the tear sheet of the sessions `first` to `last` (default: all) to `out` (.html or .md; default:
    `<life>/reports/life.html`, whose name has the range where there is one). Raises EmptyRange, NotAPage."""
    path = out or life.reports / _name(first, last)
    if path.suffix not in (".html", ".md"):
        raise NotAPage(path)
    finished = life.commits()
    if finished and not any((first or date.min) <= s <= (last or date.max) for s in finished):
        raise EmptyRange(life, first, last, finished)
    sheet = tear_sheet(records_of(life, first, last))
    write_text(markdown(sheet) if path.suffix == ".md" else page(sheet), path)
    return Report(path, sheet)


def records_of(life: Life, first: date | None = None, last: date | None = None) -> Records:
    """The tables of a life's finished sessions up to `last`, as a tear sheet takes them."""
    profile = load_profile(life.market)
    commits = {s: life.committed(s) for s in life.commits() if s <= (last or date.max)}

    def read(table: str, schema: pl.Schema, stamp: str | None = None) -> pl.DataFrame:
        """The columns of `schema`, with the session that wrote them as `stamp`."""
        frames = [schema.to_frame().with_columns(pl.lit(None, pl.Date).alias(stamp)) if stamp else schema.to_frame()]
        for session, commit in commits.items():
            if commit is not None and table in commit.tables:
                rows = life.read(table, session).select(schema.names())
                frames.append(rows.with_columns(pl.lit(session).alias(stamp)) if stamp else rows)
        return pl.concat(frames)

    return Records(
        market=life.market,
        life=life.id,
        currency=profile.currency,
        capital=profile.capital,
        states=read("phase_state", STATES),
        replay=read("replay_buffer", DECIDED, "resolved"),
        executions=read("executions", EXECUTIONS, "session"),
        scores=read("candidate_scores", SCORED),
        reports=read("evaluation_report", EVALUATED, "session"),
        first=first,
        last=last,
        periods=PERIODS,
        facts=_facts(life),
    )


def _facts(life: Life) -> dict[str, str]:
    """Settings that tell this life from others."""
    told = {"seed": str(life.config.seed), "generation": str(life.generation)}
    return told | (
        {"planted edge": f"{life.config.edge:g}"} if load_profile(life.market).source["kind"] == "synthetic" else {}
    )


def _name(first: date | None, last: date | None) -> str:
    if first is None and last is None:
        return REPORT
    return f"{Path(REPORT).stem}_{first or 'beginning'}_{last or 'end'}.html"
