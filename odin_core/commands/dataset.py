"""`odin dataset`: exports and training windows, what they hold and whether they are still what they were."""

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, emit, names, the_home
from odin_core.errors import OdinError, in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from odin_core.datasets.exporting import Form
    from odin_core.datasets.registry import Registered


class NoManifest(OdinError):
    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the folder {folder} has no manifest.json, so nothing says what it should hold; name the folder that "
            f"`odin dataset export --to` wrote, or copy its manifest.json back"
        )


class NoDataset(OdinError):
    def __init__(self, name: str, error: OdinError) -> None:
        super().__init__(f"{name!r} is no folder with a manifest.json, and there is no home to look it up in: {error}")


@click.group()
def dataset() -> None:
    """Datasets: exports and training windows, versioned by their content.

    DATASET is a version, its beginning, or the folder of an export."""


@dataset.command("list")
@common
@as_json
def list_datasets(home: Path, market: str, json_output: bool) -> None:
    """Every dataset of the home, of all markets: exports and what lives were trained on."""
    from odin_core.datasets.registry import datasets

    rows = [entry.to_row() for entry in datasets(the_home(home, create=False))]
    shown = [row | {"tables": ", ".join(row["tables"])} for row in rows]
    emit({"datasets": rows}, json_output, lambda _: text.table(shown))


@dataset.command("show")
@click.argument("name", metavar="DATASET")
@common
@as_json
def show(name: str, home: Path, market: str, json_output: bool) -> None:
    """A dataset's manifest: sessions, tables, symbols, sources, how complete its columns are; --json: every file."""
    from odin_core.datasets.comparing import source_name

    manifest, copies = _found(home, name)
    whole: dict[str, Any] = manifest.to_dict() | {"copies": [str(copy) for copy in copies]}
    short = {key: whole[key] for key in ("version", "kind", "market", "form", "first", "last", "life", "copies")}
    short |= {"symbols": ", ".join(manifest.symbols), "tables": manifest.tables}
    short |= {"sources": [source_name(source) for source in manifest.sources]}
    short |= {"known values": {table: _completeness(shares) for table, shares in manifest.completeness.items()}}
    short |= {"features_version": manifest.features_version, "code_version": manifest.code_version}
    emit(whole if json_output else short, json_output, text.table_of_values)


@dataset.command("verify")
@click.argument("name", metavar="DATASET")
@common
@as_json
def verify(name: str, home: Path, market: str, json_output: bool) -> None:
    """Read every file again: status 1, and the names, where one changed, is gone or was not there."""
    from odin_core.datasets.checking import verify as differences

    manifest, copies = _found(home, name)
    found = {str(root): differences(manifest, root) for root in copies}
    sound = not any(found.values())
    result = {
        "version": manifest.version, "files": len(manifest.files), "sound": sound,
        "copies": {root: [difference._asdict() for difference in of] for root, of in found.items()},
    }  # fmt: skip
    lines = [f"{manifest.version}: {len(manifest.files)} files, {manifest.rows:,} rows"]
    for root, of in found.items():
        lines.append(f"{root}: {f'differences: {len(of)}' if of else 'as it was'}")
        lines += [f"  {difference.to_text()}" for difference in of]
    emit(result, json_output, lambda _: "\n".join(lines))
    sys.exit(0 if sound else 1)


@dataset.command("diff")
@click.argument("first")
@click.argument("second")
@common
@as_json
def diff(first: str, second: str, home: Path, market: str, json_output: bool) -> None:
    """What differs between two datasets."""
    from odin_core.datasets.comparing import compare

    comparison = compare(_found(home, first).manifest, _found(home, second).manifest)
    emit(comparison.to_dict(), json_output, lambda _: comparison.to_text())


@dataset.command("export")
@common
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A new folder for it.")
@click.option("--tables", help="Comma-separated, a life's too; default: all of the market's.")
@click.option("--start", type=SESSION, help="First session; default: the first there is.")
@click.option("--end", type=SESSION, help="Last session; default: the last there is.")
@click.option("--symbols", help="Comma-separated; default: all.")
@click.option("--format", "form", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
@as_json
def export(
    home: Path,
    market: str,
    folder: Path,
    tables: str | None,
    start: date | None,
    end: date | None,
    symbols: str | None,
    form: "Form",
    json_output: bool,
) -> None:
    """Write tables of the market, and of its current life, into a folder that says itself what it is.

    What holds since it became known (corporate_actions, fundamentals) comes from its beginning on, not from --start."""
    from odin_core.datasets.exporting import Selection
    from odin_core.datasets.exporting import export as write
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import LifeConfig
    from odin_core.lifecycle.run import code_version
    from odin_core.market.data import MarketData

    in_order(start, end)
    opened = the_home(home, create=False)
    life = lives.current(opened, market)
    selection = Selection(tables=names(tables), first=start, last=end, symbols=names(symbols), form=form)
    with text.progress_bar("export", sys.stderr.isatty()) as progress:
        manifest = write(
            opened,
            MarketData.of(opened, market, life.config if life else LifeConfig()),
            life,
            selection,
            folder,
            code_version(),
            progress,
        )
    result = {"version": manifest.version, "folder": folder.absolute(), "tables": manifest.tables}
    emit(result, json_output, text.table_of_values)


def _completeness(shares: "Mapping[str, float]") -> str:
    """The columns of a table that have unknown values, the least known first."""
    gaps = sorted((share, name) for name, share in shares.items() if share < 1)
    return ", ".join(f"{name} {share:.1%}" for share, name in gaps) or "every column in every row"


def _found(home: Path, name: str) -> "Registered":
    """The dataset that a name means: the folder of an export, which needs no home, or a version in the registry.
    Raises NoManifest, NoDataset, UnknownDataset, ManifestUnreadable."""
    from odin_core.datasets.registry import find, in_folder
    from odin_core.home import WrongHome

    folder = Path(name)
    if (found := in_folder(folder)) is not None:
        return found
    if folder.is_dir():
        raise NoManifest(folder)
    try:
        opened = the_home(home, create=False)
    except WrongHome as error:
        raise NoDataset(name, error) from error
    return find(opened, name)
