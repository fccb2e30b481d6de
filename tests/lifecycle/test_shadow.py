"""Shadows: asked about the plan's contexts, never before they were trained; their outcomes come of the fold's fills."""

import itertools
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal
from shadows import Drawing, asked, copied, grown, replay, shadowed, young
from smalllives import FIRST, LAST, NO_BARS, begin, quick, run_to

from odin_core.execution.costs import charges
from odin_core.execution.fills import end_session, step
from odin_core.execution.orders import NEW, Bars, Orders
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.outcomes import ENTRY_BARS, Venue
from odin_core.lifecycle.run import loop_rules
from odin_core.lifecycle.shadow import (
    NEWEST,
    RECOMMENDATIONS_TABLE,
    SHADOW_RECOMMENDATIONS,
    known_versions,
    shadow_session,
)
from odin_core.market.data import MarketData
from odin_core.policies.actions import ACTIONS, SIZES, STOPS, TARGETS, FloatArray, decode
from odin_core.randomness import stream
from odin_core.registry.history import history
from odin_core.replay.record import OUTCOME

# --- who is asked, and about what


def test_every_version_is_asked_about_exactly_the_contexts_of_the_plan():
    life, _, shadows = grown()
    seen = 0
    for shadow in shadows:
        plan = life.read("recommendations", shadow.session)
        for of in shadow.recommendations.partition_by("version"):
            same = ["decision_id", "session", "symbol", "decided_at", "vol_regime", "risk_unit", "reference_close"]
            assert_frame_equal(of.select(same), plan.select(same))
            seen += 1
        roles = set(shadow.recommendations["role"]) if plan.height else set()
        assert roles >= ({"rules", "random", "learner"} if plan.height else set())
    assert seen > 100


def test_no_version_is_asked_before_it_was_trained_and_none_that_the_life_did_not_know():
    life, _, shadows = grown()
    joint = 0
    for shadow in shadows:
        events = history(life, as_of=shadow.session)
        champion = life.read("phase_state", shadow.session)["champion"][0]
        versions = shadow.recommendations.unique("version")
        assert (versions["trained_through"].drop_nulls() <= shadow.session).all()
        mine = versions.filter(pl.col("source") == "joint")
        assert set(mine["version"]) <= set(events["version"])
        assert mine.filter(role="champion")["version"].to_list() == ([champion] if champion and len(versions) else [])
        known = list(dict.fromkeys(v for v in reversed(events["version"].to_list()) if v and v != champion))
        if versions.height:
            assert set(mine.filter(role="candidate")["version"]) == set(known[:NEWEST])
        joint += mine.height
    assert joint > 30


def test_as_many_candidates_as_asked_for_and_the_newest_of_each_learner():
    life, data, _ = grown()
    head = life.head
    ages = [Drawing(f"ppo-{d}", date(2023, 1, d)) for d in (3, 30, 10, 20)] + [Drawing("tree-1", FIRST, "tree")]
    future = Drawing("ppo-later", data.calendar.next(head))
    found = shadow_session(life, data, head, [*ages, future], newest=2).recommendations.unique("version")
    assert set(found.filter(role="learner")["version"]) == {"ppo-20", "ppo-30", "tree-1"}
    champion = life.read("phase_state", head)["champion"][0]
    others = [v for v in known_versions(life, head) if v != champion]
    assert set(found.filter(role="candidate")["version"]) == set(others[:2])
    assert len(others) > 2
    assert set(shadow_session(life, data, head, ages, newest=0).recommendations["role"]) == {
        "champion",
        "rules",
        "random",
    }


def test_which_of_two_learners_of_one_day_is_asked_does_not_depend_on_the_order_they_come_in():
    life, data = young()
    head = life.head
    assert head is not None
    twins = [Drawing("ppo-a"), Drawing("ppo-b")]
    found = [shadow_session(life, data, head, order, newest=1).recommendations for order in (twins, twins[::-1])]
    assert found[0].equals(found[1])
    assert set(found[0].filter(role="learner")["version"]) == {"ppo-b"}


