"""Settings of a component in a YAML file: read, checked, and written down with what each means.

A component's settings are one class of fields with default, description and bounds (`pydantic.Field`). What a life may
be told is `lifecycle.config`, since its numbers are part of its identity."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from odin_core.errors import OdinError, nearest

if TYPE_CHECKING:
    from odin_core.home import Home

Chosen = TypeVar("Chosen", bound="Settings")
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}


class SettingsUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read as settings ({why}); it must be YAML, one `name: value` a line")


class SettingInvalid(OdinError):
    def __init__(self, where: str, found: list[str]) -> None:
        super().__init__(f"{where}: {'; '.join(found)}")


class Settings(BaseModel):
    """Frozen; an unknown name, a wrong type or a value out of bounds is refused. Fields are `name: type =
    Field(default=…, description="…", ge=…)`: a type checker wants `default` by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, values: dict[str, Any], where: str = "settings") -> Self:
        """From a mapping; what it leaves out keeps its default. Raises SettingInvalid, which names each field, its
        value and the rule that it breaks; `where` says whose settings they are."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingInvalid(where, [_told(cls, fault) for fault in error.errors()]) from None

    @classmethod
    def load(cls, path: Path, default: Self | None = None) -> Self:
        """From a YAML file; what it leaves out is as in `default` (None: the fields' defaults).
        Raises SettingsUnreadable, SettingInvalid."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsUnreadable(path, " ".join(str(error).split())) from error
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise SettingsUnreadable(path, f"it holds {type(values).__name__}, not names and values")
        return cls.of((default.model_dump() if default else {}) | values, str(path))

    def documented(self) -> str:
        """As YAML that `load` takes back, each setting below its description and bounds."""
        values, lines = self.model_dump(mode="json"), []
        for name, field in type(self).model_fields.items():
            rules = [(said, getattr(rule, bound, None)) for rule in field.metadata for bound, said in BOUNDS.items()]
            bounds = [f"{said} {bound}" for said, bound in rules if bound is not None]
            said = (field.description or "") + (f"; {', '.join(bounds)}" if bounds else "")
            value = yaml.safe_dump(values[name], default_flow_style=True, width=1000).removesuffix("\n...\n").rstrip()
            lines += [f"# {said}", f"{name}: {value}", ""]
        return "\n".join(lines)


def _told(cls: type[Settings], fault: Any) -> str:
    name, why = ".".join(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"there is no setting {name!r}; {nearest(name, cls.model_fields)}"
    return f"{name}={fault['input']!r}: {why}" if name else why


def settings_at(home: "Home", component: str, default: Chosen) -> Chosen:
    """A component's settings in the home's file `settings/<component>.yaml`; `default` where there is none, and for
    what it leaves out. Raises SettingsUnreadable, SettingInvalid."""
    path = home.settings(component)
    return type(default).load(path, default) if path.is_file() else default
