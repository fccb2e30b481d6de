"""What a user can get wrong. Each message names the subject, the value, the rule and the way out; the command line
prints it without a traceback. A programmer's mistake is an ordinary Python exception instead."""

import difflib
from collections.abc import Iterable


class OdinError(Exception):
    """A mistake that the user can mend; its text says how."""


def nearest(name: str, known: Iterable[str]) -> str:
    """' — did you mean a, b? (known: …)', for the end of a message about an unknown name."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=3)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"{hint}known: {', '.join(choices[:20])}{' …' if len(choices) > 20 else ''}"
