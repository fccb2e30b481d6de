"""Profiles: one YAML file is a market, and a wrong one says which field, why, and which file to correct."""

from datetime import date, time
from pathlib import Path

import polars as pl
import pytest
from realdata import market_file

from odin_core.errors import OdinError
from odin_core.market.profile import PROFILES, BadProfile, UnknownMarket, load_profile, profile_names
from odin_core.market.sources.source import source_kinds

MINIMAL = """
calendar: XNYS
calendar_first: 2020-01-01
calendar_last: 2024-12-31
first_partition: 2020-01-02
timezone: America/New_York
open: "09:30"
close: "16:00"
currency: USD
volume: traded
tick_size: 0.01
lot_size: 1
source: {kind: files}
costs: {}
execution: {}
capital: 100000
"""


def written(folder: Path, text: str, name: str = "us") -> tuple[Path, ...]:
    (folder / f"{name}.yaml").write_text(text)
    return (folder,)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_of_the_package_loads(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.costs) == {"intraday", "delivery"}
    assert profile.calendar_first <= profile.first_partition < profile.calendar_last


def test_a_new_market_is_one_file(tmp_path):
    profile = load_profile("us", written(tmp_path, MINIMAL))
    assert (profile.open, profile.currency, profile.carry_overnight) == (time(9, 30), "USD", ())
    assert profile.decision_points == ("close",)
    assert profile_names((tmp_path,)) == ["us"]


def test_a_profile_starts_from_its_base_and_replaces_what_it_names(tmp_path):
    written(tmp_path, MINIMAL)
    profile = load_profile("paper", written(tmp_path, "base: us\ncapital: 5000\n", name="paper"))
    assert profile.capital == 5000
    assert profile.calendar == "XNYS"


def test_a_wrong_value_from_the_base_is_to_be_mended_in_the_market_s_own_file(tmp_path, monkeypatch):
    (tmp_path / "markets").mkdir()
    written(tmp_path / "markets", "base: us\ncalendar_last: 2010-12-31\n", name="mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadProfile, match=r"first_partition.*with the base, from .*/us.yaml: write .* in markets/mine"):
        load_profile("mine")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("base: us\ncalendar: XETR\ntimezone: Europe/Berlin\n", "open, close", id="hours"),
        pytest.param("base: us\ncalendar: XTSE\n", "timezone, open, close", id="the zone and hours"),
        pytest.param("base: us\ntimezone: Europe/Berlin\nopen: '15:30'\n", "close", id="one hour of two"),
        pytest.param(
            "base: nse\ncalendar: XETR\ntimezone: Europe/Berlin\nopen: '09:00'\nclose: '17:30'\n",
            "special_sessions, halts", id="evenings and halts of another exchange",
        ),
        pytest.param(
            "base: metals\ncalendar: XNYS\nopen: '09:30'\nclose: '16:00'\ntimezone: America/New_York\n",
            "special_sessions, opens_day_before", id="an open on the day before",
        ),
    ],
)  # fmt: skip
def test_another_calendar_or_zone_does_not_keep_the_hours_of_the_base(tmp_path, text, kept):
    folders = (*written(tmp_path, text, name="mine"), PROFILES)
    with pytest.raises(BadProfile, match=f", but {kept} would stay as the base '.*' has them.*correct .*/mine.yaml"):
        load_profile("mine", folders)


def test_hours_that_are_said_with_the_calendar_or_the_same_calendar_again_are_fine(tmp_path):
    own = "calendar: XETR\ntimezone: Europe/Berlin\nopen: '09:00'\nclose: '17:30'\n"
    frankfurt = load_profile("mine", (*written(tmp_path, f"base: us\n{own}", name="mine"), PROFILES))
    assert (frankfurt.timezone, frankfurt.close, frankfurt.lot_size) == ("Europe/Berlin", time(17, 30), 1)
    again = load_profile("same", (*written(tmp_path, "base: us\ncalendar: XNYS\n", name="same"), PROFILES))
    assert again.open == load_profile("us").open


def test_the_demo_trades_on_nse_terms():
    demo, nse = load_profile("demo"), load_profile("nse")
    for field in (
        "calendar",
        "open",
        "close",
        "special_sessions",
        "costs",
        "execution",
        "tick_size",
        "carry_overnight",
    ):
        assert getattr(demo, field) == getattr(nse, field)
    assert (demo.range_first, demo.range_last) == (date(2023, 1, 2), date(2023, 6, 30))
    assert demo.first_partition == date(2022, 10, 3)