def test_a_policy_is_asked_from_the_close_of_its_last_training_session_on():
    life, data = young()
    third, fourth = life.commits()[2:4]
    late = Drawing("ppo-4", fourth)
    assert "ppo-4" not in shadow_session(life, data, third, [late]).recommendations["version"]
    assert "ppo-4" in shadow_session(life, data, fourth, [late]).recommendations["version"]


def test_a_later_event_about_an_early_version_does_not_change_what_was_known_before(tmp_path: Path):
    life, _ = copied(tmp_path / "home", *grown()[:2])
    *_, second, last = life.lake.sessions("registry_history")
    before = list(known_versions(life, second))
    assert len(before) > 2
    oldest = history(life).filter(version=before[-1]).drop("session").head(1)
    life.lake.write("registry_history", last, oldest.with_columns(event=pl.lit("by_person")))
    assert list(known_versions(life, second)) == before
    assert next(iter(known_versions(life, last))) == before[-1]


def test_what_follows_a_session_changes_nothing_of_its_shadows(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick(edge=0.5, seed=7))
    cut = date(2023, 1, 13)  # a Friday: the week's candidate is known at its close
    run_to(life, data, cut)
    before = {s.session: s.tables for s in shadowed(life, data, Drawing())}
    run_to(life, data, LAST)
    assert life.head > cut
    assert "candidate" in before[cut][RECOMMENDATIONS_TABLE]["role"]
    compared = 0
    for session, tables in before.items():
        again = shadow_session(life, data, session, [Drawing(), Drawing("ppo-9", life.head)])
        for name, frame in again.tables.items():
            assert_frame_equal(frame, tables[name])
            compared += frame.height
    assert compared > 500


# --- outcomes


def test_the_champions_own_choice_in_the_shadow_has_exactly_the_outcome_of_the_replay_buffer():
    life, _, shadows = grown()
    mine = replay(shadows).filter(role="champion")
    theirs = life.read_many("replay_buffer", life.commits())
    unexplored = theirs.join(mine, left_on=["decision_id", "model_version"], right_on=["decision_id", "version"],
                             how="semi")  # fmt: skip
    same = mine.join(unexplored, on="decision_id", how="semi").sort("decision_id")
    columns = ["decision_id", "action", "side", "size", "stop_atr", "target_mult", "confidence", "score", *OUTCOME]
    columns.remove("counterfactual")  # whether it was taken is a matter of the limits
    assert_frame_equal(same.select(columns), unexplored.sort("decision_id").select(columns), check_exact=True)
    assert same.height > 50
    assert "carried" in same["exit_reason"].to_list(), "none was held overnight, so that goes untested"


def test_a_choice_on_the_grid_has_the_return_that_the_full_information_table_has():
    life, _, shadows = grown()
    compared = 0
    for shadow in shadows[1:]:
        table = life.read("action_outcomes", shadow.session)
        known = dict(zip(table["symbol"], np.array(table["net_return"].to_list(), np.float32), strict=True))
        today = shadow.replay.filter((pl.col("session") == shadow.session) & pl.col("action").is_not_null())
        for symbol, action, found in today.select("symbol", "action", "net_return").iter_rows():
            assert np.array_equal(np.float32(np.nan if found is None else found), known[symbol][action], equal_nan=True)
            compared += found is not None
    assert compared > 500


