"""Tapes: what is refused and how it is told, what follows from rows, and the planted tape's known answer."""

from typing import Any

import numpy as np
import pytest

from odin_core.execution.orders import Bars
from odin_core.rl.choices import Choices
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.observation import surroundings
from odin_core.rl.tape import SIGMA, SIGNAL, NotOnTape, Tape, TapeInvalid, planted


def parts(**changed: Any) -> dict[str, Any]:
    """Two symbols: three and two bars, the first over two sessions."""
    price = np.full(5, 100.0)
    return {
        "bars": Bars(price, price + 1, price - 1, price, np.full(5, 10.0)),
        "symbols": ["A", "B"],
        "starts": [0, 3, 5],
        "session": [1, 1, 2, 1, 1],
        "state": np.zeros((5, 2)),
        "heatmap": np.zeros((5, 1)),
        "volatility": np.full(5, 0.01),
        "risk_unit": np.full(5, 0.02),
    } | changed


def test_sessions_end_where_the_day_or_the_symbol_changes():
    tape = Tape.of(**parts())
    assert tape.session_end.tolist() == [1, 1, 2, 4, 4]
    assert tape.session_start.tolist() == [0, 0, 2, 3, 3]
    assert tape.symbol.tolist() == [0, 0, 0, 1, 1]
    assert tape.rows_of("B") == (3, 5)
    same_day = Tape.of(**parts(session=[1, 1, 1, 1, 1]))
    assert same_day.session_end.tolist() == [2, 2, 2, 4, 4]
    with pytest.raises(NotOnTape, match="no symbol 'C'; known: A, B"):
        tape.rows_of("C")


def test_a_tape_cannot_be_written_and_its_parts_stay_writeable():
    given = parts()
    tape = Tape.of(**given)
    assert tape.bars.close is not given["bars"].close
    with pytest.raises(ValueError, match="read-only"):
        tape.state[0] = 1
    given["volatility"][0] = 0.5
    assert given["volatility"].flags.writeable


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"starts": [0, 3]}, r"starts.shape=\(2,\) .* it must be \(3,\)"),
    ({"starts": [0, 5, 5]}, r"starts=\[0, 5, 5\] .* ascend from 0 to the 5 rows"),
    ({"session": [2, 1, 1, 1, 1]}, r"session\[1\]=1 .* must ascend"),
    ({"session": [1, 1]}, r"session.shape=\(2,\)"),
    ({"state": np.zeros((4, 2))}, r"state.shape=\(4, 2\) .* \(5, width\)"),
    ({"state": np.array([[0, 0], [0, np.nan], [0, 0], [0, 0], [0, 0]])}, r"state\[1\]=.*put 0 .* decidable=False"),
    ({"heatmap": np.full((5, 1), 2e6)}, r"heatmap\[0\]=.*within ±1,000,000"),
    ({"volatility": np.array([0.1, 0, 0.1, 0.1, 0.1])}, r"volatility\[1\]=0.0 .* above 0"),
    ({"risk_unit": np.array([0.1, 0.1, np.nan, 0.1, 0.1])}, r"risk_unit\[2\]=nan"),
    ({"lot": [1.0, 0.0]}, r"lot\[1\]=0.0"),
    ({"bars": Bars(*[np.full(5, 1.0)] * 3, np.array([1, 1, 0, 1, 1.0]), np.ones(5))}, r"low\[2\]=1.0"),
    ({"bars": Bars(*[np.full(5, 1.0)] * 4, np.array([1, 1, -1, 1, 1.0]))}, r"volume\[2\]=-1.0"),
    ({"bars": Bars(np.full(5, np.nan), *[np.full(5, 1.0)] * 4)}, r"open\[0\]=nan"),
]


@pytest.mark.parametrize(("changed", "told"), BROKEN, ids=[told[:12] for _, told in BROKEN])
def test_a_tape_that_cannot_be_used_is_told_by_column_row_value_and_rule(changed: dict[str, Any], told: str):
    with pytest.raises(TapeInvalid, match=told):
        Tape.of(**parts(**changed))


