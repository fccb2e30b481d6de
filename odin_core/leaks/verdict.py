"""What a check of the leak wall says: one verdict per feature or label, with the numbers behind it."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Verdict:
    """The answer of one check about one subject."""

    check: str
    passed: bool
    subject: str  # column of a table of features or labels, or the features that a learner saw, comma-separated
    numbers: dict[str, float]
    detail: str  # a sentence for people, with the way to look further where it failed


def to_frame(verdicts: Iterable[Verdict]) -> pl.DataFrame:
    """Verdicts as rows: check, passed, subject, detail and `numbers`, a list of (name, value); in the given order."""
    listed = list(verdicts)
    return pl.DataFrame(
        {
            "check": [v.check for v in listed],
            "passed": [v.passed for v in listed],
            "subject": [v.subject for v in listed],
            "detail": [v.detail for v in listed],
            "numbers": [[{"name": name, "value": value} for name, value in v.numbers.items()] for v in listed],
        },
        schema={
            "check": pl.String,
            "passed": pl.Boolean,
            "subject": pl.String,
            "detail": pl.String,
            "numbers": pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})),
        },
    )
