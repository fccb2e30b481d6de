"""The decision record: what a good row is, and that each rule refuses the row that breaks it, by name."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from odin_core.replay.record import KEY, REPLAY, VOCABULARY, InvalidRecord, validate

GOOD: dict[str, Any] = {
    "decision_id": "2023-01-03/AAA/1000", "session": date(2023, 1, 3), "symbol": "AAA",
    "decided_at": datetime(2023, 1, 2, 10, tzinfo=UTC), "phase": 0, "source": "random", "exploration_type": "uniform",
    "vol_regime": "low", "policy": "uniform", "model_version": None, "side": "long", "size": 0.0025, "stop_atr": 1.5,
    "target_mult": 2.0, "confidence": None, "propensity": 0.35 / 128, "status": "taken", "reject_reason": None,
    "features_version": "f1", "action": 22, "risk_unit": 0.004, "reference_close": 100.0,
    "entry_ts": datetime(2023, 1, 3, 3, 46, tzinfo=UTC), "entry_price": 100.1,
    "exit_ts": datetime(2023, 1, 3, 9, 59, tzinfo=UTC), "exit_price": 101.0, "exit_reason": "time", "quantity": 240.0,
    "gross_return": 0.01, "cost": 0.001, "net_return": 0.009, "reward": 2.25, "counterfactual": False, "complete": True,
}  # fmt: skip
SKIPPED = {"status": "skipped", "counterfactual": True}
UNFILLED: dict[str, Any] = dict.fromkeys(
    ("entry_ts", "entry_price", "exit_ts", "exit_price", "gross_return", "cost", "net_return", "reward")
) | {"exit_reason": "unfilled", "quantity": 0.0, "complete": False}


def rows(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([GOOD | change for change in changes or ({},)], schema=REPLAY)


def test_good_rows_of_every_status_pass_and_come_back_sorted():
    others: list[dict[str, Any]] = [
        SKIPPED | {"decision_id": "b"},
        {"status": "rejected", "reject_reason": "max_trades", "counterfactual": True, "decision_id": "a"},
        UNFILLED | {"decision_id": "c"},
        {"confidence": 0.6, "model_version": "joint-1", "source": "joint", "propensity": 1.0, "decision_id": "d"},
    ]
    frame = rows({}, *others)
    passed = validate(frame)
    assert passed.equals(frame.sort(KEY))
    assert passed["decision_id"].to_list() == ["2023-01-03/AAA/1000", "a", "b", "c", "d"]


def test_an_empty_frame_of_the_schema_passes():
    assert validate(REPLAY.to_frame()).is_empty()


@pytest.mark.parametrize("frame", [
    rows().drop("cost"), rows().with_columns(extra=1), rows().select(reversed(REPLAY.names())),
    rows().cast({"phase": pl.Int64}),
])  # fmt: skip
def test_other_columns_types_or_orders_are_refused(frame: pl.DataFrame):
    with pytest.raises(InvalidRecord, match="columns and types of REPLAY, in order"):
        validate(frame)


@pytest.mark.parametrize("column", sorted(VOCABULARY))
def test_a_word_outside_the_vocabulary_is_refused_with_the_words_that_may_be_used(column: str):
    with pytest.raises(InvalidRecord, match=f"{column} is one of {', '.join(VOCABULARY[column])}"):
        validate(rows({}, {column: "perhaps", "decision_id": "b"}))


def fitting(column: str, word: str) -> dict[str, Any]:
    """What else a row must say so that `word` is in place."""
    if column == "reject_reason":
        return {"status": "rejected", "counterfactual": True}
    if column == "status" and word != "taken":
        return {"counterfactual": True, "reject_reason": "drawdown" if word == "rejected" else None}
    return {}


@pytest.mark.parametrize("column", sorted(VOCABULARY))
def test_every_word_of_the_vocabulary_may_be_used(column: str):
    for word in VOCABULARY[column]:
        validate(rows({column: word} | fitting(column, word)))


REQUIRED = ("decision_id", "session", "symbol", "decided_at", "phase", "source", "exploration_type", "policy", "side",
            "size", "propensity", "status", "counterfactual", "complete", "features_version")  # fmt: skip


@pytest.mark.parametrize("column", REQUIRED)
def test_what_a_decision_must_tell_may_not_be_missing(column: str):
    with pytest.raises(InvalidRecord, match=f"“{column} is known”"):
        validate(rows({column: None}))


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("0 < propensity <= 1", {"propensity": 0.0}),
    ("0 < propensity <= 1", {"propensity": 1.001}),
    ("0 < propensity <= 1", {"propensity": float("nan")}),
    ("a reject reason if and only if rejected", {"reject_reason": "drawdown"}),
    ("a reject reason if and only if rejected", {"status": "rejected", "counterfactual": True}),
    ("counterfactual if and only if not taken", {"counterfactual": True}),
    ("counterfactual if and only if not taken", {"status": "skipped"}),
    ("complete rows have entry, exit and returns", {"exit_ts": None}),
    ("complete rows have entry, exit and returns", {"exit_reason": None}),
    ("complete rows have entry, exit and returns", {"entry_price": None}),
    ("complete rows have entry, exit and returns", {"reward": float("nan")}),
    ("complete rows have entry, exit and returns", {"reward": float("inf")}),
    ("complete rows have entry, exit and returns", {"gross_return": None}),
    ("complete rows have entry, exit and returns", {"cost": None}),
    ("net_return = gross_return − cost", {"net_return": 0.0091}),
    ("exit is not before entry", {"exit_ts": datetime(2023, 1, 3, 3, 45, tzinfo=UTC)}),
    ("exit is not before entry", UNFILLED | {"exit_ts": datetime(2023, 1, 3, 3, 45, tzinfo=UTC)}),
    ("decided before its entry", {"decided_at": datetime(2023, 1, 3, 3, 47, tzinfo=UTC)}),
]


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=[f"{r}-{i}" for i, (r, _) in enumerate(BROKEN)])
def test_a_row_that_breaks_a_rule_is_refused_with_rule_count_and_example(rule: str, change: dict[str, Any]):
    with pytest.raises(InvalidRecord) as refusal:
        validate(rows({}, change | {"decision_id": "the bad one"}))
    text = str(refusal.value)
    assert f"1 row(s) break the rule “{rule}”" in text
    assert "the bad one" in text
    assert "nothing was written" in text


def test_one_decision_cannot_have_two_outcomes_in_one_session():
    with pytest.raises(InvalidRecord, match="decision_id is unique"):
        validate(rows({}, SKIPPED))
