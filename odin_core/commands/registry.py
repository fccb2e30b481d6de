"""`odin registry`: which model is champion, since when, and why; promotions and rollbacks by a person."""

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, Command, as_json, common, emit, life_option, now, the_life
from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.registry.history import Promotion


class NothingToDecide(OdinError):
    def __init__(self, promotion: "Promotion") -> None:
        before = promotion.before
        who = f"{before.version} is in charge from {before.since} on" if before else "no champion is in charge"
        super().__init__(
            f"life {promotion.life.id}: {who} already, so nothing would change; `odin registry list` names the others"
        )


@click.group()
def registry() -> None:
    """The registry: which model is champion, since when, and why."""


@registry.command("list")
@common
@life_option
@click.option("--as-of", type=SESSION, help="As it stood at the close of this session; default: the head.")
@as_json
def list_events(home: Path, market: str, life_id: str | None, as_of: date | None, json_output: bool) -> None:
    """What the life decided each week, and who is champion now.

    Events are promoted, refused, insufficient, by_person and demoted; `log` has what moved the pointer."""
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
    """A stored model: its parts, training and verdicts."""
    from odin_core.registry.history import describe_version

    emit(describe_version(the_life(home, market, life_id), version), json_output, text.table_of_values)


@registry.command("log")
@common
@life_option
@as_json
def log(home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """Every move of the pointer: when, who, and why.

    Lines are added and never changed; `effective` is the first session that the version decides on."""
    from odin_core.registry.following import follow

    chosen = the_life(home, market, life_id)
    follow(chosen, now())  # a life of an earlier version, or one that was killed, may know more than its log
    rows = [vars(deployment) for deployment in chosen.registry.log()]
    emit({"deployments": rows}, json_output, text.deployments)


@registry.command("verify")
@common
@life_option
@as_json
def verify(home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """Load every stored model and check the log. Status 1 if anything is wrong.

    Models that the life's history names and the registry has not are wrong too."""
    chosen = the_life(home, market, life_id)
    findings = [*chosen.registry.verify(), *_lost(chosen)]
    result = {"life": chosen.id, "models": len(chosen.registry.versions()), "findings": findings}
    emit(result, json_output, lambda r: "\n".join(findings) or f"{r['models']} models and the log are sound")
    sys.exit(1 if findings else 0)


def _lost(life: "Life") -> list[str]:
    """What is to be said of models that the life once stored; nothing where all are there."""
    from odin_core.registry.history import history

    named = history(life).select("session", "version").drop_nulls().unique("version", keep="first", maintain_order=True)
    stored = set(life.registry.versions())
    lost = [(session, version) for session, version in named.iter_rows() if version not in stored]
    if not lost:
        return []
    some = ", ".join(version for _, version in lost[:3]) + (", …" if len(lost) > 3 else "")
    return [
        f"{len(lost)} of {named.height} models of life {life.id} are not in the registry ({some}). Restore it from a "
        f"backup of the home, or rewind to before {lost[0][0]} (odin life rewind --to SESSION) and run on"
    ]


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
    """Make a stored model champion, from a later session on.

    The gate is not asked. What was decided for sessions that are planned stays as it is."""
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
    """Undo the last change of champion, from a later session on.

    A promotion that is still to take effect is undone first; a rollback can be rolled back."""
    from odin_core.registry.history import plan_rollback

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_rollback(chosen, effective, why), dry_run, json_output)


@registry.command("restore")
@click.argument("backup", type=click.Path(exists=True, dir_okay=False, path_type=Path))
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
    """Back to the champion of a BACKUP, its damaged parts mended.

    BACKUP is a file NAME-revision-NNNN.json in the home's folder registry; each decision leaves one."""
    from odin_core.registry.history import plan_restore

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_restore(chosen, backup, effective, why), dry_run, json_output)


def _decide(chosen: "Life", plan: Callable[[], "Promotion"], dry_run: bool, json_output: bool) -> None:
    import getpass

    operator = getpass.getuser()
    if dry_run:
        difference = _worth_it(plan()).difference(operator)
        said = f"{difference.to_text()}\ndry run: nothing was changed"
        emit(difference.to_dict() | {"applied": False}, json_output, lambda _: said)
        return
    with chosen.home.writer("odin registry"):
        promotion = _worth_it(plan())
        difference = promotion.difference(operator)
        done = promotion.apply(now(), operator)
    _log_elsewhere(chosen, promotion.version)
    files: dict[str, Any] = {"revision": done.deployment.revision, "backup": done.backup, "patch": done.patch}
    said = f"{difference.to_text()}\n{done.to_text()}"
    emit(difference.to_dict() | {"applied": True} | files, json_output, lambda _: said)


def _worth_it(promotion: "Promotion") -> "Promotion":
    """Raise NothingToDecide where the same version is in charge by then; a backup may still mend its parts."""
    before = promotion.before
    same = promotion.version == (before.version if before else None)
    if same and promotion.bundle is None and (before is None or before.since <= promotion.effective):
        raise NothingToDecide(promotion)
    return promotion


def _log_elsewhere(chosen: "Life", version: str | None) -> None:
    """To MLflow, where the environment names one; what goes wrong there is told and changes nothing here."""
    import os

    from odin_core.registry.mlflow_log import TRACKING_URI, log_bundle
    from odin_core.secrets import read_secrets

    address = read_secrets(os.environ).get(TRACKING_URI)
    if address and version is not None:
        click.echo(log_bundle(chosen.registry.bundle(version), chosen.id, address).to_text(), err=True)
