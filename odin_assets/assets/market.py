"""Group market: minute bars by session, and what is wrong with them. What else is known of the instruments (corporate
actions, fundamentals, open interest) is `assets.reference`.

A market whose source can be asked brings in what is missing when `price_history` is materialised; others show what
`odin data import` brought."""

import dagster as dg
import polars as pl

from odin_assets.partitions import BySession, by_session, session_of
from odin_assets.resources import OdinHome, around, now, reported, tell, users_mistakes
from odin_core.market.bars import BARS, KEY
from odin_core.market.intake.fetching import FetchProgress, can_fetch, fetch_market
from odin_core.market.intake.tap import compact
from odin_core.market.profile import load_profile
from odin_core.market.quality.assessing import FINDINGS, blocking
from odin_core.market.quality.report import quality_report as write_up
from odin_core.monitoring.alerts import raise_alert

NAMED = 20  # findings that a check's metadata spells out


def of_market(market: str) -> BySession:
    """What every asset of this group says of itself."""
    return by_session(market, "market", "team:market-data", "parquet", "polars")


def market_assets(market: str) -> list[dg.AssetsDefinition]:
    profile = load_profile(market)
    sound = dg.AssetCheckSpec(
        "bars_are_sound",
        asset=dg.AssetKey([market, "price_history"]),
        blocking=True,
        description="Schema, key and OHLC order hold in every session of the run.",
    )
    usable = dg.AssetCheckSpec(
        "no_error_found",
        asset=dg.AssetKey([market, "data_quality"]),
        blocking=True,
        description="No session of the run has a finding of severity error that nobody accepted.",
    )

    @dg.asset(**of_market(market), code_version="2", check_specs=[sound])
    def price_history(context: dg.AssetExecutionContext, odin: OdinHome) -> dg.MaterializeResult:
        """One-minute bars of the universe, raw, stamped with their start and usable from their end (`known_at`).

        Where the market's source can be asked, what is missing of the sessions is fetched first."""
        with users_mistakes():
            if can_fetch(profile):
                _fetch(context, market, odin)
            data = odin.data(market)
            unsound: dict[str, str] = {}
            for key in context.partition_keys:
                bars = data.bars(session_of(key))
                if fault := fault_of(bars):
                    unsound[key] = fault
                numbers = {
                    "rows": bars.height,
                    "symbols": bars["symbol"].n_unique(),
                    "volume": float(bars["volume"].sum() or 0),
                }
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)
                tell("price_history", key)
        check = dg.AssetCheckResult(check_name="bars_are_sound", passed=not unsound, metadata={"sessions": unsound})
        return dg.MaterializeResult(check_results=[check])

    @dg.asset(**of_market(market), code_version="2", deps=[price_history], check_specs=[usable])
    def data_quality(context: dg.AssetExecutionContext, odin: OdinHome) -> dg.MaterializeResult:
        """What is wrong with the bars, one row per finding: gaps, bad ticks, jumps, stale repeats, late data.

        An error stops what follows until it is mended, or accepted with `odin data accept`."""
        errors: list[str] = []
        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                has_bars = data.has(session_of(key))
                findings = data.defects(session_of(key)) if has_bars else FINDINGS.to_frame()
                bad = blocking(findings)
                errors += [f"{key} {symbol} {rule}" for symbol, rule in bad.select("symbol", "rule").rows()]
                severities = dict(findings["severity"].value_counts().iter_rows())
                numbers = {
                    "has_bars": int(has_bars),
                    "findings": findings.height,
                    "warnings": severities.get("warning", 0),
                    "errors": bad.height,
                }
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)
        facts = {"errors": len(errors), "first": errors[:NAMED]}
        check = dg.AssetCheckResult(check_name="no_error_found", passed=not errors, metadata=facts)
        return dg.MaterializeResult(check_results=[check])

    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(data_quality, partition_mapping=dg.AllPartitionMapping())],
        group_name="market",
        owners=["team:market-data"],
        kinds={"matplotlib"},
        code_version="1",
    )
    def quality_report(odin: OdinHome) -> dg.MaterializeResult:
        """What there is of the bars, what is wrong with them and what to do, with a picture of the coverage."""
        with users_mistakes():
            data = odin.data(market)
            have = data.sessions()
            if not have:
                return dg.MaterializeResult(metadata={"status": "no bars yet"})
            report = write_up(data.lake, profile, data.calendar, have[0], have[-1])
            page = odin.open().reports / f"quality_{market}.html"
            return reported(
                page,
                markdown=report.markdown,
                html=report.html,
                picture=("coverage", report.picture),
                errors=report.blocked.height,
                sessions=len(report.stored),
                sessions_without_bars=len(report.missing),
            )

    return [price_history, data_quality, quality_report]


def _fetch(context: dg.AssetExecutionContext, market: str, odin: OdinHome) -> None:
    """Ask the source for what is missing of the run's sessions, and say in the run's log how far it is."""
    home = odin.open()

    def say(step: FetchProgress) -> None:
        context.log.info(f"{step.window} {step.symbol}: {step.done} of {step.total}")

    profile, sessions = load_profile(market), [session_of(key) for key in context.partition_keys]
    with home.writer(f"fetching {market}"):
        if (home.tap / market).is_dir():  # first what was tapped, then the vendor's own bars in its place
            calendar, lake = odin.data(market).calendar, home.lake(market)
            for session in sessions:
                tapped = compact(home.tap, market, lake=lake, calendar=calendar, session=session)
                if tapped.pages:
                    context.log.info(tapped.to_text())
        report = fetch_market(home, profile, around(), sessions, progress=say)
    context.log.info(report.to_text())
    for symbol, why in report.refused.items():
        context.log.warning(f"{symbol}: {why}")
    life = odin.life(market)
    decided = [s for s in report.changed_sessions if life and life.head and life.first_session <= s <= life.head]
    if decided:
        said = (
            f"bars of {len(decided)} sessions that life {life.id if life else ''} had decided on came late or were "
            f"corrected, so it is outdated from {decided[0]} on; odin life rewind --market {market} recomputes"
        )
        context.log.warning(said)
        raise_alert(home, at=now(), market=market, rule="bars_corrected", text=said)


def fault_of(bars: pl.DataFrame) -> str | None:
    """The first rule that a session's bars break; None where they are sound or there are none."""
    if bars.schema != BARS:
        return f"columns are {dict(bars.schema)}"
    rules = {
        "(symbol, ts) is unique": ~pl.struct(KEY).is_duplicated(),
        "prices are positive": pl.min_horizontal("open", "high", "low", "close") > 0,
        "high and low enclose open and close": (pl.col("high") >= pl.max_horizontal("open", "close"))
        & (pl.col("low") <= pl.min_horizontal("open", "close")),
        "known_at is after ts": pl.col("known_at") > pl.col("ts"),
    }
    holds = bars.select(**{rule: condition.all() for rule, condition in rules.items()}).row(0, named=True)
    return next((rule for rule, ok in holds.items() if not ok), None)
