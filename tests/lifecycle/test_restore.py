"""Restoring: the state that is read back from the lake is the state that was carried in memory, field by field."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from smalllives import CLIMBED, CLIMBING, FIRST, begin, plain_edge, quick, rough, run_to

from odin_core.lifecycle import fold
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import day_of, loop_rules, restore, write_session
from odin_core.lifecycle.state import LoopState
from odin_core.market.data import MarketData
from odin_core.training.window import SessionContexts


def difference(mine: Any, theirs: Any) -> str | None:
    """Where two values differ; None where they are the same bits."""
    if isinstance(mine, pl.DataFrame):
        return None if mine.equals(theirs) and mine.schema == theirs.schema else "frame"
    if isinstance(mine, np.ndarray):
        same = mine.dtype == theirs.dtype and mine.shape == theirs.shape
        return None if same and np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f") else "array"
    if isinstance(mine, SessionContexts):
        parts = (difference(getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(mine))
        return next((f"{mine.session} {f.name}" for f, d in zip(fields(mine), parts, strict=True) if d), None)
    if isinstance(mine, tuple) and mine and isinstance(mine[0], SessionContexts):
        if len(mine) != len(theirs):
            return f"{len(theirs)} of {len(mine)} sessions"
        return next((d for a, b in zip(mine, theirs, strict=True) if (d := difference(a, b))), None)
    return None if type(mine) is type(theirs) and mine == theirs else f"{mine!r} is not {theirs!r}"


def differences(mine: LoopState, theirs: LoopState) -> dict[str, str]:
    found = {f.name: difference(getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(LoopState)}
    return {name: where for name, where in found.items() if where}


def test_the_state_read_back_after_any_session_is_the_one_in_memory(tmp_path: Path):
    """Over a life that trains, promotes, climbs to phase 3, carries positions overnight and forgets its first weeks."""
    config = quick(*CLIMBING, "learner.lookback_sessions=15")
    life, data = begin(tmp_path / "home", config, edit=rough(plain_edge()))
    rules = loop_rules(life, data.profile)
    state, seen = restore(life, data, rules), set()
    for session in data.calendar.sessions(FIRST, CLIMBED):
        day = day_of(life, data, session)
        state, record = fold.advance(state, day, rules)
        write_session(life, data, day, record, state.window)
        seen.add((state.phase, state.champion is not None, state.positions.height > 0, day.bars.is_empty()))
        if session.weekday() in (0, 1, 4):  # a look at every session takes seconds more
            fresh = MarketData(data.lake, data.profile)  # no generator, no memory: only files
            assert differences(state, restore(life, fresh, rules)) == {}, session
    phases, champions, positions, without_bars = (set(column) for column in zip(*seen, strict=True))
    assert (phases, champions, positions, without_bars) == ({0, 1, 2, 3}, *[{False, True}] * 3)
    assert len(state.window) == 15


def test_before_the_first_session_the_plan_comes_from_the_warm_up(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    state = restore(life, data, loop_rules(life, data.profile))
    assert state.plan.height == 12
    assert set(state.plan["session"]) == {FIRST}
    assert (state.plan["decided_at"].dt.date() < FIRST).all()
    assert state.session is None


def test_without_any_warm_up_the_first_session_plans_nothing_and_says_so(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    opening = data.profile.first_partition
    early = Life(life.home, life.market, life.config, opening)
    assert restore(early, data, loop_rules(early, data.profile)).plan.is_empty()
    results = run_to(early, data, data.calendar.next(opening, 12), first=opening)
    status = [r.summary["status"] for r in results]
    warm = status.index("ok")
    assert status[:warm] == ["warm_up"] * warm
    assert set(status[warm:]) == {"ok"}
    assert 1 < warm < 12
    assert all(r.summary["filtered"] == 0 for r in results[:warm])
    assert results[0].summary["reason"].startswith("warm-up: features are not known yet")


@pytest.mark.parametrize("name", [f.name for f in fields(LoopState)])
def test_the_comparison_notices_each_field(name: str):
    state = LoopState()
    value = getattr(state, name)
    changed = value.with_columns(extra=1) if isinstance(value, pl.DataFrame) else ("another",)
    assert set(differences(state, replace(state, **{name: changed}))) == {name}
