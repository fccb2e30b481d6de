"""docs/markets.md names every field of a profile and every setting of a source, and its example is a market."""

import re
from dataclasses import fields
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from odin_core.execution.costs import ChargeRates, CostSchedule
from odin_core.execution.orders import ExecutionRules
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.market.profile_fields import EXECUTION
from odin_core.market.sources.settings import ASKED, KIND, kinds, settings_of

PAGE = (Path(__file__).parents[2] / "docs" / "markets.md").read_text()
EXAMPLE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]


def first_cells(heading: str, column: int = 0) -> list[str]:
    """What stands in backticks in a column of the first table after a heading."""
    table = PAGE[PAGE.index(heading) :].split("\n|---", 1)[1].split("\n\n")[0]
    cells = [line.strip("|").split("|")[column] for line in table.splitlines()[1:]]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_field_is_in_the_table_and_no_other():
    known = [entry.name for entry in fields(MarketProfile) if entry.name not in ("name", "origin")]
    assert sorted(first_cells("## Fields")) == sorted(known)


def test_every_charge_and_every_rule_of_execution_is_there():
    assert sorted(first_cells("**`costs`**")) == sorted(entry.name for entry in fields(ChargeRates))
    rules = {entry.name: entry.default for entry in fields(ExecutionRules) if entry.name not in ("lot", "volume")}
    assert tuple(rules) == EXECUTION
    assert first_cells("**`execution`**") == list(rules)
    for name, default in rules.items():
        assert f"| `{name}` | {default} |" in PAGE


def test_every_setting_of_every_kind_of_source_is_there_and_no_other():
    table = PAGE[PAGE.index("## Source") :].split("\n|---", 1)[1].splitlines()[1:]
    said: dict[str, set[str]] = {}
    for line in table:
        kind, settings = (cell.strip() for cell in line.strip("|").split("|")[:2])
        here = kind.strip("`") or list(said)[-1]
        said.setdefault(here, set()).update(re.findall(r"`(\w+)`", settings))
    assert said.pop("all others") == set(ASKED)
    assert set(said) == set(kinds())
    for kind, settings in said.items():
        assert settings == set(settings_of(kind)) - set(ASKED if kind not in ("files", "synthetic") else ()) - set(KIND)


@pytest.fixture
def xetra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MarketProfile:
    """The page's example, in the folder that it names."""
    path = tmp_path / EXAMPLE.splitlines()[0].split()[1].rstrip(":")
    path.parent.mkdir()
    path.write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    return load_profile(path.stem)


def test_the_example_is_a_market_with_its_own_hours_and_short_days(xetra: MarketProfile):
    calendar = session_calendar(xetra)
    summer, last = date(2024, 6, 3), date(2024, 12, 30)
    assert calendar.hours(summer) == (datetime(2024, 6, 3, 7, tzinfo=UTC), datetime(2024, 6, 3, 15, 30, tzinfo=UTC))
    assert calendar.minutes(summer) == 510
    assert calendar.hours(last).close == datetime(2024, 12, 30, 13, tzinfo=UTC)
    assert not calendar.is_session(date(2024, 12, 26))
    assert not xetra.is_tradable("DAX")
    assert CostSchedule.from_mapping(xetra.costs).delivery.brokerage_cap == 60
    assert set(xetra.execution) == set(EXECUTION)