def by_hand(choice: dict[str, Any], life: Life, data: MarketData, session: date) -> FloatArray:
    """(net return, reward) of one choice: the engine's own step, bar after bar, over that symbol's bars alone."""
    venue: Venue = loop_rules(life, data.profile).venue
    bars = Bars.from_frame(data.bars(session).filter(symbol=choice["symbol"]))
    [lot] = venue.lot_sizes([choice["symbol"]], session)
    [units] = venue.volume_units([choice["symbol"]], session)
    bars = bars._replace(volume=bars.volume * units)
    side, stop = (1 if choice["side"] == "long" else -1), choice["risk_unit"] * choice["reference_close"]
    noise = stream(life.config.seed, session, f"fills/{choice['symbol']}").standard_normal(2)
    last = len(bars.open) - 1
    order = Orders.of(
        side=side, quantity=np.floor(choice["size"] * venue.capital / choice["reference_close"] / lot) * lot, first=0,
        last=last, due=last, volatility=choice["volatility"], stop_distance=stop * choice["stop_atr"],
        target_distance=stop * choice["stop_atr"] * choice["target_mult"], entry_bars=ENTRY_BARS,
        noise_entry=noise[0], noise_exit=noise[1], lot=lot,
    ).order(0)  # fmt: skip
    state = NEW
    for row in range(last + 1):
        state, _ = step(state, order, bars.bar(row), venue.rules.compiled)
    state = end_session(state, order)
    entry, left = state.entry, state.exit
    if not entry.quantity or entry.quantity > left.quantity:
        return np.array([np.nan, np.nan])
    rates, notional = venue.costs.intraday, entry.reference * entry.quantity
    fees = charges(rates, side > 0, entry.price * entry.quantity) + charges(rates, side < 0, left.price * left.quantity)
    net = side * (left.price - entry.price) / entry.reference - float(fees) / notional
    return np.array([net, net / choice["risk_unit"]])


def test_a_choice_off_the_grid_ends_as_the_engine_stepped_by_hand():
    life, data, shadows = grown()
    compared, reasons = 0, set()
    for before, shadow in itertools.pairwise(shadows):
        choices = before.recommendations.filter((pl.col("version") == "ppo-1") & pl.col("side").is_not_null())
        mine = shadow.replay.filter(version="ppo-1", session=shadow.session)
        found = {r["decision_id"]: r for r in mine.iter_rows(named=True)}
        for choice in choices.iter_rows(named=True):
            expected = by_hand(choice, life, data, shadow.session)
            outcome = found.get(choice["decision_id"])
            if outcome is None:  # still open
                assert np.isnan(expected).all()
                continue
            got = np.array([outcome["net_return"], outcome["reward"]], float)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, equal_nan=True)
            compared += choice["action"] is None
            reasons.add(outcome["exit_reason"])
    assert compared > 30
    assert {"stop", "target", "time"} <= reasons


def test_only_what_lies_off_the_grid_has_no_place_on_it():
    _, _, shadows = grown()
    rows = asked(shadows)
    meant = decode(rows.filter(pl.col("action").is_not_null())["action"].to_numpy().astype(np.int64))
    on = rows.filter(pl.col("action").is_not_null())
    for column, values in (("size", meant.size), ("stop_atr", meant.stop), ("target_mult", meant.target)):
        assert np.array_equal(on[column].to_numpy(), values)
    assert np.array_equal(on["side"].to_numpy() == "long", meant.side > 0)
    assert on.filter(version="grid-1").height == rows.filter(version="grid-1").height
    off = rows.filter((pl.col("version") == "ppo-1") & pl.col("action").is_null() & pl.col("side").is_not_null())
    strange = ~pl.col("size").is_in(SIZES) | ~pl.col("stop_atr").is_in(STOPS) | ~pl.col("target_mult").is_in(TARGETS)
    assert off.height > 50
    assert off.filter(strange).height == off.height
    assert rows.filter(pl.col("action") >= ACTIONS).is_empty()


def test_each_choice_is_told_once_and_what_is_open_overnight_is_completed_later():
    _, _, shadows = grown()
    carried_over = 0
    for before, shadow in itertools.pairwise(shadows):
        key = ["decision_id", "version"]
        went_in = pl.concat([before.recommendations.select(key), before.open.select(key)]).sort(key)
        came_out = pl.concat([shadow.replay.select(key), shadow.open.select(key)]).sort(key)
        assert_frame_equal(went_in, came_out)
        later = shadow.replay.join(before.open, on=key, how="semi")
        assert set(later["exit_reason"]) <= {"stop", "target", "carried"}
        assert later["complete"].all()
        assert (later["exit_ts"].dt.date() == shadow.session).all()
        carried_over += later.height
    assert carried_over > 10
    assert {"ppo-1", "grid-1", "rules"} <= set(pl.concat([s.open for s in shadows])["version"])


