"""Evaluation: what is counted is what an account alone goes through, nothing later matters, baselines are honest."""

from datetime import timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from odin_core.execution.orders import Bars
from odin_core.rl.batch import Batch
from odin_core.rl.choices import DIMENSIONS, Choices
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.evaluation import (
    EPISODES,
    SEEDS,
    SESSIONS,
    SUMMARY,
    NothingToEvaluate,
    TooFewSeeds,
    buy_and_hold,
    evaluate,
    evaluate_seeds,
    session_starts,
)
from odin_core.rl.observation import layout, width
from odin_core.rl.policy import ActorCritic, Structure, TradingPolicy
from odin_core.rl.tape import FIRST_SESSION, SIGNAL, Tape, planted

BARS = 24
TASK = EnvironmentConfig(episode_bars=BARS)


@cache
def tape(edge: float = 0.4, sessions: int = 12) -> Tape:
    return planted(4, edge=edge, symbols=3, sessions=sessions, bars=BARS, state=5, heatmap=1)


@cache
def any_policy(seed: int = 0) -> TradingPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        structure = Structure(width(tape()), DIMENSIONS, (8,))
        network = ActorCritic(structure)
        torch.nn.init.normal_(network.actor[-1].weight, std=2.0)  # pyright: ignore[reportArgumentType]
    return TradingPolicy(structure, network.state_dict())


class Follows:
    """Long above, short below the signal; keeps what it holds until the signal turns."""

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def choose(self, observations: np.ndarray) -> Choices:
        side = np.where(self.sign * observations[:, SIGNAL] > 0, 1, 2)
        return Choices.of_actions(np.column_stack([side, np.full((side.size, 3), 3)]))


class Flat:
    def choose(self, observations: np.ndarray) -> Choices:
        return Choices.flat(len(observations))


def first_sessions(whole: Tape, sessions: int) -> Tape:
    """The tape as it was after its first sessions."""
    kept = whole.session < FIRST_SESSION.toordinal() + sessions
    counts = [int(kept[a:b].sum()) for a, b in zip(whole.starts[:-1], whole.starts[1:], strict=True)]
    return Tape.of(
        bars=Bars(*(column[kept] for column in whole.bars)), symbols=whole.symbols, starts=np.r_[0, np.cumsum(counts)],
        session=whole.session[kept], state=whole.state[kept], heatmap=whole.heatmap[kept],
        volatility=whole.volatility[kept], risk_unit=whole.risk_unit[kept], lot=whole.lot,
        decidable=whole.decidable[kept],
    )  # fmt: skip


def test_what_comes_later_changes_nothing():
    whole = evaluate(any_policy(), tape(), TASK, draws=0)
    cut = evaluate(any_policy(), first_sessions(tape(), 7), TASK, draws=0)
    assert whole.episodes["trades"].sum() > 10
    assert_frame_equal(cut.episodes, whole.episodes.head(cut.episodes.height), check_exact=True)
    asked = evaluate(any_policy(), tape(), TASK, last=FIRST_SESSION + timedelta(days=6), draws=0)
    assert_frame_equal(cut.sessions, asked.sessions, check_exact=True)


def test_an_episode_is_what_an_account_alone_goes_through():
    found = evaluate(any_policy(), tape(), TASK, draws=0).episodes
    starts = session_starts(tape())
    for place in (0, 7, 20, len(starts) - 1):
        task = TASK.without_randomisation().model_copy(update={"episode_bars": 2 * BARS})
        alone = Batch(tape(), task, 1, first_index=place)
        seen, reward, wins, trades = alone.reset(rows=starts[place]), 0.0, 0, 0
        for _ in range(starts[place], tape().session_end[starts[place]]):
            account = alone.accounts[0].copy()
            seen = alone.step(any_policy().choose(seen).actions(), again=False)
            reward += float(alone.out.reward[0])
            trades += int(alone.accounts["entered"][0] > account["entered"])
            wins += int(not alone.accounts["live"][0] and alone.accounts["realised"][0] > account["realised"])
        row = found.row(place, named=True)
        assert row["net_return"] == alone.accounts["equity"][0] / TASK.capital - 1
        assert (row["reward"], row["trades"], row["wins"]) == (pytest.approx(reward), trades, wins)


