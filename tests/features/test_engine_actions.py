"""Features across ex-dates: as on adjusted bars, seen from when the action was known, the same bits however asked."""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from histories import (
    History,
    assert_same_bits,
    differing,
    long_history,
    of_bars,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from odin_core.features.catalogue import INTERVALS, Feature

EVERY = of_bars()
OWN = [f for f in EVERY if f.definition.kind == "bars"]
SYMBOL_TIME = ("symbol", "known_at")
GRIDS = pytest.mark.parametrize("grid", INTERVALS)


SPLIT = {"symbol": "ITC", "kind": "split", "ratio": 3.0}
IN_ITC = pl.col("symbol") == "ITC"


def before_split(history: History, session: int, ratio: float) -> History:
    """The raw bars of a share that is split into `ratio` at the open of a session: dearer and fewer before it."""
    rows = IN_ITC & (pl.col("ts") < history.hours[session].open)
    factors = {**dict.fromkeys(("open", "high", "low", "close"), ratio), "volume": 1 / ratio}
    return history.edited(
        lambda b: b.with_columns(pl.when(rows).then(pl.col(n) * f).otherwise(n).alias(n) for n, f in factors.items())
    )


def of_price(features: Iterable[Feature]) -> list[Feature]:
    return [f for f in features if "oi" not in f.definition.needs]


@GRIDS
def test_from_a_split_by_a_power_of_two_on_every_bit_is_as_without_it(grid: str):
    history = long_history()
    split = before_split(history, 106, 2.0).acted(SPLIT | {"session": 106, "ratio": 2.0})
    assert_same_bits(split.values(-4, -1, grid, EVERY), history.values(-4, -1, grid, EVERY))
    unknown = before_split(history, 106, 2.0).values(-2, -1, grid, EVERY)
    assert len(differing(unknown, history.values(-2, -1, grid, EVERY))) > 10


@given(ratio=st.floats(0.1, 20.0), session=st.integers(95, 109))
@settings(max_examples=8)
def test_a_split_leaves_no_trace_in_what_is_free_of_scale(ratio: float, session: int):
    history = long_history()
    split = before_split(history, session, ratio).acted(SPLIT | {"session": session, "ratio": ratio})
    found, expected = (h.values(-3, -1, "15m", of_price(OWN)) for h in (split, history))
    for name in found.columns[3:]:
        if not name.startswith("trend"):  # near zero where nothing moved: compared below in its own size
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_by_one_and_at_once_are_the_same_bits_across_ex_dates():
    history = long_history()
    mixed = before_split(history, 104, 3.0).acted(
        SPLIT | {"session": 104},
        {"symbol": "AXIS", "kind": "dividend", "amount": 3.0, "session": 106},
        {"symbol": "SBIN", "kind": "rename", "other": "STATEBANK", "session": 107},
        {"symbol": "CIPLA", "kind": "bonus", "ratio": 1.5, "session": 105, "known_at": history.hours[107].open},
    )
    renamed = mixed.edited(
        lambda b: b.with_columns(
            symbol=pl.when((pl.col("symbol") == "SBIN") & (pl.col("ts") >= history.hours[107].open))
            .then(pl.lit("STATEBANK"))
            .otherwise("symbol")
        )
    )
    for grid in ("5m", "day"):
        whole = renamed.values(-8, -1, grid, EVERY)
        each = [renamed.values(s, s, grid, EVERY) for s in range(102, 110)]
        assert_same_bits(pl.concat(each).sort(*SYMBOL_TIME), whole.sort(*SYMBOL_TIME))


def test_a_chain_of_names_is_one_series():
    history = long_history()
    at = pl.col("ts")
    new, newest = (history.hours[s].open for s in (103, 107))
    named_anew = history.edited(
        lambda b: b.with_columns(
            symbol=pl.when(IN_ITC & (at >= newest)).then(pl.lit("ITC LTD"))
            .when(IN_ITC & (at >= new)).then(pl.lit("ITCL")).otherwise("symbol")
        )
    ).acted(
        {"symbol": "ITC", "kind": "rename", "other": "ITCL", "session": 103},
        {"symbol": "ITCL", "kind": "rename", "other": "ITC LTD", "session": 107},
    )  # fmt: skip
    for grid in ("5m", "60m", "day"):
        for session, name in ((103, "ITCL"), (104, "ITCL"), (107, "ITC LTD"), (109, "ITC LTD")):
            found = named_anew.values(session, session, grid, EVERY).filter(pl.col("symbol") == name)
            expected = history.values(session, session, grid, EVERY).filter(IN_ITC)
            assert_same_bits(found.drop("symbol"), expected.drop("symbol"))


def test_what_another_company_did_under_the_new_name_is_not_the_series_past():
    history = long_history()
    new_name = pl.when(IN_ITC & (pl.col("ts") >= history.hours[107].open)).then(pl.lit("CIPLA")).otherwise("symbol")
    cipla_ends = (pl.col("symbol") == "CIPLA") & (pl.col("ts") >= history.hours[107].open)
    taken = history.without(cipla_ends).edited(lambda b: b.with_columns(symbol=new_name))
    told = taken.acted({"symbol": "ITC", "kind": "rename", "other": "CIPLA", "session": 107})
    for session in (107, 108):
        found = told.values(session, session, "5m", OWN).filter(pl.col("symbol") == "CIPLA")
        expected = history.values(session, session, "5m", OWN).filter(IN_ITC)
        assert_same_bits(found.drop("symbol"), expected.drop("symbol"))
    late = history.hours[107].open + timedelta(minutes=20)
    later = taken.acted({"symbol": "ITC", "kind": "rename", "other": "CIPLA", "session": 107, "known_at": late})
    before, own = pl.col("known_at") < late, [f for f in OWN if f.interval == "5m"]
    found, untold, at_once = (h.values(107, 107, "5m", own) for h in (later, taken, told))
    assert_same_bits(found.filter(before), untold.filter(before))
    assert_same_bits(found.filter(~before), at_once.filter(~before))
    coarser = [f for f in OWN if f.interval in ("60m", "day")]
    found, untold = (h.values(107, 107, "5m", coarser) for h in (later, taken))
    assert_same_bits(found.filter(before), untold.filter(before))


def test_what_becomes_known_within_a_session_is_seen_by_its_later_rows_alone():
    history = before_split(long_history(), 109, 2.0)
    learnt = history.hours[-1].open + timedelta(minutes=30)
    features = [f for f in EVERY if f.interval in ("1m", "5m")]
    told = history.acted(SPLIT | {"session": 109, "ratio": 2.0, "known_at": learnt}).values(-1, -1, "5m", features)
    before = pl.col("known_at") < learnt
    never, at_once = history.values(-1, -1, "5m", features), long_history().values(-1, -1, "5m", features)
    assert_same_bits(told.filter(before), never.filter(before))
    assert_same_bits(told.filter(~before), at_once.filter(~before))
    assert differing(never.filter(before), at_once.filter(before))
