"""What is looked at before a market's data are relied on: are they up to date, would the source let us in?"""

from typing import NamedTuple

from odin_core.errors import OdinError
from odin_core.home import Home
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.fetching import can_fetch
from odin_core.market.intake.freshness import freshness
from odin_core.market.profile import MarketProfile
from odin_core.market.sources.source import Around, HasToken, MissingSecrets, open_source, secrets_of
from odin_core.secrets import redacted


class Finding(NamedTuple):
    """One thing that was looked at. `detail` says what was found and, where it did not pass, what to do."""

    name: str
    passed: bool
    detail: str

    def to_text(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.detail}"


def check_market(home: Home, profile: MarketProfile, around: Around) -> list[Finding]:
    """Every finding about a market: `fresh` always, `secrets` and `token` where its source needs them."""
    found = [check_freshness(home, profile, around)]
    kind = profile.source["kind"]
    if can_fetch(profile) and (wanted := secrets_of(kind)):
        missing = [name for name in wanted if not around.secrets.get(name)]
        detail = f"source {kind} has its {len(wanted)} secrets"
        if missing:
            detail = f"source {kind} lacks {', '.join(missing)}; fill them in (.env.example)"
        found.append(Finding("secrets", not missing, detail))
    token = check_token(profile, around)
    return [*found, token] if token else found


def check_freshness(home: Home, profile: MarketProfile, around: Around) -> Finding:
    """Whether `price_history` has the last session that is over. A market that makes its own bars always passes."""
    if profile.source["kind"] == "synthetic":
        return Finding("fresh", True, "the market makes its own bars")
    state = freshness(home.lake(profile.name), "price_history", session_calendar(profile), as_of=around.now())
    bring = "fetch" if can_fetch(profile) else "import FILE…"
    begin = " --start YYYY-MM-DD" if can_fetch(profile) and state.last is None else ""
    way_out = f"; bring them in: odin data {bring} --market {profile.name}{begin}"
    return Finding("fresh", state.is_fresh, state.to_text() + ("" if state.is_fresh else way_out))


def check_token(profile: MarketProfile, around: Around) -> Finding | None:
    """Whether the source's token would be taken; None where the source has none."""
    if not can_fetch(profile):
        return None
    kind = profile.source["kind"]
    try:
        source = open_source(profile.source, around, market=profile.name)
        if not isinstance(source, HasToken):
            return None
        state = source.token()
    except MissingSecrets as missing:
        return Finding("token", False, str(missing))
    except OdinError as error:
        return Finding("token", False, redacted(str(error), around.secrets, secrets_of(kind)))
    until = f", until {state.expires_at:%Y-%m-%d %H:%M} UTC" if state.expires_at else ""
    return Finding("token", state.is_fresh, f"{state.detail}{until}")
