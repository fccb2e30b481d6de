"""`odin data fetch|check|login|tap|compact`: what is asked of a market's source."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import click

from odin_core import text
from odin_core.commands.common import SESSION, around, as_json, common, emit, names, now, the_home
from odin_core.errors import OdinError
from odin_core.market.profile import load_profile


class NoLogin(OdinError):
    def __init__(self, market: str, kind: str) -> None:
        super().__init__(
            f"the source of market {market} is {kind!r}, which has no login by hand; its secrets are enough"
        )


class NoStream(OdinError):
    def __init__(self, market: str, kind: str) -> None:
        super().__init__(f"the source of market {market} is {kind!r}, which has no live feed here; fetch its bars")


@click.command()
@common
@click.option("--start", type=SESSION, help="First session; default: the one after the last that the lake has.")
@click.option("--end", type=SESSION, help="Last session; default: the last that is over.")
@click.option("--symbols", help="Comma-separated; default: source.symbols of the market's profile.")
@click.option("--interval", help="1m, 5m, 15m, 60m or day; default: the profile's, or 1m.")
@click.option("--recheck", type=click.IntRange(0), help="Ask again for the last N sessions, to find late corrections.")
@as_json
def fetch(
    home: Path,
    market: str,
    start: date | None,
    end: date | None,
    symbols: str | None,
    interval: str | None,
    recheck: int | None,
    json_output: bool,
) -> None:
    """Bring bars from the market's source: only what is missing, so the same command goes on after a stop.

    Status 1 where the source refused a symbol; the others are there."""
    from odin_core.market.intake.fetching import fetch_market, sessions_to_fetch

    profile, opened, surroundings = load_profile(market), the_home(home), around()
    with (
        opened.writer(f"odin data fetch --market {market}"),
        text.progress_bar("fetch", sys.stderr.isatty()) as bar,
        _what_was_fetched_is_kept(),
    ):
        report = fetch_market(
            opened,
            profile,
            surroundings,
            sessions_to_fetch(
                opened, profile, start, end, as_of=surroundings.now(), interval=interval, recheck=recheck
            ),
            symbols=names(symbols),
            interval=interval,
            recheck=recheck,
            progress=lambda step: bar(step.done, step.total, f"{step.window} {step.symbol}"),
        )
    emit(report.to_dict(), json_output, lambda _: report.to_text())
    sys.exit(1 if report.refused else 0)


@contextmanager
def _what_was_fetched_is_kept() -> Iterator[None]:
    """Add to what ended a fetch that it was not for nothing."""
    from odin_core.market.sources.source import SourceUnavailable, TokenExpired

    try:
        yield
    except (SourceUnavailable, TokenExpired) as error:
        raise OdinError(f"{error}. What was fetched is kept") from error


@click.command()
@common
@as_json
def check(home: Path, market: str, json_output: bool) -> None:
    """Is the market's history up to date, is its source's token fresh, is a secret missing? Status 1 if not."""
    from odin_core.market.intake.checking import check_market

    findings = check_market(the_home(home), load_profile(market), around())
    emit([finding._asdict() for finding in findings], json_output, lambda _: "\n".join(f.to_text() for f in findings))
    sys.exit(0 if all(finding.passed for finding in findings) else 1)


@click.command()
@common
@click.option("--request-token", help="What the page after the login shows in its address; leave out to get the link.")
def login(home: Path, market: str, request_token: str | None) -> None:
    """The daily login of a broker that wants one: the link first, then today's access token for .env."""
    from importlib import import_module

    from odin_core.market.sources.source import source_kinds

    settings = load_profile(market).source
    kind = settings["kind"]
    module = import_module(f"odin_core.market.sources.{kind}") if kind in source_kinds() else None
    if module is None or not hasattr(module, "exchange_token"):
        raise NoLogin(market, kind)
    if request_token is None:
        click.echo(f"Log in at {module.login_url(settings, around())}\nthen: odin data login --market {market} "
                   f"--request-token TOKEN (request_token=… in the address of the page you end on)")  # fmt: skip
        return
    click.echo(module.exchange_token(settings, around(), request_token))
    click.echo("Put this into .env as the source's access token (.env.example); it is stored nowhere else.", err=True)


@click.command()
@common
@click.option("--symbols", help="Comma-separated; default: source.symbols of the market's profile.")
@click.option("--exchange", help="Names the folder of what is tapped; default: the source's kind.")
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Between two files.")
@click.option("--for", "minutes", type=click.FloatRange(0), help="Stop after so many minutes; default: Ctrl-C.")
def tap(
    home: Path, market: str, symbols: str | None, exchange: str | None, seconds: float, minutes: float | None
) -> None:
    """Write the source's live ticks to disk as they come. `odin data compact` makes a session's bars of them."""
    from odin_core.market.intake.fetching import NothingToAsk, can_fetch
    from odin_core.market.intake.tap import Tap
    from odin_core.market.sources.source import Streams, open_source

    profile, opened, surroundings = load_profile(market), the_home(home), around()
    source = open_source(profile.source, surroundings, market=market) if can_fetch(profile) else None
    if source is None:
        raise NothingToAsk(market, profile.source["kind"])
    if not isinstance(source, Streams):
        raise NoStream(market, profile.source["kind"])
    wanted = names(symbols) or tuple(profile.source.get("symbols", ()))
    began = now()
    with Tap(opened.tap, market, exchange or profile.source["kind"], now=now, seconds=seconds) as open_tap:
        source.stream(
            wanted, open_tap.offer, lambda: minutes is not None and now() - began > timedelta(minutes=minutes)
        )
    click.echo("{1:,} rows written in {3:,} files, {2:,} dropped".format(*open_tap.counts()))


@click.command()
@common
@click.option("--session", type=SESSION, required=True, help="A session that is over.")
@as_json
def compact(home: Path, market: str, session: date, json_output: bool) -> None:
    """Make minute bars of what was tapped in a session, in the lake; bars that were fetched or imported stay."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.intake.tap import compact as compacted

    opened, profile = the_home(home, create=False), load_profile(market)
    with opened.writer(f"odin data compact --market {market}"):
        report = compacted(
            opened.tap, market, lake=opened.lake(market), calendar=session_calendar(profile), session=session
        )
    emit(report.to_dict(), json_output, lambda _: report.to_text())
