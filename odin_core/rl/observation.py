"""Observations: what stands where in the flat float32 vector that a policy sees at the end of a bar.

| section | columns |
|---|---|
| state, heatmap | the tape's |
| volatility | ln(1000 · volatility), ln(risk unit / volatility); 0 where unknown |
| clock | bars since the session began, this one included, in hundreds |
| position | POSITION: all 0 without an order |
| portfolio | PORTFOLIO |

The compiled environment writes the last two sections; everything else follows from the tape alone."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.tape import Float32Array, Tape

POSITION = (
    "side",  # +1 or −1 of what is held or being entered
    "size",  # notional held / (equity · max_position)
    "filled",  # share of the ordered quantity that is held
    "unrealised",  # profit per share since the entry's reference, in risk units (ATR at the decision)
    "to_stop",  # from the close to the stop, in risk units; 0 before the entry
    "to_target",  # from the close to the target, in risk units; 0 before the entry
    "time_in_trade",  # bars since the decision, in hundreds
    "leaving",  # 1 from the decision to leave, or the exit's beginning, on
)
PORTFOLIO = (
    "growth",  # ln(equity / capital)
    "drawdown",  # (peak − equity) / peak of this episode
    "max_drawdown",
    "exposure",  # notional held / equity
    "trades",  # trades entered in this session / max_trades
    "halted",  # 1 where limits forbid to enter
)
VOLATILITY, CLOCK = 2, 1


def layout(config: EnvironmentConfig, tape: Tape) -> dict[str, slice]:
    """Where each section lies; the last slice ends with the observation. `config` changes values, not places."""
    widths = {
        "state": tape.state.shape[1],
        "heatmap": tape.heatmap.shape[1],
        "volatility": VOLATILITY,
        "clock": CLOCK,
        "position": len(POSITION),
        "portfolio": len(PORTFOLIO),
    }
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def width(tape: Tape) -> int:
    """Columns of an observation."""
    return tape.state.shape[1] + tape.heatmap.shape[1] + VOLATILITY + CLOCK + len(POSITION) + len(PORTFOLIO)


def surroundings(tape: Tape) -> Float32Array:
    """The sections volatility and clock of every row: float32 (rows, 3), read-only. Known at each bar's end."""
    known = (tape.volatility > 0) & (tape.risk_unit > 0)
    volatility, risk_unit = np.where(known, tape.volatility, 1.0), np.where(known, tape.risk_unit, 1.0)
    passed = (np.arange(tape.rows) - tape.session_start + 1) / 100
    columns = np.where(known, np.log(1000.0 * volatility), 0.0), np.where(known, np.log(risk_unit / volatility), 0.0)
    table = np.stack([*columns, passed], axis=1).astype(np.float32)
    table.flags.writeable = False
    return table


def flat_observations(tape: Tape, rows: ArrayLike, config: EnvironmentConfig) -> Float32Array:
    """(n, D) float32: what an account that has not traded yet sees at the end of these rows."""
    at: NDArray[np.int64] = np.asarray(rows, np.int64)
    places, seen = layout(config, tape), np.zeros((at.size, width(tape)), np.float32)
    seen[:, places["state"]] = tape.state[at]
    seen[:, places["heatmap"]] = tape.heatmap[at]
    around = slice(places["volatility"].start, places["clock"].stop)
    seen[:, around] = surroundings(tape)[at]
    return seen
