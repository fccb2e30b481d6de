"""The examination of a small life's champion: every answer recomputed from the tables, and a page that stands alone."""

import html
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr
from smalllives import begin, climbed, quick, run_to

from odin_core.commands.common import plain
from odin_core.commands.evaluate import NoChampion, champion_of, evaluate
from odin_core.errors import OdinError
from odin_core.evaluation.information import FEWEST_SYMBOLS
from odin_core.evaluation.metrics import max_drawdown
from odin_core.evaluation.sensitivity import seed_spread
from odin_core.labels import labels_at
from odin_core.lifecycle import examination_page
from odin_core.lifecycle.examination import BY_SESSION, Examination, NothingToExamine, examine, market_facts
from odin_core.lifecycle.examination_findings import DEFAULT, ExaminationConfig, findings
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.refilling import AS_IT_WAS, choices, learned_from
from odin_core.policies.actions import ACTIONS, decode

CONFIG = ExaminationConfig(seeds=3, window_sessions=2, min_sessions=5, later_bars=(1, 15))
FOOTINGS = ["as_it_was", "costs_1.5x", "costs_2x", "later_1", "later_15", "gap_down", "gap_up", "crash", "squeeze",
            "drought", "outage"]  # fmt: skip
FINDINGS = ["out_of_sample", "costs_1.5x", "costs_2x", "later_1", "shock_loss", "drought", "outage", "stress_windows",
            "honest_ic", "seeds", "parameters", "feature_families", "direction_head"]  # fmt: skip


class Found:
    """One examination, made once for all tests here, with the steps that were told."""

    made: Examination | None = None
    steps: list[tuple[int, int, str]]


def found() -> Examination:
    if Found.made is None:
        life, data = climbed()
        Found.steps = []
        Found.made = examine(
            life, data, champion_of(life), config=CONFIG, progress=lambda *step: Found.steps.append(step)
        )
    return Found.made


def of(name: str) -> pl.DataFrame:
    return found().tables["by_session"].filter(footing=name)


def test_every_footing_is_tried_on_every_session_after_the_training():
    life, _ = climbed()
    mine = found()
    expected = [s for s in life.commits() if s > mine.trained_through]
    assert mine.tables["by_session"].schema == BY_SESSION
    assert mine.tables["footings"]["footing"].to_list() == FOOTINGS
    assert (mine.first, mine.last) == (expected[0], expected[-1])
    with_plan = [s for s in expected if life.read("action_outcomes", s).height]
    for name in FOOTINGS:
        assert of(name)["session"].to_list() == with_plan


def test_random_as_it_was_is_the_mean_of_everything_the_life_wrote_down():
    life, data = climbed()
    for row in of(AS_IT_WAS.name).iter_rows(named=True):
        grid = life.read("action_outcomes", row["session"])
        net = grid["net_return"].cast(pl.Array(pl.Float32, ACTIONS)).to_numpy().astype(float)
        decided = data.decision_rows(data.calendar.previous(row["session"])).sort("symbol")
        unit = decided.filter(pl.col("symbol").is_in(grid["symbol"].to_list()))["natr_14_60m"].to_numpy()
        rewards = net / unit[:, None]
        if np.isfinite(rewards).any():
            assert row["random"] == pytest.approx(np.nanmean(rewards), rel=1e-9)
        else:
            assert row["random"] is None


def test_each_footing_s_row_follows_from_its_sessions():
    for row in found().tables["footings"].iter_rows(named=True):
        sessions = of(row["footing"]).drop_nulls(["reward", "random"])
        assert row["sessions"] == sessions.height
        assert row["excess"] == pytest.approx((sessions["reward"] - sessions["random"]).mean())
        assert row["lower"] < row["excess"] < row["upper"]
        assert row["worst_session"] == of(row["footing"])["capital_return"].min()
        assert row["trades"] == of(row["footing"])["trades"].sum()


