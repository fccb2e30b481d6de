"""The fold: `advance(state, day, rules)` gives the next state and the tables of one session. Pure; no path, no clock.

In order: carry out yesterday's plan → close what is due → replay rows resolved today → has the champion's market
drifted? → on the week's last session, and where something calls for it, score, train, judge and promote → phase and ε →
filter the universe and plan the next session from what is known at the close."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.catalogue import features_of
from odin_core.features.decision import SET
from odin_core.lake import logical_hash
from odin_core.lifecycle import drifting, entitlements, learning, outcomes, phases, planner
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.outcomes import Venue
from odin_core.lifecycle.state import CARRIED, CLOSES, PHASE_STATE, REGIMES, WEEKS_END, Day, DayRecord, LoopState
from odin_core.market.profile import MarketProfile
from odin_core.monitoring.reference import from_json
from odin_core.policies import rules as rule_policy
from odin_core.policies.actions import ACTIONS, GRID, SIZES, FloatArray
from odin_core.policies.unified import payoffs
from odin_core.randomness import stream
from odin_core.registry.history import HISTORY
from odin_core.replay import record
from odin_core.training.window import SessionContexts

INPUTS = (
    *(feature.name for feature in features_of(SET)),
    "market_volatility",
    "volatility_ratio",
)
GRID_TABLE = pl.Schema({"symbol": pl.String(), "net_return": pl.List(pl.Float32())})
MINUTES_IN_FEATURE = 75 * 5  # minutes that `realised_volatility_75_5m` covers


@dataclass(frozen=True, kw_only=True)
class LoopRules:
    """What the fold needs to know and does not change: the market, the life's configuration, how orders fill."""

    profile: MarketProfile
    config: LifeConfig
    venue: Venue
    features_version: str


def begin(day: Day, rules: LoopRules) -> LoopState:
    """The state before the first session, planned from the warm-up's last session `day`. Without warm-up: no plan."""
    return _plan(LoopState(), day, rules)[0]


def advance(state: LoopState, day: Day, rules: LoopRules) -> tuple[LoopState, DayRecord]:
    """One session. `day.session` must be the one that `state.plan` is for; the caller keeps the order of sessions."""
    before = state
    state, tables, facts = _settle(state, day, rules)
    state, drift, drift_facts, drifted = drifting.watch(state, rules.config)
    tables |= {"drift_report": drift} if drift is not None else {}
    left_over = None if rules.config.live else state.retrain_because
    calls = [call for call in (left_over, drifted, _fell(before, state)) if call]
    state, learned, why = _learn(state, day, rules, calls)
    tables |= learned.tables
    state = _take_up_promotions(state, day, tables)
    state, view, epsilon = _change_phase(state, day, rules, tables)
    in_use = [v for v in (*state.candidates, state.champion) if v]
    state = replace(
        state,
        models={v: state.models[v] for v in in_use},
        references={v: state.references[v] for v in in_use if v in state.references},
    )
    state, admitted = _plan(state, day, rules, epsilon)
    status = "no_data" if day.bars.is_empty() else "ok" if _warm(day) else "warm_up"
    distance = {c.name: [_finite(c.value), c.needed] for c in view.criteria}
    facts |= drift_facts
    facts |= {"status": status, "retrained_because": why, "epsilon": epsilon, "filtered": admitted.contexts.height,
              "fundamentals_failed": admitted.failed, "fundamentals_unknown": admitted.unknown,
              "phase_before": before.phase, "reason": _reason(status, view), "suggestions": list(view.suggestions),
              "distance": json.dumps(distance, sort_keys=True)}  # fmt: skip
    tables["phase_state"] = _state_row(state, day, facts)
    tables["recommendations"] = state.plan
    tables["open_decisions"] = state.positions
    summary = summary_of(tables["phase_state"].row(0, named=True), tables["replay_buffer"])
    return state, DayRecord(tables=tables, models=learned.models, references=learned.references, facts=learned.facts,
                            reports=learned.reports, summary=summary, trained=bool(learned.models))  # fmt: skip


