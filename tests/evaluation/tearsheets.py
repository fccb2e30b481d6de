"""Records made by hand for tests of the tear sheet: a few sessions, positions and portfolios with known numbers."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl

from odin_core.evaluation.tearsheet.records import Records
from odin_core.lifecycle.outcomes import EXECUTIONS
from odin_core.lifecycle.report import DECIDED, EVALUATED, SCORED, STATES
from odin_core.replay.record import REPLAY

FIRST = date(2023, 1, 30)  # a Monday, so that ten sessions lie in two months
CAPITAL = 1_000_000.0
CHARGE = 3.0  # currency, of each leg
Position = dict[str, Any]


def days(count: int, first: date = FIRST) -> list[date]:
    """So many weekdays."""
    every = (first + timedelta(days=n) for n in range(2 * count + 7))
    return [day for day in every if day.weekday() < 5][:count]


def states(returns: Sequence[float], *, portfolios: int = 3, seed: int = 1, **columns: Sequence[Any]) -> pl.DataFrame:
    """One row per session; columns that are not told are quiet ones."""
    n = len(returns)
    drawn = np.random.default_rng(seed).normal(-1e-4, 1e-3, (n, portfolios))
    whole = {
        "session": days(n), "status": ["ok"] * n, "phase": [1] * n, "phase_before": [1] * n, "reason": ["why"] * n,
        "epsilon": [0.2] * n, "champion": [None] * n, "vol_regime": ["low", "medium", "high"] * (n // 3 + 1),
        "session_return": returns, "traded_notional": [0.0] * n, "trades": [0] * n,
        "random_returns": drawn.tolist(), "hold_return": [None, *[0.001] * n][:n],
    } | columns  # fmt: skip
    return pl.DataFrame({name: list(whole[name])[:n] for name in STATES.names()}, schema=STATES)


def position(number: int, entered: date, resolved: date | None, **told: Any) -> Position:
    """A taken decision; `resolved` None is still open."""
    usual = {"side": "long", "symbol": "A", "notional": 1_000.0, "gross": 0.01, "spread": 1.0, "slippage": 0.5,
             "source": "rule", "confidence": None, "status": "taken", "regime": "low"}  # fmt: skip
    return {"id": f"{entered}/{number:04d}", "entered": entered, "resolved": resolved} | usual | told


def made(positions: Sequence[Position], sheet_states: pl.DataFrame, **told: Any) -> Records:
    """Records of these sessions and positions; a position's costs follow from its spread, slippage and CHARGE."""
    replay = [_decision(p) for p in positions if p["resolved"] is not None]
    legs = [leg for p in positions if p["status"] == "taken" for leg in _legs(p)]
    stamped = pl.Schema(DECIDED | {"resolved": pl.Date()})
    executed = pl.Schema(EXECUTIONS | {"session": pl.Date()})
    usual = {
        "market": "demo", "life": "abc", "currency": "INR", "capital": CAPITAL, "states": sheet_states,
        "replay": pl.DataFrame(replay, schema=stamped, orient="row"),
        "executions": pl.DataFrame(legs, schema=executed, orient="row"),
        "scores": SCORED.to_frame(), "reports": pl.Schema(EVALUATED | {"session": pl.Date()}).to_frame(),
    }  # fmt: skip
    return Records(**usual | told)


def cost_of(p: Position) -> float:
    """Currency: half-spread and slippage on both legs, and two charges."""
    return 2 * (p["spread"] + p["slippage"]) + 2 * CHARGE


def _decision(p: Position) -> dict[str, Any]:
    cost = cost_of(p) / p["notional"]
    row = {
        "decision_id": p["id"], "session": p["entered"], "resolved": p["resolved"], "symbol": p["symbol"], "phase": 1,
        "source": p["source"], "vol_regime": p["regime"], "side": p["side"], "size": 0.001,
        "confidence": p["confidence"], "status": p["status"],
        "entry_ts": _at(p["entered"], 4), "exit_ts": _at(p["resolved"], 9), "exit_reason": "time",
        "gross_return": p["gross"], "cost": cost, "net_return": p["gross"] - cost,
        "reward": (p["gross"] - cost) / 0.005, "complete": True,
    }  # fmt: skip
    return {name: row.get(name) for name in (*DECIDED.names(), "resolved")}


def _legs(p: Position) -> list[dict[str, Any]]:
    ends = [("entry", p["entered"])] + ([("exit", p["resolved"])] if p["resolved"] else [])
    return [
        {
            "decision_id": p["id"], "symbol": p["symbol"], "leg": leg, "side": p["side"], "ts": _at(day, 4),
            "quantity": 10.0, "reference": p["notional"] / 10, "half_spread": p["spread"] / 10,
            "slippage": p["slippage"] / 10, "price": 0.0, "charges": CHARGE, "reason": None, "session": day,
        }
        for leg, day in ends
    ]  # fmt: skip


def _at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


class Read(HTMLParser):
    """A page as a reader sees it: tables by the heading above them, and everything that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.loads: list[str] = []
        self.text: list[str] = []
        self._path: list[str] = []
        self._section = self._title = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        asked = told.get("src") or told.get("href") or told.get("xlink:href") or ""
        if tag in ("script", "link", "iframe") or (asked and not asked.startswith("#")):
            self.loads.append(f"{tag} {asked}")
        if tag in ("h2", "h3"):
            self._section, self._title = ("", "") if tag == "h2" else (self._section, "")
        if tag == "tr":
            self.tables.setdefault(f"{self._section}/{self._title}", []).append([])
        if tag in ("td", "th"):
            self.tables[f"{self._section}/{self._title}"][-1].append("")
        self._path.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._path and self._path.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = self._path[-1] if self._path else ""
        self.text += [] if inside == "style" else [data]
        if inside == "h2":
            self._section += data
        elif inside == "h3":
            self._title += data
        elif inside in ("td", "th"):
            self.tables[f"{self._section}/{self._title}"][-1][-1] += data


assert set(DECIDED.names()) <= set(REPLAY.names())
