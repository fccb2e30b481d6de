"""The week's PPO of a life: trained at the week's last close on what was known, judged on sessions that no seed saw.

Several trainings differ in their seed alone, and the first is the candidate, chosen before anything is looked at; the
others tell whether luck carries it. The candidate runs as a shadow from the next session on (`lifecycle.shadow`). It is
no champion: what it knows enters through `distillation`, as a joint policy that a person promotes. Where everything
lies: `lifecycle.learners`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from odin_core.evaluation.evidence import Criterion, Verdict
from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules
from odin_core.lifecycle.run import loop_rules
from odin_core.market.bars import minutes_of
from odin_core.rl.callbacks import CURVE
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.evaluation import SEEDS
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.weekly_config import WeekConfig

if TYPE_CHECKING:
    from pathlib import Path

    from odin_core.encoder.model import TrainedEncoder
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData
    from odin_core.rl.evaluation import SeedEvaluation
    from odin_core.rl.policy import TradingPolicy
    from odin_core.rl.ppo import Trained
    from odin_core.rl.starts import Starts
    from odin_core.rl.tape import Tape

CURVES: Final = pl.Schema({"seed": pl.Int64(), **CURVE})
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class PPOWeek:
    """What a week's training left. Without a policy, `reason` says what it would have needed."""

    session: date  # the week's last one
    reason: str
    policy: "TradingPolicy | None" = None
    verdict: Verdict | None = None
    seeds: pl.DataFrame = field(default_factory=SEEDS.to_frame)  # SEEDS
    curves: pl.DataFrame = field(default_factory=CURVES.to_frame)  # CURVES

    @property
    def outcome(self) -> str:
        """passed, refused, insufficient or not_trained"""
        if self.verdict is None:
            return "not_trained"
        return "passed" if self.verdict.outcome == "promoted" else self.verdict.outcome


def train_week(
    life: "Life",
    data: "MarketData",
    session: date,
    *,
    week: WeekConfig,
    environment: EnvironmentConfig,
    config: PPOConfig,
    incumbent: "TradingPolicy | None" = None,
    folder: "Path | None" = None,
    progress: Progress | None = None,
) -> PPOWeek:
    """Train and judge the PPO of the week that ends with the finished `session`.

    `incumbent`: the policy of the week before, for a warm start; one on another encoder or of another shape is left
    aside. With a `folder`, a training that was killed goes on there. `progress(done, total, at)` counts updates of all
    seeds. Nothing later than the session's close is read. Raises what `market_tape` and `ppo.train` raise."""
    from odin_core.rl.market_tape import market_tape

    learned, judged = sessions_of(data, session, week)
    if len(learned) < 2:
        have, needed = len(learned) + len(judged), week.judged_sessions + 2
        return PPOWeek(session=session, reason=f"{have} sessions with bars; it takes {needed}")
    encoder = encoder_for(data, session, week)
    if encoder is None:
        told = f"{week.encoder} has seen" if week.encoder else "there is no encoder that has not seen"
        reason = f"{told} sessions on which the week is judged, those from {judged[0]} on: odin encoder train"
        return PPOWeek(session=session, reason=reason)
    close = data.calendar.hours(session).close
    tape = market_tape(data, learned[0], learned[-1], encoder, as_of=close)
    rules, costs = market_rules(life, data, encoder.config.interval)
    facts = {
        "encoder": encoder.version,
        "session": str(session),
        "learned": [str(learned[0]), str(learned[-1])],
        "judged": [str(judged[0]), str(judged[-1])],
    }
    training = _Training(tape, environment, config, rules, costs, _starts(life, tape, learned), facts, folder, progress)
    warm = incumbent if warms(incumbent, week, encoder) and _fits(incumbent, tape, config) else None
    policies, curves = training.all_seeds(life.config.seed, week.seeds, warm)
    test = market_tape(data, judged[0], judged[-1], encoder, as_of=close)
    found = _judged(policies, test, environment, rules, costs, week)
    candidate = policies[life.config.seed]
    verdict = _verdict(candidate.version, found, week)
    return PPOWeek(
        session=session,
        reason=verdict.reason,
        policy=candidate,
        verdict=verdict,
        seeds=found.seeds,
        curves=curves,
    )


def sessions_of(data: "MarketData", session: date, week: WeekConfig) -> tuple[list[date], list[date]]:
    """The sessions that the week to `session` is trained on, and the later ones that it is judged on."""
    sessions = data.sessions(last=session)[-week.lookback_sessions - week.judged_sessions :]
    return sessions[: -week.judged_sessions], sessions[-week.judged_sessions :]


def encoder_for(data: "MarketData", session: date, week: WeekConfig) -> "TrainedEncoder | None":
    """The encoder of the week to `session`: the settings' or, where they name none, the newest. It has seen nothing of
    the sessions that the week is judged on, since an embedding of bars that an encoder learned from knows what came
    after them. None where there is no such one. Raises EncoderUnreadable."""
    from odin_core.encoder.store import in_force, stored

    _, judged = sessions_of(data, session, week)
    if not judged:
        return None
    found = in_force(data.lake, judged[0])
    version = week.encoder or (found.version if found else None)
    model = stored(data.lake, version) if version else None
    return model if model and model.trained_through < judged[0] else None


