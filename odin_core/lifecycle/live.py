"""The live life between its weeks: a retrain that an event calls for (a phase transition, drift, drawdown, a candidate
that lacks only what level `money` measures here).

The candidate is trained and judged by the fold's own `learning.try_candidate`, on everything up to the head. Finished
sessions stay as they are: one that passes the gate enters as a promotion for the first session that is not planned yet,
which is an input of the life and is replayed. A simulated life retrains only inside the fold."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from typing import Any

from odin_core.datasets.training import record_window
from odin_core.errors import OdinError
from odin_core.evaluation.gate import open_questions
from odin_core.lake import write_text
from odin_core.lifecycle.learning import Trial, try_candidate
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.portfolio_evidence import portfolio_findings
from odin_core.lifecycle.run import code_version, loop_rules, model_facts, restore
from odin_core.lifecycle.state import LoopState
from odin_core.market.data import MarketData
from odin_core.monitoring.reference import to_json
from odin_core.registry.bundle import bundle_of
from odin_core.registry.history import history, plan_promotion, promotions_on

OPERATOR = "the gate"
NOTE = "retrain"  # event in the ledger


class NotLive(OdinError):
    def __init__(self, life: Life) -> None:
        super().__init__(
            f"life {life.id} of {life.market} is simulated: it retrains in its weeks, inside the fold, so that every "
            f"run of it is the same. A live life is another one: odin life new --market {life.market} "
            f"--start {life.first_session} --set live=true"
        )


class NothingToLearnFrom(OdinError):
    def __init__(self, life: Life) -> None:
        super().__init__(
            f"life {life.id} has no finished session yet; run `odin bootstrap --market {life.market}` before a retrain"
        )


def retrain_live(life: Life, data: MarketData, *, why: str, clock: Callable[[], datetime]) -> str:
    """Train on everything up to the head of a live life, judge, promote what passes. Returns the outcome in words.

    The outcome is noted in the ledger; asked again at the same head, for whatever reason, nothing is done: the same
    sessions give the same model. Only one that lacked findings (robustness, leak wall) is judged again. A run that was
    killed before its note comes to that model and promotes it once.
    Raises NotLive, NothingToLearnFrom, HomeBusy."""
    if not life.config.live:
        raise NotLive(life)
    with life.home.writer(f"a retrain of {life.market} because of {why}"):
        head = life.head
        if head is None:
            raise NothingToLearnFrom(life)
        key: dict[str, Any] = {"head": str(head), "generation": life.generation}
        before = [note for note in life.notes(NOTE) if key.items() <= note.items() and not note.get("lacked_findings")]
        if before:
            return f"done before at {head}, because of {before[-1]['why']}: {before[-1]['outcome']}"
        rules = loop_rules(life, data.profile)
        state = restore(life, data, rules)
        state = replace(state, trials=state.trials + _tried_between(life, state))
        findings = partial(portfolio_findings, life, data) if rules.config.promotion.level == "money" else None
        trial = try_candidate(state, rules.config, rules.profile.ic_alarm, findings)
        record_window(life, data, trial.manifest, trial.state.window, code_version())
        outcome = _take_up(life, head, trial, why, clock) if trial.judged else f"not trained: {trial.reason}"
        version = trial.judged.version if trial.judged else None
        lacked = trial.judged is not None and open_questions(trial.judged.verdict)
        life.note(clock(), NOTE, **key, why=why, version=version, contexts=trial.contexts, outcome=outcome,
                  lacked_findings=lacked)  # fmt: skip
        return outcome


def _tried_between(life: Life, state: LoopState) -> int:
    """Candidates of earlier retrains like this one, which the fold does not know of."""
    known = {*history(life)["version"], *state.candidates}
    earlier = {note["version"] for note in life.notes(NOTE) if note["version"]}
    return len(earlier - known)


def _take_up(life: Life, head: date, trial: Trial, why: str, clock: Callable[[], datetime]) -> str:
    """Store the candidate and its report; promote it where the gate lets it pass. What became of it, in words."""
    assert trial.judged is not None
    version, model = trial.judged.version, trial.judged.model
    facts = model_facts() | trial.facts(life.config.seed)
    life.registry.save(bundle_of(life, version, model, to_json(trial.judged.reference), facts), clock())
    for name, page in trial.reports(head, why).items():
        write_text(page, life.reports / f"retrain-{name}")
    if version == trial.state.champion:
        return f"{version} is the champion already"
    if trial.outcome != "promoted":
        return f"{version} {trial.outcome}: {trial.reason}"
    reason = f"retrain outside its week, because of {why}: {trial.reason}"
    promotion = plan_promotion(life, version, None, reason, event="promoted")
    if all(entry["version"] != version for entry in promotions_on(life, promotion.effective)):
        promotion.apply(clock(), OPERATOR)
    return f"{version} promoted from session {promotion.effective} on: {trial.reason}"
