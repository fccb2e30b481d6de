"""Learners in the shadow: observations of the right bar, choices in the life's units, and models of the life's own."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
from shadows import young

from odin_core.execution.orders import Bars
from odin_core.lifecycle.shadow import shadow_session
from odin_core.lifecycle.shadow_learners import EnvironmentShadow, GridShadow, at_the_close
from odin_core.rl.choices import SIZES as SHARES
from odin_core.rl.choices import STOPS, TARGETS, Choices
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.observation import flat_observations
from odin_core.rl.tape import Tape

MONDAY, TUESDAY, WEDNESDAY = date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)
AT = datetime(2023, 1, 3, 10, tzinfo=UTC)
BARS_EACH = 5


def tape(symbols: list[str], sessions: list[date], *, blind: tuple[int, ...] = ()) -> Tape:
    """A few bars of each symbol and session; the state of a row is its number, rows `blind` are not decidable."""
    rows = len(symbols) * len(sessions) * BARS_EACH
    price = np.full(rows, 100.0)
    seen = np.ones(rows, bool)
    seen[list(blind)] = False
    return Tape.of(
        bars=Bars(price, price, price, price, price), symbols=symbols,
        starts=np.arange(len(symbols) + 1) * len(sessions) * BARS_EACH,
        session=np.tile(np.repeat([s.toordinal() for s in sessions], BARS_EACH), len(symbols)),
        state=np.arange(rows, dtype=np.float32)[:, None], heatmap=np.zeros((rows, 2), np.float32),
        volatility=np.full(rows, 0.001), risk_unit=np.full(rows, 0.01), decidable=seen,
    )  # fmt: skip


class Knows:
    """Chooses by the number in the first column: which row it was shown."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def choose(self, observations: np.ndarray) -> Choices:
        self.seen = observations[:, 0].tolist()
        n = np.arange(len(observations))
        return Choices(n % 3, n % 4, n % 4, n % 4)


def contexts(symbols: list[str], session: date = TUESDAY) -> pl.DataFrame:
    return pl.DataFrame({"symbol": symbols, "session": [session] * len(symbols), "decided_at": [AT] * len(symbols)})


def test_the_environments_policy_sees_the_last_bar_of_the_contexts_session():
    market = tape(["A", "B"], [MONDAY, TUESDAY, WEDNESDAY])
    seen = at_the_close(market, EnvironmentConfig())(contexts(["A", "B"]), AT)
    assert seen[:, 0].tolist() == [9.0, 24.0]
    assert np.array_equal(seen, flat_observations(market, [9, 24], EnvironmentConfig()))
    later = at_the_close(tape(["A", "B"], [MONDAY, TUESDAY]), EnvironmentConfig())(contexts(["A", "B"]), AT)
    assert np.array_equal(seen[:1], later[:1]), "what comes after the session matters"


def test_what_the_tape_does_not_know_is_left_alone():
    policy = Knows()
    market = tape(["A", "B", "D"], [TUESDAY], blind=(9,))
    shadow = EnvironmentShadow("ppo", "ppo-1", MONDAY, policy, at_the_close(market, EnvironmentConfig()))
    made = shadow.choose(contexts(["A", "B", "C", "D"]), AT)
    assert policy.seen == [4.0, 0.0, 0.0, 14.0]
    assert made.side.tolist() == [0.0, 0.0, 0.0, 0.0], "positions flat, unknown, not on the tape, flat"
    other = shadow.choose(contexts(["D", "A", "B"]), AT)
    assert other.side.tolist() == [0.0, 1.0, 0.0]
    assert shadow.choose(contexts(["A"], MONDAY), AT).takes.tolist() == [False]
    made.require_fit("ppo", 4)


def test_sizes_are_shares_of_the_grids_largest():
    market = tape([f"S{i}" for i in range(6)], [TUESDAY])
    shadow = EnvironmentShadow("ppo", "ppo-1", MONDAY, Knows(), at_the_close(market, EnvironmentConfig()))
    made = shadow.choose(contexts(list(market.symbols)), AT)
    assert made.side.tolist() == [0, 1, -1, 0, 1, -1]
    place = np.arange(6) % 4
    assert np.allclose(made.size, np.array(SHARES)[place] * 0.01)
    assert made.stop.tolist() == np.array(STOPS)[place].tolist()
    assert made.target.tolist() == np.array(TARGETS)[place].tolist()
    assert made.propensity.tolist() == [1.0] * 6


def test_a_model_of_the_life_in_the_shadow_chooses_as_the_candidate_that_it_is():
    life, data = young()
    head = life.head
    assert head is not None
    version = life.read("phase_state", head)["candidates"][0].to_list()[-1]
    twin = GridShadow("distilled", "twin", life.registry.model(version))
    rows = shadow_session(life, data, head, [twin]).recommendations
    same = ["decision_id", "side", "size", "stop_atr", "target_mult", "action", "confidence"]
    mine, theirs = rows.filter(version="twin"), rows.filter(version=version)
    assert mine.height > 5
    assert mine.select(same).equals(theirs.select(same))
    assert (mine["status"] == "skipped").equals(theirs["status"] == "skipped")
    assert set(mine["source"]) == {"distilled"}
    assert set(mine["model_version"]) == {"twin"}
    assert mine["score"].null_count() == mine.height
