"""The gate against lives whose truth is known, and against evidence with holes."""

import html
import json
from datetime import date, timedelta
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from odin_core.evaluation.evidence import Criterion, Evidence, GateConfig, Verdict
from odin_core.evaluation.gate import judge, meets_absolute
from odin_core.evaluation.gate_report import report_html, report_markdown

DAYS = [date(2023, 1, 2) + timedelta(days=i) for i in range(120)]
FOLDS = pl.DataFrame({"fold": [0, 1, 2], "decisions": [50] * 3, "candidate": [2e-3, -1e-3, 1e-3], "random": [0.0] * 3})
GOOD = 1.5 + np.random.default_rng(11).standard_t(4, 40)  # a mean far above what 40 sessions need


def sessions(candidate, random=-1.0, *, rules=-1.0, incumbent=None, ic=0.05, decisions=10) -> pl.DataFrame:
    n = len(candidate)
    columns = {"candidate": candidate, "random": random, "rules": rules, "incumbent": incumbent, "ic": ic}
    filled = {k: pl.Series(v if np.ndim(v) else [v] * n, dtype=pl.Float64, strict=False) for k, v in columns.items()}
    return pl.DataFrame({"session": DAYS[:n], "decisions": [decisions] * n, **filled})


def verdict(frame: pl.DataFrame, *, config: GateConfig | None = None, folds=FOLDS, **more) -> Verdict:
    given = {"candidate": "joint-7", "hypothesis": 1, **more}
    return judge(Evidence(sessions=frame, walk_forward=folds, **given), config or GateConfig())


def criterion(v: Verdict, name: str) -> Criterion:
    return next(c for c in v.criteria if c.name == name)


def promoted_at(frame: pl.DataFrame) -> float:
    looks = range(15, len(frame) + 1, 5)
    return next((t for t in looks if verdict(frame[:t]).outcome == "promoted"), float("inf"))


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_t(4, 120) / np.sqrt(2)


def test_good_evidence_is_promoted():
    v = verdict(sessions(GOOD))
    assert v.outcome == "promoted"
    assert not v.failed
    assert [c.name for c in v.criteria] == [
        "enough_sessions",
        "enough_decisions",
        "beats_random",
        "beats_rules",
        "profitable",
        "walk_forward",
        "information_coefficient",
        "no_leak",
    ]


def test_with_an_incumbent_there_is_one_criterion_more():
    v = verdict(sessions(GOOD, incumbent=0.0), incumbent="joint-3")
    assert v.outcome == "promoted"
    assert criterion(v, "beats_incumbent").passed


@pytest.mark.parametrize(
    ("frame", "unmet"),
    [
        pytest.param(sessions(GOOD, random=GOOD + 0.1), ["beats_random"], id="no better than random"),
        pytest.param(sessions(GOOD, rules=3.0), ["beats_rules"], id="worse than the rules"),
        pytest.param(sessions(GOOD - 2, random=-9.0, rules=-9.0), ["profitable"], id="loses less than random"),
        pytest.param(sessions(GOOD, ic=-0.01), ["information_coefficient"], id="ranks no better than chance"),
        pytest.param(sessions(GOOD, ic=0.11), ["no_leak"], id="too good to be true"),
    ],
)
def test_evidence_that_says_no_is_refused_for_its_reason(frame, unmet):
    v = verdict(frame)
    assert v.outcome == "refused"
    assert [c.name for c in v.failed] == unmet
    assert all(name in v.reason for name in unmet)


@pytest.mark.parametrize(
    ("frame", "unmet"),
    [
        pytest.param(sessions(GOOD[:14] + 3), ["enough_sessions"], id="14 sessions"),
        pytest.param(sessions(GOOD, decisions=2), ["enough_decisions"], id="80 decisions"),
        pytest.param(sessions(GOOD, ic=None), ["information_coefficient", "no_leak"], id="no ranking known"),
        pytest.param(sessions(GOOD, random=None), ["beats_random"], id="no random baseline"),
    ],
)
def test_evidence_that_is_missing_is_waited_for(frame, unmet):
    v = verdict(frame)
    assert v.outcome == "insufficient"
    assert [c.name for c in v.failed] == unmet


def test_no_evidence_at_all_is_insufficient():
    v = verdict(sessions(GOOD[:0]), folds=FOLDS.clear())
    assert v.outcome == "insufficient"
    assert criterion(v, "walk_forward").value is None
    assert report_html(v, Evidence(candidate="c", hypothesis=1, sessions=sessions([]), walk_forward=FOLDS), {})


