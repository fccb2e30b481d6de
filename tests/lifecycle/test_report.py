"""The report of a life: what is read, which page is written where, and what `odin report` says."""

import json
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from odincommand import odin
from polars.testing import assert_frame_equal
from smalllives import FIRST, LAST, begin, climbed, run_to

from odin_assets.assets.catalog import catalog_assets
from odin_assets.resources import OdinHome
from odin_core.commands.common import plain
from odin_core.lifecycle.life import REPORT, Life
from odin_core.lifecycle.report import EmptyRange, NotAPage, records_of, write_report
from odin_core.lifecycle.summary import phase_table, summarise
from odin_core.market.profile import load_profile


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    made, data = begin(tmp_path_factory.mktemp("reported") / "home")
    run_to(made, data)
    return made


def test_a_report_says_what_the_summary_says(life: Life):
    report, summary = write_report(life), summarise(life)
    told, performance = report.sheet.headline, summary["performance"]
    assert report.path == life.reports / REPORT
    assert str(LAST) in report.path.read_text()
    assert told["sessions"] == summary["sessions"]
    assert told["total_return"] == pytest.approx(performance["total_return"])
    assert told["sharpe"] == pytest.approx(performance["sharpe"])
    assert told["max_drawdown"] == pytest.approx(performance["max_drawdown"])
    assert told["mean_turnover"] == pytest.approx(performance["turnover"])
    assert told["trades"] == performance["trades"]
    assert told["mean_reward"] == pytest.approx(performance["mean_reward"])
    assert told["mean_cost"] == pytest.approx(performance["mean_cost"])
    assert told["phase"] == summary["phase"]["final"]
    counted = {row["status"]: 0 for row in report.sheet.tables["decisions"].to_dicts()}
    for row in report.sheet.tables["decisions"].to_dicts():
        counted[row["status"]] += row["decisions"]
    assert counted == {status: n for status, n in summary["decisions"].items() if n}
    trained = [(str(r["session"]), r["outcome"], r["reason"]) for r in report.sheet.tables["retrains"].to_dicts()]
    assert trained == [(r["session"], r["outcome"], r["reason"]) for r in summary["retrains"]]


def test_a_report_of_a_life_is_the_same_bytes_again(life: Life):
    first = write_report(life).path.read_bytes()
    assert write_report(life).path.read_bytes() == first
    assert len(first) < 1_000_000


def test_a_range_is_part_of_the_whole(life: Life):
    whole, part = write_report(life), write_report(life, first=date(2023, 1, 5), last=date(2023, 1, 12))
    assert part.path.name == "life_2023-01-05_2023-01-12.html"
    assert whole.path.is_file(), "the whole life's page stays"
    days = phase_table(life).filter(pl.col("session").is_between(date(2023, 1, 5), date(2023, 1, 12)))
    assert part.sheet.tables["curve"]["session"].to_list() == days["session"].to_list()
    assert part.sheet.headline["total_return"] == pytest.approx(days["session_return"].sum())
    kept = ("session", "regime", "phase", "turnover", "long", "short", "spread", "charges", "return")
    of_whole = whole.sheet.tables["curve"].filter(pl.col("session").is_in(days["session"].implode()))
    assert_frame_equal(part.sheet.tables["curve"].select(kept), of_whole.select(kept), abs_tol=1e-12)


def test_a_report_through_a_session_is_that_of_a_life_which_ended_there(life: Life, tmp_path: Path):
    other, data = begin(tmp_path / "home")
    run_to(other, data, date(2023, 1, 10))
    early, late = write_report(other).sheet.to_dict(), write_report(life, last=date(2023, 1, 10)).sheet.to_dict()
    assert plain(early) == plain(late)


def test_a_range_without_sessions_is_refused_with_what_there_is(life: Life):
    with pytest.raises(EmptyRange, match=r"no finished session from 2024-01-01 to the end; it has 12, 2023-01-02 to"):
        write_report(life, first=date(2024, 1, 1))


def test_a_page_of_another_kind_is_refused_before_anything_is_read(life: Life, tmp_path: Path):
    with pytest.raises(NotAPage, match=r"sheet\.pdf names no page; end it with \.html or \.md"):
        write_report(life, out=tmp_path / "sheet.pdf")
    assert not (tmp_path / "sheet.pdf").exists()