def test_rows_that_are_not_decidable_may_lack_volatility_and_are_seen_as_zero():
    tape = Tape.of(**parts(volatility=[np.nan, 0.01, 0.01, 0.01, 0.01], decidable=[False, *[True] * 4]))
    assert surroundings(tape)[0].tolist() == pytest.approx([0, 0, 0.01])
    assert surroundings(tape)[1].tolist() == pytest.approx([np.log(10), np.log(2), 0.02])


def test_a_planted_signal_correlates_with_the_next_bar_by_the_edge_and_with_none_by_nothing():
    for edge in (0.0, 0.3):
        tape = planted(3, edge=edge, symbols=8, sessions=60)
        inside = np.flatnonzero(np.arange(tape.rows) != tape.session_end)
        move = np.log(tape.bars.close / tape.bars.open)[inside + 1] / tape.volatility[inside]
        signal = tape.state[inside, SIGNAL]
        assert np.corrcoef(signal, move)[0, 1] == pytest.approx(edge, abs=0.03)
        noise = [np.corrcoef(tape.state[inside, c], move)[0, 1] for c in range(4, 12)]
        assert np.abs(noise).max() < 0.03
    cheat = planted(3, edge=0.0, cheat=True)
    move = np.log(cheat.bars.close / cheat.bars.open)
    inside = np.flatnonzero(np.arange(cheat.rows) != cheat.session_end)
    assert np.corrcoef(cheat.state[inside, SIGNAL], move[inside + 1])[0, 1] > 0.8


def test_a_planted_tape_has_regimes_a_day_s_shape_and_bytes_of_its_seed():
    tape = planted(5, symbols=4, sessions=60)
    move = np.abs(np.log(tape.bars.close / tape.bars.open)).reshape(4 * 60, 75)
    assert move[:, :5].mean() > 1.3 * move[:, 35:40].mean()
    volume = tape.bars.volume.reshape(4 * 60, 75)
    assert volume[:, :5].mean() > 1.5 * volume[:, 35:40].mean()
    daily = move.mean(axis=1) / SIGMA
    assert np.quantile(daily, 0.95) > 2 * np.quantile(daily, 0.05)
    same, other = planted(5, symbols=4, sessions=60), planted(6, symbols=4, sessions=60)
    assert same.state.tobytes() == tape.state.tobytes()
    assert same.bars.close.tobytes() == tape.bars.close.tobytes() != other.bars.close.tobytes()
    with pytest.raises(TapeInvalid, match=r"edge=1.5 .* below 1"):
        planted(edge=1.5)
    with pytest.raises(TapeInvalid, match=r"state=0 .* four columns"):
        planted(state=3)


def test_choices_travel_through_actions():
    choices = Choices.of_actions([[1, 3, 0, 2], [2, 0, 1, 0], [0, 1, 1, 1]])
    assert Choices.of_actions(choices.actions()).size.tolist() == [3, 0, 1]
    side, size, stop, target = choices.meaning()
    assert (side.tolist(), size.tolist()) == ([1, -1, 0], [1.0, 0.25, 0.5])
    assert (stop.tolist(), target.tolist()) == ([1.0, 1.5, 1.5], [3.0, 1.5, 2.0])
    assert Choices.flat(2).actions().tolist() == [[0] * 4] * 2


def test_settings_of_the_environment_are_read_checked_and_written(tmp_path):
    path = tmp_path / "environment.yaml"
    path.write_text(EnvironmentConfig(latency_bars=(0, 3)).documented())
    assert EnvironmentConfig.load(path) == EnvironmentConfig(latency_bars=(0, 3))
    path.write_text("cost_factor: [2.0, 1.0]")
    with pytest.raises(Exception, match=r"cost_factor=\[2.0, 1.0\]: it must be two numbers, 0 or more, that ascend"):
        EnvironmentConfig.load(path)