def test_dearer_costs_take_their_share_and_the_line_of_costs_goes_through_what_was():
    rows = {r["footing"]: r for r in found().tables["footings"].iter_rows(named=True)}
    lost = [rows["as_it_was"]["reward"] - rows[name]["reward"] for name in ("costs_1.5x", "costs_2x")]
    assert lost[1] == pytest.approx(2 * lost[0], rel=0.05)
    assert lost[0] > 0
    line = dict(found().tables["costs"].select("multiple", "mean").iter_rows())
    assert line[1.0] - line[2.0] == pytest.approx(line[0.0] - line[1.0])
    even = found().break_even
    assert line[0.0] > 0
    assert even > 1


def test_the_planted_edge_is_found_robust():
    rows = {f.name: f for f in found().findings}
    assert list(rows) == FINDINGS
    assert {name for name, f in rows.items() if f.passed} >= {"out_of_sample", "later_1", "seeds", "direction_head"}
    assert found().frame()["passed"].to_list() == [f.passed for f in found().findings]


def test_the_learner_is_asked_on_the_window_that_it_was_trained_on():
    life, data = climbed()
    window = learned_from(life, data, found().trained_through)
    assert window.last_session == found().trained_through
    seed = life.config.seed
    assert found().tables["seeds"].equals(seed_spread(window, life.config.learner, [seed, seed + 1, seed + 2]))
    heads = found().tables["heads"]
    assert heads["head"].to_list() == ["direction", "enter", "exit", "size", "confidence", "direction", "enter"]
    assert heads["lost_excess"].is_not_null().all()


