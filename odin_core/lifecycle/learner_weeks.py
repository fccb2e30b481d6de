"""The week's learners of a life: PPO, REINFORCE and what is distilled of PPO, made where they do not lie there yet.

Each is found again by what it follows from: settings of the home (`settings/ppo.yaml` and its like), encoder, where it
began, bars, the life's own tables, and the text of what learns. So asking twice costs nothing, and a kill costs the
training since its last checkpoint. One process of a home trains at a time. What they leave and who reads it is
`learners`."""

import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

import odin_core
from odin_core.configuration import settings_at
from odin_core.lifecycle.config import identity
from odin_core.lifecycle.learners import (
    DISTILLED,
    HEAD,
    PPO,
    PPO_CURVES,
    REINFORCE,
    checkpoints_of,
    found_again,
    newest_ppo,
    ppo_at,
    save_reinforce,
    store,
    write,
)
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import loop_rules
from odin_core.lifecycle.shadow import NotFinished
from odin_core.market.derived import mark_of_bars
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.weekly_config import WeekConfig, weekly_ppo

if TYPE_CHECKING:
    from odin_core.market.data import MarketData
    from odin_core.rl.reinforce import Learned
    from odin_core.rl.weekly import PPOWeek

Progress = Callable[[int, int, str], None]
CODE: Final = ("rl", "execution")
"""Packages of `odin_core` that a week's learner follows from."""


def ppo_week(life: Life, data: "MarketData", session: date, progress: Progress | None = None) -> pl.DataFrame:
    """The PPO of the week that ends with `session`: the one that lies there, or trained, judged and stored. Settings
    are the home's `settings/week.yaml`, `ppo.yaml` and `environment.yaml`. A killed training goes on.
    Raises NotFinished and what `rl.weekly.train_week` raises."""
    from odin_core.rl.weekly import encoder_for, train_week, warms

    _require_finished(life, session)
    week = settings_at(life.home, "week", WeekConfig())
    config = settings_at(life.home, "ppo", weekly_ppo())
    environment = settings_at(life.home, "environment", EnvironmentConfig.of({}))
    encoder = encoder_for(data, session, week)
    incumbent = newest_ppo(life, data.calendar.previous(session))
    began = incumbent.version if incumbent and warms(incumbent, week, encoder) else None
    settings = [s.model_dump(mode="json") for s in (week, config, environment)]
    mark = identity(settings, encoder and encoder.version, began, _inputs(life, data, session))
    if (found := found_again(life, PPO, session, mark)) is not None:
        return found
    with life.home.trainer(f"the PPO of {life.market}, week to {session}"):
        made = train_week(
            life, data, session, week=week, environment=environment, config=config, incumbent=incumbent,
            folder=checkpoints_of(life, PPO, session, mark), progress=progress,
        )  # fmt: skip
        if made.policy is not None:
            store(life, made.policy.version, made.policy.save)
        rows = _rows(made, encoder.version if encoder else None, mark)
        write(life, "the PPO", session, {PPO_CURVES: made.curves, PPO: rows})
        _forget_checkpoints(life, PPO, session)
    return rows


def reinforce_week(life: Life, data: "MarketData", session: date, progress: Progress | None = None) -> pl.DataFrame:
    """The REINFORCE policy learned from all decisions resolved by the close of `session`, a week's last: the one that
    lies there, or a new one. Settings are the home's `settings/reinforce.yaml`. One row, HEAD.
    Raises NotFinished and what `rl.reinforce.learn` raises."""
    from odin_core.rl.offline_data import TooFewDecisions, TooFewToSplit, offline_data, require_enough
    from odin_core.rl.offline_evidence import NothingToLearnFrom, NothingTurns
    from odin_core.rl.reinforce import learn

    _require_finished(life, session)
    config = settings_at(life.home, "reinforce", ReinforceConfig.of({}))
    mark = identity(config.model_dump(mode="json"), _inputs(life, data, session))
    if (found := found_again(life, REINFORCE, session, mark)) is not None:
        return found
    with life.home.trainer(f"the REINFORCE policy of {life.market}, week to {session}"):
        head: dict[str, Any] = {"encoder": None, "made_from": mark, "version": None, "outcome": "not_trained"}
        try:
            record = offline_data(life, data, session)
            require_enough(record, life.id, (config.min_decisions, config.min_sessions), session)
            parts = record.split(config.validation_share, config.test_share, config.embargo)
            folder = checkpoints_of(life, REINFORCE, session, mark)
            learned = learn(record, parts, config, folder=folder, progress=progress)
        except (TooFewDecisions, TooFewToSplit, NothingToLearnFrom, NothingTurns) as too_little:
            head |= {"reason": str(too_little), "report": str(too_little)}
        else:
            policy = learned.policy
            save_reinforce(life, policy)
            head |= {"version": policy.version, **_reinforced(learned)}
        row = pl.DataFrame([head], schema=HEAD)
        write(life, "the REINFORCE policy", session, {REINFORCE: row})
        _forget_checkpoints(life, REINFORCE, session)
    return row


