"""What the fold left behind for one week: dataset, candidate, verdict, champion. Read, verified, never recomputed."""

from dataclasses import dataclass, field
from datetime import date

from odin_core.lifecycle.life import Life
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile


@dataclass(frozen=True)
class WeekRecord:
    """`session` is the week's last one, None while the life has not come to it; then everything else is empty."""

    session: date | None
    outcome: str = "incomplete"
    reason: str = ""
    candidate: str | None = None
    champion: str | None = None
    dataset: str = ""
    contexts: int = 0
    files: int = 0
    values: dict[str, float | None] = field(default_factory=dict)  # by criterion
    report: str = ""  # Markdown


def week_record(life: Life, week: date) -> WeekRecord:
    """The record of the week that begins on Monday `week`. A stored candidate is loaded, so damage is noticed here."""
    sessions = session_calendar(load_profile(life.market)).sessions_of_week(week)
    if not sessions or life.committed(sessions[-1]) is None:
        return WeekRecord(None)
    session = sessions[-1]
    report = life.read("evaluation_report", session)
    head = report.row(0, named=True)
    if head["version"]:
        life.registry.model(head["version"])
    criteria = report.filter(report["criterion"].is_not_null())
    return WeekRecord(
        session=session,
        outcome=head["outcome"],
        reason=head["reason"],
        candidate=head["version"],
        champion=life.read("phase_state", session)["champion"][0],
        dataset=head["dataset"],
        contexts=head["contexts"],
        files=life.read("training_dataset", session).height,
        values=dict(criteria.select("criterion", "value").iter_rows()),
        report=head["report"],
    )
