"""A stored model's choices made again on sessions of a life that it had not seen, and filled again on another footing.

The choices are those that the model would have made at the close before, from the contexts that the life really decided
on: the most confident first, within the life's guardrails. Fills are those of the fold, `outcomes.carry_out`, on the
session's own bars with the same noise, so a footing that changes nothing gives the life's own outcomes back. Bars
shocked are from `evaluation.shocks`. What follows from it all is `examination`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.evaluation import shocks
from odin_core.execution.costs import ChargeRates, CostSchedule
from odin_core.lifecycle import fold, outcomes
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.outcomes import Result, Venue
from odin_core.lifecycle.run import contexts_with_outcomes, loop_rules
from odin_core.lifecycle.state import POSITIONS, completed
from odin_core.market.data import MarketData
from odin_core.policies.actions import FLAT, FloatArray, Proposals, decode, known_mean
from odin_core.policies.joint import JointPolicy
from odin_core.replay.record import DECISION, SIDE
from odin_core.training.window import TrainingWindow

Bars = Callable[[pl.DataFrame, datetime], pl.DataFrame]


@dataclass(frozen=True)
class Footing:
    """Circumstances under which the same choices are filled. `bars` gets a session's bars and when it opened."""

    name: str
    kind: str  # as_it_was, costs, later or shock
    says: str
    venue: Callable[[Venue], Venue] = lambda venue: venue
    bars: Bars = lambda bars, opens: bars


AS_IT_WAS = Footing("as_it_was", "as_it_was", "bars, costs and latency as they were")


class Choice(NamedTuple):
    """What a model does with the contexts of one session."""

    session: date
    contexts: pl.DataFrame  # features at the close before, symbols ascending
    plan: pl.DataFrame  # DECISION, with the model's actions; taken where it trades, else skipped
    proposals: Proposals


def dearer(multiple: float) -> Footing:
    """Everything that a fill costs, `multiple` times: charges, half-spread, slippage and impact."""

    def venue(venue: Venue) -> Venue:
        rules = replace(
            venue.rules,
            half_spread_bps=venue.rules.half_spread_bps * multiple,
            slippage_volatility=venue.rules.slippage_volatility * multiple,
            impact=venue.rules.impact * multiple,
        )
        costs = CostSchedule(intraday=_dearer(venue.costs.intraday, multiple),
                             delivery=_dearer(venue.costs.delivery, multiple))  # fmt: skip
        return replace(venue, rules=rules, costs=costs)

    return Footing(f"costs_{multiple:g}x", "costs", f"charges, spread and slippage {multiple:g} times as high", venue)


def _dearer(rates: ChargeRates, multiple: float) -> ChargeRates:
    cap = rates.brokerage_cap
    return ChargeRates(
        brokerage_rate=rates.brokerage_rate * multiple,
        brokerage_cap=None if cap is None else cap * multiple,
        buy_tax_rate=rates.buy_tax_rate * multiple,
        sell_tax_rate=rates.sell_tax_rate * multiple,
        exchange_rate=rates.exchange_rate * multiple,
        regulator_rate=rates.regulator_rate * multiple,
        gst_rate=rates.gst_rate,  # a tax on charges that are dearer already
        fixed_per_sell=rates.fixed_per_sell * multiple,
    )


def later(bars: int) -> Footing:
    """Entries work `bars` one-minute bars later."""

    def venue(venue: Venue) -> Venue:
        return replace(venue, rules=replace(venue.rules, latency_bars=venue.rules.latency_bars + bars))

    return Footing(f"later_{bars}", "later", f"entries {bars} one-minute bar{'s' * (bars > 1)} later", venue)


def shocked(name: str, says: str, after: int, change: Callable[[pl.DataFrame, datetime], pl.DataFrame]) -> Footing:
    """Each session's bars as `change(bars, at)` makes them, `at` being `after` minutes past the open."""
    return Footing(name, "shock", says, bars=lambda bars, opens: change(bars, opens + timedelta(minutes=after)))


def gapped(name: str, size: float, after: int) -> Footing:
    says = f"the whole market jumps {size:+.0%} {after} minutes after the open, each session"
    return shocked(name, says, after, lambda bars, at: shocks.gap(bars, size, at=at))


def crashed(name: str, size: float, after: int, minutes: int, recovery: float) -> Footing:
    says = (
        f"the whole market slides {size:+.0%} over {minutes} minutes, from {after} after the open on, and takes "
        f"{recovery:.0%} of it back, each session"
    )
    change = lambda bars, at: shocks.crash(bars, size, at=at, minutes=minutes, recovery=recovery)  # noqa: E731
    return shocked(name, says, after, change)


def dried_up(name: str, share: float, minutes: int) -> Footing:
    says = f"{share:.0%} of the volume is gone from the open on, each session"
    return shocked(name, says, 0, lambda bars, at: shocks.liquidity_drought(bars, share, at=at, minutes=minutes))


