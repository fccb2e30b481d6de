"""Checks that are not of one run's sessions: is a market's history up to date, would its source let us in?

What they look at is `market.intake.checking`, which `odin data check` shows too. A failed one is red in Dagit and
an alert in the home's `alerts.jsonl`. When they run is `schedules`."""

import dagster as dg

from odin_assets.resources import OdinHome, around, now, users_mistakes
from odin_core.market.intake.checking import Finding, check_freshness, check_token
from odin_core.market.intake.fetching import can_fetch
from odin_core.market.profile import load_profile
from odin_core.monitoring.alerts import raise_alert


def check_keys(market: str) -> list[dg.AssetCheckKey]:
    """`is_up_to_date` of a market of real bars, `token_is_fresh` of one whose source is asked for them."""
    profile = load_profile(market)
    names = ["is_up_to_date"] * (profile.source["kind"] != "synthetic") + ["token_is_fresh"] * can_fetch(profile)
    return [dg.AssetCheckKey(dg.AssetKey([market, "price_history"]), name) for name in names]


def market_checks(market: str) -> list[dg.AssetChecksDefinition]:
    profile = load_profile(market)
    key = dg.AssetKey([market, "price_history"])

    @dg.asset_check(asset=key, name="is_up_to_date", description="The last session that is over has bars.")
    def is_up_to_date(odin: OdinHome) -> dg.AssetCheckResult:
        with users_mistakes():
            life = odin.life(market)
            if not (can_fetch(profile) or (life and life.config.live)):
                return dg.AssetCheckResult(
                    passed=True, metadata={"detail": "recorded history; no live life needs more"}
                )
            return _told(odin, market, "is_up_to_date", check_freshness(odin.open(), profile, around()))

    @dg.asset_check(
        asset=key,
        name="token_is_fresh",
        description="The source would take the token; a broker's daily login runs out every morning.",
    )
    def token_is_fresh(odin: OdinHome) -> dg.AssetCheckResult:
        with users_mistakes():
            finding = check_token(profile, around())
            if finding is None:
                return dg.AssetCheckResult(passed=True, metadata={"detail": "the source needs no token"})
            return _told(odin, market, "token_is_fresh", finding)

    return [check for check in (is_up_to_date, token_is_fresh) if check.check_key in check_keys(market)]


def _told(odin: OdinHome, market: str, name: str, finding: Finding) -> dg.AssetCheckResult:
    """A finding as Dagit shows it; one that did not pass is an alert besides."""
    if not finding.passed:
        raise_alert(odin.open(), at=now(), market=market, rule=name, text=finding.detail)
    return dg.AssetCheckResult(passed=finding.passed, metadata={"detail": finding.detail})
