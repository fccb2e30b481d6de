"""docs/files.md: its table is what imports of the recorded files give, and every file is in it."""

from collections.abc import Callable
from pathlib import Path

import filetable
import pytest

from odin_core.market.intake.layout import Layout, layout_names


def test_every_recorded_file_is_in_the_table(market_file: Callable[[str], Path]):
    folder = market_file("nse_index_1m.parquet").parent
    there = {path.name for path in folder.glob("*.parquet")} | {
        f"raw/{path.name}" for path in (folder / "raw").iterdir()
    }
    assert {entry.file for entry in filetable.ENTRIES} == there
    assert all(f"`{name}`" in filetable.in_page() for name in there)


QUICK = [entry for entry in filetable.ENTRIES if "1m_" in entry.file and entry.file.startswith("raw/")]


@pytest.mark.parametrize("entry", QUICK, ids=[entry.file for entry in QUICK])
def test_the_line_of_a_small_file_is_what_an_import_of_it_gives(
    market_file: Callable[[str], Path], entry: filetable.Entry
):
    market_file(entry.file)
    assert filetable.line(entry) in filetable.in_page().splitlines()


@pytest.mark.slow
def test_the_table_is_what_imports_of_all_files_give(market_file: Callable[[str], Path]):
    market_file("nse_index_1m.parquet")
    assert filetable.in_page() == filetable.table()


def test_every_field_and_built_in_layout_is_explained():
    text = filetable.PAGE.read_text(encoding="utf-8")
    fields = [name for name in Layout.__dataclass_fields__ if name != "name"]
    assert [name for name in [*fields, *layout_names()] if f"`{name}`" not in text] == []
