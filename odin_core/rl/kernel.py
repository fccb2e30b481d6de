"""The compiled environment's doors: N accounts begun, moved by one bar, their masks written.

What happens in a bar is `rl.kernel_bar`, how this is driven `rl.batch`. Compiled code is cached on disk. Numba watches
this file alone, but keys the cache by what a function closes over as well; so each function that is called from Python
closes over ENGINE, a digest of all that is compiled in."""

import hashlib
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from odin_core.execution.fills import levels
from odin_core.rl.choices import DIMENSIONS
from odin_core.rl.kernel_bar import (
    COMPILED,
    LEAST_GROWTH,
    act,
    allowed_sizes,
    begin,
    drawdown,
    halted,
    inlined,
    is_leaving,
    move,
    order_of,
    state_of,
)
from odin_core.rl.kernel_values import Bools, Float32s, Floats, Ints, Journal, Output, Records, Starts, World
from odin_core.rl.tape import BOUND

DIGESTED = tuple(
    f"odin_core.{name}"
    for name in ("execution.charging", "execution.fills", "execution.orders", "rl.choices", "rl.tape",
                 "rl.kernel_values", "rl.kernel_bar")
)  # fmt: skip
"""Every module of ours that something compiled here comes from."""
ENGINE = hashlib.sha256("".join(inspect.getsource(import_module(name)) for name in DIGESTED).encode()).hexdigest()
_SIZE_COLUMN = DIMENSIONS[0]
_door = njit(cache=True, **COMPILED)


@inlined
def _observe(account: Any, world: World, task: Any, out: Float32s) -> None:
    row, at = account.row, 0
    for table in (world.state, world.heatmap, world.around):
        for i in range(table.shape[1]):
            out[at + i] = table[row, i]
        at += table.shape[1]
    out[at : at + 8] = np.float32(0.0)
    close, equity = world.close[row], account.equity
    exposure = (account.entry_quantity - account.exit_quantity) * close / equity if account.live else 0.0
    if account.live:
        out[at] = account.side
        out[at + 1] = exposure / task.max_position
        out[at + 2] = (account.entry_quantity - account.exit_quantity) / account.quantity
        if account.entry_quantity > 0.0:
            stop, target = levels(state_of(account), order_of(account))
            out[at + 3] = account.side * (close - account.entry_reference) / account.unit
            out[at + 4] = account.side * (close - stop) / account.unit
            out[at + 5] = account.side * (target - close) / account.unit
        out[at + 6] = (row - account.decided) / 100.0
        out[at + 7] = 1.0 if is_leaving(account) else 0.0
    out[at + 8] = np.log(max(LEAST_GROWTH, equity / task.capital))
    out[at + 9] = drawdown(account)
    out[at + 10] = account.max_drawdown
    out[at + 11] = exposure
    out[at + 12] = (0 if row == world.session_end[row] else account.trades) / task.max_trades
    out[at + 13] = 1.0 if halted(account, world, task) else 0.0
    for i in range(at, at + 14):
        out[i] = min(max(out[i], np.float32(-BOUND)), np.float32(BOUND))


@inlined
def _summarise(account: Any, place: Any) -> None:
    place.episode, place.start, place.end = account.episode, account.start, account.row
    place.equity, place.max_drawdown, place.entered = account.equity, account.max_drawdown, account.entered
    place.ordered, place.denied = account.ordered, account.denied
    place.cost_factor, place.slippage_factor = account.cost_factor, account.slippage_factor
    place.latency = account.latency
    for i in range(account.totals.size):
        place.totals[i] = account.totals[i]


@inlined
def _open_journal(account: Any, equity: Floats) -> None:
    if equity.shape[1] > 0:
        path = equity[account.episode & 1]
        path[:] = np.nan
        path[0] = account.equity


@inlined
def _advance(
    i: int, account: Any, world: World, task: Any, starts: Starts, journal: Journal, actions: Ints, again: bool,
    out: Output, final: Float32s,
) -> None:  # fmt: skip
    out.denied[i] = act(account, world, task, actions[i], journal.orders[i])
    account.denied += out.denied[i]
    out.reward[i] = move(account, world, task, out.terms[i])
    if journal.equity.shape[2] > 0:
        journal.equity[i, account.episode & 1, account.row - account.start] = account.equity
    out.terminated[i] = account.equity <= task.ruin * task.capital
    out.truncated[i] = account.row == account.end and not out.terminated[i]
    if out.terminated[i] or out.truncated[i]:
        _summarise(account, out.summary[i])
        if again:
            _observe(account, world, task, final[i])
            account.episode += 1
            begin(account, world, task, starts)
            _open_journal(account, journal.equity[i])


@inlined
def _require_choices(actions: Ints, first: int, end: int) -> None:
    for i in range(first, end):
        for k in range(actions.shape[1]):
            if not 0 <= actions[i, k] < DIMENSIONS[k]:
                raise IndexError("an action lies outside of the action space; position, size, stop, target: rl.choices")


@inlined
def _mask(account: Any, world: World, task: Any, allowed: Bools) -> None:
    allowed[:] = True
    if account.live:
        allowed[1:_SIZE_COLUMN] = not is_leaving(account)
        return
    first, end = allowed_sizes(account, world, task)
    if first == end:
        allowed[1:_SIZE_COLUMN] = False
        return
    for size in range(DIMENSIONS[1]):
        allowed[_SIZE_COLUMN + size] = first <= size < end


class Doors(NamedTuple):
    """The functions that Python calls; they hold no lock of Python's."""

    reset: Callable[..., bool]  # begin an episode where chosen, and see
    advance: Callable[..., bool]  # one action and one bar for environments first … end − 1, and see
    mask: Callable[..., bool]  # which actions are allowed


def _doors(engine: str) -> Doors:
    """`engine` is part of the cache's key, since the functions mention it."""

    @_door
    def reset(
        chosen: Bools, accounts: Records, world: World, task: Records, starts: Starts, journal: Journal, seen: Float32s
    ) -> bool:
        for i in range(accounts.size):
            if chosen[i]:
                begin(accounts[i], world, task[0], starts)
                _open_journal(accounts[i], journal.equity[i])
            _observe(accounts[i], world, task[0], seen[i])
        return engine != ""

    @_door
    def advance(
        first: int, end: int, accounts: Records, world: World, task: Records, starts: Starts, journal: Journal,
        actions: Ints, again: bool, out: Output, seen: Float32s, final: Float32s,
    ) -> bool:  # fmt: skip
        _require_choices(actions, first, end)
        for i in range(first, end):
            _advance(i, accounts[i], world, task[0], starts, journal, actions, again, out, final)
            _observe(accounts[i], world, task[0], seen[i])
        return engine != ""

    @_door
    def mask(accounts: Records, world: World, task: Records, allowed: Bools) -> bool:
        for i in range(accounts.size):
            _mask(accounts[i], world, task[0], allowed[i])
        return engine != ""

    return Doors(reset, advance, mask)


DOORS = _doors(ENGINE)
