"""`odin encoder …`: train a month's sequence encoder, see which one is in force, look at it, export it."""

import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import as_json, common, data_of, emit, now, require_page
from odin_core.errors import OdinError, nearest

if TYPE_CHECKING:
    from odin_core.encoder.config import EncoderConfig
    from odin_core.encoder.store import EncoderMonth
    from odin_core.market.data import MarketData

PRESETS = click.Choice(["small", "full"])


class MonthNotOver(OdinError):
    def __init__(self, market: str, month: date) -> None:
        super().__init__(
            f"{market}: the last session of {month:%Y-%m} is not over or has no bars; no encoder is trained on it: "
            f"choose an earlier month, or import the bars first (`odin data show --market {market}` says what there is)"
        )


class NoSuchEncoder(OdinError):
    def __init__(self, market: str, version: str, known: list[str]) -> None:
        super().__init__(f"{market} has no encoder {version!r}; {nearest(version, known)}")


class NotAnExport(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no exported program; end it with .pt2")


class Month(click.ParamType):
    name = "YYYY-MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return datetime.strptime(str(value), "%Y-%m").date()
        except ValueError:
            self.fail(f"{value!r} is no month; write it as 2023-01", param, ctx)


@click.group()
def encoder() -> None:
    """The sequence encoder: trained by month on price action alone, in force from the month after."""


@encoder.command()
@common
@click.option("--month", type=Month(), required=True, help="Trained on all bars up to this month's end.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="YAML; see `settings`.")
@click.option("--preset", type=PRESETS, help="Instead of --config; default: the home's settings, or small.")
@as_json
def train(home: Path, market: str, month: date, config: Path | None, preset: str | None, json_output: bool) -> None:
    """Train the encoder of a month, or find it trained. Goes on from its last checkpoint after a stop."""
    from odin_core.encoder.store import stored, train_month

    opened, data = data_of(home, market)
    told = _configured(opened.settings("encoder"), config, preset)
    with (
        opened.trainer(f"the training of the encoder of {market}, {month:%Y-%m}"),
        text.progress_bar(f"encoder {month:%Y-%m}", shown=not json_output and sys.stderr.isatty()) as update,
    ):
        found = train_month(data, month, told, update, now=now())
    if found is None:
        raise MonthNotOver(market, month)
    emit(_row(data, found) | {"facts": dict(stored(data.lake, found.version).facts)}, json_output, _trained)


@encoder.command("list")
@common
@as_json
def listed(home: Path, market: str, json_output: bool) -> None:
    """The encoders of a market, by month."""
    from odin_core.encoder.store import months

    _, data = data_of(home, market)
    rows = [_row(data, found) for found in months(data.lake)]
    emit({"market": market, "encoders": rows}, json_output, lambda found: text.table(found["encoders"]) or "none yet")


@encoder.command()
@common
@click.option("--version", help="An encoder's version; default: the one trained last.")
@click.option("--sessions", type=click.IntRange(min=1), default=20, show_default=True, help="The last so many.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the page goes, .html or .md.")
@as_json
def report(home: Path, market: str, version: str | None, sessions: int, out: Path | None, json_output: bool) -> None:
    """What an encoder has learned: its map by regime, reconstructed candles, coverage of quantiles, loss curves."""
    from odin_core.encoder.review import review
    from odin_core.lake import write_text

    require_page(out)
    opened, data = data_of(home, market)
    found = review(data, _known(data, version), sessions=sessions)
    path = out or opened.reports / f"encoder_{market}_{found.version}.html"
    write_text(found.markdown if path.suffix == ".md" else found.html, path)
    told = {"encoder": found.version, "sessions": found.sessions, "rows": found.rows, "report": str(path)}
    emit(told, json_output, lambda _: f"{found.markdown}\nreport      {path}")


@encoder.command()
@common
@click.option("--version", help="An encoder's version; default: the one trained last.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file, .pt2.")
@as_json
def export(home: Path, market: str, version: str | None, out: Path, json_output: bool) -> None:
    """Write an encoder as a program of torch.export, which runs without ODIN."""
    from odin_core.encoder.export import export_encoder
    from odin_core.encoder.review import version_or_newest
    from odin_core.encoder.store import stored

    if out.suffix != ".pt2":
        raise NotAnExport(out)
    _, data = data_of(home, market)
    name = version_or_newest(data, _known(data, version))
    export_encoder(stored(data.lake, name), out)
    emit({"encoder": name, "file": str(out)}, json_output, lambda found: f"{found['encoder']} written to {out}")


@encoder.command()
@click.option("--preset", type=PRESETS, default="small", show_default=True)
def settings(preset: str) -> None:
    """Every setting with its meaning, as YAML for --config or the home's settings/encoder.yaml."""
    from odin_core.encoder.config import EncoderConfig

    click.echo((EncoderConfig.small() if preset == "small" else EncoderConfig.full()).documented())


def _known(data: "MarketData", version: str | None) -> str | None:
    """`version`, where the market has it or none is asked for. Raises NoSuchEncoder."""
    from odin_core.encoder.store import FOLDER

    known = sorted(path.name for path in (data.lake.root / FOLDER).glob("encoder-*"))
    if version is not None and version not in known:
        raise NoSuchEncoder(data.profile.name, version, known)
    return version


def _configured(kept: Path, config: Path | None, preset: str | None) -> "EncoderConfig":
    from odin_core.encoder.config import EncoderConfig

    if config and preset:
        raise click.UsageError("--config and --preset both say how the encoder is trained; give one of them")
    if config or (preset is None and kept.is_file()):
        return EncoderConfig.load(config or kept)
    return EncoderConfig.full() if preset == "full" else EncoderConfig.small()


def _row(data: "MarketData", found: "EncoderMonth") -> dict[str, Any]:
    after = data.calendar.next(found.trained_through)
    return {"month": f"{found.month:%Y-%m}", "encoder": found.version, "trained_through": str(found.trained_through),
            "in_force_from": str(after)}  # fmt: skip


def _trained(found: dict[str, Any]) -> str:
    numbers = [f"{name:<24}{value}" for name, value in found["facts"].items() if isinstance(value, int | float)]
    head = f"{found['encoder']}, trained through {found['trained_through']}, in force from {found['in_force_from']}"
    return "\n".join([head, *numbers])
