"""`odin alerts`: what it prints, and what it says when something is not set up."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes.serving import Clock, FakeServer, Reply, Request, instead

from odin_core.commands.alerts import NoChannel, alerts
from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import raise_alert, take_up
from odin_core.monitoring.rules import RULES, AlertConfig, Facts, UnknownAlertSetting, judge

Say = Callable[..., Result]
SECRET = "T0PSECRETPATH"


class Receiver(FakeServer):
    def answer(self, request: Request) -> Reply:
        return Reply(200)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def say(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """The group as the command line runs it, in a folder without .env and without channels in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODIN_HOME", str(home.root))
    for name in ("ODIN_SLACK_WEBHOOK", "ODIN_SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: CliRunner().invoke(alerts, list(words))


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch):
    with Receiver(Clock()) as server:
        monkeypatch.setenv("ODIN_SLACK_WEBHOOK", f"{server.url}/services/{SECRET}")
        yield server


def fill(home: Home) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    raise_alert(home, at=at, market="nse", rule="bars_corrected", text="seven sessions")
    findings = judge(Facts(market="demo", drawdown=0.06, drawdown_cap=0.05, sessions_behind=2))
    take_up(home, findings, at=at, config=AlertConfig())
    recovered = judge(Facts(market="demo", sessions_behind=0))
    take_up(home, recovered, at=at + timedelta(minutes=1), config=AlertConfig())


def test_an_empty_log_is_told_as_such(say):
    assert say("list").output == "none\n"
    assert json.loads(say("list", "--json").output) == {"alerts": []}


def test_the_log_can_be_cut_by_market_by_number_and_to_what_stands(home, say):
    fill(home)

    def shown(*words: str) -> list[tuple[str, str]]:
        return [(a["rule"], a["state"]) for a in json.loads(say("list", "--json", *words).output)["alerts"]]

    assert shown() == [("bars_corrected", "event"), ("drawdown", "raised"), ("stale_data", "raised"),
                       ("stale_data", "recovered")]  # fmt: skip
    assert shown("--market", "nse") == [("bars_corrected", "event")]
    assert shown("--last", "1") == [("stale_data", "recovered")]
    assert shown("--standing") == [("drawdown", "raised")]
    assert "drawdown 6.00% of capital" in say("list").output


def test_rules_are_shown_with_the_homes_own_thresholds(home, say):
    (home.root / "alerts.yaml").write_text("drawdown_share: 0.5\nmute: [drift]\n")
    result = json.loads(say("rules", "--json").output)
    rules = {rule["rule"]: rule for rule in result["rules"]}
    assert set(rules) == set(RULES)
    assert rules["drawdown"]["settings"] == {"drawdown_share": 0.5}
    assert [name for name, rule in rules.items() if rule["muted"]] == ["drift"]
    text = say("rules").output
    assert "drawdown_share=0.5" in text
    assert text.rstrip().endswith(str(home.root / "alerts.yaml"))
    assert "reminder_hours=72.0" in text


def test_a_mistake_in_the_settings_reaches_the_user(home, say):
    (home.root / "alerts.yaml").write_text("drawdown: 1\n")
    assert isinstance(say("rules").exception, UnknownAlertSetting)


@pytest.mark.parametrize("command", ["deliver", "test"])
def test_without_a_channel_it_says_how_to_get_one(say, command):
    result = say(command)
    assert isinstance(result.exception, NoChannel)
    assert "ODIN_SLACK_WEBHOOK or ODIN_SMTP_URL" in str(result.exception)


def test_deliver_sends_what_is_in_the_log_once(home, say, webhook):
    fill(home)
    first = json.loads(say("deliver", "--json").output)
    assert (first["sent"], first["failed"], first["waiting"]) == (4, 0, 0)
    assert say("deliver").output == "0 sent, 0 failed, 0 given up, 0 waiting\n"
    assert len(webhook.requests) == 4


def test_a_failure_is_shown_without_the_address_and_is_no_crash(home, say, webhook):
    fill(home)
    webhook.fail(instead(Reply(500)))
    result = say("deliver")
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "0 sent, 4 failed, 0 given up, 4 waiting")
    assert SECRET not in result.output


def test_a_test_message_says_by_channel_what_came_of_it(say, webhook, monkeypatch):
    assert (say("test").output, say("test").exit_code) == ("webhook: delivered\n", 0)
    assert "a test of this channel" in json.loads(webhook.requests[0].body)["text"]
    monkeypatch.setenv("ODIN_SMTP_URL", f"smtps://u:{SECRET}@127.0.0.1:1?from=a@b.c&to=d@e.f")
    result = say("test", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "webhook": "delivered", "email": "no mail server took it (ConnectionRefusedError)",
    }  # fmt: skip
    assert SECRET not in result.output


def test_an_env_file_serves_as_well(home, say, webhook, tmp_path, monkeypatch):
    monkeypatch.delenv("ODIN_SLACK_WEBHOOK")
    (tmp_path / ".env").write_text(f"ODIN_SLACK_WEBHOOK={webhook.url}/services/{SECRET}\n")
    assert say("test").output == "webhook: delivered\n"
