"""JSON, one object a line, appended: for what is told to people and belongs to no digest."""

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, oldest first; none where it is missing. A line that a kill cut short is passed over."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    return [entry for line in text.splitlines() if (entry := _object(line))]


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Add an object on a line of its own, after a torn line as well."""
    with path.open("a+b") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + json.dumps(entry, default=str).encode() + b"\n")


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