def _learn(
    state: LoopState, day: Day, rules: LoopRules, calls: list[str]
) -> tuple[LoopState, learning.Retrain, str | None]:
    """Retrain at the week's end, and in a simulated life whenever something `calls` for it; why it was done.
    A live life's call is answered from outside, once: its session's row of `phase_state` alone shows it. What only an
    examination can answer is such a call too."""
    config = rules.config
    if not (day.ends_week or (calls and not config.live)):
        state = replace(state, retrain_because="; ".join(calls) or None)
        return state, learning.Retrain(state), None
    why = "; ".join([*([WEEKS_END] if day.ends_week else []), *calls])
    learned = learning.retrain(replace(state, retrain_because=None), day, config, rules.profile.ic_alarm, why)
    asks = learned.asks if config.live else None
    return replace(learned.state, retrain_because=asks), learned, why


def _fell(before: LoopState, after: LoopState) -> str | None:
    """Whether the session's loss reached the cap on drawdown, which calls for a retrain."""
    if before.halt_left > 0 or after.halt_left == 0:
        return None
    return f"drawdown: {after.peak - after.equity:.2%} of capital"


def _settle(
    state: LoopState, day: Day, rules: LoopRules
) -> tuple[LoopState, dict[str, pl.DataFrame], dict[str, object]]:
    """Outcomes of today: executions, replay rows, full-information rewards, equity."""
    volatility = (
        state.contexts["realised_volatility_75_5m"].to_numpy() / np.sqrt(MINUTES_IN_FEATURE)
        if state.plan.height
        else np.empty(0)
    )
    result = outcomes.carry_out(
        state.plan, state.positions, volatility, day.bars, rules.venue, rules.config.seed, day.session, day.actions
    )
    closes = entitlements.restated(state.closes, day.actions)
    resolved = record.validate(result.resolved)
    grid = pl.DataFrame(
        {
            "symbol": state.plan["symbol"],
            "net_return": pl.Series(result.net_return, dtype=pl.Array(pl.Float32, ACTIONS)),
        }
    ).cast(GRID_TABLE)
    hashes = {"action_outcomes": logical_hash(grid, ("symbol",)), "replay_buffer": logical_hash(resolved, record.KEY)}
    rows = {"action_outcomes": grid.height, "replay_buffer": resolved.height}
    contexts = session_contexts(day.session, state.contexts, result.net_return, rows, hashes)
    taken = resolved.filter((pl.col("status") == "taken") & pl.col("complete"))
    session_return = result.profit / rules.venue.capital
    equity = state.equity + session_return
    regime = _regime(day)
    peak, halt_left = _halt(state, equity, rules.config)
    state = replace(
        state,
        session=day.session,
        sessions=state.sessions + 1,
        executed=state.executed + taken.height,
        replay_rows=state.replay_rows + resolved.height,
        payoffs=tuple(a + b for a, b in zip(state.payoffs, payoffs(resolved, record.SOURCE), strict=True)),
        phase_rows=state.phase_rows + resolved.height,
        regime_sessions=_add(state.regime_sessions, regime, 1),
        regime_rows=tuple(
            n + resolved.filter(pl.col("vol_regime") == r).height
            for r, n in zip(REGIMES, state.regime_rows, strict=True)
        ),
        equity=equity,
        peak=peak,
        halt_left=halt_left,
        positions=result.positions,
        closes=closes,
        window=(*state.window, contexts)[-rules.config.learner.lookback_sessions :],
        returns=(*state.returns, session_return),
    )
    facts = {
        "vol_regime": regime,
        "session_return": session_return,
        "traded_notional": result.traded / rules.venue.capital,
        "trades": result.executions.filter(pl.col("leg") == "entry").height,
        "random_returns": _random_portfolios(result.net_return, taken["size"].to_numpy(), day.session, rules.config),
        "hold_return": _hold_return(closes, day.features),
        "mean_reward": taken["reward"].mean(),
    }
    return state, {"executions": result.executions, "replay_buffer": resolved, "action_outcomes": grid}, facts


