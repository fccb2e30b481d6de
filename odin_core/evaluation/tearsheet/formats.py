"""How numbers of a tear sheet are written: each with its unit, a dash for what is not known."""

import math
from collections.abc import Callable
from datetime import date
from typing import Any, Final

DASH: Final = "–"


def percent(value: float) -> str:
    return f"{value * 100:.2f} %"


def fine_percent(value: float) -> str:
    return f"{value * 100:.3f} %"


def share(value: float) -> str:
    return f"{value * 100:.1f} %"


def basis_points(value: float) -> str:
    return f"{value * 1e4:.1f} bp"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def two_digits(value: float) -> str:
    return f"{value:.2f}"


def three_digits(value: float) -> str:
    return f"{value:.3f}"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def duration(minutes: float) -> str:
    """Minutes as people say them."""
    hours, rest = divmod(round(minutes), 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"


UNITS: Final[dict[str, Callable[[float], str]]] = {
    "percent": percent, "fine_percent": fine_percent, "share": share, "basis_points": basis_points, "number": number,
    "two_digits": two_digits, "three_digits": three_digits, "whole": whole, "sessions": whole, "duration": duration,
}  # fmt: skip


def told(value: Any, unit: str = "text") -> str:
    """A value as text: numbers as `unit` of UNITS says, with a true minus; dates as they are; a dash for None, NaN."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, str | date) or unit == "text":
        return str(value)
    text = UNITS[unit](value)
    is_zero = not any(digit in text for digit in "123456789")
    return text.lstrip("-") if is_zero else text.replace("-", "−", 1)
