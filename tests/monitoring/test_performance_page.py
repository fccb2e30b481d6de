"""The evening summary: its numbers are those of the row, and its picture is small and the same every time."""

from dataclasses import replace

import pytest
from lifetables import day, made_up

from odin_core.monitoring.performance import Tables, performance_at
from odin_core.monitoring.performance_page import MOST_BYTES, evening_summary, picture

TABLES = made_up()
EVENING = performance_at(TABLES, day(89))
NOTHING = performance_at(
    Tables(states=TABLES.states.head(1), replay=TABLES.replay.clear(), scores=TABLES.scores.clear()), day(0)
)


def test_it_says_what_the_row_says():
    v = EVENING.row.row(0, named=True)
    page = evening_summary(*EVENING)
    assert page.startswith(f"## {v['session']}: phase {v['phase']}, {v['vol_regime']} volatility\n")
    for shown in (
        f"| drawdown | {v['drawdown']:.2%} |", f"| Sharpe ratio, annualised | {v['sharpe']:.2f} |",
        f"| trades won | {v['win_rate']:.0%} of {v['complete_trades']} |",
        "| mean cost of a trade, basis points | 10.0 |",
        f"| ε | {v['epsilon']:.3f} |", f"champion joint-a since {v['champion_since']}",
        f"sum to {v['live_reward']:+.2f} risk units", f"{v['expected_lower']:+.2f} to {v['expected_upper']:+.2f}",
    ):  # fmt: skip
        assert shown in page
    assert ("OUTSIDE" in page) is (not v["inside"])


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    blocks = [block.splitlines() for block in evening_summary(*EVENING).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    for lines in blocks:
        assert len({line.count("|") for line in lines}) == 1


def test_what_is_not_known_is_a_dash_and_no_number():
    page = evening_summary(*NOTHING)
    assert "| trades won | – of 0 |" in page
    assert "no champion" in page
    assert "nan" not in page.lower().replace("information", "")
    assert "None" not in page


def test_only_one_row_is_summarised():
    with pytest.raises(ValueError, match="one row"):
        evening_summary(EVENING.row.clear(), EVENING.details)


@pytest.mark.parametrize("evening", [EVENING, NOTHING], ids=["whole", "nothing"])
def test_the_picture_is_a_small_png_and_the_same_every_time(evening):
    drawn = picture(evening.details)
    assert drawn.startswith(b"\x89PNG")
    assert 2_000 < len(drawn) <= MOST_BYTES
    assert picture(evening.details) == drawn


def test_the_picture_of_another_life_is_another_one():
    other = performance_at(made_up(seed=1), day(89))
    assert picture(other.details) != picture(EVENING.details)
    assert picture(replace(EVENING.details, band=NOTHING.details.band)) != picture(EVENING.details)
