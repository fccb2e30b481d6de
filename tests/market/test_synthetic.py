"""The synthetic exchange: the same bars whoever asks and when, the shape of a market, and an edge with a dial."""

import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from realdata import market_file

from odin_core.market.bars import BARS, fingerprint
from odin_core.market.calendar import NotASession, session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.synthetic import BadExchange, BeforeTheExchange, SyntheticExchange
from odin_core.market.synthetic_path import TANH_SD, MarketModel

DEMO = load_profile("demo")
CALENDAR = session_calendar(DEMO)
FIRST, LAST = date(2022, 10, 3), date(2023, 5, 31)
SESSIONS = [s for s in CALENDAR.sessions(FIRST, LAST) if CALENDAR.minutes(s) == 375]
A_SESSION = date(2023, 3, 15)
MUHURAT = date(2022, 10, 24)
SEED = 11


def exchange(edge: float = 0.5, seed: int = SEED, symbols: int = 50, **model: float) -> SyntheticExchange:
    return SyntheticExchange(DEMO, seed=seed, edge=edge, symbols=symbols, model=MarketModel(**model))  # pyright: ignore[reportArgumentType]


def day_of(source: SyntheticExchange, session: date) -> pl.DataFrame:
    """One row per symbol: open, close, log returns of the session and of its last 90 minutes, realised volatility."""
    late = pl.col("ts") >= CALENDAR.hours(session).close - timedelta(minutes=90)
    log_close = pl.col("close").log()
    return (
        source.bars(session)
        .group_by("symbol", maintain_order=True)
        .agg(
            open=pl.col("open").first(),
            close=pl.col("close").last(),
            late=log_close.last() - log_close.filter(~late).last(),
            late_volume=pl.col("volume").filter(late).sum() / pl.col("volume").sum(),
            realised=log_close.diff().pow(2).sum().sqrt(),
        )
        .with_columns(
            session=pl.lit(session),
            regime=pl.lit(source.regime(session)),
            ret=(pl.col("close") / pl.col("open")).log(),
        )
        .join(source.oracle(session), on="symbol", maintain_order="left")
    )


def history_of(edge: float) -> pl.DataFrame:
    source = exchange(edge)
    days = pl.concat([day_of(source, session) for session in SESSIONS]).sort("symbol", "session")
    following = pl.col("ret").shift(-1).over("symbol")
    gap = (pl.col("open").shift(-1).over("symbol") / pl.col("close")).log()
    return days.with_columns(following=following, gap=gap, level=pl.col("realised").mean().over("session"))


@pytest.fixture(scope="module")
def histories() -> dict[float, pl.DataFrame]:
    return {edge: history_of(edge) for edge in (0.0, 0.5, 1.0)}


def rank_correlation(frame: pl.DataFrame, signal: pl.Expr, outcome: str) -> float:
    known = frame.drop_nulls(["following", "gap"])
    return known.select(pl.corr(signal.rank(), pl.col(outcome).rank())).item()


# --- the same bars whoever asks


def test_a_session_is_the_same_alone_in_a_fresh_process_and_after_a_long_range():
    source = exchange()
    for session in CALENDAR.sessions(date(2023, 2, 1), A_SESSION)[:-1]:
        source.bars(session)
    code = (
        "from datetime import date; from odin_core.market.bars import fingerprint;"
        "from odin_core.market.profile import load_profile; from odin_core.market.synthetic import SyntheticExchange;"
        f"x = SyntheticExchange(load_profile('demo'), seed={SEED}, edge=0.5);"
        f"print(fingerprint(x.bars(date.fromisoformat('{A_SESSION}'))))"
    )
    alone = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert fingerprint(source.bars(A_SESSION)) == alone


def test_sessions_after_it_do_not_exist_for_a_session():
    cut = SyntheticExchange(replace(DEMO, calendar_last=A_SESSION), seed=SEED, edge=0.5)
    assert_frame_equal(cut.bars(A_SESSION), exchange().bars(A_SESSION), check_exact=True)
    assert_frame_equal(cut.oracle(A_SESSION), exchange().oracle(A_SESSION), check_exact=True)


