"""What a user can get wrong. Each message names the subject, the value, the rule and the way out; the command line
prints it without a traceback. A programmer's mistake is an ordinary Python exception instead."""

import difflib
from collections.abc import Iterable
from datetime import date


class OdinError(Exception):
    """A mistake that the user can mend; its text says how."""


class EmptyRange(OdinError):
    """A range of sessions that ends before it begins."""

    def __init__(self, first: date, last: date, way_out: str = "exchange the two") -> None:
        super().__init__(f"the first session, {first}, lies after the last, {last}; {way_out}")


def in_order(first: date | None, last: date | None) -> None:
    """Raise EmptyRange where both ends of a range are given and the first lies after the last."""
    if first and last and first > last:
        raise EmptyRange(first, last)


def nearest(name: str, known: Iterable[str]) -> str:
    """' — did you mean a, b? (known: …)', for the end of a message about an unknown name."""
    choices = sorted(known)
    if not choices:
        return "there is none yet"
    close = difflib.get_close_matches(name, choices, n=3)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"{hint}known: {', '.join(choices[:20])}{' …' if len(choices) > 20 else ''}"
