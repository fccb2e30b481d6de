"""The week's PPO as people look at it: its actions by session, its forecasts beside what came, curves of all seeds."""

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from odin_core.errors import OdinError
from odin_core.lifecycle.learners import PPO, PPO_CURVES, newest_ppo, weeks
from odin_core.lifecycle.life import Life

if TYPE_CHECKING:
    from odin_core.diagnostic_page import Diagnostic
    from odin_core.market.data import MarketData
    from odin_core.rl.policy import TradingPolicy
    from odin_core.rl.tape import Tape

MOST_SESSIONS = 20


class NoLearner(OdinError):
    def __init__(self, life: Life) -> None:
        super().__init__(
            f"life {life.id} of {life.market} has no PPO yet: materialise the asset ppo_policy of one of its weeks, or "
            f"odin rl train --market {life.market}; it needs an encoder (odin encoder train)"
        )


class LearnerReview(NamedTuple):
    version: str
    sessions: int
    diagnostics: "list[Diagnostic]"
    markdown: str
    html: str

    @property
    def picture(self) -> tuple[str, bytes]:
        """The learning curves' name and picture."""
        found = next(each for each in self.diagnostics if each.name == "learning_curves")
        return found.name, found.picture


def review_ppo(life: Life, data: "MarketData", through: date | None = None) -> LearnerReview:
    """The newest PPO of the life (trained by `through`), played without chance on the last sessions with bars; those
    after its training where there are any. Raises NoLearner and what `market_tape` raises."""
    from odin_core.diagnostic_page import page
    from odin_core.encoder.store import stored
    from odin_core.rl.choices import Choices
    from odin_core.rl.diagnostics import diagnostics, discounted_returns
    from odin_core.rl.market_tape import market_tape

    policy = newest_ppo(life, through or date.max)
    if policy is None:
        raise NoLearner(life)
    session = max(s for s in weeks(life, PPO, through) if life.read(PPO, s)["version"][0] == policy.version)
    known = [s for s in data.sessions(last=life.head) if s <= (life.head or s)]
    chosen = [s for s in known if s > session][-MOST_SESSIONS:] or known[-MOST_SESSIONS:]
    encoder = stored(data.lake, policy.facts["encoder"])
    tape = market_tape(data, chosen[0], chosen[-1], encoder)
    played = _played(life, data, policy, tape, encoder.config.interval)
    config, scale = policy.facts["config"], policy.facts["reward_scale"]
    realised = discounted_returns(played.rewards, played.ended, config["discount"], scale=scale)
    days = np.broadcast_to(played.session, played.values.shape)[played.running].astype(np.int64)
    found = diagnostics(
        choices=Choices.of_actions(played.actions[played.running]),
        session=(days - date(1970, 1, 1).toordinal()).astype("datetime64[D]"),
        value=played.values[played.running],
        realised=realised[played.running],
        curves=life.read(PPO_CURVES, session),
    )
    seen = "after its training" if chosen[0] > session else "which it was trained on or judged on"
    told = f"{policy.version}, of the week to {session}, on {len(chosen)} sessions to {chosen[-1]}, {seen}"
    lines = [f"**{told}**", *(f"- {each.title}: {each.told}" for each in found)]
    return LearnerReview(policy.version, len(chosen), found, "\n".join(lines), page("PPO", told, found))


class _Played(NamedTuple):
    """One episode per symbol and session, side by side: (bars, n) each, actions (bars, n, 4), session (n,) ordinal."""

    actions: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    running: np.ndarray
    session: np.ndarray


def _played(life: Life, data: "MarketData", policy: "TradingPolicy", tape: "Tape", interval: str) -> _Played:
    from odin_core.rl.batch import Batch
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.evaluation import session_starts
    from odin_core.rl.weekly import market_rules

    starts = session_starts(tape)
    length = tape.session_end[starts] - starts
    bars, n = int(length.max()), len(starts)
    environment = EnvironmentConfig.of(policy.facts["environment"], policy.version).without_randomisation()
    environment = environment.model_copy(update={"episode_bars": bars + 1})
    rules, costs = market_rules(life, data, interval)
    batch = Batch(tape, environment, n, rules=rules, costs=costs, seed=life.config.seed)
    actions, values = np.zeros((bars, n, 4), np.int64), np.zeros((bars, n))
    rewards, ended = np.zeros((bars, n)), np.zeros((bars, n), bool)
    running = np.arange(bars)[:, None] < length
    seen = batch.reset(rows=starts)
    for bar in range(bars):
        actions[bar], values[bar] = policy.actions(seen), policy.value(seen)
        seen = batch.step(actions[bar], again=True)
        over = batch.out.terminated | batch.out.truncated
        rewards[bar], ended[bar] = batch.out.reward, over | (length == bar + 1)
        running[bar + 1 :] &= ~over
    batch.close()
    return _Played(actions, values, rewards, ended, running, tape.session[starts])
