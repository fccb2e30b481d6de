"""`odin evaluate`: examine a stored model, with dearer costs, later entries, shocks, other seeds and fewer features."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import as_json, common, emit, life_option, require_page, the_life
from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life


class NoChampion(OdinError):
    def __init__(self, life: "Life") -> None:
        super().__init__(
            f"life {life.id} has no champion to examine; name a version: `odin registry list` shows those that were "
            f"trained"
        )


@click.command("evaluate")
@click.argument("version", required=False)
@common
@life_option
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Seeds that the learner gets.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes, .html or .md; default: the life's reports.",
)
@as_json
def evaluate(
    version: str | None, home: Path, market: str, life_id: str | None, seeds: int, out: Path | None, json_output: bool
) -> None:
    """Examine a stored model (default: the champion) on the sessions after its training.

    Its choices are filled again with dearer costs, one bar later and under shocks; its learner is asked with other
    seeds, parameters and fewer features. Writes a page and says what was not robust. Changes nothing else."""
    from odin_core.lake import write_text
    from odin_core.lifecycle.examination import examine
    from odin_core.lifecycle.examination_page import to_html, to_markdown
    from odin_core.market.data import MarketData

    require_page(out)
    chosen = the_life(home, market, life_id)
    data = MarketData.of(chosen.home, chosen.market, chosen.config)
    name = version or champion_of(chosen)
    chosen.registry.model(name)  # an unknown or damaged one is told of before the bar is drawn
    with text.progress_bar(f"examining {name}", shown=not json_output and sys.stderr.isatty()) as update:
        found = examine(chosen, data, name, seeds=seeds, progress=update)
    path = out or chosen.reports / f"examination-{name}.html"
    write_text(to_markdown(found) if path.suffix == ".md" else to_html(found), path)
    emit(found.to_dict() | {"report": path}, json_output, _as_text)


def champion_of(life: "Life") -> str:
    """The version in force at the life's head. Raises NoChampion."""
    head = life.head
    champion = life.read("phase_state", head)["champion"][0] if head else None
    if champion is None:
        raise NoChampion(life)
    return champion


def _as_text(result: dict[str, Any]) -> str:
    words = {True: "pass", False: "FAIL"}
    rows = [
        {"finding": f["name"], "": words[f["passed"]], "value": f["value"], "at least": f["needed"],
         "what it is": f["explanation"]}
        for f in result["findings"]
    ]  # fmt: skip
    failed = [f["name"] for f in result["findings"] if not f["passed"]]
    verdict = f"not robust: {', '.join(failed)}" if failed else "robust in everything that was asked"
    return "\n".join([
        f"{result['version']}, trained through {result['trained_through']}, examined on {result['sessions']} sessions "
        f"({result['first_session']} to {result['last_session']})",
        text.table(rows),
        verdict,
        f"report      {result['report']}",
    ])  # fmt: skip
