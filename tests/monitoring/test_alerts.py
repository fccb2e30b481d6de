"""The log of alerts: events once, levels when they are news, whatever happens to the process in between."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import (
    EARLIER,
    FILE,
    Alert,
    _news,
    alerts,
    check,
    locked,
    raise_alert,
    standing,
    take_up,
)
from odin_core.monitoring.rules import AlertConfig, Facts, Finding

AT = datetime(2026, 1, 5, 3, tzinfo=UTC)
CONFIG = AlertConfig(reminder_hours=72, cooldown_hours=12)
HOUR = timedelta(hours=1)
EVENT = {"at": AT, "market": "demo", "rule": "busy", "text": "one"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def level(raised: bool = True, *, severity: str = "warning", key: str = "demo/drawdown", once: bool = False) -> Finding:
    return Finding(market="demo", rule="drawdown", key=key, raised=raised, severity=severity, text="deep",
                   session=date(2026, 1, 5), value=0.05, threshold=0.04, once=once)  # fmt: skip


def test_the_same_event_is_told_once_a_day_and_another_one_beside_it(home):
    same = {"market": "nse", "rule": "token_is_fresh", "text": "log in"}
    assert raise_alert(home, at=AT, **same)
    assert not raise_alert(home, at=AT + 6 * HOUR, **same)
    assert raise_alert(home, at=AT + 24 * HOUR, **same)
    assert raise_alert(home, at=AT + 24 * HOUR, **same | {"market": "crypto"})
    assert raise_alert(home, at=AT + 24 * HOUR, **same | {"text": "log in again"})
    assert [(a.market, str(a.at.date()), a.text) for a in alerts(home)] == [
        ("nse", "2026-01-05", "log in"), ("nse", "2026-01-06", "log in"), ("crypto", "2026-01-06", "log in"),
        ("nse", "2026-01-06", "log in again"),
    ]  # fmt: skip


def test_an_event_with_a_key_is_told_once_for_ever(home):
    key = "demo/phase/2026-01-05"
    for day in range(3):
        new = raise_alert(home, at=AT + timedelta(days=day), market="demo", rule="phase", text=f"{day}", key=key,
                          severity="information")  # fmt: skip
        assert new is (day == 0)
    assert [(alert.state, alert.text, alert.severity) for alert in alerts(home)] == [("event", "0", "information")]


def test_an_unknown_severity_is_a_programmers_mistake(home):
    with pytest.raises(ValueError, match="severity='loud'"):
        raise_alert(home, at=AT, market="demo", rule="x", text="y", severity="loud")


def test_what_is_written_is_what_is_read(home):
    [told] = take_up(home, [level()], at=AT, config=CONFIG)
    assert alerts(home) == [told] == standing(home)
    assert told == Alert(market="demo", rule="drawdown", severity="warning", text="deep", key="demo/drawdown", at=AT,
                         state="raised", session=date(2026, 1, 5), value=0.05, threshold=0.04)  # fmt: skip
    assert json.loads((home.root / FILE).read_text())["id"] == told.id


@pytest.mark.parametrize(
    ("steps", "told"),
    [  # steps: hours since the beginning, raised
        ([(0, True), (1, True), (71, True)], ["0 raised"]),
        ([(0, True), (72, True), (73, True), (144, True)], ["0 raised", "72 raised", "144 raised"]),
        ([(0, False), (1, False)], []),
        ([(0, True), (5, False), (6, False)], ["0 raised", "5 recovered"]),
        ([(0, True), (1, False), (2, True), (3, False), (11, True)], ["0 raised", "1 recovered"]),
        ([(0, True), (1, False), (2, True), (12, True)], ["0 raised", "1 recovered", "12 raised"]),
    ],
)
def test_a_level_is_told_when_it_is_news(home, steps, told):
    for hours, raised in steps:
        take_up(home, [level(raised)], at=AT + hours * HOUR, config=CONFIG)
    assert [f"{(a.at - AT) // HOUR} {a.state}" for a in alerts(home)] == told


def test_what_grows_more_severe_is_told_at_once_and_what_grows_less_is_not(home):
    for hours, severity in enumerate(["warning", "critical", "critical", "warning"]):
        take_up(home, [level(severity=severity)], at=AT + hours * HOUR, config=CONFIG)
    assert [alert.severity for alert in alerts(home)] == ["warning", "critical"]
    assert [alert.severity for alert in standing(home)] == ["critical"]


def test_an_event_among_the_findings_is_told_once_and_never_recovers(home):
    for hours in range(0, 400, 100):
        take_up(home, [level(once=True)], at=AT + hours * HOUR, config=CONFIG)
    assert [alert.state for alert in alerts(home)] == ["event"]
    assert standing(home) == []


def test_levels_of_different_keys_do_not_meet(home):
    take_up(home, [level(key="a"), level(key="b")], at=AT, config=CONFIG)
    take_up(home, [level(False, key="a"), level(key="b")], at=AT + HOUR, config=CONFIG)
    assert [alert.key for alert in standing(home)] == ["b"]
    assert [alert.title for alert in alerts(home)] == [
        "demo: drawdown (warning)", "demo: drawdown (warning)", "demo: drawdown (recovered)",
    ]  # fmt: skip


LOOKS = st.lists(
    st.tuples(st.integers(1, 40), st.booleans(), st.sampled_from(["information", "warning", "critical"])), max_size=60
)


@given(LOOKS)
def test_however_a_level_moves_it_is_no_storm_and_nothing_that_lasts_is_missed(looks):
    told: list[Alert] = []
    at = AT
    for hours, raised, severity in looks:
        at += hours * HOUR
        news = _news(told, level(raised, severity=severity), at, CONFIG)
        before = told[-1].state if told else "recovered"
        if news is not None:
            told.append(news)
        if news is not None and news.state == "recovered":
            assert (before, raised) == ("raised", False), "a recovery follows a raising that was told"
        if not raised:
            assert not told or told[-1].state == "recovered", "what recovered does not stand in the log"
        elif all(at - alert.at >= 12 * HOUR for alert in told if alert.state == "raised"):
            assert told[-1].state == "raised", "what is raised is told, at the latest after the cool-down"
    raisings = [alert for alert in told if alert.state == "raised"]
    rank = ["information", "warning", "critical"].index
    for first, second in pairwise(raisings):
        assert second.at - first.at >= 12 * HOUR or rank(second.severity) > rank(first.severity)


def test_many_at_once_write_whole_lines_and_each_thing_once(home):
    def one(i: int) -> bool:
        return raise_alert(home, at=AT, market="demo", rule="busy", text=f"thing {i % 10}")

    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(one, range(80)))
    assert sum(new) == 10
    assert sorted(alert.text for alert in alerts(home)) == sorted(f"thing {i}" for i in range(10))


def test_who_writes_waits_for_who_is_writing(home):
    with locked(home.root / "alerts.lock"):
        second = threading.Thread(target=raise_alert, args=(home,), kwargs=EVENT)
        second.start()
        second.join(0.2)
        assert alerts(home) == []
    second.join()
    assert len(alerts(home)) == 1


def test_lines_that_are_no_alerts_are_passed_over(home):
    take_up(home, [level()], at=AT, config=CONFIG)
    with (home.root / FILE).open("a") as file:
        file.write('{"market": "demo"}\nno json\n[]\n{"at": 3}\n{"torn": "lin')
    good = json.loads((home.root / FILE).read_text().splitlines()[0])
    with (home.root / FILE).open("a") as file:
        file.write("\n" + json.dumps(good | {"state": "odd"}) + "\n" + json.dumps(good | {"at": "yesterday"}) + "\n")
    take_up(home, [level(False)], at=AT + HOUR, config=CONFIG)
    assert [alert.state for alert in alerts(home)] == ["raised", "recovered"]


def test_alarms_of_earlier_versions_are_still_shown(home):
    line = {"at": "2026-01-04T03:00:00+00:00", "market": "nse", "name": "token_is_fresh", "detail": "log in"}
    (home.root / EARLIER).write_text(json.dumps(line) + "\n{}\n")
    raise_alert(home, at=AT, market="nse", rule="x", text="new")
    assert [(alert.rule, alert.text, alert.state) for alert in alerts(home)] == [
        ("token_is_fresh", "log in", "event"), ("x", "new", "event"),
    ]  # fmt: skip


def test_a_process_that_starts_again_goes_on_where_it_stood(home):
    facts = Facts(market="demo", drawdown=0.045, drawdown_cap=0.05)
    assert len(check(home, facts, at=AT)) == 1
    assert check(open_home(home.root), facts, at=AT + HOUR) == []


def test_check_reads_the_homes_settings(home):
    (home.root / "alerts.yaml").write_text("drawdown_share: 0.95\n")
    assert check(home, Facts(market="demo", drawdown=0.045, drawdown_cap=0.05), at=AT) == []