def _rows(made: "PPOWeek", encoder: str | None, mark: str) -> pl.DataFrame:
    """HEAD, then the numbers of each seed; one row without numbers where nothing was trained."""
    from odin_core.evaluation.gate_report import report_markdown
    from odin_core.rl.evaluation import SEEDS

    told = report_markdown(made.verdict, {"session": made.session}) if made.verdict else made.reason
    head: dict[str, Any] = {
        "version": made.policy.version if made.policy else None,
        "encoder": encoder if made.policy else None,
        "outcome": made.outcome,
        "reason": made.reason,
        "made_from": mark,
        "report": told,
    }
    seeds = made.seeds if made.seeds.height else pl.DataFrame({name: [None] for name in SEEDS}, schema=SEEDS)
    return seeds.select(*(pl.lit(value, HEAD[name]).alias(name) for name, value in head.items()), pl.all())


def _reinforced(learned: "Learned") -> dict[str, str]:
    """Outcome, reason and report: whether any look at later sessions was better than the prior."""
    best = learned.curve.filter(pl.col("step") == learned.best_step)
    if best.is_empty():
        told = f"no look at later sessions was better than the prior; {learned.stopped}"
        return {"outcome": "refused", "reason": told, "report": told}
    value = best["validation_mean"][0]
    told = f"{value:+.3f} per decision on later sessions, units of risk, at update {learned.best_step}"
    return {"outcome": "passed", "reason": told, "report": f"{told}; {learned.stopped}"}


def distilled_week(life: Life, data: "MarketData", session: date, at: datetime) -> pl.DataFrame:
    """The PPO of the week that ends with `session` as a joint policy, and what the translation costs: the one that lies
    there, or a new one. It is stored in the registry (made `at`), where a person may promote it. One row, HEAD.
    Raises NotFinished and what `rl.distillation.distil` raises."""
    from odin_core.lifecycle.learning import reference_of
    from odin_core.monitoring.reference import to_json
    from odin_core.policies.joint import version_of
    from odin_core.registry.bundle import bundle_of
    from odin_core.rl.distillation import TeacherHardlyTrades, distil
    from odin_core.rl.teaching import lesson

    _require_finished(life, session)
    row = life.read(PPO, session).row(0, named=True) if life.lake.has(PPO, session) else None
    mark = identity(row["version"] if row else None, _inputs(life, data, session))
    if (found := found_again(life, DISTILLED, session, mark)) is not None:
        return found
    head: dict[str, Any] = {"encoder": None, "made_from": mark, "version": None, "outcome": "not_trained"}
    if row is None or row["version"] is None:
        head |= dict.fromkeys(("reason", "report"), "the week has no PPO to learn from")
    else:
        teacher, learner = ppo_at(life, data, session), life.config.learner
        assert teacher is not None, "its week has a version"
        window, taught = lesson(life, data, teacher, through=session)
        try:
            made = distil(window, taught, learner, life.config.seed)
        except TeacherHardlyTrades as too_little:
            head |= dict.fromkeys(("reason", "report"), str(too_little))
        else:
            version, loss = version_of(made.policy), made.report.loss
            facts = {"distilled_from": row["version"], "loss": loss["difference"], "loss_lower": loss["lower"]}
            reference = to_json(reference_of(window, made.walk, life.config))
            life.registry.save(bundle_of(life, version, made.policy, reference, facts), at)
            told = f"student less teacher {loss['difference']:+.4f} per decision, units of risk"
            head |= {"version": version, "outcome": "made", "reason": told, "report": made.report.markdown()}
    made_row = pl.DataFrame([head], schema=HEAD)
    write(life, "the distilled policy", session, {DISTILLED: made_row})
    return made_row


def _inputs(life: Life, data: "MarketData", session: date) -> str:
    """What the week's learners follow from besides settings: all bars and corporate actions up to the session, what the
    life's sessions came to, how its market fills and charges, and the text of what learns."""
    sessions = data.sessions(last=session)
    data.generate(sessions)
    lived = [commit.tables for s in life.commits() if s <= session and (commit := life.committed(s))]
    root = Path(odin_core.__file__).parent
    code = [path.read_text(encoding="utf-8") for name in CODE for path in sorted((root / name).glob("*.py"))]
    venue = loop_rules(life, data.profile).venue
    market = [mark_of_bars(data, sessions) if sessions else None, repr(venue.rules), repr(venue.costs), venue.capital]
    return identity(market, lived, code)


def _forget_checkpoints(life: Life, table: str, session: date) -> None:
    """Those of all trainings of the week, also ones that another setting left unfinished."""
    pattern = checkpoints_of(life, table, session, "*")
    for folder in pattern.parent.glob(pattern.name):
        shutil.rmtree(folder, ignore_errors=True)


def _require_finished(life: Life, session: date) -> None:
    if life.committed(session) is None:
        raise NotFinished(life, session)