def test_one_good_fold_of_three_is_not_enough():
    bad = FOLDS.with_columns(candidate=pl.Series([1e-3, -1e-3, None]))
    v = verdict(sessions(GOOD), folds=bad)
    assert v.outcome == "refused"
    assert criterion(v, "walk_forward").value == pytest.approx(1 / 3)


def test_a_tie_keeps_the_incumbent():
    v = verdict(sessions(GOOD, incumbent=GOOD), incumbent="joint-3")
    assert v.outcome == "refused"
    assert [c.name for c in v.failed] == ["beats_incumbent"]
    assert criterion(v, "beats_incumbent").value == 0.0


def test_a_hair_above_the_incumbent_keeps_it_too():
    near = GOOD - 0.05 + 0.5 * np.random.default_rng(12).standard_normal(40)
    v = verdict(sessions(GOOD, incumbent=near), incumbent="joint-3")
    assert [c.name for c in v.failed] == ["beats_incumbent"]


def test_the_same_difference_every_session_proves_nothing():
    """A difference without spread is a defect of the evidence, not a certainty."""
    v = verdict(sessions(GOOD, incumbent=GOOD - 0.5), incumbent="joint-3")
    assert v.outcome == "insufficient"
    assert criterion(v, "beats_incumbent").value is None


def test_sessions_before_the_incumbent_do_not_speak_against_it():
    incumbent = [None] * 31 + [0.0] * 9
    v = verdict(sessions(GOOD, incumbent=incumbent), incumbent="joint-3")
    assert v.outcome == "insufficient"
    assert criterion(v, "beats_incumbent").value is None


def test_sessions_without_a_candidates_decision_are_no_evidence():
    holes = [None if i % 2 else v for i, v in enumerate(GOOD)]
    v = verdict(sessions(holes))
    assert criterion(v, "enough_sessions").value == 20
    assert criterion(v, "enough_decisions").value == 200
    assert criterion(v, "beats_random").value == criterion(verdict(sessions(GOOD[::2])), "beats_random").value


def test_rules_that_chose_nothing_earned_nothing():
    silent, zero = (criterion(verdict(sessions(GOOD, rules=r)), "beats_rules") for r in (None, 0.0))
    assert silent.value == zero.value


def test_nan_is_read_as_null_and_the_order_of_rows_does_not_matter():
    frame = sessions(GOOD, ic=[0.05, None] * 20)
    shuffled = frame.with_columns(pl.col("ic").fill_null(np.nan)).sample(fraction=1.0, shuffle=True, seed=3)
    assert verdict(shuffled) == verdict(frame)


def test_later_hypotheses_need_more():
    first, third = (verdict(sessions(GOOD), hypothesis=j) for j in (1, 3))
    assert (first.alpha, third.alpha) == (0.025, 0.00625)
    assert criterion(third, "beats_random").value < criterion(first, "beats_random").value


def test_a_market_may_raise_the_ceiling_of_its_leak_alarm():
    assert verdict(sessions(GOOD, ic=0.3), config=GateConfig(ic_ceiling=0.6)).outcome == "promoted"


def test_a_refusal_says_how_far_it_was_and_how_long_it_might_take():
    frame = sessions(0.3 + np.random.default_rng(13).standard_normal(40), ic=0.15)
    v = verdict(frame)
    assert criterion(v, "no_leak").distance == pytest.approx(0.05)
    frame = sessions(frame["candidate"], random=0.0)
    bound = criterion(verdict(frame), "beats_random")
    assert bound.value is not None
    assert bound.distance == pytest.approx(-bound.value)
    assert "sessions to show" in bound.explanation
    assert criterion(v, "enough_sessions").distance == 0
    assert criterion(verdict(sessions(GOOD[:14])), "enough_sessions").distance == 1


def test_without_an_effect_at_most_alpha_of_the_lives_promote():
    """As good as random in a market in which everything earns: only the bound stands between this and a promotion.
    150 lives, 22 weekly looks each, error 0.025: 8 or more would happen to an honest gate once in 25 such tests."""
    rng = np.random.default_rng(20230102)
    lives = [5 + 0.1 * noise(rng) for _ in range(150)]
    promoted = sum(promoted_at(sessions(market + noise(rng), random=market)) < 1e9 for market in lives)
    assert promoted < 8


def test_a_true_effect_is_promoted_in_the_stated_number_of_sessions():
    rng = np.random.default_rng(20230102)
    found = []
    for _ in range(60):
        candidate = 0.6 + noise(rng)
        random, rules = (candidate - 0.6 - noise(rng) for _ in range(2))
        found.append(promoted_at(sessions(candidate, random=random, rules=rules)))
    assert 25 <= np.median(found) <= 45
    assert np.mean(np.array(found) <= 120) >= 0.95


