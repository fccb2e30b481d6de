"""What the compiled environment reads and writes: plain arrays, records and tuples, without a line of behaviour.

`World` and a TASK are read by all environments; ACCOUNT is one environment's whole memory, so N environments are one
array of N records. What happens to them is in `rl.kernel`."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odin_core.execution.charging import Rates, compiled_rates
from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import DTYPES, ExecutionRules, Orders
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.observation import surroundings
from odin_core.rl.tape import Tape

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Records = NDArray[np.void]

TERMS = ("growth", "drawdown", "trade", "hold", "costs", "efficiency")
"""The reward's terms, each with its sign and weight: a reward is their sum."""


class World(NamedTuple):
    """The tape, (rows,) or (rows, width), and where episodes may start."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    session_end: Ints
    symbol: Ints
    starts: Ints  # (symbols + 1,)
    lot: Floats  # (symbols,)
    state: Float32s
    heatmap: Float32s
    around: Float32s  # sections volatility and clock
    volatility: Floats
    risk_unit: Floats
    decidable: Bools


class Starts(NamedTuple):
    """Rows at whose end an episode's first decision may be, and how likely each is."""

    rows: Ints  # (n,)
    cumulative: Floats  # (n,) of the weights, the last is 1
    in_order: bool  # environment i begins episode e at row number i + e · stride of them, round and round
    stride: int


TASK = np.dtype(
    [
        *[(name, np.float64) for name in (
            "capital", "max_position", "lambda_drawdown", "lambda_trade", "lambda_hold", "efficiency",
            "cost_low", "cost_high", "slippage_low", "slippage_high", "max_exposure", "max_drawdown", "ruin",
            "half_spread_bps", "slippage_volatility", "impact", "noise", "max_participation",
        )],
        *[(name, np.int64) for name in (
            "entry_bars", "episode_bars", "latency_low", "latency_high", "max_trades", "latency_bars",
        )],
        ("traded", np.bool_),
        ("intraday", np.float64, len(Rates._fields)),
        ("delivery", np.float64, len(Rates._fields)),
    ],
    align=True,
)  # fmt: skip
"""`EnvironmentConfig` and the market's rules and rates, as one record: a tuple of forty numbers takes longer to hand
to compiled code than a step takes."""
TASK_FIELDS: tuple[str, ...] = TASK.names or ()

LEG = ("quantity", "reference", "half_spread", "slippage", "price")
ORDER = np.dtype(list(zip(Orders._fields, DTYPES, strict=True)), align=True)
ACCOUNT = np.dtype(
    [
        ("key", np.uint64),  # of all randomness: seed and environment
        ("index", np.int64),
        ("episode", np.int64),  # episodes begun since the seeding, from 0
        ("wanted_start", np.int64),  # row asked for from outside, −1 for none; used once
        ("row", np.int64),  # at whose end the next decision is
        ("start", np.int64),
        ("end", np.int64),  # row at whose end the episode is truncated
        ("half_spread", np.float64),
        ("slippage_volatility", np.float64),
        ("impact", np.float64),
        ("latency", np.int64),
        ("cost_factor", np.float64),
        ("slippage_factor", np.float64),
        ("realised", np.float64),  # capital and what all finished orders brought
        ("equity", np.float64),
        ("peak", np.float64),
        ("max_drawdown", np.float64),
        ("trades", np.int64),  # entered in this session
        ("entered", np.int64),  # entered in this episode
        ("ordered", np.int64),  # orders of this episode
        ("denied", np.int64),  # actions of this episode that limits changed
        ("totals", np.float64, len(TERMS)),  # of the episode's rewards
        ("live", np.bool_),  # there is an order
        ("carried", np.bool_),  # it was held at a session's end
        ("decided", np.int64),  # row of its decision
        ("unit", np.float64),  # ATR at its decision, price units
        ("worth", np.float64),  # what it has brought so far, charges taken off
        ("cost", np.float64),  # charges, half-spread and slippage so far
        *[(name, dtype) for name, dtype in zip(Orders._fields, DTYPES, strict=True)],
        *[(f"entry_{name}", np.float64) for name in LEG],
        ("entry_row", np.int64),
        *[(f"exit_{name}", np.float64) for name in LEG],
        ("exit_row", np.int64),
        ("leaving", np.int64),
        ("triggered", np.bool_),
        ("entry_over", np.bool_),
    ],
    align=True,
)
SUMMARY = np.dtype(
    [
        ("episode", np.int64),
        ("start", np.int64),
        ("end", np.int64),  # row at whose end the episode ended
        ("equity", np.float64),
        ("max_drawdown", np.float64),
        ("entered", np.int64),
        ("ordered", np.int64),
        ("denied", np.int64),
        ("cost_factor", np.float64),
        ("slippage_factor", np.float64),
        ("latency", np.int64),
        ("totals", np.float64, len(TERMS)),
    ],
    align=True,
)


class Journal(NamedTuple):
    """Orders and equity of the current and the last finished episode of each environment, by the episode's parity.
    Width 0 where nothing is kept."""

    orders: Records  # ORDER (environments, 2, bars)
    equity: Floats  # (environments, 2, bars + 1), NaN where the episode has not come to yet


class Output(NamedTuple):
    """What a step writes, beside the observations: (environments,) or (environments, width)."""

    reward: Float32s
    terms: Floats  # TERMS
    terminated: Bools
    truncated: Bools
    denied: Bools
    summary: Records  # SUMMARY, of the episode that ended in this step; else of an earlier one


def world_of(tape: Tape) -> World:
    """The tape's arrays; nothing is copied but what is derived."""
    return World(
        *tape.bars,
        tape.session_end,
        tape.symbol,
        tape.starts,
        tape.lot,
        tape.state,
        tape.heatmap,
        surroundings(tape),
        tape.volatility,
        tape.risk_unit,
        tape.decidable,
    )


def task_of(config: EnvironmentConfig, rules: ExecutionRules, costs: CostSchedule) -> Records:
    """TASK (1,). The rules' lot is not used: each symbol has its own."""
    values: dict[str, Any] = {name: value for name, value in config if name in TASK_FIELDS}
    values |= {name: value for name, value in rules.compiled._asdict().items() if name in TASK_FIELDS}
    values |= {"half_spread_bps": rules.half_spread_bps, "latency_bars": rules.latency_bars}
    for name in ("cost", "slippage", "latency"):
        low, high = config.latency_bars if name == "latency" else getattr(config, f"{name}_factor")
        values |= {f"{name}_low": low, f"{name}_high": high}
    values |= {"intraday": compiled_rates(costs.intraday), "delivery": compiled_rates(costs.delivery)}
    task = np.zeros(1, TASK)
    for name in TASK_FIELDS:
        task[name] = values[name]
    return task
