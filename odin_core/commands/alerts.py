"""`odin alerts`: what somebody should look at, what would be told, and sending it."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import as_json, emit, home_option, now, the_home
from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.monitoring.channels import Email, Webhook


class NoChannel(OdinError):
    def __init__(self) -> None:
        super().__init__(
            "no channel is set up: fill in ODIN_SLACK_WEBHOOK or ODIN_SMTP_URL in .env (see .env.example); without "
            "one, alerts are kept in the home's log, see `odin alerts list`"
        )


@click.group()
def alerts() -> None:
    """Alerts: what somebody should look at, and who is told."""


@alerts.command("list")
@home_option
@click.option("--market", help="Of one market; default: of all.")
@click.option("--standing", "only_standing", is_flag=True, help="Only what is raised and has not recovered.")
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@as_json
def list_alerts(home: Path, market: str | None, only_standing: bool, last: int, json_output: bool) -> None:
    """The log, oldest first."""
    from odin_core.monitoring import alerts as log

    opened = the_home(home, create=False)
    found = log.standing(opened) if only_standing else log.alerts(opened)
    rows = [alert.to_dict() for alert in found if market in (None, alert.market)][-last:]
    emit({"alerts": rows}, json_output, lambda result: text.table([_short(row) for row in result["alerts"]]))


@alerts.command("rules")
@home_option
@as_json
def rules(home: Path, json_output: bool) -> None:
    """Every rule and its thresholds; `alerts.yaml` in the home changes them."""
    from odin_core.monitoring.rules import FILE, RULES, load_config

    opened = the_home(home, create=False)
    config = asdict(load_config(opened))
    result: dict[str, Any] = {
        "rules": [
            {"rule": name, "muted": name in config["mute"], "settings": {s: config[s] for s in rule.settings},
             "meaning": rule.meaning}
            for name, rule in RULES.items()
        ],
        "settings": config,
        "file": str(opened.root / FILE),
    }  # fmt: skip
    emit(result, json_output, _rules_text)


@alerts.command("deliver")
@home_option
@as_json
def deliver(home: Path, json_output: bool) -> None:
    """Send what was not delivered yet; what fails is tried again by a later call, for a day."""
    from odin_core.monitoring import delivery

    opened, using = the_home(home, create=False), _channels()
    done = delivery.deliver(opened, using, now)
    emit(done._asdict(), json_output, lambda _: done.to_text())


@alerts.command("test")
@as_json
def test(json_output: bool) -> None:
    """Send a test message to every channel at once, and say what came of it."""
    from odin_core.monitoring import delivery
    from odin_core.monitoring.alerts import Alert

    trial = Alert(market="odin", rule="test", severity="information", key="odin/test", at=now(),
                  text="a test of this channel; nothing has happened")  # fmt: skip
    said = delivery.try_out(_channels(), trial)
    emit(said, json_output, text.table_of_values)
    if any(outcome != "delivered" for outcome in said.values()):
        sys.exit(1)


def _channels() -> "tuple[Webhook | Email, ...]":
    import os

    from odin_core.monitoring.channels import channels
    from odin_core.secrets import read_secrets

    found = channels(read_secrets(os.environ))
    if not found:
        raise NoChannel
    return found


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {"at": f"{row['at'][:16]}Z", "market": row["market"], "rule": row["rule"], "state": row["state"],
            "severity": row["severity"], "text": row["text"]}  # fmt: skip


def _rules_text(result: dict[str, Any]) -> str:
    rows = [
        {"rule": r["rule"], "looked at": "muted" if r["muted"] else "yes",
         "settings": ", ".join(f"{name}={value}" for name, value in r["settings"].items()) or "none",
         "meaning": r["meaning"]}
        for r in result["rules"]
    ]  # fmt: skip
    others = {name: result["settings"][name] for name in ("reminder_hours", "cooldown_hours", "mute")}
    return f"{text.table(rows)}\n\n{text.settings(others)}\n\nto change one, write `name: value` into {result['file']}"
