"""The summary that the commands print: every number follows from the tables."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from smalllives import CLIMBED, begin, climbed

from odin_core.lifecycle.summary import phase_table, summarise


def test_a_summary_counts_what_is_in_the_tables():
    life, _ = climbed()
    told, states = summarise(life), phase_table(life)
    replay = life.read_many("replay_buffer", life.commits())
    assert told["decisions"] == {s: replay.filter(status=s).height for s in ("taken", "skipped", "rejected")}
    assert (told["sessions"], told["no_data"]) == (27, 1)
    assert [(t["from"], t["to"]) for t in told["phase"]["transitions"]] == [(0, 1), (1, 2), (2, 3)]
    assert told["phase"]["final"] == 3
    assert all(t["reason"] for t in told["phase"]["transitions"])
    assert [r["outcome"] for r in told["retrains"]].count("promoted") == 1
    assert all(r["rows"] > 0 and r["seconds"] >= 0 and r["reason"] for r in told["retrains"])
    assert told["champion"]["version"] == states["champion"][-1]
    p, mine = told["performance"], states["session_return"].to_numpy()
    assert p["sharpe"] == pytest.approx(mine.mean() / mine.std(ddof=1) * np.sqrt(252))
    assert p["total_return"] == pytest.approx(states["equity"][-1] - 1)
    assert p["trades"] == states["executed"][-1]
    assert p["vs_hold"]["total_return"] == pytest.approx(states["hold_return"].fill_null(0).sum())
    assert p["vs_nothing"]["mean_return"] == pytest.approx(mine.mean())
    assert json.loads(json.dumps(told)) == told


def test_a_summary_through_a_session_is_the_summary_of_a_life_that_ended_there():
    life, data = climbed()
    early = summarise(life, data.calendar.previous(CLIMBED, 15))
    assert early["sessions"] == 12
    assert early["champion"] is None
    assert [r["session"] for r in early["retrains"]] == ["2023-01-06", "2023-01-10", "2023-01-13"]
    assert early["performance"]["trades"] <= summarise(life)["performance"]["trades"]


def test_champions_beyond_their_training_are_told_apart_from_their_training():
    life, _ = climbed()
    champion = summarise(life)["champion"]
    scores = life.read_many("candidate_scores", life.sessions_with("candidate_scores"))
    mine = scores.filter((pl.col("version") == champion["version"]) & pl.col("reward").is_not_null())
    assert champion["out_of_sample"]["sessions"] == mine.height
    assert champion["out_of_sample"]["reward"] == pytest.approx(mine["reward"].mean())
    assert champion["out_of_sample"]["lower_bound_95"] < champion["out_of_sample"]["excess_over_random"]


def test_a_life_without_sessions_has_an_empty_summary(tmp_path: Path):
    told = summarise(begin(tmp_path / "home")[0])
    assert (told["sessions"], told["champion"], told["performance"]) == (0, None, None)
    assert json.loads(json.dumps(told)) == told
