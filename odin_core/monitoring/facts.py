"""Facts for the rules, out of a life's tables. What lies outside them (runs, the calendar, drift) is added by whoever
knows it, with `dataclasses.replace`."""

from datetime import date
from typing import TYPE_CHECKING, Any, Final

from odin_core.lifecycle.life import Life
from odin_core.monitoring.rules import Demotion, Facts

if TYPE_CHECKING:
    from odin_core.monitoring.performance import Performance

RECENT: Final = 5  # sessions in which a demotion is still news


def life_facts(life: Life, session: date | None = None, *, performance: "Performance | None" = None) -> Facts:
    """Facts known at the close of `session` (default: the head), with all later sessions left out. `performance` of
    that session is made from the tables unless it is given. A life without sessions gives hardly any."""
    sessions = [s for s in life.commits() if s <= (session or date.max)]
    if not sessions:
        return Facts(market=life.market, life=life.id)
    from odin_core.monitoring.performance import performance_of

    now = sessions[-1]
    row: dict[str, Any] = (performance or performance_of(life, now)).row.row(0, named=True)
    band_is_known = row["expected_lower"] is not None and row["expected_upper"] is not None
    return Facts(
        market=life.market,
        life=life.id,
        session=now,
        drawdown=abs(row["drawdown"]),
        drawdown_cap=life.config.guardrails.max_drawdown,
        wins=row["wins"],
        trades=row["complete_trades"],
        sessions_since_retrain=sessions_since_retrain(life, now),
        live_reward=row["live_reward"] if band_is_known else None,
        band_lower=row["expected_lower"],
        band_upper=row["expected_upper"],
        band_sessions=row["live_sessions"],
        demotions=_demotions(life, sessions[-RECENT:]),
    )


def sessions_since_retrain(life: Life, through: date) -> int:
    """Finished sessions up to `through` after the last one at whose close a model was trained, in its week or out of
    turn. A life that never trained counts from when it had the sessions that training needs."""
    from odin_core.lifecycle.live import NOTE

    sessions = [s for s in life.commits() if s <= through]
    trained = max(
        (
            date.fromisoformat(note["head"])
            for note in life.notes(NOTE)
            if note["version"] and date.fromisoformat(note["head"]) <= through
        ),
        default=date.min,
    )
    for week in reversed([s for s in life.sessions_with("evaluation_report") if trained < s <= through]):
        if life.read("evaluation_report", week)["version"][0] is not None:
            trained = week
            break
    if trained == date.min:
        return max(len(sessions) - life.config.learner.min_sessions, 0)
    return sum(session > trained for session in sessions)


def _demotions(life: Life, sessions: list[date]) -> tuple[Demotion, ...]:
    """Champions that lost their place in these sessions, and falls to an earlier phase without one."""
    found: list[Demotion] = []
    for session in sessions:
        commit = life.committed(session)
        history = life.read("registry_history", session) if commit and "registry_history" in commit.tables else None
        events = history.filter(event="demoted").to_dicts() if history is not None else []
        state = life.read("phase_state", session).row(0, named=True)
        if events:
            found += [Demotion(session, event["version"] or "the champion", event["reason"]) for event in events]
        elif state["phase"] < state["phase_before"]:
            fell = f"phase {state['phase_before']} → {state['phase']}: {state['reason']}"
            found.append(Demotion(session, "the life", fell))
    return tuple(found)