def warms(incumbent: "TradingPolicy | None", week: WeekConfig, encoder: "TrainedEncoder | None") -> bool:
    """Whether a training may begin at the incumbent: the settings want it, and it reads the same embeddings."""
    same = incumbent is not None and encoder is not None and incumbent.facts.get("encoder") == encoder.version
    return week.warm_start and same


def _fits(incumbent: "TradingPolicy | None", tape: "Tape", config: PPOConfig) -> bool:
    from odin_core.rl.choices import DIMENSIONS
    from odin_core.rl.observation import width
    from odin_core.rl.policy import Structure

    needed = Structure(width(tape), DIMENSIONS, config.hidden, config.activation)
    return incumbent is not None and incumbent.structure == needed


def market_rules(life: "Life", data: "MarketData", interval: str) -> tuple[ExecutionRules, CostSchedule]:
    """How orders are filled and charged in the life's market on bars of an interval. The profile counts its latency in
    minutes; here it is whole bars, rounded to the nearest."""
    venue = loop_rules(life, data.profile).venue
    bars = round(venue.rules.latency_bars / (minutes_of(interval) or math.inf))
    return replace(venue.rules, latency_bars=bars), venue.costs


def _starts(life: "Life", tape: "Tape", learned: list[date]) -> "Starts | None":
    """Contexts of the life's decisions on the tape, taken, skipped and rejected; None where there are none yet."""
    from odin_core.rl.starts import NoStarts, Starts

    decided = [life.read("replay_buffer", s) for s in life.lake.sessions("replay_buffer") if s in set(learned)]
    if not decided or not sum(frame.height for frame in decided):
        return None
    try:
        return Starts.of_replay(tape, pl.concat(decided, how="diagonal"))
    except NoStarts:
        return None


@dataclass(frozen=True)
class _Training:
    tape: "Tape"
    environment: EnvironmentConfig
    config: PPOConfig
    rules: ExecutionRules
    costs: CostSchedule
    starts: "Starts | None"
    facts: Mapping[str, Any]
    folder: "Path | None"
    progress: Progress | None

    def all_seeds(
        self, first: int, seeds: int, warm: "TradingPolicy | None"
    ) -> tuple[dict[int, "TradingPolicy"], pl.DataFrame]:
        """Policy by seed, and their CURVES."""
        policies, curves = {}, []
        for number, seed in enumerate(range(first, first + seeds)):
            trained = self._one(seed, number, seeds, warm)
            policies[seed] = trained.policy
            curves.append(trained.curve.select(pl.lit(seed, pl.Int64).alias("seed"), pl.all()))
        return policies, pl.concat(curves).match_to_schema(CURVES)

    def _one(self, seed: int, number: int, seeds: int, warm: "TradingPolicy | None") -> "Trained":
        from odin_core.rl.ppo import train_ppo

        updates, told = self.config.updates, self.progress

        def progress(row: Mapping[str, Any]) -> None:
            if told:
                told(number * updates + row["update"], seeds * updates, f"seed {seed}")

        return train_ppo(
            self.tape, self.environment, self.config, seed=seed, rules=self.rules, costs=self.costs, starts=self.starts,
            warm_start=warm, folder=self.folder / f"seed-{seed}" if self.folder else None, facts=self.facts,
            progress=progress,
        )  # fmt: skip


def _judged(
    policies: "Mapping[int, TradingPolicy]",
    test: "Tape",
    environment: EnvironmentConfig,
    rules: ExecutionRules,
    costs: CostSchedule,
    week: WeekConfig,
) -> "SeedEvaluation":
    from odin_core.rl.evaluation import evaluate_seeds

    return evaluate_seeds(policies, test, environment, rules=rules, costs=costs, draws=week.draws)


def _verdict(version: str, found: "SeedEvaluation", week: WeekConfig) -> Verdict:
    """PASS or FAIL of the week's candidate, the first row of `found`, and of its learner over all seeds."""
    candidate, seeds = found.seeds.row(0, named=True), found.summary.row(0, named=True)
    unit = "net return a session, mean over symbols"
    criteria = (
        Criterion(name="beats random", value=candidate["p_value"], relation="<=", threshold=week.error, unit="share",
                  explanation="share of random portfolios of the same turnover that did at least as well"),
        Criterion(name="earns after costs", value=candidate["net_return"], unit=unit,
                  explanation="mean net return of the judged sessions, against staying flat"),
        Criterion(name="seeds", value=float(seeds["seeds"]), relation=">=", threshold=5.0, unit="trainings",
                  amount=True, explanation="trainings that differ in their seed alone"),
        Criterion(name="seeds that beat random", value=seeds["positive"], relation=">=", unit="share",
                  threshold=week.seeds_min_share, explanation="share of the seeds with an excess above random's"),
        Criterion(name="without the best seed", value=seeds["without_best"], unit=unit,
                  explanation="mean excess over random of all seeds but the luckiest"),
    )  # fmt: skip
    facts = {name: seeds[name] for name in ("mean", "std", "worst", "best")} | {"trades": float(candidate["trades"])}
    return Verdict(candidate=version, incumbent=None, hypothesis=1, alpha=week.error, criteria=criteria, facts=facts)
