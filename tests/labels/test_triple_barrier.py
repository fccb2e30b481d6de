"""Triple barrier, events, forward returns and weights: laws, slow twins, and what a caller can get wrong."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.errors import OdinError
from odin_core.labels import (
    average_uniqueness,
    cusum_events,
    daily_volatility,
    forward_returns,
    open_interest_change,
    return_attribution,
    triple_barrier,
)
from tests.labels.plainlabels import hours_of, plain_barrier, random_minutes
from tests.realdata import market_file

MINUTE = timedelta(minutes=1)
SOME = settings(max_examples=25)
SEEDS = st.integers(0, 10_000)
VERTICALS = st.one_of(st.integers(1, 80), st.integers(1, 160).map(lambda n: n * MINUTE / 2))


def every(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.sort("symbol", "ts").select("symbol", decided_at="known_at")


def by_hand(bars: pl.DataFrame, width: float, vertical: int | timedelta, side: int = 1) -> list[tuple]:
    """symbol, decided_at, label_end, ret, kind, for every bar; multiples of 1."""
    out = []
    for (symbol,), frame in bars.sort("symbol", "ts").group_by("symbol", maintain_order=True):
        rows = frame.rows(named=True)
        for i, row in enumerate(rows):
            after = rows[i + 1 :]
            if isinstance(vertical, int):
                path, until = after[:vertical], after[vertical - 1]["known_at"] if vertical <= len(after) else None
            else:
                until = row["known_at"] + vertical
                path = [b for b in after if b["known_at"] <= until]
                until = until if rows[-1]["known_at"] >= until else None
            entry = row["close"]
            found = plain_barrier(path, entry, width, side)
            if found:
                end, ret, kind = path[found[0]]["known_at"], side * (found[2] / entry - 1), found[1]
            elif path and until:
                end, ret, kind = until, side * (path[-1]["close"] / entry - 1), 0
            else:
                continue
            out.append((symbol, row["known_at"], end, ret, kind))
    return out


@SOME
@given(SEEDS, st.sampled_from([0.0005, 0.002, 0.01]), VERTICALS, st.sampled_from([None, 1, -1]))
def test_it_agrees_with_its_plain_twin(seed: int, width: float, vertical: int | timedelta, side: int | None):
    bars = random_minutes(hours_of(2), seed=seed, missing=0.2)
    events = every(bars) if side is None else every(bars).with_columns(side=pl.lit(side))
    mine = triple_barrier(bars, events, target=width, pt_sl=(1, 1), min_ret=0.0, vertical=vertical)
    expected = by_hand(bars, width, vertical, side or 1)
    assert mine.select("symbol", "decided_at", "label_end").rows() == [e[:3] for e in expected]
    bins = [kind if side is None else int(kind == 1) for *_, kind in expected]
    assert mine["bin"].to_list() == bins
    np.testing.assert_allclose(mine["ret"].to_numpy(), np.array([e[3] for e in expected], float), atol=1e-12)


@SOME
@given(SEEDS, VERTICALS, st.booleans())
def test_barriers_out_of_reach_give_only_zeros_and_barriers_at_hand_none(seed: int, vertical, close_only: bool):
    bars = random_minutes(hours_of(1), seed=seed)
    if close_only:
        bars = bars.select("symbol", "ts", "known_at", "close")

    def bins(multiple: float) -> pl.DataFrame:
        return triple_barrier(
            bars, every(bars), target=0.01, pt_sl=(multiple, multiple), min_ret=0.0, vertical=vertical
        )

    assert bins(1000)["bin"].is_in([0]).all()
    assert bins(0)["bin"].is_in([0]).all()
    at_hand = bins(1e-8)
    still = at_hand.filter(pl.col("bin") == 0)
    assert (still["ret"].abs() < 1e-9).all()  # closes that never left the entry's


@SOME
@given(SEEDS, st.integers(10, 80), VERTICALS)
def test_what_is_known_by_some_time_is_the_same_whatever_comes_after(seed: int, minute: int, vertical):
    bars, hours = random_minutes(hours_of(1), seed=seed), hours_of(1)[0]
    cut = hours.open + minute * MINUTE
    known = bars.filter(pl.col("known_at") <= cut)
    later = bars.filter(pl.col("known_at") > cut).with_columns(pl.col("open", "high", "low", "close") * 3.0)

    def of(frame: pl.DataFrame) -> pl.DataFrame:
        made = triple_barrier(frame, every(frame), target=0.002, pt_sl=(1, 2), min_ret=0.0, vertical=vertical)
        last = known.group_by("symbol").agg(last=pl.col("known_at").max())  # a vertical is known by the bar after it
        return made.join(last, on="symbol", maintain_order="left").filter(pl.col("label_end") <= pl.col("last"))

    assert_frame_equal(of(known), of(bars), check_exact=True)
    assert_frame_equal(of(known), of(pl.concat([known, later])), check_exact=True)
    assert (of(bars)["label_end"] > of(bars)["decided_at"]).all()


@SOME
@given(SEEDS, st.sampled_from([2.0, 0.25, 1024.0]))
def test_prices_times_a_constant_change_nothing(seed: int, scale: float):
    bars = random_minutes(hours_of(2), seed=seed)
    scaled = bars.with_columns(pl.col("open", "high", "low", "close") * scale)

    def of(frame: pl.DataFrame) -> list[pl.DataFrame]:
        barriers = triple_barrier(
            frame,
            cusum_events(frame, 0.004),
            target=daily_volatility(frame, 20),
            pt_sl=(1, 1),
            min_ret=0.0,
            vertical=30,
        )
        return [barriers, forward_returns(frame, 7), forward_returns(frame, 9 * MINUTE)]

    for left, right in zip(of(bars), of(scaled), strict=True):
        assert_frame_equal(left, right, check_exact=True)


def test_real_minutes_agree_with_the_plain_twin_and_close_only_needs_more():
    bars = pl.read_parquet(market_file("nse_equity_1m_2021.parquet"))
    names = bars["symbol"].unique().sort().head(2)
    bars = bars.filter(pl.col("symbol").is_in(names.to_list())).group_by("symbol").head(1200)
    bars = bars.with_columns(known_at=pl.col("ts") + MINUTE)
    mine = triple_barrier(bars, every(bars), target=0.003, pt_sl=(1, 1), min_ret=0.0, vertical=60)
    expected = by_hand(bars, 0.003, 60)
    assert mine["bin"].to_list() == [e[4] for e in expected]
    assert mine["label_end"].to_list() == [e[2] for e in expected]
    assert set(mine["bin"]) == {-1, 0, 1}
    closes = bars.select("symbol", "known_at", "close")
    slower = triple_barrier(closes, every(bars), target=0.003, pt_sl=(1, 1), min_ret=0.0, vertical=60)
    both = mine.join(slower, on=["symbol", "decided_at"], suffix="_slower")
    assert both.height == slower.height > 0
    assert (both["label_end_slower"] >= both["label_end"]).all()


def test_a_vertical_in_time_ends_then_and_bars_that_end_later_do_not_count():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    ends = [start + m * MINUTE for m in (0, 1, 30, 31)]
    rows = [
        (100.0, 100.0, 100.0, 100.0),
        (100.0, 101.0, 99.0, 100.5),
        (100.0, 200.0, 50.0, 150.0),
        (9.0, 9.0, 9.0, 9.0),
    ]
    bars = pl.DataFrame(rows, schema=["open", "high", "low", "close"], orient="row").with_columns(
        known_at=pl.Series(ends)
    )

    def label(vertical: timedelta, given: pl.DataFrame = bars, event: int = 0) -> list[tuple]:
        events = pl.Series([ends[event]])
        made = triple_barrier(given, events, target=0.1, pt_sl=(1, 1), min_ret=0.0, vertical=vertical)
        return made.select("label_end", "ret", "bin").rows()

    for minutes in (1, 5, 29.5):  # the third bar meets both barriers, but ends after the vertical
        until = start + minutes * MINUTE
        assert label(minutes * MINUTE) == [(until, pytest.approx(0.005), 0)]
    assert label(30 * MINUTE) == [(ends[2], pytest.approx(-0.1), -1)]
    assert label(28 * MINUTE, event=1) == []  # nothing was traded
    assert label(5 * MINUTE, bars.head(2)) == []  # not known yet


@SOME
@given(SEEDS, st.integers(5, 60))
def test_daily_volatility_is_pandas(seed: int, span: int):
    bars = random_minutes(hours_of(4), seed=seed).filter(pl.col("symbol") == "ITC").select("known_at", "close")
    mine = daily_volatility(bars, span).to_numpy()
    close = bars.to_pandas().set_index("known_at")["close"]
    before = [close[close.index < t - pd.Timedelta(days=1)] for t in close.index]
    returns = pd.Series([c / b.iloc[-1] - 1 if len(b) else np.nan for c, b in zip(close, before, strict=True)])
    np.testing.assert_allclose(mine, returns.dropna().ewm(span=span).std().reindex(returns.index), rtol=1e-7, atol=1e-9)


@SOME
@given(SEEDS, st.sampled_from([0.001, 0.003, 0.01]))
def test_cusum_events_by_their_recursion(seed: int, threshold: float):
    bars = random_minutes(hours_of(2), seed=seed).sort("symbol", "ts")
    expected = []
    for (symbol,), frame in bars.group_by("symbol", maintain_order=True):
        up = down = 0.0
        for change, moment in zip(np.diff(np.log(frame["close"])), frame["known_at"][1:], strict=True):
            up, down = max(0.0, up + change), min(0.0, down + change)
            if down < -threshold:
                down = 0.0
            elif up > threshold:
                up = 0.0
            else:
                continue
            expected.append((symbol, moment))
    assert cusum_events(bars, threshold).rows() == expected


def test_forward_returns_and_open_interest_end_at_the_bar_that_was_asked_for():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    ts = [start + m * MINUTE for m in (0, 1, 4, 5)]
    bars = pl.DataFrame({"ts": ts, "close": [100.0, 110.0, 99.0, 121.0], "oi": [50.0, None, 0.0, 60.0]})
    assert forward_returns(bars, 1)["value"].to_list() == [110 / 100 - 1, 99 / 110 - 1, 121 / 99 - 1]
    later = forward_returns(bars, 2 * MINUTE)
    assert later["label_end"].to_list() == [ts[2], ts[2]]  # two minutes after the first nothing was traded
    assert later["value"].to_list() == [99 / 100 - 1, 99 / 110 - 1]
    assert open_interest_change(bars, 2)["value"].to_list() == [-1.0, None]
    assert open_interest_change(bars, 3)["value"].to_list() == [60 / 50 - 1]


@SOME
@given(SEEDS, st.one_of(st.integers(1, 40), st.integers(3, 80).map(lambda n: n * MINUTE / 2)))
def test_weights_are_their_definitions(seed: int, vertical: int | timedelta):
    bars = random_minutes(hours_of(1), seed=seed, missing=0.3)
    events = every(bars).sample(fraction=0.4, seed=seed, shuffle=True)
    labels = triple_barrier(bars, events, target=0.002, pt_sl=(1, 1), min_ret=0.0, vertical=vertical)
    uniqueness, weight = [], []
    for label in labels.rows(named=True):
        own = bars.filter(pl.col("symbol") == label["symbol"]).sort("ts")
        others = labels.filter(pl.col("symbol") == label["symbol"])
        shares, part, closes = [], 0.0, own["close"].to_list()
        for i, t in enumerate(own["known_at"]):
            if label["decided_at"] <= t <= label["label_end"]:
                count = others.filter((pl.col("decided_at") <= t) & (pl.col("label_end") >= t)).height
                shares.append(1 / count)
                part += (np.log(closes[i] / closes[i - 1]) if i else 0.0) / count
        uniqueness.append(np.mean(shares))
        weight.append(abs(part))
    assert average_uniqueness(bars, labels).to_list() == pytest.approx(uniqueness)
    mine = return_attribution(bars, labels)
    np.testing.assert_allclose(mine, np.array(weight) * len(weight) / sum(weight), rtol=1e-6, atol=1e-9)


def test_labels_side_by_side_are_unique_and_twice_the_same_label_halves_it():
    bars = pl.DataFrame({"ts": [datetime(2024, 1, d) for d in range(1, 7)], "close": [1.0, 2, 3, 2, 5, 6]})
    spans = pl.DataFrame(
        {
            "decided_at": [datetime(2024, 1, 1), datetime(2024, 1, 3)],
            "label_end": [datetime(2024, 1, 2), datetime(2024, 1, 6)],
        }
    )
    assert average_uniqueness(bars, spans).to_list() == [1.0, 1.0]
    assert average_uniqueness(bars, pl.concat([spans, spans])).to_list() == [0.5] * 4
    assert return_attribution(bars, pl.concat([spans, spans])).sum() == pytest.approx(4)


def test_mistakes_are_named_with_the_way_out():
    bars = random_minutes(hours_of(1)).sort("symbol", "ts")
    off = every(bars).with_columns(pl.col("decided_at") + timedelta(seconds=1)).head(2)

    def label(frame: pl.DataFrame, events: pl.DataFrame, vertical: int | timedelta = 1) -> None:
        triple_barrier(frame, events, target=0.01, pt_sl=(1, 1), min_ret=0.0, vertical=vertical)

    for call, says in [
        (lambda: label(bars, off), "2 of 2 events are at no bar's time"),
        (lambda: label(bars, every(bars).with_columns(symbol=pl.lit("ACC"))), "events are at no bar's time"),
        (lambda: label(bars, every(bars).drop("symbol")), "need the column symbol"),
        (lambda: label(bars, every(bars), 0), "at least one bar"),
        (lambda: label(bars, every(bars), -MINUTE), "ends before it begins"),
        (lambda: daily_volatility(bars.drop("ts", "known_at")), "they need close, and known_at or ts"),
        (lambda: cusum_events(pl.concat([bars, bars.head(1)]), 0.1), "two bars of a symbol have the same known_at"),
        (
            lambda: average_uniqueness(
                bars, off.with_columns(label_end=pl.col("decided_at"), decided_at=pl.col("decided_at"))
            ),
            "span none of them",
        ),
    ]:
        with pytest.raises(OdinError, match=says):
            call()


def test_no_events_and_no_bars_give_no_rows():
    bars = random_minutes(hours_of(1))
    none = triple_barrier(bars, every(bars).clear(), target=0.01, pt_sl=(1, 1), min_ret=0.0, vertical=5)
    assert none.columns == ["symbol", "decided_at", "label_end", "target", "ret", "bin"]
    assert none.height == forward_returns(bars.clear(), 3).height == cusum_events(bars.clear(), 0.1).height == 0
    assert average_uniqueness(bars, none).len() == 0