def session_contexts(
    session: date,
    contexts: pl.DataFrame,
    net_return: NDArray[np.float32],
    rows: Mapping[str, int],
    hashes: Mapping[str, str],
) -> SessionContexts:
    """The learner's view of one session: features as at the decision, rewards of every action. `rows` and `hashes` are
    those of the life's tables behind it, for the manifest; the features' own follow from `contexts`."""
    files = [
        {"table": t, "session": session, "path": f"{t}/session={session}", "rows": rows[t], "hash": hashes[t]}
        for t in rows
    ]
    if contexts.height:
        decided = contexts["session"][0]
        files.append({"table": "features", "session": session, "path": f"features/session={decided}",
                      "rows": contexts.height, "hash": logical_hash(contexts, ("symbol",))})  # fmt: skip
    unit = contexts["natr_14_60m"].to_numpy() if contexts.height else np.empty(0)
    choice = rule_policy.propose(contexts).action if contexts.height else np.empty(0, np.int64)
    reward = (net_return / unit[:, None]).astype(np.float32)
    return SessionContexts(session, INPUTS, inputs(contexts), reward, choice, tuple(files))


def inputs(contexts: pl.DataFrame) -> NDArray[np.float32]:
    """(n, len(INPUTS)) float32 in the order of INPUTS; null becomes NaN."""
    if contexts.is_empty():
        return np.empty((0, len(INPUTS)), np.float32)
    return contexts.select(pl.col(INPUTS).cast(pl.Float32).fill_null(float("nan"))).to_numpy()


def _take_up_promotions(state: LoopState, day: Day, tables: dict[str, pl.DataFrame]) -> LoopState:
    """Promotions from outside the fold that take effect on the next session."""
    for promotion in day.promotions:
        version, model = promotion["version"], promotion["model"]
        through = model.trained_through if model else None
        known = {version: from_json(promotion["reference"])} if promotion.get("reference") else {}
        state = replace(
            state,
            models=state.models | ({version: model} if model else {}),
            references=state.references | known,
            drift_alarms=0,
        )
        row = {
            "event": promotion.get("event", "by_person"), "version": version,
            "champion_before": state.champion, "champion_after": version,
            "effective": day.next_session, "trained_through": through, "hypothesis": state.hypothesis,
            "reason": promotion["why"],
        }  # fmt: skip
        _append_history(tables, row)
        state = replace(
            state,
            champion=version,
            champion_since=day.next_session if version else None,
            champion_through=through,
            hypothesis=state.hypothesis + 1,
            hypothesis_since=day.next_session,
            trials=learning.trials_with(state, version) if row["event"] == "promoted" else state.trials,
        )
    return state


def _change_phase(
    state: LoopState, day: Day, rules: LoopRules, tables: dict[str, pl.DataFrame]
) -> tuple[LoopState, phases.Outlook, float]:
    admitted = _admitted(state, day, rules)
    view = phases.outlook(state, rules.config, admitted.contexts.height, admitted.barred)
    if view.phase != state.phase:
        if view.phase < state.phase and state.champion is not None:
            row = {
                "event": "demoted", "version": state.champion, "champion_before": state.champion,
                "champion_after": None, "effective": day.next_session, "trained_through": state.champion_through,
                "hypothesis": state.hypothesis, "reason": view.reason,
            }  # fmt: skip
            _append_history(tables, row)
            state = replace(state, champion=None, champion_since=None, champion_through=None,
                            hypothesis=state.hypothesis + 1, hypothesis_since=day.next_session,
                            drift_alarms=0)  # fmt: skip
        call = None if rules.config.live else f"phase {state.phase} → {view.phase}"
        state = replace(
            state, phase=view.phase, phase_since=day.session, phase_rows=0, returns=(), retrain_because=call
        )
    return state, view, phases.epsilon(state, rules.config.exploration, _regime(day))


def _append_history(tables: dict[str, pl.DataFrame], row: dict[str, object]) -> None:
    frame = pl.DataFrame([row], schema=HISTORY)
    tables["registry_history"] = (
        pl.concat([tables["registry_history"], frame]) if "registry_history" in tables else frame
    )


def _admitted(state: LoopState, day: Day, rules: LoopRules) -> planner.Admitted:
    return planner.admit(day.features, rules.profile, rules.config.filter, state.widening, _bars(day), day.fundamentals)


