"""Alarms: one line per thing and day."""

from datetime import UTC, datetime

from odin_core.home import open_home
from odin_core.monitoring.alarms import alarms, raise_alarm


def test_the_same_alarm_is_raised_once_a_day_and_another_one_beside_it(tmp_path):
    home = open_home(tmp_path / "home")
    same = {"market": "nse", "name": "token_is_fresh", "detail": "log in"}
    assert raise_alarm(home, at=datetime(2026, 1, 5, 3, tzinfo=UTC), **same)
    assert not raise_alarm(home, at=datetime(2026, 1, 5, 9, tzinfo=UTC), **same)
    assert raise_alarm(home, at=datetime(2026, 1, 6, 3, tzinfo=UTC), **same)
    assert raise_alarm(home, at=datetime(2026, 1, 6, 3, tzinfo=UTC), **same | {"market": "crypto"})
    assert [(a["market"], a["at"][:10]) for a in alarms(home)] == [
        ("nse", "2026-01-05"), ("nse", "2026-01-06"), ("crypto", "2026-01-06"),
    ]  # fmt: skip
