"""Chains: what of each strike was known at a time, against a slow twin; forwards and volatilities that prices imply."""

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optionbars import FAR, NEAR, OPEN, bar, frame, instruments, option, smile_chain
from polars.testing import assert_frame_equal

from odin_core.market.bars import MINUTE
from odin_core.market.options.chains import CHAIN, PREVIOUS, PRICED, chain_snapshot, chain_snapshots, priced

CONTRACTS = [option(f"{right}{strike}", strike, right) for strike in (100.0, 110.0) for right in "CP"]
EXPIRIES = pl.DataFrame({"expiry": [NEAR, FAR], "expires_at": [OPEN + timedelta(days=8), OPEN + timedelta(days=36)]})


@st.composite
def sessions(draw):
    """Bars of four contracts with missing minutes, missing volume and open interest; and the session before."""
    bars = []
    for contract in CONTRACTS:
        for minute in sorted(draw(st.sets(st.integers(0, 12), max_size=6))):
            volume = draw(st.sampled_from([None, 0.0, 50.0, 150.0]))
            oi = draw(st.sampled_from([None, 1000.0, 1100.0, 0.0]))
            bars.append(bar(str(contract["symbol"]), minute, draw(st.sampled_from([1.0, 2.5, 7.0])), volume, oi))
    before = draw(st.dictionaries(st.sampled_from([c["symbol"] for c in CONTRACTS]), st.sampled_from([900.0, 0.0])))
    return frame(bars), pl.DataFrame({"symbol": list(before), "oi": list(before.values())}, schema=PREVIOUS)


def by_hand(bars, previous, at):
    """One contract after the other, one bar after the other."""
    before = dict(previous.iter_rows())
    cells = {}
    for contract in CONTRACTS:
        own = [b for b in bars.iter_rows(named=True) if b["symbol"] == contract["symbol"] and b["known_at"] <= at]
        if not own and contract["symbol"] not in before:
            continue
        row = cells.setdefault(contract["strike"], {})
        side = "call" if contract["right"] == "C" else "put"
        traded = [b["known_at"] for b in own if b["volume"] is None or b["volume"] > 0]
        volumes = [b["volume"] for b in own if b["volume"] is not None]
        known = [b["oi"] for b in own if b["oi"] is not None]
        first = before.get(contract["symbol"])
        oi = known[-1] if known else first
        row[f"{side}_price"] = own[-1]["close"] if own else None
        row[f"{side}_age"] = (at - traded[-1]) / MINUTE if traded else None
        row[f"{side}_volume"] = (sum(volumes) if volumes else None) if own else 0.0
        row[f"{side}_oi"] = oi
        row[f"{side}_oi_change"] = oi - first if oi is not None and first is not None else None
    rows = [
        {"underlying": "NIFTY", "expiry": NEAR, "strike": strike, "known_at": at, **row}
        for strike, row in sorted(cells.items())
    ]
    return pl.DataFrame(rows, schema=CHAIN)


@settings(deadline=None)
@given(sessions(), st.lists(st.integers(0, 14), min_size=1, max_size=4, unique=True))
def test_chains_agree_with_the_slow_twin(session, minutes):
    bars, previous = session
    times = [OPEN + m * MINUTE for m in sorted(minutes)]
    found = chain_snapshots(bars, instruments(CONTRACTS), times, previous)
    assert_frame_equal(found, pl.concat([by_hand(bars, previous, at) for at in times]), check_exact=True)


@settings(deadline=None)
@given(sessions(), st.integers(0, 14), st.randoms())
def test_a_chain_does_not_see_bars_known_later_nor_the_order_of_rows(session, minute, random):
    bars, previous = session
    at = OPEN + minute * MINUTE
    past = bars.filter(pl.col("known_at") <= at)
    shuffled = past.sample(fraction=1.0, shuffle=True, seed=random.randrange(1000)) if past.height else past
    whole = chain_snapshot(bars, instruments(CONTRACTS), at, previous)
    assert_frame_equal(whole, chain_snapshot(shuffled, instruments(CONTRACTS), at, previous), check_exact=True)


