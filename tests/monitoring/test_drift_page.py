"""What people see of drift: Evidently's page, the table in Markdown, the picture."""

import io
import sys
from dataclasses import replace
from datetime import date, timedelta
from subprocess import run

import numpy as np
import polars as pl
import pytest
from panels import QUICK, panel

from odin_core.monitoring.drift_page import PICTURE_BYTES, SAMPLE, drift_markdown, drift_page, drift_picture
from odin_core.monitoring.reference import drift_of, fit_reference

PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ["quiet", "moved", "broken"]


@pytest.fixture(scope="module")
def life():
    """Scores of sessions 60 to 99; `moved` shifts after session 80 and `broken` has no value after 90."""
    values, session = panel(2, 100, 20, QUICK[:3])
    values[session >= 80, 1] += 3
    values[session >= 90, 2] = np.nan
    fitted = fit_reference(values[session < 60], NAMES, None, session[session < 60], seed=1)
    looks = {}
    for now in range(60, 100):
        known = session <= now
        looks[date(2023, 1, 2) + timedelta(now)] = drift_of(fitted, values[known], session[known])
    return looks


def tables(life):
    return pl.concat([s.table.with_columns(session=pl.lit(day)) for day, s in life.items()])


def test_the_markdown_says_what_drifted_and_why(life):
    first, *_, last = life.values()
    text = drift_markdown(last)
    assert text.startswith("**Drift in moved: index ")
    assert "| **moved** |" in text
    assert "| **broken** |" in text
    assert "| quiet |" in text
    assert "missing, 0% in the reference" in text
    assert drift_markdown(first).startswith("No drift; furthest is ")
    assert "**moved**" not in drift_markdown(first)
    assert "2 more subjects" in drift_markdown(last, most=1)


def test_what_cannot_be_judged_says_so():
    values, session = panel(2, 30, 5, QUICK[:3])
    young = fit_reference(values[session < 5], NAMES, None, session[session < 5], seed=1)
    text = drift_markdown(drift_of(young, values, session))
    assert text.startswith("Not judged: the reference has 5 sessions")
    assert "| – |" in text


def test_the_picture_is_small_and_the_same_every_time(life):
    picture = drift_picture(tables(life))
    assert picture.startswith(PNG)
    assert len(picture) <= PICTURE_BYTES
    assert picture == drift_picture(tables(life))


def test_an_alarm_is_seen_in_the_picture(life):
    from PIL import Image

    def red(picture: bytes) -> int:
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        return int(((pixels[..., 0] > 140) & (pixels[..., 1] < 60) & (pixels[..., 2] < 80)).sum())

    before = tables({day: scores for day, scores in life.items() if not scores.alarm})
    assert red(drift_picture(tables(life))) > 50
    assert red(drift_picture(before)) == 0


def test_the_picture_of_a_long_life_of_many_features_stays_small():
    rng = np.random.default_rng(0)
    days = [date(2023, 1, 2) + timedelta(i) for i in range(250)]
    grid = pl.DataFrame({"subject": [f"feature_{j}" for j in range(60)]}).join(
        pl.DataFrame({"session": days}), how="cross"
    )
    grid = grid.with_columns(psi=pl.Series(rng.random(grid.height)), score=pl.Series(rng.random(grid.height) * 1.1))
    grid = grid.with_columns(alarm=pl.col("score") >= 1)
    assert len(drift_picture(grid)) <= PICTURE_BYTES
    assert drift_picture(grid.head(0)).startswith(PNG)


def test_evidently_writes_one_page_that_loads_nothing(tmp_path):
    rng = np.random.default_rng(1)
    then = pl.DataFrame({"still": rng.standard_normal(6_000), "moved": rng.standard_normal(6_000), "only_then": 1.0})
    now = pl.DataFrame(
        {"still": rng.standard_normal(300), "moved": rng.standard_normal(300) + 3, "empty": [None] * 300}
    )
    page = drift_page(then, now, tmp_path / "reports" / "drift.html").read_text()
    assert "moved" in page
    assert "still" in page
    assert "only_then" not in page
    assert 'src="http' not in page
    assert "stylesheet" not in page
    assert then.height > SAMPLE


def test_what_odin_finds_stands_above_what_evidently_says(life, tmp_path):
    frame = pl.DataFrame({"still": np.random.default_rng(1).standard_normal(100)})
    first, *_, last = life.values()
    pages = [drift_page(frame, frame, tmp_path / "drift.html", scores=s).read_text() for s in (first, last)]
    bodies = [page[page.index("<body") :] for page in pages]
    assert "No drift; furthest is quiet" in bodies[0][:600]
    assert "Drift in moved: index" in bodies[1][:600]
    assert "what halts entries" in bodies[1][:1200]


def test_a_subject_without_a_limit_is_named_as_such(life):
    scores = next(iter(life.values()))
    free = scores.table.with_columns(
        limit=pl.when(pl.col("subject") == "quiet").then(None).otherwise("limit"),
        score=pl.when(pl.col("subject") == "quiet").then(None).otherwise("score"),
    )
    text = drift_markdown(replace(scores, table=free), most=2)
    assert "1 more subjects, none nearer to its limit." in text
    assert text.rstrip().endswith("only faults alarm: quiet.")


def test_frames_without_a_common_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no column has values in both"):
        drift_page(
            pl.DataFrame({"a": [1.0]}), pl.DataFrame({"a": [None]}, schema={"a": pl.Float64}), tmp_path / "x.html"
        )


def test_scoring_imports_neither_evidently_nor_a_plotting_library():
    code = (
        "import sys, odin_core.monitoring.reference, odin_core.monitoring.drift_page\n"
        "assert not {'evidently', 'matplotlib', 'plotly', 'PIL'} & set(sys.modules)"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
