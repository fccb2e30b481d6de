"""`odin rl`: learners that come after the fold's own, and their settings. Others add their commands to this group."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, NotWritable, as_json, common, emit, life_option, the_life
from odin_core.errors import OdinError, nearest

if TYPE_CHECKING:
    from datetime import date

    from odin_core.configuration import Settings
    from odin_core.rl.offline_data import OfflineData, Parts
    from odin_core.rl.reinforce import Learned

SETTINGS = {
    "encoder": "odin_core.encoder.config:EncoderConfig",
    "environment": "odin_core.rl.config:EnvironmentConfig",
    "ppo": "odin_core.rl.weekly_config:weekly_ppo",
    "reinforce": "odin_core.rl.offline_config:ReinforceConfig",
    "sac": "odin_core.rl.learner_config:SACConfig",
    "week": "odin_core.rl.weekly_config:WeekConfig",
}
"""Component: what makes its settings as they are where nobody says otherwise. Imported when asked for; none of these
brings torch or numba."""


class NoSuchSettings(OdinError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there are no settings of {name!r}; {nearest(name, SETTINGS)}")


class NotAnOfflinePage(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no page; end it with .html")


class NotAPolicyFile(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no policy; end it with .safetensors")


@click.group()
def rl() -> None:
    """Reinforcement learning: policies from logged decisions and from the trading environment."""


@rl.command("settings")
@click.argument("component", required=False)
def show_settings(component: str | None) -> None:
    """Print a component's settings as YAML, each with its meaning and bounds; without one, name the components.

    A file with what it prints, or with the lines that differ, is what --config takes."""
    if component is None:
        click.echo("\n".join(SETTINGS))
        return
    click.echo(settings_of(component).documented(), nl=False)


def settings_of(component: str) -> "Settings":
    """A component's settings where nobody says otherwise. Raises NoSuchSettings."""
    import importlib

    if component not in SETTINGS:
        raise NoSuchSettings(component)
    module, _, name = SETTINGS[component].partition(":")
    return getattr(importlib.import_module(module), name)()


@rl.command("offline")
@common
@life_option
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings as YAML, see `odin rl settings reinforce`; default: the home's settings/reinforce.yaml.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the learner; default: the settings'.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs, of this and following seeds."
)
@click.option("--as-of", type=SESSION, help="Last session whose outcomes are known; default: the life's head.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Page; default: among the life's reports.")
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False),
    help="Policy, .safetensors; default: beside the page, by its version.",
)  # fmt: skip
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder from which a run that was stopped goes on; default: none are kept.",
)
@as_json
def offline(
    home: Path,
    market: str,
    life_id: str | None,
    config_file: Path | None,
    seed: int | None,
    seeds: int,
    as_of: "date | None",
    out: Path | None,
    policy_file: Path | None,
    checkpoints: Path | None,
    json_output: bool,
) -> None:
    """Learn a policy from a life's logged decisions by REINFORCE, value it on later ones, and write an interactive
    page.

    Nothing of the life changes. The policy is that of --seed; the other seeds show how much is chance."""
    from odin_core.configuration import settings_at
    from odin_core.market.data import MarketData
    from odin_core.rl.offline_config import ReinforceConfig
    from odin_core.rl.offline_data import offline_data, require_enough
    from odin_core.rl.offline_page import page
    from odin_core.rl.offline_report import joint_before, offline_report

    if out is not None and out.suffix != ".html":
        raise NotAnOfflinePage(out)
    if policy_file is not None and policy_file.suffix != ".safetensors":
        raise NotAPolicyFile(policy_file)
    life = the_life(home, market, life_id)
    kept = settings_at(life.home, "reinforce", ReinforceConfig.of({}))
    config = ReinforceConfig.load(config_file) if config_file else kept
    config = config if seed is None else ReinforceConfig.of(config.model_dump() | {"seed": seed})
    found = offline_data(life, MarketData.of(life.home, life.market, life.config), as_of)
    require_enough(found, life.id, (config.min_decisions, config.min_sessions), as_of)
    parts = found.split(config.validation_share, config.test_share, config.embargo)
    with text.progress_bar("learning", shown=not json_output and sys.stderr.isatty()) as update:
        runs = [_learned(found, parts, config, at, seeds, checkpoints, update) for at in range(seeds)]
    report = offline_report(
        found, parts, runs, config, market=life.market, life=life.id,
        take_probability=life.config.exploration.take_probability, joint=joint_before(life, _held(found, parts)),
    )  # fmt: skip
    target = out or life.reports / f"offline-{report.policy.version}.html"
    stored = policy_file or target.parent / f"{report.policy.version}.safetensors"
    _write(page(report).encode(), target)
    _write(report.policy.to_bytes(), stored)
    emit(report.to_dict() | {"report": target, "policy": stored}, json_output, _as_text)


def _learned(
    found: "OfflineData", parts: "Parts", config: Any, at: int, seeds: int, checkpoints: Path | None, update: Any
) -> "Learned":
    from odin_core.rl.reinforce import learn

    def progress(step: int, steps: int, said: str) -> None:
        update(at * steps + step, seeds * steps, f"seed {mine.seed}, {said}")

    mine = config.model_copy(update={"seed": config.seed + at})
    folder = checkpoints / f"seed-{mine.seed}" if checkpoints else None
    return learn(found, parts, mine, folder=folder, progress=progress)


def _held(found: "OfflineData", parts: "Parts") -> "date":
    """The first session that the policy is valued on."""
    from datetime import date

    rows = parts.test if parts.test.size else parts.validation
    return date.fromordinal(int(found.session[rows].min()))


def _write(content: bytes, path: Path) -> None:
    """Whole or not at all. Raises NotWritable."""
    from odin_core.lake import write_bytes

    try:
        write_bytes(content, path)
    except OSError as error:
        raise NotWritable(path, error.strerror or str(error)) from error


def _as_text(result: dict[str, Any]) -> str:
    shown = [
        {
            "policy": row["policy"], "by": row["estimator"], "value": _signed(row["value"]),
            "95 %": "–" if row["lower"] is None else f"{_signed(row['lower'])} to {_signed(row['upper'])}",
            "effective rows": f"{row['effective_rows']:.0f}",
        }
        for row in result["values"]
    ]  # fmt: skip
    seeds = ", ".join(f"{row['seed']}: {_signed(row['value'])}" for row in result["seeds"])
    learned, valued = result["decisions"]["train"], result["decisions"][result["valued_on"]]
    return "\n".join([
        f"{result['version']}, learned from {learned:,} decisions of life {result['life']}, valued on {valued:,} from "
        f"{result['first_session']} to {result['last_session']}; units of risk per decision",
        text.table(shown),
        f"seeds       {seeds}",
        *(f"note        {note}" for note in result["notes"]),
        f"policy      {result['policy']}",
        f"report      {result['report']}",
    ])  # fmt: skip


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