@given(st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_another_seed_is_another_market(one, other):
    same = fingerprint(exchange(seed=one, symbols=2).bars(A_SESSION)) == fingerprint(
        exchange(seed=other, symbols=2).bars(A_SESSION)
    )
    assert same == (one == other)


# --- bars


@given(
    seed=st.integers(0, 2**31),
    session=st.sampled_from([MUHURAT, *CALENDAR.sessions(FIRST, LAST)]),
    symbols=st.integers(1, 60),
    edge=st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_bars_are_valid_whatever_the_seed_and_the_session(seed, session, symbols, edge):
    source = SyntheticExchange(DEMO, seed=seed, edge=edge, symbols=symbols)
    bars = source.bars(session)
    start, end = CALENDAR.hours(session)
    assert bars.schema == BARS
    assert bars.drop("oi").null_count().sum_horizontal().item() == 0
    assert_frame_equal(bars, bars.sort("symbol", "ts"))
    assert bars.select(pl.struct("symbol", "ts").is_unique().all()).item()
    assert bars["symbol"].unique().sort().to_list() == list(source.symbols)
    ticks = pl.col("open", "high", "low", "close") / DEMO.tick_size
    valid = bars.select(
        inside=pl.col("ts").is_between(start, end - timedelta(minutes=1)).all(),
        known=(pl.col("known_at") == pl.col("ts") + timedelta(minutes=1)).all(),
        high=(pl.col("high") >= pl.max_horizontal("open", "close")).all(),
        low=(pl.col("low") <= pl.min_horizontal("open", "close")).all(),
        positive=(pl.col("low") > 0).all(),
        whole=((pl.col("volume") >= 0) & (pl.col("volume") % 1 == 0)).all(),
        on_tick=pl.all_horizontal((ticks - ticks.round()).abs() < 1e-6).all(),
        oi=pl.col("oi").is_null().all(),
    )
    assert all(valid.row(0)), valid


def test_a_bar_without_a_trade_repeats_the_last_price():
    bars = exchange(illiquid_share=1.0, illiquid_zero=0.3, halt_probability=0.0).bars(A_SESSION)
    idle = bars.with_columns(before=pl.col("close").shift(1).over("symbol"), prior=pl.col("ts").shift(1).over("symbol"))
    idle = idle.filter((pl.col("volume") == 0) & (pl.col("ts") - pl.col("prior") == timedelta(minutes=1)))
    assert idle.height > 1000
    for column in ("open", "high", "low", "close"):
        assert (idle[column] == idle["before"]).all()


def test_prices_print_as_multiples_of_five_paise():
    closes = exchange().bars(A_SESSION)["close"].cast(pl.String)
    assert closes.str.contains(r"^\d+\.(\d|\d5)$").all()


def test_the_exchange_keeps_nse_s_calendar():
    source = exchange()
    assert source.bars(MUHURAT).height <= 60 * 50
    with pytest.raises(NotASession, match="2023-01-26"):
        source.bars(date(2023, 1, 26))
    with pytest.raises(BeforeTheExchange, match="opened on 2022-10-03, so 2022-09-30 has no bars"):
        source.bars(date(2022, 9, 30))


@pytest.mark.parametrize(
    "options", [{"edge": 1.5}, {"edge": -0.1}, {"edge": float("nan")}, {"symbols": 0}, {"symbols": 5000}, {"seed": -1}]
)
def test_impossible_options_are_refused_by_name(options):
    with pytest.raises(BadExchange, match=next(iter(options))):
        exchange(**options)


# --- the market's shape


def test_volatility_follows_the_regime(histories):
    spread = dict(histories[0.5].group_by("regime").agg(pl.col("ret").std()).iter_rows())
    assert 0.0125 < spread["normal"] < 0.0155
    assert 0.55 < spread["calm"] / spread["normal"] < 0.75
    assert 1.4 < spread["volatile"] / spread["normal"] < 1.8


def test_regimes_last_about_eight_sessions_and_all_occur_within_half_a_year():
    for seed in range(10):
        source = exchange(seed=seed, symbols=1)
        regimes = [source.regime(s) for s in CALENDAR.sessions(date(2023, 1, 2), date(2023, 12, 29))]
        changes = sum(a != b for a, b in pairwise(regimes))
        assert 6 < len(regimes) / (changes + 1) < 11
        assert set(regimes[:122]) == {"calm", "normal", "volatile"}


def test_a_regime_can_be_told_from_the_session_s_realised_volatility(histories):
    levels = histories[0.5].group_by("session", "regime").agg(pl.col("realised").mean())
    by_regime = {name: part["realised"] for (name,), part in levels.group_by("regime")}
    assert by_regime["calm"].max() < by_regime["normal"].min()
    assert by_regime["normal"].max() < by_regime["volatile"].min()


def test_symbols_move_together(histories):
    returns = histories[0.0].pivot("symbol", index="session", values="ret").drop("session").to_numpy()
    matrix = np.corrcoef(returns.T)
    pairs = matrix[np.triu_indices(50, 1)]
    assert 0.17 < pairs.mean() < 0.33
    assert pairs.std() > 0.08  # sectors


@pytest.fixture(scope="module")
def minutes() -> pl.DataFrame:
    """All bars of sixty sessions, with the minute of the session."""
    source = exchange()
    parts = [
        source.bars(s).with_columns(minute=(pl.col("ts") - CALENDAR.hours(s).open).dt.total_minutes())
        for s in SESSIONS[:60]
    ]
    return pl.concat(parts)


def test_volume_and_volatility_are_u_shaped(minutes):
    def mean_of(first: int, last: int) -> tuple[float, float]:
        part = minutes.filter(pl.col("minute").is_between(first, last))
        return part.select(pl.col("volume").mean(), ((pl.col("high") / pl.col("low")).log()).mean()).row(0)

    (volume_early, range_early), (volume, middle), (volume_late, range_late) = map(
        mean_of, (0, 150, 360), (9, 240, 374)
    )
    assert volume_early > 2.5 * volume
    assert volume_late > 1.8 * volume
    assert range_early > 1.5 * middle
    assert range_late > 1.08 * middle


def test_sizes_are_those_of_recorded_nse_minutes(minutes):
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt
    recorded = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).filter(
        local.time().is_between(pl.time(9, 15), pl.time(15, 29))
    )
    width = ((pl.col("high") - pl.col("low")) / pl.col("close")).median()
    assert minutes.select(width).item() == pytest.approx(recorded.select(width).item(), rel=0.35)
    day = (pl.col("close").last() / pl.col("open").first()).log()
    spread = [
        frame.group_by("symbol", pl.col("ts").dt.date().alias("day"), maintain_order=True).agg(day)["close"].std()
        for frame in (minutes, recorded)
    ]
    assert spread[0] == pytest.approx(spread[1], rel=0.35)


def test_a_hundred_thousand_rupees_are_a_small_part_of_a_liquid_bar(minutes):
    value = minutes.group_by("symbol").agg((pl.col("volume") * pl.col("close")).median())["volume"].sort()
    assert 100_000 / value[25] < 0.05  # the median symbol
    assert (value < 500_000).sum() == 4  # the illiquid ones


def test_minutes_are_missing_and_symbols_halt(minutes):
    rows = minutes.group_by("symbol").len().with_columns(share=1 - pl.col("len") / (60 * 375))
    assert (rows["share"] > 0.025).sum() == 4
    assert rows["share"].median() < 0.01
    step = pl.col("minute").diff().over("symbol", pl.col("ts").dt.date())
    holes = minutes.with_columns(hole=step - 1).filter(pl.col("hole") >= 15)
    assert 0.002 < holes.height / (50 * 60) < 0.010
    assert holes["hole"].max() <= 64  # a halt of an hour, next to minutes that are missing
    assert minutes.filter(pl.col("volume") == 0).height > 0


def test_the_next_session_opens_a_gap_away_from_the_close(histories):
    gap = histories[0.5]["gap"].drop_nulls()
    assert 0.004 < gap.std() < 0.012
    assert gap.abs().max() < 0.15


# --- the edge


def test_the_stored_spread_of_tanh_is_right():
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    assert np.sqrt((weights * np.tanh(nodes) ** 2).sum() / weights.sum()) == pytest.approx(TANH_SD, abs=1e-6)


@pytest.mark.parametrize(("edge", "low", "high"), [(0.0, -0.03, 0.03), (0.5, 0.27, 0.39), (1.0, 0.40, 0.54)])
def test_the_signal_that_nobody_sees_is_worth_what_the_dial_says(histories, edge, low, high):
    assert low < rank_correlation(histories[edge], pl.col("signal"), "following") < high


def test_what_everybody_can_see_is_worth_part_of_it(histories):
    typical = pl.col("level").median()
    continues = pl.when(pl.col("level") > 1.25 * typical).then(-1.0).otherwise(1.0)
    worth = {e: rank_correlation(h, pl.col("late") * continues, "following") for e, h in histories.items()}
    assert abs(worth[0.0]) < 0.03
    assert 0.12 < worth[0.5] < 0.28
    assert worth[1.0] > 1.2 * worth[0.5]  # the drift grows with the root of the dial


def test_one_rule_for_all_regimes_is_worth_little(histories):
    assert abs(rank_correlation(histories[1.0], pl.col("late"), "following")) < 0.08


def test_flow_shows_in_the_late_return_and_in_the_late_volume(histories):
    shown = histories[0.5].select(
        pl.corr("flow", pl.col("late") / pl.col("realised")), burst=pl.corr(pl.col("flow").abs(), pl.col("late_volume"))
    )
    assert shown["flow"].item() > 0.55
    assert shown["burst"].item() > 0.5


def test_the_gap_does_not_carry_the_edge_away(histories):
    assert abs(rank_correlation(histories[1.0], pl.col("signal"), "gap")) < 0.03


def test_the_edge_is_realised_after_the_second_minute_and_before_the_last_hours():
    source = exchange(1.0)
    parts = []
    for session in SESSIONS[1:100]:
        known = source.oracle(CALENDAR.previous(session)).with_columns(
            side=pl.col("signal").sign() * (pl.col("signal").abs() > 0.2)
        )
        minute = (pl.col("ts") - CALENDAR.hours(session).open).dt.total_minutes()
        bars = source.bars(session).with_columns(minute=minute).join(known, on="symbol")
        start = pl.col("open").first().over("symbol")
        parts.append(bars.select("minute", gain=pl.col("side") * (pl.col("close") / start).log()))
    gain = dict(pl.concat(parts).group_by("minute").agg(pl.col("gain").mean()).iter_rows())
    assert gain[374] > 0.002
    assert abs(gain[1]) < 0.05 * gain[374]
    assert 0.4 < gain[100] / gain[374] < 0.6
    assert 0.9 < gain[205] / gain[374] < 1.1


@pytest.mark.parametrize("edge", [0.5, 1.0])
def test_the_dial_changes_neither_volatility_nor_volume(histories, edge):
    for column in ("ret", "realised", "late", "gap"):
        with_edge, without = histories[edge][column].drop_nulls(), histories[0.0][column].drop_nulls()
        assert with_edge.pow(2).mean() == pytest.approx(without.pow(2).mean(), rel=0.05)
    assert (exchange(edge).bars(A_SESSION)["volume"] == exchange(0.0).bars(A_SESSION)["volume"]).all()
