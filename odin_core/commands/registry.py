"""`odin registry`: which model is champion, since when, and why; promotions and rollbacks by a person."""

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, Command, as_json, common, emit, life_option, now, the_life

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.registry.history import Promotion


@click.group()
def registry() -> None:
    """The registry: which model is champion, since when, and why."""


@registry.command("list")
@common
@life_option
@click.option("--as-of", type=SESSION, help="As it stood at the close of this session; default: the head.")
@as_json
def list_events(home: Path, market: str, life_id: str | None, as_of: date | None, json_output: bool) -> None:
    """Every event: promoted, refused, insufficient, by a person, demoted."""
    from odin_core.registry.history import champion_as_of, history, pending

    chosen = the_life(home, market, life_id)
    champion = champion_as_of(chosen, as_of or chosen.head or date.min)
    to_come = pending(chosen) if as_of is None else None
    result = {
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "pending": {"version": to_come.to_version, "effective": to_come.effective, "why": to_come.why}
        if to_come
        else None,
        "history": history(chosen, as_of=as_of).to_dicts(),
    }
    emit(result, json_output, text.registry)


@registry.command("show")
@click.argument("version")
@common
@life_option
@as_json
def show(version: str, home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """A stored model: what it is, where it came from, and what the gate said of it."""
    from odin_core.registry.history import describe_version

    emit(describe_version(the_life(home, market, life_id), version), json_output, text.table_of_values)


@registry.command("log")
@common
@life_option
@as_json
def log(home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """Every deployment: when, who, from which version to which, from which session on, and why."""
    chosen = the_life(home, market, life_id)
    rows = [vars(deployment) for deployment in chosen.registry.log()]
    emit({"deployments": rows}, json_output, text.deployments)


@registry.command("verify")
@common
@life_option
@as_json
def verify(home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """Load every stored model and check the log of deployments. Status 1 if anything is wrong."""
    chosen = the_life(home, market, life_id)
    findings = chosen.registry.verify()
    result = {"life": chosen.id, "models": len(chosen.registry.versions()), "findings": findings}
    emit(result, json_output, lambda r: "\n".join(findings) or f"{r['models']} models and the log are sound")
    sys.exit(1 if findings else 0)


def person_options(command: Command) -> Command:
    """--effective, --why and --dry-run."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show the difference and change nothing."),
        click.option("--why", default="by a person", show_default=True, help="The reason, kept in the history."),
        click.option(
            "--effective",
            type=SESSION,
            help="First session it decides on; default: the second after the head, the first that is not planned yet.",
        ),
    ):
        command = option(command)
    return command


@registry.command("promote")
@click.argument("version")
@common
@life_option
@person_options
@as_json
def promote(
    version: str,
    home: Path,
    market: str,
    life_id: str | None,
    effective: date | None,
    why: str,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Make a stored model champion from a session after the head on."""
    from odin_core.registry.history import plan_promotion

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_promotion(chosen, version, effective, why), dry_run, json_output)


@registry.command("rollback")
@common
@life_option
@person_options
@as_json
def rollback(
    home: Path, market: str, life_id: str | None, effective: date | None, why: str, dry_run: bool, json_output: bool
) -> None:
    """Back to the champion before the present one, from a session after the head on."""
    from odin_core.registry.history import plan_rollback

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_rollback(chosen, effective, why), dry_run, json_output)


@registry.command("restore")
@click.argument("backup", type=click.Path(path_type=Path))
@common
@life_option
@person_options
@as_json
def restore(
    backup: Path,
    home: Path,
    market: str,
    life_id: str | None,
    effective: date | None,
    why: str,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Back to what was in charge when a BACKUP was written; damaged parts of it are stored again."""
    from odin_core.registry.history import plan_restore

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_restore(chosen, backup, effective, why), dry_run, json_output)


def _decide(chosen: "Life", plan: Callable[[], "Promotion"], dry_run: bool, json_output: bool) -> None:
    import getpass

    operator = getpass.getuser()
    if dry_run:
        difference = plan().difference(operator)
        said = f"{difference.to_text()}\ndry run: nothing was changed"
        emit(difference.to_dict() | {"applied": False}, json_output, lambda _: said)
        return
    with chosen.home.writer("odin registry"):
        promotion = plan()
        difference = promotion.difference(operator)
        done = promotion.apply(now(), operator)
    _log_elsewhere(chosen, promotion.version)
    files: dict[str, Any] = {"revision": done.deployment.revision, "backup": done.backup, "patch": done.patch}
    said = f"{difference.to_text()}\n{done.to_text()}"
    emit(difference.to_dict() | {"applied": True} | files, json_output, lambda _: said)


def _log_elsewhere(chosen: "Life", version: str | None) -> None:
    """To MLflow, where the environment names one; what goes wrong there is told and changes nothing here."""
    import os

    from odin_core.registry.mlflow_log import TRACKING_URI, log_bundle
    from odin_core.secrets import read_secrets

    address = read_secrets(os.environ).get(TRACKING_URI)
    if address and version is not None:
        click.echo(log_bundle(chosen.registry.bundle(version), chosen.id, address).to_text(), err=True)
