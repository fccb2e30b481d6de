"""`odin features catalogue|list|show|read|report|check`: which there are, what they say, how complete and honest."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, data_of, emit, names, require_table_file, write_table
from odin_core.errors import OdinError, in_order

if TYPE_CHECKING:
    from odin_core.features.catalogue import Definition
    from odin_core.market.data import MarketData

SHOWN_ROWS, SHOWN_COLUMNS = 10, 6  # of what `read` prints
REPORTED = 60  # sessions of a report, where nobody says which
set_option = click.option("--set", "set_name", default="decision", show_default=True, help="See `odin features list`.")


class NoBarsBetween(OdinError):
    def __init__(self, market: str, first: date, last: date, have: list[date]) -> None:
        super().__init__(f"{market} has no bars between {first} and {last}; it has them from {have[0]} to {have[-1]}")


class Moment(click.ParamType):
    name = "MOMENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no moment; write it as 2026-03-02T12:00+05:30", param, ctx)
        if moment.tzinfo is None:
            said = moment.isoformat(timespec="minutes")
            self.fail(f"{value!r} has no time zone; write it as {said}Z or {said}+05:30", param, ctx)
        return moment


@click.group()
def features() -> None:
    """Features: which there are, their values, how complete they are, whether they leak."""


@features.command()
@common
@click.option("--symbol", help="What the plots show; default: what was traded most in the last session.")
@click.option("--session", type=SESSION, help="The last one in the plots; default: the last that has bars.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Instead of the page: write the text below its head.")
@as_json
def catalogue(
    home: Path, market: str, symbol: str | None, session: date | None, markdown: Path | None, json_output: bool
) -> None:
    """Write the catalogue of all features as one page, each with a plot on a symbol of the market."""
    from odin_core.lake import write_text

    if markdown is not None:
        from odin_core.features.report.catalogue import with_catalogue

        write_text(with_catalogue(markdown.read_text("utf-8") if markdown.exists() else "", markdown), markdown)
        emit({"page": markdown}, json_output, lambda _: str(markdown))
        return
    from odin_core.features.report.catalogue import catalogue_page
    from odin_core.features.report.sample import sample_of

    opened, data = data_of(home, market)
    made = catalogue_page(sample_of(data, symbol, session))
    page = opened.reports / f"features_{market}.html"
    write_text(made.html, page)
    result = {"page": page, "symbol": made.sample.symbol, "last": made.sample.last, "plots": len(made.plotted)}
    emit(result, json_output, lambda _: str(page))


@features.command("list")
@common
@click.option("--set", "set_name", help="Only the features of this set; default: all there are.")
@as_json
def list_features(home: Path, market: str, set_name: str | None, json_output: bool) -> None:
    """All features: name, intervals, N (bars before a session that it follows from), unit, range."""
    from odin_core.features.catalogue import Feature
    from odin_core.features.report.catalogue import range_of

    rows = [
        {
            "name": Feature(definition, parameters, "").name,
            "set": definition.set,
            "intervals": ",".join(i for i in intervals if i) or "–",
            "N": Feature(definition, parameters, "").bars,
            "range": range_of(definition.bounds),
            "unit": definition.unit,
        }
        for definition, parameters, intervals in _listed(set_name)
    ]
    emit(rows, json_output, lambda _: text.table(rows))


@features.command()
@click.argument("name")
@common
@as_json
def show(name: str, home: Path, market: str, json_output: bool) -> None:
    """Everything about one feature: a function (rsi), with parameters (rsi_21), or a column (rsi_14_5m)."""
    from odin_core.features.report.catalogue import USUAL, definition_of, described

    definition = definition_of(name)
    told = {label: said.replace("`", "") for label, said in described(definition, USUAL).items()}
    result = {"function": definition.name, "set": definition.set, "says": definition.says} | told
    emit(result, json_output, lambda _: f"{definition.says}\n\n{text.table_of_values({'Set': definition.set} | told)}")


@features.command()
@common
@set_option
@click.option("--interval", default="5m", show_default=True, help="Whose bars have rows: 1m, 5m, 15m, 60m or day.")
@click.option("--symbols", help="Only these, separated by commas; default: all.")
@click.option("--start", type=SESSION, help="First session; default: the last that has bars.")
@click.option("--end", type=SESSION, help="Last session; default: the last that has bars.")
@click.option("--as-of", type=Moment(), help="Only what was known by then, e.g. 2026-03-02T12:00+05:30.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all rows to this .parquet or .csv file.")
@as_json
def read(
    home: Path,
    market: str,
    set_name: str,
    interval: str,
    symbols: str | None,
    start: date | None,
    end: date | None,
    as_of: datetime | None,
    out: Path | None,
    json_output: bool,
) -> None:
    """Rows of a set, from the lake; what it lacks is computed and stored. Prints the first rows, or writes all."""
    from odin_core.features.report.sample import NoBarsOf

    require_table_file(out)
    _, data = data_of(home, market)
    first, last = _range(data, start, end, 1)
    frame = data.features(names(symbols) or None, interval, first, last, set_name, as_of)
    for symbol in sorted({*names(symbols)} - {*frame["symbol"]}):
        raise NoBarsOf(symbol, last, data.read(None, first, last, interval)["symbol"].unique().to_list())
    if out is not None:
        write_table(frame, out)
        written = {"file": out, "rows": frame.height, "features": frame.width - 3}
        emit(written, json_output, lambda _: f"{out}: {frame.height:,} rows, {frame.width - 3} features")
        return
    head = frame.select(frame.columns[: 3 + SHOWN_COLUMNS]).head(SHOWN_ROWS)
    told = f"{frame.height:,} rows, {frame.width - 3} features; --out FILE writes all"
    emit(frame.to_dicts() if json_output else None, json_output, lambda _: f"{text.frame(head)}\n{told}")


@features.command()
@common
@set_option
@click.option("--interval", help="Whose bars have rows; default: 5m where there are minute bars, else day.")
@click.option("--start", type=SESSION, help=f"First session; default: {REPORTED} with bars before the last one.")
@click.option("--end", type=SESSION, help="Last session; default: the last that has bars.")
@as_json
def report(
    home: Path,
    market: str,
    set_name: str,
    interval: str | None,
    start: date | None,
    end: date | None,
    json_output: bool,
) -> None:
    """How complete a set is and how it is distributed, session by session: a summary here, and a page with plots."""
    from odin_core.features.report.features_report import features_report
    from odin_core.lake import write_text

    opened, data = data_of(home, market)
    made = features_report(data, set_name, *_range(data, start, end, REPORTED), interval)
    page = opened.reports / f"features_{market}_{set_name}.html"
    write_text(made.html, page)
    emit(made.to_dict() | {"page": page}, json_output, lambda _: f"{made.markdown}\n{page}")


@features.command()
@common
@set_option
@click.option("--interval", type=click.Choice(["1m", "5m", "15m", "60m"]), default="5m", show_default=True)
@click.option("--session", type=SESSION, help="The last one looked at; default: the newest that has bars.")
@as_json
@click.pass_context
def check(
    context: click.Context,
    home: Path,
    market: str,
    set_name: str,
    interval: str,
    session: date | None,
    json_output: bool,
) -> None:
    """The leak wall: is anything in a set, or in the labels, known before its time? Ends with 1 where something is.

    Six checks over every feature that follows from bars and three over every label, on the market's own newest bars:
    recomputed without the future, with another future and on other stamps; ranked against the next returns, on time
    and one bar late; and through the learner, on shuffled outcomes and beside a feature that cheats."""
    from odin_core.leaks import joint_learner, to_frame
    from odin_core.leaks.wall import wall_around_features, wall_around_labels
    from odin_core.lifecycle.config import LearnerConfig

    _, data = data_of(home, market)
    last = session or data.newest()
    fit = joint_learner(LearnerConfig(trees=30), seed=0)
    wall = wall_around_features(data, set_name, last, fit=fit, interval=interval)
    of_labels = [replace(v, check=f"labels_{v.check}") for v in wall_around_labels(data, last)]
    verdicts = [*wall.verdicts, *of_labels]
    failed = [v for v in verdicts if not v.passed]
    counts = [
        {"check": name, "looked at": len(mine), "failed": sum(not v.passed for v in mine)}
        for name in dict.fromkeys(v.check for v in verdicts)
        for mine in [[v for v in verdicts if v.check == name]]
    ]
    told = [text.table(counts), *(f"{v.check}: {v.subject}: {v.detail}" for v in failed)]
    told += [f"needs more sessions than there are: {', '.join(wall.left_out)}"] if wall.left_out else []
    result = {"last": last, "left_out": wall.left_out, "verdicts": to_frame(verdicts).to_dicts()}
    emit(result, json_output, lambda _: "\n".join(told))
    context.exit(1 if failed else 0)


def _listed(set_name: str | None) -> "list[tuple[Definition, tuple[float, ...], tuple[str, ...]]]":
    """Functions with their parameters, and the intervals that they have in the set. Raises UnknownSet."""
    from odin_core.features.catalogue import DEFINITIONS, SELECTIONS, features_of

    if set_name in SELECTIONS:
        found: dict[tuple[str, tuple[float, ...]], tuple[str, ...]] = {}
        for feature in features_of(set_name):
            key = feature.definition.name, feature.parameters
            found[key] = (*found.get(key, ()), feature.interval)
        return [(DEFINITIONS[name], parameters, of) for (name, parameters), of in found.items()]
    if set_name is not None:
        features_of(set_name)
    chosen = [d for d in DEFINITIONS.values() if set_name in (None, d.set)]
    return [(d, parameters, d.intervals) for d in chosen for parameters in d.variants]


def _range(data: "MarketData", start: date | None, end: date | None, sessions: int) -> tuple[date, date]:
    """From `start` to `end`, where neither is said the last so many sessions with bars. Raises EmptyRange, NoData, and
    NoBarsBetween where no session of the range has any."""
    from odin_core.features.report.sample import sessions_with_bars

    in_order(start, end)
    have = sessions_with_bars(data)
    last = end or max(have[-1], start or have[-1])
    upto = [session for session in have if session <= last]
    first = start or (upto[-sessions:] or [last])[0]
    if not data.sessions(first, last) and not any(first <= session <= last for session in have):
        raise NoBarsBetween(data.profile.name, first, last, have)
    return first, last
