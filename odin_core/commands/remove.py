"""`odin data remove`: take out of the lake what an import brought by mistake."""

from datetime import date
from pathlib import Path

import click

from odin_core.commands.common import SESSION, as_json, common, emit, outdated, the_home
from odin_core.errors import OdinError
from odin_core.market.profile import load_profile


class NotSaidWhat(OdinError):
    def __init__(self) -> None:
        super().__init__("nothing says what to remove; give --origin FILE as the import named it, or --session")


@click.command()
@common
@click.option("--origin", help="What brought it: a file's name, or the words that `odin sql` shows in arrivals.")
@click.option("--session", type=SESSION, help="Only of this session.")
@click.option("--symbol", "symbols", multiple=True, help="Only of this symbol; may be given several times.")
@click.option("--yes", is_flag=True, help="Do it; without this it is only told what would go.")
@as_json
def remove(
    home: Path,
    market: str,
    origin: str | None,
    session: date | None,
    symbols: tuple[str, ...],
    yes: bool,
    json_output: bool,
) -> None:
    """Remove the bars of an origin or of a session, with all that is known about them. Files are not touched."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.intake.removing import plan_removal
    from odin_core.market.intake.removing import remove as take_out

    if origin is None and session is None:
        raise NotSaidWhat
    opened, profile = the_home(home, create=False), load_profile(market)
    lake = opened.lake(market)
    if yes:
        with opened.writer(f"odin data remove --market {market}"):
            removal = take_out(lake, session_calendar(profile), origin=origin, session=session, symbols=symbols)
    else:
        removal = plan_removal(lake, origin=origin, session=session, symbols=symbols)
    hint = outdated(opened, market, [part.session for part in removal.parts if part.interval == "1m"])
    said = removal.to_dict() | {"removed": yes, "outdates": hint}
    head = "removed: " if yes else "would remove: "
    tail = "" if yes else "\nnothing was changed; add --yes to do it"
    emit(said, json_output, lambda _: "\n".join([head + removal.to_text(), *hint]) + tail)
