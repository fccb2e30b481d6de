"""Settings of the learners: what is written down is read back, a batch that does not divide a rollout is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from odin_core.configuration import SettingInvalid, Settings
from odin_core.rl.learner_config import PPOConfig, SACConfig


@pytest.mark.parametrize("preset", [PPOConfig.small, PPOConfig.full, SACConfig.small, SACConfig.full])
def test_a_preset_goes_through_yaml_and_takes_changes(tmp_path: Path, preset: object):
    config = preset(steps=123_456)  # type: ignore[operator]
    assert isinstance(config, Settings)
    path = tmp_path / "learner.yaml"
    path.write_text(config.documented())
    assert type(config).load(path) == config
    assert config.model_dump()["steps"] == 123_456


def test_every_setting_says_what_it_is():
    for settings in (PPOConfig, SACConfig):
        assert all(field.description for field in settings.model_fields.values())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": 1000}, r"batch=1000 does not divide environments × rollout = 256 × 32 = 8192"),
        ({"hidden": (64, 0)}, r"hidden=\(64, 0\): a layer has at least one unit"),
        ({"clipp": 0.1}, r"no setting 'clipp'; did you mean clip"),
        ({"discount": 1.5}, r"discount=1.5"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], told: str):
    with pytest.raises(SettingInvalid, match=told):
        PPOConfig.of(changes)


def test_updates_cover_the_steps():
    assert PPOConfig(environments=8, rollout=32, batch=256, steps=100_000).updates == 391
    assert SACConfig(environments=64, steps=1000).bars == 16


def test_settings_load_neither_torch_nor_numba():
    code = "import sys, odin_core.rl.learner_config; print({'torch', 'numba', 'stable_baselines3'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "set()\n"
