"""Checks that are not of one run's sessions: is a market's history up to date, would its source let us in?

What they look at is `market.intake.checking`, which `odin data check` shows too. A failed one is red in Dagit and
a line in the home's `alarms.jsonl`. When they run is `schedules`."""

from collections.abc import Callable

import dagster as dg

from odin_assets.resources import OdinHome, around, now, users_mistakes
from odin_core.home import Home
from odin_core.market.intake.checking import Finding, check_freshness, check_token
from odin_core.market.intake.fetching import can_fetch
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.market.sources.source import Around
from odin_core.monitoring.alarms import raise_alarm


def market_checks(market: str) -> list[dg.AssetChecksDefinition]:
    """`is_up_to_date` for markets of real bars, `token_is_fresh` for those whose source has a login."""
    profile = load_profile(market)
    checks = []
    if profile.source["kind"] != "synthetic":
        checks.append(_check(profile, "is_up_to_date", "The last session that is over has bars.", check_freshness))
    if can_fetch(profile):
        says = "The source would take the token; a broker's daily login runs out every morning."
        checks.append(
            _check(profile, "token_is_fresh", says, lambda home, profile, around: check_token(profile, around))
        )
    return checks


def _check(
    profile: MarketProfile,
    name: str,
    description: str,
    look: Callable[[Home, MarketProfile, Around], Finding | None],
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=dg.AssetKey([profile.name, "price_history"]), name=name, description=description)
    def check(odin: OdinHome) -> dg.AssetCheckResult:
        with users_mistakes():
            home = odin.open()
            finding = look(home, profile, around())
            if finding is None:
                return dg.AssetCheckResult(passed=True, metadata={"detail": "the source needs no token"})
            if not finding.passed:
                raise_alarm(home, at=now(), market=profile.name, name=name, detail=finding.detail)
        return dg.AssetCheckResult(passed=finding.passed, metadata={"detail": finding.detail})

    return check
