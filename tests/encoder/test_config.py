"""What an encoder may be told, and what it is told about what cannot be."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from odin_core.configuration import SettingInvalid
from odin_core.encoder import EncoderConfig
from odin_core.encoder.config import HEATMAP_BINS, REGIMES, TURNS, Interval


def test_a_preset_written_down_can_be_read_back(tmp_path: Path):
    path = tmp_path / "encoder.yaml"
    for preset in (EncoderConfig.small(seed=3), EncoderConfig.full(architecture="transformer")):
        path.write_text(preset.documented())
        assert EncoderConfig.load(path) == preset


def test_every_setting_is_described_and_every_number_bounded():
    for name, field in EncoderConfig.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float):
            assert any(hasattr(rule, "ge") or hasattr(rule, "gt") for rule in field.metadata), name


@pytest.mark.parametrize("architecture", ["tcn", "transformer", "lstm"])
def test_both_presets_read_512_bars_and_say_256_numbers_whatever_the_network(architecture: str):
    for preset in (EncoderConfig.small, EncoderConfig.full):
        config = preset(architecture=architecture)
        assert (config.length, config.embedding) == (512, 256)
        assert config.receptive_field >= 512


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"kernel": 2}, "sees 511 bars, fewer than length=512; levels=9 sees 1023", id="one bar too few"),
        pytest.param({"kernel": 2, "levels": 14, "length": 8192}, None, id="levels are no limit here"),
        pytest.param({"kernel": 2, "levels": 1, "length": 512}, "sees 3 bars, .* levels=9", id="far too few"),
        pytest.param({"architecture": "transformer", "heads": 5}, "nearest width is 50", id="heads and width"),
        pytest.param({"architecture": "lstm", "heads": 5, "kernel": 2, "levels": 1}, None, id="others' settings"),
        pytest.param({"quantiles": (0.5, 0.2)}, r"quantiles=\(0.5, 0.2\): .*ascending", id="quantiles descend"),
        pytest.param({"quantiles": (0.5, 1.0)}, "between 0 and 1", id="a quantile of 1"),
        pytest.param({"quantiles": ()}, "at least one level", id="no quantile"),
        pytest.param({"horizons": (5, 5)}, r"horizons=\(5, 5\): .*ascending", id="a horizon twice"),
        pytest.param({"horizons": (0, 5)}, "each at least 1", id="a horizon of 0"),
        pytest.param({"mask_share": 0}, "no row is ever hidden", id="nothing to reconstruct"),
        pytest.param({"mask_share": 0, "weight_candles": 0}, None, id="no reconstruction at all"),
        pytest.param({"warm_up": 280}, "warm_up=280 leaves none of steps=280", id="all warm-up"),
        pytest.param({"widht": 3}, "did you mean width", id="a typing error"),
        pytest.param({"dropout": 1.0}, "dropout=1.0: .*less than 1", id="everything dropped"),
        pytest.param({"interval": "5min"}, "interval='5min'", id="an interval of another kind"),
        pytest.param({"interval": "30m"}, "interval='30m'.*'15m', '60m'", id="an interval without features"),
        pytest.param({"sessions": 2}, "sessions=2", id="too few sessions to divide"),
        pytest.param(
            dict.fromkeys(("weight_candles", "weight_regime", "weight_heatmap", "weight_quantiles", "weight_turns"), 0),
            "nothing to learn",
            id="all weights 0",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_way_out(changes: dict[str, Any], told: str | None):
    if told is None:
        assert all(getattr(EncoderConfig.small(**changes), name) == value for name, value in changes.items())
        return
    with pytest.raises(SettingInvalid, match=told):
        EncoderConfig.small(**changes)


def test_the_classes_are_those_of_the_structure_and_the_targets():
    from odin_core.encoder import targets
    from odin_core.features.catalogue import INTERVALS
    from odin_core.structure import heatmap, regimes

    assert regimes.DIRECTIONS == REGIMES
    assert heatmap.BINS == HEATMAP_BINS
    assert get_args(Interval) == INTERVALS
    numbered = (targets.NONE, targets.BREAKOUT_UP, targets.BREAKOUT_DOWN, targets.REVERSAL_UP, targets.REVERSAL_DOWN)
    assert [TURNS[number] for number in numbered] == [
        *("none", "breakout_up", "breakout_down", "reversal_up", "reversal_down"),
    ]
    assert len(TURNS) == len(numbered)


def test_a_configuration_is_read_without_torch_and_numba():
    code = "import sys, odin_core.encoder; sys.exit(any(m in sys.modules for m in ('torch', 'numba', 'lightgbm')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