def test_what_each_head_adds_is_recomputed_trade_by_trade():
    life, data = climbed()
    model = life.registry.model(found().version)
    lost: dict[str, list[float]] = {"direction": [], "enter": [], "exit": [], "size": []}
    for choice in choices(life, data, model, [s for s in life.commits() if s > model.trained_through]):
        net = life.read("action_outcomes", choice.session)["net_return"].to_list()
        unit = choice.contexts["natr_14_60m"].to_list()
        reward = [[v / u if v is not None else np.nan for v in row] for row, u in zip(net, unit, strict=True)]
        taken = [i for i, status in enumerate(choice.plan["status"]) if status == "taken"]
        if not taken or not np.isfinite(reward).any():
            continue
        action = choice.proposals.lean
        half = ACTIONS // 2  # the long ones come first
        mine = [reward[i][action[i]] for i in taken]
        other = [reward[i][(action[i] + half) % ACTIONS] for i in taken]
        every = [reward[i][action[i]] for i in range(len(action))]
        exits = [r for i in taken for r in reward[i][action[i] // 16 * 16 : action[i] // 16 * 16 + 16]]
        sizes = decode(action[taken]).size
        seen = np.isfinite(mine)
        lost["direction"].append(np.nanmean(mine) - (np.nanmean(mine) + np.nanmean(other)) / 2)
        lost["enter"].append(np.nanmean(mine) - np.nanmean(every))
        lost["exit"].append(np.nanmean(mine) - np.nanmean(exits))
        lost["size"].append(np.average(np.array(mine)[seen], weights=sizes[seen]) - np.nanmean(mine))
    told = dict(found().tables["heads"].filter(of="out of sample").select("head", "lost_excess").iter_rows())
    for head, by_session in lost.items():
        assert told[head] == pytest.approx(np.mean(by_session), rel=1e-4, abs=1e-7), head


def test_stress_windows_are_of_the_market_and_the_numbers_of_the_model():
    life, data = climbed()
    sessions = of(AS_IT_WAS.name)["session"].to_list()
    market = pl.DataFrame([market_facts(life, data, s) for s in sessions])
    known = market.drop_nulls("volatility")
    worst = found().tables["stress"].filter(kind="volatility", rank=1).row(0, named=True)
    inside = market.filter(pl.col("session").is_between(worst["first"], worst["last"]))
    assert worst["value"] == pytest.approx(inside["volatility"].mean())
    assert worst["value"] >= known["volatility"].rolling_mean(2).max() - 1e-12
    mine = of(AS_IT_WAS.name).filter(pl.col("session").is_between(worst["first"], worst["last"]))["reward"].drop_nulls()
    assert worst["mean"] == pytest.approx(mine.mean())
    assert worst["drawdown"] == pytest.approx(max_drawdown(mine.to_numpy(), compounded=False))


def test_the_rank_correlation_by_horizon_is_that_of_scores_and_labels():
    life, data = climbed()
    mine, model = found(), life.registry.model(champion_of(life))
    table = mine.tables["horizons"]
    assert table["horizon"].to_list() == [1, 3, 5]
    sessions = [s for s in life.commits() if s > mine.trained_through]
    labels = pl.concat([labels_at(data, s) for s in sessions]).filter(label="return_3_sessions")
    correlations = []
    for choice in choices(life, data, model, sessions):
        told = choice.contexts.select("symbol", "decided_at", score=choice.proposals.score).join(
            labels, on=["symbol", "decided_at"]
        )
        known = told.drop_nulls("value")
        if known.height >= FEWEST_SYMBOLS:
            correlations.append(spearmanr(known["score"], known["value"]).statistic)
    row = table.row(1, named=True)
    assert row["sessions"] == len(correlations) > 3
    assert row["ic"] == pytest.approx(np.mean(correlations))


def test_the_market_s_return_is_from_close_to_close():
    life, data = climbed()
    session = life.commits()[3]
    closes = data.bars(session).sort("ts").group_by("symbol").agg(pl.col("close").last())
    before = data.bars(data.calendar.previous(session)).sort("ts").group_by("symbol").agg(was=pl.col("close").last())
    expected = closes.join(before, on="symbol").select((pl.col("close") / pl.col("was") - 1).mean()).item()
    assert market_facts(life, data, session)["market_return"] == pytest.approx(expected)


def test_asked_again_it_says_the_same_bytes_and_writes_nothing():
    life, data = climbed()
    files = {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()}
    again = examine(life, data, found().version, config=CONFIG)
    assert {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()} == files
    assert examination_page.to_html(again) == examination_page.to_html(found())
    assert examination_page.to_markdown(again) == examination_page.to_markdown(found())
    assert all(again.tables[name].equals(table) for name, table in found().tables.items())


def test_progress_is_told_to_its_end():
    found()
    done, totals, _ = zip(*Found.steps, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] <= totals[-1]
    assert len(set(totals)) == 1


def test_the_page_stands_alone_and_says_every_number():
    page = examination_page.to_html(found())
    assert "://" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    markdown = examination_page.to_markdown(found())
    for finding in found().findings:
        assert finding.name in page
        assert finding.name in markdown
        assert ("PASS" if finding.passed else "FAIL") in markdown
    for title, note, _ in examination_page.SECTIONS.values():
        assert title in html.unescape(page)
        assert note in markdown
    for picture in (examination_page.footings_picture, examination_page.sessions_picture):
        png = picture(found())
        assert png.startswith(b"\x89PNG")
        assert len(png) < 60_000


def test_everything_can_be_said_in_json():
    told = json.loads(json.dumps(plain(found().to_dict()), allow_nan=False))
    assert [f["name"] for f in told["findings"]] == FINDINGS
    assert told["version"] == found().version
    assert len(told["footings"]) == len(FOOTINGS)


def changed(table: str, where: pl.Expr, **values: float | None) -> dict[str, pl.DataFrame]:
    """The tables with some numbers of some rows replaced."""
    new = [pl.when(where).then(pl.lit(v, pl.Float64)).otherwise(pl.col(n)).alias(n) for n, v in values.items()]
    return {**found().tables, table: found().tables[table].with_columns(new)}


FOOTING = pl.col("footing")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("out_of_sample", lambda: changed("footings", FOOTING == "as_it_was", lower=-0.01)),
        ("costs_1.5x", lambda: changed("footings", FOOTING == "costs_1.5x", reward=-0.01)),
        ("costs_2x", lambda: changed("footings", FOOTING == "costs_2x", lower=-0.01)),
        ("later_1", lambda: changed("footings", FOOTING == "later_1", kept=0.49)),
        ("shock_loss", lambda: changed("footings", FOOTING == "squeeze", worst_session=-0.021)),
        ("drought", lambda: changed("footings", FOOTING == "drought", kept=None)),
        ("outage", lambda: changed("footings", FOOTING == "outage", kept=0.4)),
        ("stress_windows", lambda: changed("stress", pl.col("rank") == 1, excess=-1.0)),
        ("stress_windows", lambda: changed("stress", pl.lit(True), excess=None)),
        ("seeds", lambda: changed("seeds", pl.col("seed") == 4, excess=-0.01)),
        ("seeds", lambda: changed("seeds", pl.col("seed") == 4, excess=float("nan"))),
        ("parameters", lambda: changed("parameters", pl.col("parameter") == "trees", kept=0.3)),
        ("parameters", lambda: changed("parameters", pl.col("parameter") == "trees", kept=float("nan"))),
        ("feature_families", lambda: changed("families", pl.col("group") == "volume", ic=0.01, lost_ic=0.2)),
        ("direction_head", lambda: changed("heads", pl.col("head") == "direction", lost_excess=-0.1)),
    ],
)
def test_each_answer_that_is_too_bad_or_unknown_fails_its_finding_and_no_other(name, spoil):
    before = {f.name: f.passed for f in findings(found().tables, CONFIG)}
    after = {f.name: f.passed for f in findings(spoil(), CONFIG)}
    assert before[name]
    assert {n for n in before if before[n] != after[n]} == {name}