def _plan(state: LoopState, day: Day, rules: LoopRules, epsilon: float = 1.0) -> tuple[LoopState, planner.Admitted]:
    """The state with the plan for the next session, and who may be decided on."""
    config = rules.config
    admitted = _admitted(state, day, rules)
    contexts = admitted.contexts
    plan = planner.plan_session(
        state, contexts, inputs(contexts), day.next_session, rules.profile, config, epsilon, rules.features_version
    )
    lively = contexts.height + admitted.barred  # widening does not help those whom only the fundamentals bar
    narrow = lively < config.filter.min_symbols and _warm(day)
    widening = (
        min(state.widening + 1, config.filter.max_widening) if narrow and config.filter.adaptive else state.widening
    )
    closes = day.features.select(CLOSES.names()) if day.features.height else state.closes
    return replace(state, plan=plan, contexts=contexts, widening=widening, closes=closes), admitted


def _warm(day: Day) -> bool:
    """Whether any symbol has all its features: before that a session is warm-up, not a narrow universe."""
    return bool(day.features.height and day.features["complete"].any() and day.features["vol_regime"][0] is not None)


def _bars(day: Day) -> int:
    return max(day.minutes // 5, 1)


def _regime(day: Day) -> str | None:
    return day.features["vol_regime"][0] if day.features.height else None


def _add(counts: tuple[int, ...], regime: str | None, by: int) -> tuple[int, ...]:
    return tuple(n + by * (r == regime) for r, n in zip(REGIMES, counts, strict=True))


def _halt(state: LoopState, equity: float, config: LifeConfig) -> tuple[float, int]:
    """Peak and sessions of halt left: the cap starts a halt, and after it the peak is set anew."""
    if state.halt_left > 0:
        left = state.halt_left - 1
        return (equity if left == 0 else max(state.peak, equity)), left
    peak = max(state.peak, equity)
    return peak, config.guardrails.halt_sessions if peak - equity >= config.guardrails.max_drawdown else 0


def _random_portfolios(
    net_return: NDArray[np.float32], sizes: FloatArray, session: date, config: LifeConfig
) -> list[float]:
    """Returns of random portfolios with as many trades of the same sizes: random context, side, stop and target."""
    count = config.exploration.random_portfolios
    if not len(net_return) or not len(sizes):
        return [0.0] * count
    rng = stream(config.seed, session, "random_portfolios")
    context = rng.integers(0, len(net_return), (count, len(sizes)))
    per_size = ACTIONS // len(SIZES)
    draw = rng.integers(0, per_size, (count, len(sizes)))
    of_size = np.array([np.flatnonzero(GRID.size == size) for size in SIZES])  # (sizes, actions of that size)
    action = of_size[np.searchsorted(SIZES, sizes)[None], draw]
    return (np.nan_to_num(net_return[context, action].astype(float)) * sizes[None]).sum(axis=1).tolist()


def _hold_return(closes: pl.DataFrame, features: pl.DataFrame) -> float | None:
    """Close-to-close return of equal weights in every symbol that has both closes; `closes` restated for what happened
    since, so that splits leave no jump and dividends count."""
    if features.is_empty() or closes.is_empty():
        return None
    both = features.select("symbol", now="close").join(closes, on="symbol").sort("symbol")
    return both.select((pl.col("now") / pl.col("close") - 1).mean()).item()


def _reason(status: str, view: phases.Outlook) -> str:
    prefix = {
        "no_data": "no bars on this session: nothing fills and nothing is planned; ",
        "warm_up": "warm-up: features are not known yet; ",
    }
    return prefix.get(status, "") + view.reason


def _state_row(state: LoopState, day: Day, facts: dict[str, object]) -> pl.DataFrame:
    carried = {name: getattr(state, name) for name in CARRIED}
    row = carried | {"drawdown": state.drawdown} | facts
    return pl.DataFrame([{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}], schema=PHASE_STATE)


def summary_of(state_row: Mapping[str, Any], replay: pl.DataFrame) -> dict[str, float | int | str]:
    """What people see of a session, from its row of `phase_state` and its replay rows; what is unknown is left out."""
    counts = dict(replay["status"].value_counts().iter_rows())
    columns = ("trades", "epsilon", "drawdown", "equity", "phase", "phase_before", "filtered", "session_return",
               "drift_score", "drift_alarms")  # fmt: skip
    numbers = {status: counts.get(status, 0) for status in record.STATUS} | {"reward": state_row["mean_reward"]}
    numbers |= {name: state_row.get(name) for name in columns}  # a session of older code lacks some
    texts = {name: state_row.get(name) for name in ("status", "reason", "retrain_because", "retrained_because")}
    return {name: value for name, value in (numbers | texts).items() if value is not None}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
