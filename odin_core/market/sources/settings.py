"""What a profile may say under `source:`, kind by kind, so that a misspelt setting is refused and not passed over.

Each module of a source has `SETTINGS` (name → what it is) beside those that all of them share; what a market's own
files and the synthetic exchange take is here, as they are no modules."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from odin_core.errors import nearest
from odin_core.market.bars import NotAnInterval, minutes_of
from odin_core.market.profile_fields import Unfit
from odin_core.market.sources.source import source_kinds

KIND: Final = {"kind": "which source it is"}
OWN: Final[Mapping[str, Mapping[str, str]]] = {
    "files": {},
    "synthetic": {"symbols": "how many symbols the exchange has, 1 to 999; 50 by default"},
}
ASKED: Final = {
    "symbols": "what is fetched where the command names none: a list",
    "interval": "length of the bars that are fetched; 1m by default",
    "recheck": "how many of the last sessions are asked for again by each fetch; 0 by default",
}


def kinds() -> list[str]:
    """Kinds that a profile may name."""
    return [*OWN, *source_kinds()]


def settings_of(kind: str) -> dict[str, str]:
    """Every setting of a kind of source, with what it is. Raises KeyError for an unknown kind."""
    if kind not in source_kinds():
        return KIND | OWN[kind]
    return KIND | ASKED | import_module(f"odin_core.market.sources.{kind}").SETTINGS


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise Unfit for an unknown kind, a setting that its kind does not have, or a value that it cannot have."""
    kind = settings.get("kind")
    if kind not in kinds():
        raise Unfit(dict(settings), f"its kind must be one of {', '.join(kinds())}")
    known = settings_of(kind)
    for name, value in settings.items():
        if name not in known:
            raise Unfit({name: value}, f"kind {kind} has no such setting; {nearest(name, known)}")
    if kind == "synthetic":
        _require(settings, "symbols", _is_count(settings.get("symbols", 1)), "a whole number")
        return
    symbols = settings.get("symbols", [])
    of_names = isinstance(symbols, list | tuple) and all(isinstance(name, str) for name in symbols)
    _require(settings, "symbols", of_names, "a list of names; quote one that YAML takes for something else (ON, NO, 1)")
    _require(settings, "recheck", _is_count(settings.get("recheck", 0)), "a whole number of sessions, 0 or more")
    try:
        minutes_of(str(settings.get("interval", "1m")))
    except NotAnInterval as mistake:
        raise Unfit({"interval": settings["interval"]}, str(mistake)) from None


def _require(settings: Mapping[str, Any], name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise Unfit({name: settings[name]}, f"{name} must be {rule}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
