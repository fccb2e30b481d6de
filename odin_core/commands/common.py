"""What the commands share: options, the life that is meant, and how a result is printed.

Nothing here imports polars or Dagster: `odin --help` must be there at once, so commands import what they call."""

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click

from odin_core.errors import OdinError
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    import polars as pl

    from odin_core.home import Home
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData
    from odin_core.market.sources.source import Around


class NoLifeYet(OdinError):
    def __init__(self, home: Path, market: str) -> None:
        super().__init__(
            f"{home} has no life of market {market} yet; start one with `odin bootstrap --market {market}`"
        )


class NotATableFile(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no format of tables; end it with .parquet or .csv")


class NotWritable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be written ({why}); name another file with --out")


class Session(click.ParamType):
    name = "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date; write it as YYYY-MM-DD", param, ctx)


SESSION = Session()
Command = Callable[..., None]


home_option = click.option(
    "--home",
    default="data",
    show_default=True,
    envvar="ODIN_HOME",
    type=click.Path(path_type=Path),
    help="Folder that holds everything a run writes; also ODIN_HOME.",
)


def common(command: Command) -> Command:
    """--home and --market, which nearly every command takes; those of a whole home take `home_option` alone."""

    @wraps(command)
    def run(*args: Any, home: Path, market: str, **kwargs: Any) -> None:
        load_profile(market)
        command(*args, home=home, market=market, **kwargs)

    return home_option(
        click.option("--market", default="demo", show_default=True, help="Market: the name of a profile.")(run)
    )


as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON and nothing else.")
life_option = click.option("--life", "life_id", help="A life's id or its beginning; default: the market's current one.")


def with_life_settings(command: Command) -> Command:
    """--seed, --edge and --set: what a life may be told."""
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="A setting, e.g. filter.adaptive=false; see `odin life settings`.",
        ),
        click.option("--edge", type=float, help="Planted edge of a synthetic market, 0 to 1; default 0.5."),
        click.option("--seed", type=int, help="Seed of the life; default 7, or the current life's."),
    ):
        command = option(command)
    return command


def names(listed: str | None) -> tuple[str, ...]:
    """The names of a comma-separated option, blanks around them and empty ones left out."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def now() -> datetime:
    return datetime.now(UTC)


def around() -> "Around":
    import os

    from odin_core.market.sources.source import Around

    return Around.of(os.environ, now)


def the_home(home: Path, *, create: bool = True) -> "Home":
    """The home that a command means, its registry where the environment says. Raises WrongHome."""
    import os

    from odin_core.home import REGISTRY_URL, open_home
    from odin_core.secrets import read_secrets

    return open_home(home, create=create, registry_url=read_secrets(os.environ).get(REGISTRY_URL) or None)


def the_life(home: Path, market: str, life_id: str | None) -> "Life":
    """The life that a command means. Raises NoLifeYet, WrongHome, LifeDamaged."""
    from odin_core.lifecycle import life as lives

    opened = the_home(home, create=False)
    found = lives.load(opened, life_id) if life_id is not None else lives.current(opened, market)
    if found is None:
        raise NoLifeYet(home, market)
    return found


def data_of(home: Path, market: str) -> "tuple[Home, MarketData]":
    """An existing home, and the data of the market that its current life sees."""
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import LifeConfig
    from odin_core.market.data import MarketData

    opened = the_home(home, create=False)
    current = lives.current(opened, market)
    return opened, MarketData.of(opened, market, current.config if current else LifeConfig())


def outdated(home: "Home", market: str, changed: Iterable[date]) -> list[str]:
    """A line for each life of the market that decided on minute bars of sessions which are others now."""
    from odin_core.lifecycle import life as lives

    days, lines = set(changed), []
    try:
        found = lives.lives(home, market) if days else []
    except OdinError as error:  # the data are stored all the same
        return [f"which lives this outdates cannot be told: {error}"]
    for life in found:
        commits = life.commits()
        first = min(days.intersection(commits), default=None)
        if first is not None:
            count = sum(session >= first for session in commits)
            told = f"outdates {count:,} sessions of life {life.id} from {first} on"
            lines.append(f"{told}: see `odin lake digest` and `odin life rewind`")
    return lines


def require_page(out: Path | None) -> None:
    """Raise NotAPage or NotWritable for a file that no page could be written to, before anything is computed."""
    if out is None:
        return
    if out.suffix not in (".html", ".md"):
        from odin_core.lifecycle.report import NotAPage

        raise NotAPage(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise NotWritable(out, error.strerror or type(error).__name__) from error
    if out.is_dir():
        raise NotWritable(out, "it is a folder")


def require_table_file(out: Path | None) -> None:
    """Raise NotATableFile for a file that `write_table` could not write."""
    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise NotATableFile(out)


def write_table(rows: "pl.DataFrame", out: Path) -> None:
    """Write rows whole or not at all, as the file's name says."""
    from odin_core.lake import write_parquet, write_text

    if out.suffix == ".csv":
        write_text(rows.write_csv(), out)
    else:
        write_parquet(rows, out)


def emit(result: Any, json_output: bool, to_text: Callable[[Any], str]) -> None:
    click.echo(json.dumps(plain(result), allow_nan=False) if json_output else to_text(result))


def plain(value: Any) -> Any:
    """A value as JSON can say it: dates and paths as text, numbers of numpy as numbers, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, date):
        return value.isoformat()
    return plain(value.item()) if hasattr(value, "item") else str(value)
