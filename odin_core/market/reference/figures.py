"""Rules over fundamental figures, as a setting says them: "pe <= 60, roe_pct >= 5". All of them must hold.

Only the text is read here; what the figures are is in `fundamentals`, where the rules are applied is the planner."""

import re
from functools import lru_cache
from typing import NamedTuple

from odin_core.errors import OdinError

OPERATORS = ("<=", ">=", "<", ">")
RULE = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([^\s<>=]+)\s*")


class BadRule(OdinError):
    def __init__(self, part: str, why: str) -> None:
        super().__init__(
            f"filter.fundamentals: {part.strip()!r} {why}; write rules as “figure operator number”, separated by "
            f"commas, for example: pe <= 60, roe_pct >= 5"
        )


class Rule(NamedTuple):
    figure: str
    operator: str  # one of OPERATORS
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {self.operator} {self.bound:g}"


@lru_cache(maxsize=64)
def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a setting, in its order; none for an empty text. Raises BadRule."""
    if not text.strip():
        return ()
    return tuple(_parse(part) for part in text.split(","))


def _parse(part: str) -> Rule:
    found = RULE.fullmatch(part)
    if found is None:
        raise BadRule(part, f"is no comparison with one of {' '.join(OPERATORS)}")
    figure, operator, number = found.groups()
    try:
        bound = float(number)
    except ValueError:
        raise BadRule(part, f"compares with {number!r}, which is no number") from None
    if bound != bound:
        raise BadRule(part, "compares with NaN, which nothing is above or below")
    return Rule(figure, operator, bound)