def dark(name: str, after: int, minutes: int) -> Footing:
    says = f"no bars for {minutes} minutes, from {after} after the open on, each session"
    return shocked(name, says, after, lambda bars, at: shocks.feed_outage(bars, at=at, minutes=minutes))


def learned_from(life: Life, data: MarketData, through: date) -> TrainingWindow:
    """The window that a model trained through that session learned from, read back from the life's tables."""
    sessions = [s for s in life.commits() if s <= through][-life.config.learner.lookback_sessions :]
    return TrainingWindow([contexts_with_outcomes(life, data, session) for session in sessions])


def _contexts(data: MarketData, decided: date, symbols: pl.Series) -> pl.DataFrame:
    return data.decision_rows(decided).filter(pl.col("symbol").is_in(symbols.to_list())).sort("symbol")


def choices(life: Life, data: MarketData, model: JointPolicy, sessions: Iterable[date]) -> Iterator[Choice]:
    """What `model` would have done on finished `sessions` of the life, one Choice each; sessions without plan are left
    out. Within a session the most confident trade first, up to the life's `max_trades` and `max_exposure`."""
    for session in sessions:
        plan = life.read("recommendations", data.calendar.previous(session))
        contexts = _contexts(data, data.calendar.previous(session), plan["symbol"])
        if contexts.height and contexts.height == plan.height:
            proposals = model.propose(fold.inputs(contexts))
            yield Choice(session, contexts, chosen(completed(plan, DECISION), proposals, life), proposals)


def chosen(plan: pl.DataFrame, proposals: Proposals, life: Life) -> pl.DataFrame:
    """`plan` with the proposals' actions: taken where the model trades within the guardrails, else skipped."""
    limits, meaning = life.config.guardrails, decode(proposals.lean)
    taken = np.zeros(plan.height, np.bool_)
    exposure = 0.0
    for i in np.lexsort((np.arange(plan.height), -proposals.confidence)):
        within = taken.sum() < limits.max_trades and exposure + meaning.size[i] <= limits.max_exposure + 1e-12
        if proposals.action[i] != FLAT and within:
            taken[i], exposure = True, exposure + meaning.size[i]
    return plan.with_columns(
        action=pl.Series(proposals.lean, dtype=plan.schema["action"]),
        side=pl.Series(np.where(meaning.side > 0, *SIDE), dtype=plan.schema["side"]),
        size=pl.Series(meaning.size),
        stop_atr=pl.Series(meaning.stop),
        target_mult=pl.Series(meaning.target),
        confidence=pl.Series(proposals.confidence),
        status=pl.Series(np.where(taken, "taken", "skipped"), dtype=plan.schema["status"]),
        reject_reason=pl.lit(None, plan.schema["reject_reason"]),
    )


class Refill(NamedTuple):
    """One session on one footing."""

    result: Result
    reward: FloatArray  # (contexts, ACTIONS), NaN where not known
    trades: pl.DataFrame  # REPLAY rows of the model's trades whose outcome became known today

    @property
    def random(self) -> float:
        """Mean reward of a context and an action drawn at random."""
        return float(known_mean(self.reward, (0, 1)))


class Refiller:
    """Fills choices again, session after session, footing by footing; what stays open goes on at the next open."""

    def __init__(self, life: Life, data: MarketData, footings: Iterable[Footing]) -> None:
        self._data, self._seed = data, life.config.seed
        rules = loop_rules(life, data.profile)
        self.footings = tuple(footings)
        self._venues = {footing.name: footing.venue(rules.venue) for footing in self.footings}
        self._open = {footing.name: POSITIONS.to_frame() for footing in self.footings}

    def refill(self, choice: Choice) -> Iterator[tuple[Footing, Refill]]:
        """The session of `choice` on every footing. Sessions must come in order, each once."""
        session, bars = choice.session, self._data.bars(choice.session)
        opens = self._data.calendar.hours(session).open
        per_minute = choice.contexts["realised_volatility_75_5m"].to_numpy() / np.sqrt(fold.MINUTES_IN_FEATURE)
        unit = choice.contexts["natr_14_60m"].to_numpy()
        for footing in self.footings:
            result = outcomes.carry_out(
                choice.plan, self._open[footing.name], per_minute, footing.bars(bars, opens),
                self._venues[footing.name], self._seed, session, self._data.actions.taking_effect(session),
            )  # fmt: skip
            taken = pl.col("status") == "taken"
            self._open[footing.name] = result.positions.filter(taken)
            reward = result.net_return.astype(np.float64) / unit[:, None]
            yield footing, Refill(result, reward, result.resolved.filter(taken))

    def stuck(self, footing: str) -> int:
        """Trades that are still open after the last session."""
        return self._open[footing].height