def test_the_absolute_criterion_is_the_bound_against_random():
    frame = sessions(GOOD).select("session", "candidate", "random")
    assert meets_absolute(frame, 0.025).value == criterion(verdict(sessions(GOOD)), "beats_random").value
    assert meets_absolute(frame, 0.05).passed
    assert not meets_absolute(frame[:9], 0.05).passed
    assert not meets_absolute(sessions(GOOD, random=GOOD), 0.05).passed


def test_a_verdict_survives_json():
    told = verdict(sessions(GOOD[:5]), folds=FOLDS.clear()).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["outcome"] == "insufficient"
    assert {"name", "value", "threshold", "passed", "distance", "unit", "explanation"} <= set(told["criteria"][0])


def test_the_facts_are_those_of_the_candidates_own_rewards():
    facts = verdict(sessions([1.0, None, -3.0, 1.0]), mean_cost=0.2).facts
    assert facts["mean_candidate"] == pytest.approx(-1 / 3)
    assert facts["max_drawdown_of_summed_rewards"] == -3.0
    assert (facts["first_session"], facts["last_session"], facts["mean_cost"]) == ("2023-01-02", "2023-01-05", 0.2)


@pytest.mark.parametrize("incumbent", [None, "joint-3"])
def test_a_report_shows_each_criterion_with_result_number_and_threshold(incumbent):
    frame = sessions(GOOD, ic=0.11, incumbent=0.0)
    evidence = Evidence(candidate="joint-7", hypothesis=1, sessions=frame, walk_forward=FOLDS, incumbent=incumbent)
    v = judge(evidence)
    markdown = report_markdown(v, {"week": "2023-04-03"})
    page = report_html(v, evidence, {"week": "2023-04-03"})
    signs = {">": ">", ">=": "≥", "<=": "≤"}
    assert "week: 2023-04-03" in markdown
    assert "<dd>2023-04-03</dd>" in page
    for c in v.criteria:
        result, needs = "PASS" if c.passed else "FAIL", f"{signs[c.relation]} {c.threshold:.4g}"
        assert f"| {c.name} | {result} | {c.value:.4g} | {needs} |" in markdown
        assert f"<td>{c.name}</td><td>{result}</td><td>{c.value:.4g}</td><td>{html.escape(needs)}</td>" in page
    assert page.count("<polyline") == (3 if incumbent is None else 4)
    assert "src=" not in page
    assert "href=" not in page


def test_text_from_outside_is_escaped():
    frame = sessions(GOOD)
    evidence = Evidence(candidate="<b>|x", hypothesis=1, sessions=frame, walk_forward=FOLDS)
    v = judge(evidence)
    page, markdown = report_html(v, evidence, {"a<": "<script>"}), report_markdown(v, {"a|": "b|c\nd"})
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b>" in markdown
    assert "- a\\|: b\\|c d" in markdown


def test_the_plot_is_well_formed_and_inside_its_frame():
    evidence = Evidence(candidate="c", hypothesis=1, sessions=sessions(GOOD), walk_forward=FOLDS)
    page = report_html(judge(evidence), evidence, {})
    picture = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    points = [
        tuple(map(float, p.split(","))) for line in picture.iter("polyline") for p in line.get("points", "").split()
    ]
    assert len(points) == 3 * 41
    assert all(0 <= x <= 720 and 0 <= y <= 240 for x, y in points)


def test_the_same_verdict_gives_the_same_bytes():
    evidence = Evidence(candidate="c", hypothesis=2, sessions=sessions(GOOD), walk_forward=FOLDS)
    pages = {report_html(judge(evidence), evidence, {"week": 1}) for _ in range(2)}
    assert len(pages) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(
            {"sessions": sessions(GOOD).drop("ic", "rules")}, "sessions lacks rules, ic", id="columns missing"
        ),
        pytest.param({"walk_forward": FOLDS.drop("fold")}, "walk_forward lacks fold", id="no folds named"),
        pytest.param({"sessions": pl.concat([sessions(GOOD)] * 2)}, "one session twice", id="a session twice"),
    ],
)
def test_evidence_of_the_wrong_shape_is_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Evidence(**{"candidate": "c", "hypothesis": 1, "sessions": sessions(GOOD), "walk_forward": FOLDS, **change})


@pytest.mark.parametrize("options", [{"alpha_total": 0.0}, {"min_sessions": 5}, {"ic_ceiling": 0.0}], ids=str)
def test_a_configuration_that_cannot_judge_is_refused(options):
    with pytest.raises(ValueError, match="="):
        GateConfig(**options)