def test_a_model_without_later_sessions_cannot_be_examined_and_says_how_many_it_needs():
    life, data = climbed()
    newest = life.read("phase_state", life.head)["candidates"][0][-1]
    with pytest.raises(NothingToExamine, match=r"has [0-3] finished sessions .* needs 10"):
        examine(life, data, newest)


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"cost_multiples": ()}, {"later_bars": ()}, {"min_sessions": 1}])
def test_an_examination_that_asks_nothing_is_refused(wrong):
    with pytest.raises(OdinError, match="needs two seeds, two sessions, a multiple and a delay"):
        replace(DEFAULT, **wrong)


@pytest.fixture
def at_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    """The command sees the small life and its data."""
    life, data = climbed()
    monkeypatch.setattr("odin_core.commands.evaluate.the_life", lambda *_: life)
    monkeypatch.setattr("odin_core.market.data.MarketData.of", lambda *_: data)
    return life


def test_the_command_examines_the_champion_writes_the_page_and_says_where(at_command, tmp_path):
    out = tmp_path / "page.html"
    result = CliRunner().invoke(evaluate, ["--seeds", "2", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"report      {out}" in result.output
    assert all(name in result.output for name in FINDINGS)
    assert f"<h1>Examination of {found().version}, demo</h1>" in out.read_text()


def test_the_command_says_everything_in_json_and_writes_markdown_where_asked(at_command, tmp_path):
    out = tmp_path / "page.md"
    words = [found().version, "--seeds", "3", "--json", "--out", str(out)]
    told = json.loads(CliRunner().invoke(evaluate, words, catch_exceptions=False).stdout)
    assert told["report"] == str(out)
    assert [f["name"] for f in told["findings"]] == FINDINGS
    assert told["seeds"] == plain(found().tables["seeds"].to_dicts())
    assert out.read_text().startswith(f"# Examination of {found().version}, demo\n")


def test_a_candidate_from_a_market_without_an_edge_is_not_robust(tmp_path):
    life, data = begin(tmp_path, quick(edge=0.0))
    run_to(life, data)
    version = life.read("phase_state", life.commits()[4])["candidates"][0][-1]
    nothing = examine(life, data, version, config=replace(CONFIG, later_bars=(1,)))
    failed = {finding.name for finding in nothing.findings if not finding.passed}
    assert "out_of_sample" in failed
    assert {"costs_1.5x", "costs_2x"} <= failed
    assert not nothing.passed


def test_a_life_without_champion_says_what_to_name(tmp_path):
    life, _ = begin(tmp_path, quick())
    with pytest.raises(NoChampion, match="name a version"):
        champion_of(life)