def test_a_life_that_has_not_begun_gets_a_page_that_says_so(tmp_path: Path):
    new, _ = begin(tmp_path / "home")
    report = write_report(new)
    assert report.sheet.is_empty
    assert "nothing to show" in report.path.read_text()
    assert all(image.startswith(b"\x89PNG") for image in report.pictures.values())


def test_the_record_of_a_life_is_read_whole(life: Life):
    records = records_of(life)
    finished = life.commits()
    assert records.states["session"].to_list() == finished
    assert records.replay.height == life.read_many("replay_buffer", finished).height
    assert records.executions.height == life.read_many("executions", finished).height
    assert records.reports["session"].unique().sort().to_list() == life.sessions_with("evaluation_report")
    assert records.capital == load_profile("demo").capital


def test_the_command_writes_a_page_where_it_is_told_and_prints_where(life: Life, tmp_path: Path):
    said = odin("report", "--life", life.id, home=life.home)
    assert Path(said.out.strip()) == life.reports / REPORT
    out = tmp_path / "sheet.md"
    assert odin("report", "--out", out, "--first", FIRST, home=life.home).out == f"{out}\n"
    assert out.read_text().startswith(f"**demo, life {life.id}**")


def test_the_command_gives_the_numbers_as_json(life: Life, tmp_path: Path):
    told = odin("report", "--last", "2023-01-10", "--out", tmp_path / "sheet.html", "--json", home=life.home).json
    assert told["last"] == "2023-01-10"
    assert told["report"] == str(tmp_path / "sheet.html")
    wanted = write_report(life, last=date(2023, 1, 10)).sheet
    assert told["headline"] == json.loads(json.dumps(plain(dict(wanted.headline))))
    assert len(told["curve"]) == told["headline"]["sessions"] == 7
    assert {row["part"] for row in told["costs"]} >= {"spread", "slippage", "charges", "net profit"}


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (("--first", "2024-01-01"), "it has 12, 2023-01-02 to 2023-01-17"),
        (("--first", "2023-01-10", "--last", "2023-01-05"), "no finished session from 2023-01-10 to 2023-01-05"),
        (("--out", "sheet.pdf"), "end it with .html or .md"),
        (("--last", "yesterday"), "write it as YYYY-MM-DD"),
    ],
    ids=["a range beyond the life", "a range the wrong way round", "no page", "no date"],
)
def test_a_mistake_ends_in_one_line_with_the_way_out(life: Life, words: tuple[str, ...], way_out: str):
    assert way_out in odin("report", *words, home=life.home).mistake


def test_dagit_shows_the_summary_four_pictures_and_numbers_to_plot(life: Life):
    (asset,) = (a for a in catalog_assets("demo") if a.key.path[-1] == "life_report")
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([asset], instance=instance, resources={"odin": OdinHome(path=str(life.home.root))})
    (event,) = done.get_asset_materialization_events()
    said = {label: value.value for label, value in event.materialization.metadata.items()}
    report = write_report(life)
    assert said["report"] == str(report.path)
    assert said["summary"] == report.markdown
    for name in ("equity", "rolling_sharpe", "trade_distribution", "exposure_and_costs"):
        assert said[name].startswith(f"![{name}](data:image/png;base64,")
        assert len(said[name]) < 70_000
    assert said["trades"] == report.sheet.headline["trades"]
    assert said["total_return"] == pytest.approx(report.sheet.headline["total_return"])
    assert (said["sessions"], said["champion"]) == (12, "none")


def test_a_climbed_life_is_reported_with_its_phases_and_its_champion(tmp_path: Path):
    life, _ = climbed()
    sheet = write_report(life, out=tmp_path / "climbed.html").sheet
    assert sheet.tables["phases"].select("from", "to").rows() == [(0, 1), (1, 2), (2, 3)]
    assert sheet.headline["champion"] == phase_table(life)["champion"][-1]
    assert sheet.headline["sessions_without_data"] == 1
    scores = life.read_many("candidate_scores", life.sessions_with("candidate_scores"))
    champions = scores.filter("champion").unique(["session", "version"])
    excess = (champions["reward"] - champions["random"]).drop_nulls()
    told = {(r["who"], r["baseline"]): r for r in sheet.tables["evidence"].to_dicts()}["champion in force", "random"]
    assert told["excess"] == pytest.approx(excess.mean())
    assert told["sessions"] == len(excess)
