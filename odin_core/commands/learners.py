"""`odin rl train`, `distil`, `report`, `shadow`, `explain`: a life's slow learners, and what they would have done."""

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, emit, life_option, now, require_page, the_life
from odin_core.errors import OdinError, in_order

if TYPE_CHECKING:
    import polars as pl

    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData

week_option = click.option("--week", "day", type=SESSION, help="Any session of the week; default: the last one over.")


class NoWeekOver(OdinError):
    def __init__(self, life: "Life", day: date | None) -> None:
        asked = f"the week of {day}" if day else "any week"
        super().__init__(
            f"life {life.id} of {life.market} has not finished the last session of {asked} (its head is {life.head}); "
            f"learners learn at a week's last close: odin bootstrap --market {life.market} runs it on"
        )


class NotAPicture(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names neither a page nor a picture; end it with .html or .png")


@click.command()
@common
@life_option
@week_option
@as_json
def train(home: Path, market: str, life_id: str | None, day: date | None, json_output: bool) -> None:
    """Train the PPO of a week, five seeds, and judge it on sessions that none saw; goes on after a stop.

    Settings lie in the home: settings/week.yaml, ppo.yaml and environment.yaml (`odin rl settings NAME`)."""
    from odin_core.lifecycle.learner_weeks import ppo_week

    life, data, session = _week(home, market, life_id, day)
    with text.progress_bar(f"PPO, week to {session}", shown=not json_output and sys.stderr.isatty()) as update:
        found = ppo_week(life, data, session, update)
    _emit_week(found, session, json_output)


@click.command()
@common
@life_option
@week_option
@as_json
def distil(home: Path, market: str, life_id: str | None, day: date | None, json_output: bool) -> None:
    """The PPO of a week as a joint policy, stored in the registry; says what the translation costs."""
    from odin_core.lifecycle.learner_weeks import distilled_week

    life, data, session = _week(home, market, life_id, day)
    _emit_week(distilled_week(life, data, session, now()), session, json_output)


@click.command()
@common
@life_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the page goes, .html or .md.")
@as_json
def report(home: Path, market: str, life_id: str | None, out: Path | None, json_output: bool) -> None:
    """The newest PPO: learning curves of all seeds, actions by session, forecasts beside what came."""
    from odin_core.lake import write_text
    from odin_core.lifecycle.learner_review import review_ppo

    require_page(out)
    life, data = _life(home, market, life_id)
    found = review_ppo(life, data)
    path = out or life.reports / f"ppo-{found.version}.html"
    write_text(found.markdown if path.suffix == ".md" else found.html, path)
    told = {"version": found.version, "sessions": found.sessions, "report": str(path)}
    emit(told, json_output, lambda _: f"{found.markdown}\nreport      {path}")


@click.command()
@common
@life_option
@click.option("--first", type=SESSION, help="First session; default: the life's.")
@click.option("--last", type=SESSION, help="Last session; default: the life's head.")
@as_json
def shadow(
    home: Path, market: str, life_id: str | None, first: date | None, last: date | None, json_output: bool
) -> None:
    """Ask every version that is not in charge what it would have done at each close, and compare what became of it.

    Sessions that were asked before come to the same again. Changes nothing that the life decides on."""
    from odin_core.lifecycle.learners import shadows_of
    from odin_core.lifecycle.shadow_report import compare, shadow_markdown

    in_order(first, last)
    life, data = _life(home, market, life_id)
    sessions = [s for s in life.commits() if (first or s) <= s <= (last or s)]
    with text.progress_bar("shadows", shown=not json_output and sys.stderr.isatty()) as update:
        missing: dict[str, None] = {}
        for done, session in enumerate(sessions, start=1):
            missing |= dict.fromkeys(shadows_of(life, data, session).get("missing", ()))
            update(done, len(sessions), str(session))
    for why in missing:
        click.echo(f"not asked: {why}", err=True)
    found = compare(life, first, last)
    told = {"life": life.id, "sessions": len(sessions), "series": found.series.to_dicts(),
            "versions": found.versions.to_dicts(), "missing": list(missing)}  # fmt: skip
    emit(told, json_output, lambda _: shadow_markdown(found.series))


@click.command()
@click.argument("session", type=SESSION)
@common
@life_option
@click.option("--symbol", help="Default: the one that the policy was surest of.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the page goes, .html or .png.")
@as_json
def explain(
    session: date,
    home: Path,
    market: str,
    life_id: str | None,
    symbol: str | None,
    out: Path | None,
    json_output: bool,
) -> None:
    """Why the week's PPO would have traded at the close of SESSION.

    What it saw that made the choice likely, and how much each bar of its window counted, drawn under the candles with
    what became of the trade."""
    from odin_core.lake import write_bytes
    from odin_core.lifecycle.explained_trade import explained_trade
    from odin_core.rl.trade_picture import in_words, trade_page, trade_picture

    if out is not None and out.suffix not in (".html", ".png"):
        raise NotAPicture(out)
    life, data = _life(home, market, life_id)
    found = explained_trade(life, data, session, symbol)
    path = out or life.reports / f"explanation-{session}-{found.explanation.symbol}.html"
    drawn = trade_picture(*found) if path.suffix == ".png" else trade_page(*found).encode()
    write_bytes(drawn, path)
    told = found.explanation
    shown = {"symbol": told.symbol, "version": told.version, "choice": in_words(told.choice), "report": str(path),
             "log_probability": told.log_probability, "delta": told.delta,
             "features": [f._asdict() for f in told.features],
             "window_features": [f._asdict() for f in told.window_features]}  # fmt: skip
    emit(shown, json_output, _explained)


def _explained(shown: dict[str, Any]) -> str:
    likely = f"log probability {shown['log_probability']:.3f}"
    return "\n".join([
        f"{shown['symbol']}, {shown['version']}: {shown['choice']}, {likely}",
        text.table(shown["features"]),
        text.table(shown["window_features"]),
        f"report      {shown['report']}",
    ])  # fmt: skip


def _life(home: Path, market: str, life_id: str | None) -> "tuple[Life, MarketData]":
    from odin_core.market.data import MarketData

    life = the_life(home, market, life_id)
    return life, MarketData.of(life.home, life.market, life.config)


def _week(home: Path, market: str, life_id: str | None, day: date | None) -> "tuple[Life, MarketData, date]":
    """The life, its data and the last session of the week. Raises NoWeekOver."""
    life, data = _life(home, market, life_id)
    finished = set(life.commits())
    ends = [s for s in finished if data.calendar.is_last_session_of_week(s)]
    if day is not None:
        ends = [s for s in data.calendar.sessions_of_week(data.calendar.week_of(day))[-1:] if s in finished]
    if not ends:
        raise NoWeekOver(life, day)
    return life, data, max(ends)


def _emit_week(found: "pl.DataFrame", session: date, json_output: bool) -> None:
    row: dict[str, Any] = found.row(0, named=True)
    told = {"session": session, "candidate": row["version"], "outcome": row["outcome"], "reason": row["reason"]}
    heads = ("report", "reason", "made_from", "outcome", "encoder", "version")
    seeds = found.drop_nulls("seed").drop(heads).to_dicts() if "seed" in found.columns else []
    emit(told | {"seeds": seeds}, json_output, lambda _: row["report"])
