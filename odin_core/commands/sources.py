"""`odin data fetch|check|login`: what is asked of a market's source."""

import sys
from datetime import date
from pathlib import Path

import click

from odin_core import text
from odin_core.commands.common import SESSION, around, as_json, common, emit
from odin_core.market.profile import load_profile


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
    """Bring bars from the market's source: only what is missing, so the same command goes on after a stop."""
    from odin_core.home import open_home
    from odin_core.market.fetching import fetch_market, sessions_to_fetch

    profile, opened, surroundings = load_profile(market), open_home(home), around()
    with opened.writer(f"odin data fetch --market {market}"), text.progress_bar("fetch", sys.stderr.isatty()) as bar:
        report = fetch_market(
            opened,
            profile,
            surroundings,
            sessions_to_fetch(
                opened, profile, start, end, as_of=surroundings.now(), interval=interval, recheck=recheck
            ),
            symbols=tuple(part.strip() for part in symbols.split(",") if part.strip()) if symbols else (),
            interval=interval,
            recheck=recheck,
            progress=lambda step: bar(step.done, step.total, f"{step.window} {step.symbol}"),
        )
    emit(report.to_dict(), json_output, lambda _: report.to_text())


@click.command()
@common
@as_json
def check(home: Path, market: str, json_output: bool) -> None:
    """Is the market's history up to date, is its source's token fresh, is a secret missing? Status 1 if not."""
    from odin_core.home import open_home
    from odin_core.market.checking import check_market

    findings = check_market(open_home(home), load_profile(market), around())
    emit([finding._asdict() for finding in findings], json_output, lambda _: "\n".join(f.to_text() for f in findings))
    sys.exit(0 if all(finding.passed for finding in findings) else 1)
