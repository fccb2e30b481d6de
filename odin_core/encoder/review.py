"""An encoder of a market on sessions after its training: the diagnostics of `diagnostics`, put together for people."""

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from odin_core.encoder.diagnostics import diagnostics
from odin_core.encoder.samples import market_samples
from odin_core.encoder.store import months, stored
from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.diagnostic_page import Diagnostic
    from odin_core.market.data import MarketData


class NothingToReview(OdinError):
    def __init__(self, market: str, why: str) -> None:
        super().__init__(f"{market}: {why}; train one: odin encoder train --market {market} --month YYYY-MM")


class Review(NamedTuple):
    version: str
    sessions: int
    rows: int
    diagnostics: "list[Diagnostic]"
    markdown: str
    html: str

    @property
    def picture(self) -> tuple[str, bytes]:
        """The first diagnostic's name and picture."""
        return self.diagnostics[0].name, self.diagnostics[0].picture


def version_or_newest(data: "MarketData", version: str | None) -> str:
    """`version`, or that of the encoder trained last. Raises NothingToReview."""
    known = months(data.lake)
    if version is None and not known:
        raise NothingToReview(data.profile.name, "there is no encoder yet")
    return version or max(known, key=lambda month: month.trained_through).version


def review(data: "MarketData", version: str | None = None, *, sessions: int = 20) -> Review:
    """The encoder on the last so many sessions with bars, those after its training where there are any.
    Raises NothingToReview and what `store.stored` and `samples.market_samples` raise."""
    from odin_core.diagnostic_page import page

    name = version_or_newest(data, version)
    model = stored(data.lake, name)
    through = model.trained_through
    known = [s for s in data.sessions() if data.lake.has("price_history", s)]
    later = [s for s in known if s > through][-sessions:] or known[-sessions:]
    if not later:
        raise NothingToReview(data.profile.name, "no session has bars")
    samples = market_samples(data, model.config, later[-1], later[0])
    found = diagnostics(model, samples)
    span = f"{later[0]} to {later[-1]}{_overlap(later, through)}"
    told = f"{name}, trained through {through}, on {len(later)} sessions, {span}"
    lines = [f"**{told}**", *(f"- {each.title}: {each.told}" for each in found)]
    return Review(name, len(later), len(samples.session), found, "\n".join(lines), page(f"Encoder {name}", told, found))


def _overlap(later: list[date], through: date) -> str:
    return "" if later[0] > through else "; these it was trained on, so they flatter it"
