"""Settings: what may be told, in which words, and that a configuration survives its own JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest

from odin_core.lifecycle.config import (
    BOUNDS,
    LifeConfig,
    NotASetting,
    OutOfBounds,
    UnknownSetting,
    configured,
    from_dict,
    settings,
    with_settings,
)  # fmt: skip

DEFAULT = LifeConfig()


def other(name: str, value: Any) -> str:
    """An assignment that changes a setting within its bounds."""
    if isinstance(value, bool):
        return f"{name}={str(not value).lower()}"
    if name == "promotion.level":
        return f"{name}=money"
    if isinstance(value, str):
        return f"{name}=pe <= 60, roe_pct >= 5"
    low, high = BOUNDS[name]
    return f"{name}={value + 1 if isinstance(value, int) and value + 1 <= high else (low + value) / 2 or high / 2}"


CHANGEABLE = sorted(name for name in settings() if name != "learners")


@pytest.mark.parametrize("name", CHANGEABLE)
def test_every_setting_can_be_told_and_survives_json(name: str):
    told = with_settings(DEFAULT, [other(name, settings()[name])])
    changed = {n for n, v in settings(told).items() if v != settings()[n]}
    assert changed == {name}
    assert from_dict(json.loads(json.dumps(told.to_dict()))) == told


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_beyond_its_bounds_a_setting_is_refused_with_them(name: str):
    low, high = BOUNDS[name]
    kind = type(settings()[name])
    for value in (low - 1, high * 2 + 1):
        with pytest.raises(OutOfBounds, match=f"{name}=.*out of bounds"):
            with_settings(DEFAULT, [f"{name}={kind(value)}"])


@pytest.mark.parametrize("text", ["x", "true", "[1]", "", "1.5", "nan"])
def test_a_whole_number_is_nothing_else(text: str):
    with pytest.raises(NotASetting, match="expected a whole number, like the default 20"):
        with_settings(DEFAULT, [f"learner.min_sessions={text}"])


@pytest.mark.parametrize(("text", "value"), [("0.25", 0.25), ("1", 1.0), ("5e-2", 0.05), (".5", 0.5), ("2.5e-1", 0.25)])
def test_a_number_may_be_written_in_the_usual_ways(text: str, value: float):
    assert with_settings(DEFAULT, [f"filter.min_bars_share={text}"]).filter.min_bars_share == value


@pytest.mark.parametrize("text", ["true", "many", "[0.5]", "", "{a: 1}", "0.5 0.6"])
def test_what_is_no_number_is_refused(text: str):
    with pytest.raises(NotASetting, match="expected a number"):
        with_settings(DEFAULT, [f"filter.min_bars_share={text}"])


@pytest.mark.parametrize("text", ["nan", ".nan", "inf", "-.inf"])
def test_a_number_that_is_none_is_out_of_bounds(text: str):
    with pytest.raises(OutOfBounds):
        with_settings(DEFAULT, [f"filter.min_bars_share={text}"])


def test_an_unknown_setting_names_its_neighbours():
    with pytest.raises(UnknownSetting, match=r"learner\.min_session'.*did you mean learner\.min_sessions"):
        with_settings(DEFAULT, ["learner.min_session=5"])
    with pytest.raises(UnknownSetting):
        with_settings(DEFAULT, ["learner"])


def test_what_a_command_leaves_out_keeps_its_default():
    assert configured(seed=None, edge=None) == DEFAULT
    assert configured(seed=3, edge=None, assignments=["edge=0.25"]) == replace(DEFAULT, seed=3, edge=0.25)
    assert LifeConfig() == DEFAULT, "telling one configuration changed another"


def test_a_configuration_of_code_with_fewer_settings_gets_the_defaults_of_the_rest():
    data = DEFAULT.to_dict()
    del data["live"]
    del data["learner"]["trees"]
    del data["promotion"]
    assert from_dict(json.loads(json.dumps(data))) == DEFAULT