def test_a_session_without_bars_fills_nothing_and_the_next_one_has_nothing_to_ask():
    _, _, shadows = grown()
    [dark] = [shadow for shadow in shadows if shadow.session == NO_BARS]
    today = dark.replay.filter(session=NO_BARS)
    assert today.height
    assert not today["complete"].any()
    assert set(today.filter(pl.col("side").is_not_null())["exit_reason"]) == {"unfilled"}
    assert dark.recommendations.is_empty()
    assert dark.recommendations.schema == SHADOW_RECOMMENDATIONS
    after = shadows[shadows.index(dark) + 1]
    assert after.replay.filter(session=after.session).is_empty()
    assert after.recommendations.height


def test_a_choice_without_a_side_is_logged_and_has_no_outcome():
    _, _, shadows = grown()
    for rows in (asked(shadows), replay(shadows)):
        flat = rows.filter(pl.col("side").is_null())
        assert set(flat["version"]) == {"ppo-1"}
        assert set(flat["status"]) == {"skipped"}
        assert flat.select("size", "stop_atr", "target_mult", "action").null_count().row(0) == (flat.height,) * 4
    told = replay(shadows).filter(pl.col("side").is_null())
    assert not told["complete"].any()
    assert told["reward"].null_count() == told.height > 20


# --- limits, propensities


def test_each_version_is_held_to_the_limits_its_best_scores_first():
    life, _, shadows = grown()
    limits, reasons = life.config.guardrails, set()
    for (_, _), of in asked(shadows).group_by("session", "version"):
        taken, refused = of.filter(status="taken"), of.filter(status="rejected")
        assert taken.height <= limits.max_trades
        assert taken["size"].sum() <= limits.max_exposure + 1e-9
        reasons |= set(refused["reject_reason"])
        full = refused.filter(reject_reason="max_trades")
        if full.height and taken["score"].null_count() == 0:
            assert taken.height == limits.max_trades
            assert full["score"].max() <= taken["score"].min()
    assert "max_trades" in reasons
    assert asked(shadows).filter((pl.col("status") == "rejected") != pl.col("reject_reason").is_not_null()).is_empty()


def test_a_choice_too_small_for_one_share_is_rejected_and_never_filled(tmp_path: Path):
    life, data = copied(tmp_path / "home", *young())
    tiny = Drawing("tiny-1", name="tiny", sizes=(1e-9,), sides=(1,))
    before, shadow = shadowed(life, data, tiny, sessions=life.commits()[-2:])
    choices, told = before.recommendations.filter(version="tiny-1"), shadow.replay.filter(version="tiny-1")
    assert set(choices["reject_reason"]) == {"too_small"}
    assert set(told["exit_reason"]) == {"unfilled"}
    assert not told["complete"].any()


def test_propensity_confidence_and_score_are_logged_where_there_are_such():
    life, _, shadows = grown()
    rows, chance = asked(shadows), life.config.exploration.take_probability
    random = rows.filter(role="random")
    expected = np.where((random["status"] == "skipped").to_numpy(), 1 - chance, chance / ACTIONS)
    assert np.array_equal(random["propensity"].to_numpy(), expected)
    assert set(rows.filter(pl.col("source") == "joint")["propensity"]) == {1.0}
    assert set(rows.filter(version="ppo-1")["propensity"]) == {0.2}
    has = rows.group_by("source").agg(pl.col("confidence", "score").is_not_null().all(), n=pl.len())
    found = {r["source"]: (r["confidence"], r["score"]) for r in has.iter_rows(named=True)}
    assert found == {"joint": (True, True), "rule": (False, True), "random": (False, False),
                     "ppo": (False, True), "grid": (False, True)}  # fmt: skip