def test_tables_have_their_schemas_and_a_session_is_the_mean_of_its_symbols():
    found = evaluate(any_policy(), tape(), TASK, draws=3)
    assert (found.episodes.schema, found.sessions.schema, found.summary.schema) == (EPISODES, SESSIONS, SUMMARY)
    mean = found.episodes.group_by("session").agg(pl.col("net_return").mean()).sort("session")["net_return"]
    np.testing.assert_allclose(found.sessions["net_return"], mean)
    assert found.summary["who"].to_list() == ["policy", "random", "flat", "buy_and_hold"]
    assert 1 / 4 <= found.p_value <= 1
    assert_frame_equal(found.sessions, evaluate(any_policy(), tape(), TASK, draws=3).sessions, check_exact=True)


def test_who_stays_flat_earns_nothing():
    found = evaluate(Flat(), tape(), TASK, draws=2)
    assert found.episodes.select("reward", "net_return", "trades", "denied").sum().row(0) == (0.0, 0.0, 0, 0)
    assert found.sessions["random"].sum() == 0
    assert found.summary["hit_rate"].to_list() == [None] * 4


def test_buy_and_hold_is_close_to_close():
    whole = tape()
    starts = session_starts(whole)
    closes = whole.bars.close.reshape(3, 12, BARS)[:, :, -1]
    before = np.column_stack([whole.bars.open.reshape(3, 12, BARS)[:, 0, 0], closes[:, :-1]])
    # the first day of this tape is its warm-up, in which nothing may be entered
    np.testing.assert_allclose(buy_and_hold(whole, starts), (closes / before - 1)[:, 1:].T.ravel())


def test_random_trades_as_often_and_knows_nothing():
    found = evaluate(Follows(), tape(0.6, 40), TASK, draws=10)
    policy, random = found.summary.row(0, named=True), found.summary.row(1, named=True)
    assert policy["trades"] == pytest.approx(random["trades"], rel=0.35)
    assert policy["net_return"] > 0 > random["net_return"]
    assert found.p_value == pytest.approx(1 / 11)
    against = evaluate(Follows(-1), tape(0.6, 40), TASK, draws=10)
    assert against.p_value == 1


def test_seeds_are_spread_out_and_one_lucky_one_is_named():
    same = evaluate_seeds({n: Follows() for n in range(5)}, tape(0.6), TASK, draws=2)
    assert same.seeds["seed"].to_list() == [0, 1, 2, 3, 4]
    told = same.summary.row(0, named=True)
    assert (told["seeds"], told["std"], told["positive"], told["lucky"]) == (5, 0, 1, False)
    one = evaluate_seeds({0: Follows()} | {n: Flat() for n in range(1, 5)}, tape(0.6), TASK, draws=2)
    told = one.summary.row(0, named=True)
    assert told["mean"] > 0 == told["without_best"]
    assert told["lucky"]
    idle = evaluate_seeds({n: Flat() for n in range(5)}, tape(0.6), TASK, draws=2)
    assert one.seeds.schema == idle.seeds.schema == SEEDS
    assert idle.seeds["hit_rate"].null_count() == 5
    with pytest.raises(TooFewSeeds, match=r"4 seed\(s\)"):
        evaluate_seeds({n: Flat() for n in range(4)}, tape(), TASK)


def test_a_range_without_sessions_is_refused():
    with pytest.raises(NothingToEvaluate, match="from 2025-01-01"):
        evaluate(Flat(), tape(), TASK, first=FIRST_SESSION.replace(year=2025))


def test_the_policys_observation_is_the_environments():
    assert max(place.stop for place in layout(TASK, tape()).values()) == any_policy().structure.observation
