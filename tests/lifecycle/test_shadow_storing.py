"""Shadows on disk: written once, outside the life's digest, kept by a rewind; and what is refused."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from shadows import Drawing, copied, shadowed, young
from smalllives import LAST, run_to

from odin_core.home import HomeBusy
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import Life, plan_rewind
from odin_core.lifecycle.run import RewoundMeanwhile
from odin_core.lifecycle.shadow import (
    OPEN_TABLE,
    RECOMMENDATIONS_TABLE,
    REPLAY_TABLE,
    SHADOW_OPEN,
    SHADOW_RECOMMENDATIONS,
    SHADOW_REPLAY,
    NotFinished,
    ShadowsDiffer,
    shadow_session,
    write_shadow,
)
from odin_core.lifecycle.shadow_choices import ShadowChoices
from odin_core.market.data import MarketData

# --- storing


def files(life: Life) -> dict[str, tuple[bytes, int]]:
    found = [p for name in (RECOMMENDATIONS_TABLE, REPLAY_TABLE, OPEN_TABLE)
             for p in (life.lake.root / name).rglob("*.parquet")]  # fmt: skip
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def test_a_session_that_is_shadowed_again_writes_nothing_new(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    digest = life_digest(life)
    shadowed(life, data, Drawing())
    stored = files(life)
    assert len(stored) == 3 * len(life.commits())
    assert life_digest(life) == digest, "shadows are no part of the life"
    for session in life.commits():
        again = write_shadow(life, shadow_session(life, data, session, [Drawing()]))
        assert again == dict.fromkeys((RECOMMENDATIONS_TABLE, REPLAY_TABLE, OPEN_TABLE), False)
    assert files(life) == stored


def test_what_is_stored_has_the_schemas_and_comes_back_as_it_was(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    for shadow in shadowed(life, data, Drawing()):
        schemas = (SHADOW_RECOMMENDATIONS, SHADOW_REPLAY, SHADOW_OPEN)
        for (name, frame), schema in zip(shadow.tables.items(), schemas, strict=True):
            assert frame.schema == schema
            assert_frame_equal(life.lake.read(name, shadow.session), frame, check_exact=True)


def test_outcomes_need_choices_that_were_logged_before(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    second, third = life.commits()[1:3]
    alone = shadow_session(life, data, third)
    assert not alone.follows
    assert alone.replay.is_empty()
    assert alone.recommendations.height
    shadowed(life, data, sessions=[second])
    after = shadow_session(life, data, third)
    assert after.follows
    assert after.replay.height
    assert_frame_equal(after.recommendations, alone.recommendations)


def test_a_rewind_keeps_the_shadows_of_the_sessions_that_it_keeps(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    shadowed(life, data)
    kept = life.commits()[7]
    plan_rewind(life, kept).apply()
    found = lives.load(life.home, life.id)
    assert found.lake.sessions(REPLAY_TABLE) == found.commits()
    assert found.head == kept
    run_to(found, data, LAST)
    again = shadow_session(found, data, data.calendar.next(kept))
    assert again.follows
    assert again.replay.height


def test_shadows_of_a_generation_that_was_rewound_meanwhile_are_not_written(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    shadow, stale = shadow_session(life, data, life.head), lives.load(life.home, life.id)
    assert stale.generation == 1
    plan_rewind(life, life.commits()[5]).apply()
    with pytest.raises(RewoundMeanwhile):
        write_shadow(stale, shadow)
    assert not stale.lake.sessions(REPLAY_TABLE)


HOLDER = """
import sys
from odin_core.home import open_home

with open_home(sys.argv[1]).writer("a range of sessions"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_shadows_wait_for_a_process_that_writes_as_long_as_they_are_told_to(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    head = life.head
    assert head is not None
    shadow = shadow_session(life, data, head)
    command = [sys.executable, "-c", HOLDER, str(life.home.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HomeBusy, match="a range of sessions"):
            write_shadow(life, shadow, wait=0.0)
        threading.Timer(0.3, holder.stdin.close).start()
        assert all(write_shadow(life, shadow, wait=60.0).values())


# --- refusals


def test_a_session_that_is_not_finished_has_no_shadows_yet():
    life, data = young()
    following = data.calendar.next(life.head)
    with pytest.raises(NotFinished, match=f"has not finished session {following}.*--end {following}"):
        shadow_session(life, data, following)


def test_outcomes_on_other_bars_than_the_lifes_own_are_refused(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    session = life.commits()[4]
    shadowed(life, data, sessions=[data.calendar.previous(session)])
    symbol = life.read("action_outcomes", session)["symbol"][0]
    real = data.bars(session)
    prices = ("open", "high", "low", "close")
    climbs = pl.int_range(pl.len()).over("symbol") * 1e-4 + 1
    told = real.with_columns(
        pl.when(pl.col("symbol") == symbol).then(pl.col(c) * climbs).otherwise(c).alias(c) for c in prices
    )

    class Retold(MarketData):
        def bars(self, session: date) -> pl.DataFrame:
            return told

    other = Retold(data.lake, data.profile, lambda _: told)
    with pytest.raises(ShadowsDiffer, match=f"{symbol} come to other outcomes.*odin life rewind"):
        shadow_session(life, other, session)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda c: c._replace(side=c.side + 0.5), "side=.*it must be 1, −1 or 0", id="half a side"),
        pytest.param(lambda c: c._replace(stop=c.stop * 0), "stop=0.0; it must be finite, above 0", id="no stop"),
        pytest.param(lambda c: c._replace(size=c.size * np.nan), "size=nan", id="size unknown"),
        pytest.param(lambda c: c._replace(propensity=c.propensity * 0), "propensity=0.0", id="impossible"),
        pytest.param(
            lambda c: c._replace(takes=np.ones_like(c.takes), side=c.side * 0), "a trade has a side", id="flat"
        ),
        pytest.param(lambda c: c._replace(confidence=c.propensity * 7), "confidence=1.4", id="too confident"),
        pytest.param(lambda c: ShadowChoices(*(x[:-1] for x in c)), r"ppo ppo-1 made \d+ choices for", id="too few"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_named(spoil: Callable[[ShadowChoices], ShadowChoices], message: str):
    life, data = young()

    class Spoilt(Drawing):
        def choose(self, contexts: pl.DataFrame, as_of: datetime) -> ShadowChoices:
            return spoil(super().choose(contexts, as_of))

    with pytest.raises(ValueError, match=message):
        shadow_session(life, data, life.head, [Spoilt(sides=(1,))])


def test_versions_and_names_that_are_taken_are_refused():
    life, data = young()
    with pytest.raises(ValueError, match=r"versions must differ.*rules"):
        shadow_session(life, data, life.head, [Drawing("rules")])
    with pytest.raises(ValueError, match="named 'joint', which is a source of the fold's own"):
        shadow_session(life, data, life.head, [Drawing(name="joint")])


def test_scalars_are_broadcast_and_inputs_stay_as_they_are():
    side = np.array([1.0, 0.0, -1.0])
    made = ShadowChoices.of(side=side, size=0.01, stop=2, target=[1.0, 2.0, 3.0])
    assert made.takes.tolist() == [True, False, True]
    assert made.target.tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(made.confidence).all()
    assert made.propensity.tolist() == [1.0] * 3
    made.side[0] = -1.0
    assert side[0] == 1.0
    with pytest.raises(ValueError, match="one-dimensional"):
        ShadowChoices.of(side=np.ones((2, 2)), size=1, stop=1, target=1)