def test_published_charges_of_a_round_trip_of_a_lakh_intraday():
    """Zerodha's calculator for 1,000 shares bought and sold at 100: brokerage 40, STT 25, exchange 5.94, stamp 3."""
    rates = load_profile("nse").costs["intraday"]
    value = 100_000.0
    assert min(rates["brokerage_rate"] * value, rates["brokerage_cap"]) * 2 == 40
    assert rates["sell_tax_rate"] * value == pytest.approx(25)
    assert rates["exchange_rate"] * value * 2 == pytest.approx(5.94)
    assert rates["buy_tax_rate"] * value == pytest.approx(3)
    assert rates["regulator_rate"] * value * 2 == pytest.approx(0.2)


def test_an_unknown_market_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownMarket, match=r"'nes'.*did you mean nse.*demo"):
        load_profile("nes")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("open: 18:15", "open is 1095.*quoted local time", id="a bare time, which YAML reads as a number"),
        pytest.param("tick_size: 0", "tick_size is 0.*positive", id="no tick"),
        pytest.param("tick_size: five", "tick_size is 'five'.*number", id="text for a number"),
        pytest.param("volume: some", "volume is 'some'.*traded, contracts, ticks, none", id="unknown kind of volume"),
        pytest.param("tik_size: 1", "tik_size.*did you mean tick_size", id="misspelt field"),
        pytest.param("timezone: Asia/Bombai", "timezone.*IANA", id="unknown zone"),
        pytest.param("source: {kind: oracle}", "source.*kind", id="unknown source"),
        pytest.param("first_partition: 2030-01-01", "first_partition.*within", id="partitions outside the calendar"),
        pytest.param("calendar_last: soon", "calendar_last is 'soon'.*date", id="text for a date"),
        pytest.param(
            'special_sessions: [{date: 2024-01-20, open: "09:30", close: "12:00", why: test, told: "10:00"}]',
            "special_sessions.*exactly date.*why; it may have announced",
            id="another time of a session",
        ),
        pytest.param("carry_overnight: long", "carry_overnight.*list", id="one word for a list"),
        pytest.param("special_sessions: [{date: 2024-01-20}]", "special_sessions.*exactly", id="session without hours"),
        pytest.param("costs: 3", "costs.*mapping", id="number for a mapping"),
        pytest.param("halts: [{date: 2024-01-20}]", "halts.*exactly date.*start, end", id="halt without hours"),
        pytest.param("opens_day_before: true", "opens_day_before.*midnight", id="hours of one day that span midnight"),
        pytest.param("opens_day_before: maybe", "opens_day_before.*true or false", id="neither true nor false"),
        pytest.param("centres: [tokyo]", "centres.*asia, london, new_york", id="unknown centre"),
        pytest.param("lot_size: 0", "lot_size is 0.*positive", id="no lot"),
        pytest.param("instruments: {A: {lot: 1}}", "instruments.*tick_size, lot_size", id="unknown term"),
        pytest.param("instruments: {A: {lot_size: -1}}", "instruments.*positive", id="negative lot"),
        pytest.param("instruments: {A: {lot_size: {soon: 5}}}", "instruments.*dates", id="lot from no date"),
        pytest.param("instruments: {A: }", "instruments.*tick_size, lot_size", id="instrument without terms"),
        pytest.param("base: us", "base is 'us -> us'.*itself", id="its own base"),
        pytest.param("base: uss", "base is 'uss', but no market is called so; did you mean us", id="no such base"),
        pytest.param("execution: {impct: 1}", "execution is {'impct': 1}.*did you mean impact", id="misspelt entry"),
        pytest.param("execution: {impact: much}", "execution is 'much'.*a number", id="text for a number of a mapping"),
        pytest.param("tradable: 1", "tradable is 1.*true or false", id="a number for yes"),
        pytest.param("decision_points: [open]", "decision_points.*close is the only one", id="unknown decision"),
        pytest.param(
            "source: {kind: files, symbols: [A]}", "source is {'symbols': .*kind files has no", id="another's"
        ),
        pytest.param("source: {kind: kite, symbls: [A]}", "source is {'symbls': .*did you mean symbols", id="misspelt"),
        pytest.param("source: {kind: postgres, schemas: a}", "source is {'schemas'.*mean schema", id="one letter more"),
        pytest.param("source: {kind: kite, symbols: TCS}", "symbols must be a list of names", id="a name for a list"),
        pytest.param("source: {kind: kite, symbols: [TCS, ON]}", "a list of names.*quote", id="a name that is true"),
        pytest.param("source: {kind: kite, recheck: -1}", "recheck must be a whole number", id="negative recheck"),
        pytest.param("source: {kind: kite, interval: 5min}", "'5min' is no interval", id="unknown interval"),
        pytest.param(
            "source: {kind: synthetic, symbols: [A]}", "symbols must be a whole number", id="a list, no number"
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_rule_and_its_file(tmp_path, line, message):
    kept = [kept for kept in MINIMAL.splitlines() if kept.split(":")[0] != line.split(":")[0]]
    with pytest.raises(BadProfile, match=f"market 'us'.*{message}.*; correct {tmp_path}/us.yaml$"):
        load_profile("us", written(tmp_path, "\n".join([*kept, line])))


@pytest.mark.parametrize("kind", ["files", "synthetic", *source_kinds()])
def test_every_kind_of_source_that_there_is_may_be_named(tmp_path, kind):
    text = MINIMAL.replace("{kind: files}", f"{{kind: {kind}}}")
    assert load_profile("us", written(tmp_path, text)).source == {"kind": kind}


def test_dates_that_share_their_hours_are_written_once(tmp_path):
    lines = 'special_sessions: [{dates: [2024-01-20, 2024-01-27], open: "09:30", close: "12:00", why: test}]'
    profile = load_profile("us", written(tmp_path, MINIMAL + lines))
    assert [(s.date, s.close) for s in profile.special_sessions] == [
        (date(2024, 1, 20), time(12)),
        (date(2024, 1, 27), time(12)),
    ]


@pytest.mark.parametrize(
    ("market", "symbol", "on", "expected"),
    [
        pytest.param("crypto", "BTCUSDT", date(2024, 1, 1), (0.01, 0.00001), id="itself"),
        pytest.param("crypto", "BTCUSD.BINANCEUS", date(2024, 1, 1), (0.01, 0.00001), id="at a venue"),
        pytest.param("crypto", "SOLUSDT", date(2024, 1, 1), (0.01, 0.001), id="unlisted: the market's"),
        pytest.param("futures", "ESZ4", date(2024, 12, 20), (0.25, 50), id="a future's month"),
        pytest.param("futures", "6EH4", date(2024, 1, 2), (0.00005, 125000), id="a root that begins with a digit"),
        pytest.param("futures", "ESTX", date(2024, 1, 2), (0.01, 1), id="a longer name is no contract of ES"),
        pytest.param("nse_options", "NIFTY01FEB2420450PE", date(2024, 2, 1), (0.05, 50), id="before the lot changed"),
        pytest.param("nse_options", "NIFTY30MAY2420450PE", date(2024, 5, 30), (0.05, 25), id="after it did"),
        pytest.param("nse_options", "NIFTY-I", date(2015, 1, 1), (0.05, 75), id="before all dates: the earliest known"),
        pytest.param("nse_options", "BANKNIFTY25JULFUT", date(2025, 7, 31), (0.05, 35), id="not NIFTY's"),
        pytest.param("nse_options", "360ONE25NOV251000CE", date(2025, 11, 25), (0.05, 1), id="a share's contract"),
    ],
)
def test_terms_are_of_the_symbol_or_of_its_root_on_that_date(market, symbol, on, expected):
    terms = load_profile(market).terms(symbol, on)
    assert (terms.tick_size, terms.lot_size) == expected


def test_a_missing_field_is_named(tmp_path):
    with pytest.raises(BadProfile, match="currency is None, but it is required"):
        load_profile("us", written(tmp_path, MINIMAL.replace("currency: USD\n", "")))


@pytest.mark.parametrize("text", ["- a\n- b\n", "open: [\n"])
def test_a_file_that_is_no_mapping_is_an_error_of_the_user(tmp_path, text):
    with pytest.raises(OdinError, match=f"correct {tmp_path}/us.yaml$"):
        load_profile("us", written(tmp_path, text))


def test_indices_have_prices_but_take_no_orders():
    nse = load_profile("nse")
    symbols = pl.read_parquet(market_file("nse_equity_1m_2016.parquet"), columns=["symbol", "volume"])
    never_traded = symbols.group_by("symbol").agg(pl.col("volume").sum()).filter(pl.col("volume") == 0)["symbol"]
    assert never_traded.sort().to_list() == [s for s in symbols["symbol"].unique().sort() if not nse.is_tradable(s)]
    assert not nse.is_tradable("BANKNIFTY")
    assert nse.is_tradable("RELIANCE")


def test_a_market_of_ones_own_lies_in_the_folder_markets_and_may_begin_from_the_one_it_hides(tmp_path, monkeypatch):
    own = tmp_path / "markets"
    own.mkdir()
    written(own, "base: nse\nsource: {kind: kite, symbols: [TCS]}\n", name="nse")
    written(own, "base: nse\ncapital: 5000\n", name="small")
    monkeypatch.chdir(tmp_path)
    assert {"small", "nse", "crypto"} <= set(profile_names())
    nse, small = load_profile("nse"), load_profile("small")
    assert nse.source == {"kind": "kite", "symbols": ["TCS"]}
    assert small.capital == 5000
    assert small.source == nse.source
    assert nse.special_sessions
    monkeypatch.chdir("/")
    assert "small" not in profile_names()
    assert load_profile("nse").source == {"kind": "files"}
    with pytest.raises(UnknownMarket, match=r"markets/small\.yaml"):
        load_profile("small")