def test_a_contract_under_two_names_is_the_one_that_traded_last():
    twice = instruments([option("NIFTY24FEB100CE", 100.0, "C"), option("NIFTY01FEB24100CE", 100.0, "C")])
    bars = frame([bar("NIFTY24FEB100CE", 0, 5.0), bar("NIFTY01FEB24100CE", 1, 6.0)])
    found = chain_snapshot(bars, twice, OPEN + 3 * MINUTE)
    assert found.select("call_price", "call_age", "put_price").row(0) == (6.0, 1.0, None)
    assert found.height == 1


def test_futures_and_shares_are_in_no_chain():
    others = [{"symbol": "NIFTY-I", "kind": "future", "underlying": "NIFTY"}, {"symbol": "TCS", "kind": "equity"}]
    found = chain_snapshot(frame([bar("NIFTY-I", 0, 1.0), bar("TCS", 0, 1.0)]), instruments(others), OPEN + MINUTE)
    assert found.is_empty()
    assert found.schema == CHAIN


def smile(strike):
    return 0.15 + 0.4 * (1 - strike / 21500) + 2 * (1 - strike / 21500) ** 2


@pytest.mark.parametrize("rate", [0.0, 0.065])
def test_prices_of_a_known_smile_give_back_forward_and_volatility(rate):
    strikes = [20000.0 + 50 * i for i in range(61)]
    chain = smile_chain(dict(EXPIRIES.iter_rows()), 21517.3, strikes, rate, smile)
    found = priced(chain, EXPIRIES, rate)
    assert found.schema == PRICED
    assert found["forward"].to_list() == pytest.approx([21517.3] * found.height, rel=1e-12)
    assert found["volatility"].to_list() == pytest.approx([smile(k) for k in found["strike"]], rel=1e-6)
    assert found.filter(pl.col("strike") < 21517)["delta"].is_between(-0.55, 0).all()
    assert found.filter(pl.col("strike") > 21517)["delta"].is_between(0, 0.55).all()


def test_one_stale_looking_price_does_not_move_the_forward():
    chain = smile_chain({NEAR: OPEN + timedelta(days=8)}, 21500.0, [21000.0 + 50 * i for i in range(21)], 0.065, smile)
    wrong = chain.with_columns(
        pl.when(pl.col("strike") == 21500).then(90.0).otherwise("call_price").alias("call_price")
    )
    assert priced(wrong, EXPIRIES, 0.065)["forward"][0] == pytest.approx(21500.0, rel=1e-9)


def test_old_prices_imply_nothing():
    chain = smile_chain({NEAR: OPEN + timedelta(days=8)}, 21500.0, [21400.0, 21600.0], 0.065, smile)
    old_put = chain.with_columns(pl.lit(15.1).alias("put_age"))
    found = priced(old_put, EXPIRIES, 0.065)
    assert found["forward"].null_count() == found.height  # no strike has both prices
    old_at_one = chain.with_columns(pl.when(pl.col("strike") < 21500).then(16.0).otherwise(0.0).alias("put_age"))
    found = priced(old_at_one, EXPIRIES, 0.065)
    assert found["forward"][0] == pytest.approx(21500.0)
    assert found["volatility"].is_null().to_list() == [True, False]


def test_nothing_is_implied_from_the_expiry_on_nor_where_it_is_unknown():
    at_the_end = smile_chain({NEAR: OPEN + timedelta(days=8)}, 21500.0, [21400.0, 21600.0], 0.0, smile).with_columns(
        pl.lit(OPEN + timedelta(days=8)).cast(CHAIN["known_at"]).alias("known_at")
    )
    unknown = at_the_end.with_columns(pl.lit(None, pl.Date).alias("expiry"))
    for chain in (at_the_end, unknown):
        found = priced(chain, EXPIRIES, 0.065)
        assert found.height == 2
        assert found.select("years", "forward", "volatility", "delta").null_count().row(0) == (2, 2, 2, 2)
        assert found["call_price"].equals(chain["call_price"])


def test_an_empty_chain_stays_empty():
    found = priced(chain_snapshots(frame([]), instruments(CONTRACTS), [OPEN]), EXPIRIES, 0.065)
    assert found.is_empty()
    assert found.schema == PRICED
