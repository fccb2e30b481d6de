"""Why a file of text cannot be read, in words that say how to mend it. Looked for only once reading has failed."""

import csv
from collections.abc import Sequence
from pathlib import Path

PACKED = {
    b"\x1f\x8b": ("compressed (gzip)", "unpack it first (gunzip)"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it (unzip), or save the sheet as CSV"),
    b"BZh": ("compressed (bzip2)", "unpack it first (bunzip2)"),
    b"\xfd7zXZ": ("compressed (xz)", "unpack it first (unxz)"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "unpack it first (unzstd)"),
    b"PAR1": ("Parquet under another name", "rename it to end in .parquet"),
    b"\xff\xfe": ("text in UTF-16", "convert it (iconv -f UTF-16 -t UTF-8 FILE > NEW)"),
    b"\xfe\xff": ("text in UTF-16", "convert it (iconv -f UTF-16 -t UTF-8 FILE > NEW)"),
}


def packed(path: Path) -> str | None:
    """What a file is instead of text, by its first bytes, and the way out; None where they show nothing."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((f"{what}, {way}" for magic, (what, way) in PACKED.items() if start.startswith(magic)), None)


def not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return (
        f"not text in UTF-8 (a byte 0x{byte:02x}), but likely Windows-1252 or Latin-1, as spreadsheets often write it; "
        f"convert it (iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW)"
    )


def damage_of(path: Path, error: Exception, *, fields: Sequence[str] = (), separator: str = ",") -> str:
    """Why text with these columns could not be read: its encoding or its first row with more fields than columns, else
    the first line of `error`. Reads the file up to there."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=separator)
            for line in lines:
                if fields and len(line) > len(fields):
                    return (
                        f"line {lines.line_num} has {len(line)} fields, but there are {len(fields)} columns; mend it "
                        f"(a separator inside a number or a text needs them in quotes)"
                    )
    except UnicodeDecodeError as wrong:
        return not_utf8(wrong)
    except csv.Error as wrong:
        return f"damaged ({wrong})"
    return f"damaged ({str(error).splitlines()[0]})"
