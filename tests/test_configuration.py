"""Settings in YAML: what `documented` writes, `load` takes back; what is wrong is refused by name, value and rule."""

from pathlib import Path

import pytest
from pydantic import Field

from odin_core.configuration import SettingInvalid, Settings, SettingsUnreadable, settings_at
from odin_core.home import open_home


class Brake(Settings):
    strength: float = Field(default=0.5, description="share of the speed that goes each second", ge=0, le=1)
    wheels: tuple[int, ...] = Field(default=(1, 2), description="which wheels")
    name: str = Field(default="disc", description="what it is called")


def test_what_is_written_down_can_be_read_back(tmp_path: Path):
    path, told = tmp_path / "brake.yaml", Brake(strength=0.25, wheels=(3,), name="drum: old")
    path.write_text(told.documented())
    assert Brake.load(path) == told
    assert "# share of the speed that goes each second; at least 0, at most 1\nstrength: 0.25\n" in path.read_text()


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path):
    path = tmp_path / "brake.yaml"
    path.write_text("")
    assert Brake.load(path) == Brake()
    path.write_text("strength: 1")
    assert Brake.load(path) == Brake(strength=1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("strength: 2", r"strength=2(\.0)?: .*less than or equal to 1"),
        ("strenght: 0.1", "no setting 'strenght'; did you mean strength"),
        ("strength: .nan", "strength=nan: .*finite"),
        ("wheels: 3\nname: 7", "wheels=3: .*; name=7: "),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_the_rule(tmp_path: Path, text: str, told: str):
    path = tmp_path / "brake.yaml"
    path.write_text(text)
    with pytest.raises(SettingInvalid, match=rf"brake\.yaml: .*{told}"):
        Brake.load(path)


@pytest.mark.parametrize("text", ["- 1\n- 2", "a: [1", "\udcff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "brake.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsUnreadable, match=r"brake\.yaml cannot be read as settings"):
        Brake.load(path)
    with pytest.raises(SettingsUnreadable, match=r"no-such\.yaml"):
        Brake.load(tmp_path / "no-such.yaml")


def test_a_home_may_hold_a_components_settings(tmp_path: Path):
    home = open_home(tmp_path / "home")
    assert settings_at(home, "brake", Brake(strength=0.1)) == Brake(strength=0.1)
    home.settings("brake").parent.mkdir()
    home.settings("brake").write_text("strength: 0.9\n")
    assert settings_at(home, "brake", Brake(strength=0.1)) == Brake(strength=0.9)
    assert settings_at(home, "brake", Brake(wheels=(4,))) == Brake(strength=0.9, wheels=(4,))
