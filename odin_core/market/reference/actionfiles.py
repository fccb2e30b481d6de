"""Files of corporate actions as rows of one shape, each with the first rule that it breaks.

Three layouts are told apart by their columns. *Actions*: symbol, ex_date, kind and, as the kind needs them, ratio,
amount, other, known_at. *Adjusted events* (as Yahoo gives them): symbol, a date, dividend, split; a zero is none, and
a dividend is per share of the file's end. *Factors* (LEAN): date, price_factor, split_factor, ref_price, with a symbol
or without header and `symbol` told. Which rows are the same event again is found in `actionchecks`."""

from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.calendar import DAY, SessionCalendar
from odin_core.market.intake.knowntables import SourceFile, dates, first_broken, instants, numbers
from odin_core.market.reference.actions import ACTIONS, KINDS, SHARES

EVENTS = pl.Schema(
    {
        "row": pl.Int64(),
        **{name: ACTIONS[name] for name in ("symbol", "ex_date", "known_at", "kind", "ratio", "amount", "other")},
        "per_last_share": pl.Boolean(),  # the amount is per share of the file's end, not of the ex-date
        "rule": pl.String(),  # the first one that is broken
    }
)  # known_at is null where the file does not say it
RULES: Final = {
    "no_symbol": "no symbol",
    "bad_date": "the ex-date cannot be read",
    "bad_known_at": "the time of knowledge cannot be read",
    "unknown_kind": f"the kind is none of {', '.join(KINDS)}",
    "no_event": "neither a dividend nor a split",
    "bad_ratio": "a split, bonus or merger needs a ratio above 0, and a split or bonus one other than 1",
    "bad_amount": "a dividend needs an amount above 0",
    "no_other": "a merger or rename needs the other symbol",
    "bad_factor": "a factor is missing or not above 0",
    "outside_calendar": "known only after the end of the market's calendar",
    "duplicate": "the same event again",
    "conflict": "the same symbol, ex-date and kind as an earlier row, with other values",
    "repeated": "the same event on another date",
    "contradicted": "raw prices show no such split within ten days",
    "above_price": "a dividend of the last raw close before it or more",
}
YAHOO: Final = {"dividends": "dividend", "stock_splits": "split", "splits": "split", "date": "ts", "ex_date": "ts"}
FACTORS: Final = ("date", "price_factor", "split_factor", "ref_price")
SAME_FACTOR: Final = 1e-6  # a smaller change of a factor, relative, is rounding


class UnknownActionLayout(OdinError):
    def __init__(self, file: SourceFile) -> None:
        super().__init__(
            f"{file.origin} has the columns {', '.join(file.raw.columns)}, which are no corporate actions; give "
            f"symbol, ex_date, kind, ratio, amount, other (known_at if you have it), or symbol, date, dividend, split, "
            f"or a factor file (date, price_factor, split_factor, ref_price)"
        )


class NoFactorSymbol(OdinError):
    def __init__(self, file: SourceFile) -> None:
        super().__init__(f"{file.origin} is a factor file that does not say of which symbol; name it with --symbol")


class Read(NamedTuple):
    layout: str
    events: pl.DataFrame  # EVENTS


def read_events(file: SourceFile, zone: ZoneInfo, calendar: SessionCalendar, symbol: str | None) -> Read:
    """The events of a file, in its order. Raises UnknownActionLayout, NoFactorSymbol."""
    raw = file.raw
    if raw.columns == ["0", "1", "2", "3"]:
        raw = raw.rename(dict(zip(raw.columns, FACTORS, strict=True)))
    if {"symbol", "ex_date", "kind"} <= set(raw.columns):
        return Read("actions", _actions(raw, zone))
    if set(FACTORS) <= set(raw.columns):
        if "symbol" not in raw.columns and symbol is None:
            raise NoFactorSymbol(file)
        named = raw if "symbol" in raw.columns else raw.with_columns(symbol=pl.lit(symbol))
        return Read("factors", actions_from_factors(named, calendar))
    renamed = raw.rename({old: new for old, new in YAHOO.items() if old in raw.columns and new not in raw.columns})
    if {"symbol", "ts", "dividend", "split"} <= set(renamed.columns):
        return Read("adjusted events", _adjusted_events(renamed))
    raise UnknownActionLayout(file)


def actions_from_factors(raw: pl.DataFrame, calendar: SessionCalendar) -> pl.DataFrame:
    """EVENTS out of LEAN factors: symbol, date, price_factor, split_factor, ref_price, any order.

    A row's factors hold up to and including its date, so a change is an ex-date on the next session. The ratio is the
    quotient of the split factors, and the amount ref_price · (1 − quotient of the price factors), ref_price being the
    raw close of the row's date. The last row of a symbol ends nothing (LEAN dates it 2050-12-31).
    Source: QuantConnect LEAN, Common/Data/Auxiliary/FactorFileRow."""
    rows = pl.DataFrame(
        {
            "row": pl.int_range(raw.height, eager=True, dtype=pl.Int64),
            "symbol": _text(raw["symbol"]),
            "date": dates(raw["date"]),
            **{name: numbers(raw[name]) for name in FACTORS[1:]},
        }
    )
    factor = pl.min_horizontal("price_factor", "split_factor")
    broken = {
        "no_symbol": pl.col("symbol").is_null(),
        "bad_date": pl.col("date").is_null(),
        "bad_factor": factor.is_null() | (factor <= 0) | pl.any_horizontal(pl.col(FACTORS[1:]).is_null()),
    }
    rows = rows.with_columns(rule=first_broken(broken))
    sound = rows.filter(pl.col("rule").is_null()).sort("symbol", "date")
    after = {name: pl.col(name).shift(-1).over("symbol") for name in FACTORS[1:3]}
    changes = sound.with_columns(
        ratio=after["split_factor"] / pl.col("split_factor"),
        share=1 - pl.col("price_factor") / after["price_factor"],
    ).with_columns(ex_date=_next_session(sound["date"], calendar))
    splits = changes.filter((pl.col("ratio") - 1).abs() > SAME_FACTOR)
    paid = changes.filter(pl.col("share") > SAME_FACTOR)
    parts = [
        splits.with_columns(kind=pl.lit("split")),
        paid.with_columns(kind=pl.lit("dividend"), amount=pl.col("ref_price") * pl.col("share")).drop("ratio"),
        rows.filter(pl.col("rule").is_not_null()),
    ]
    return _events(pl.concat(parts, how="diagonal"))


def _actions(raw: pl.DataFrame, zone: ZoneInfo) -> pl.DataFrame:
    given = {name: raw[name] if name in raw.columns else pl.Series([None] * raw.height, dtype=pl.String)
             for name in ("ratio", "amount", "other", "known_at")}  # fmt: skip
    rows = pl.DataFrame(
        {
            "row": pl.int_range(raw.height, eager=True, dtype=pl.Int64),
            "symbol": _text(raw["symbol"]),
            "ex_date": dates(raw["ex_date"]),
            "known_at": instants(given["known_at"], zone),
            "kind": _text(raw["kind"]).str.to_lowercase(),
            "ratio": numbers(given["ratio"]),
            "amount": numbers(given["amount"]),
            "other": _text(given["other"]),
            "known_given": _text(given["known_at"]).is_not_null(),
        }
    )
    kind, ratio = pl.col("kind"), pl.col("ratio").fill_null(0.0)
    shares, merger = kind.is_in(SHARES), kind == "merger"
    broken = {
        "no_symbol": pl.col("symbol").is_null(),
        "bad_date": pl.col("ex_date").is_null(),
        "bad_known_at": pl.col("known_given") & pl.col("known_at").is_null(),
        "unknown_kind": kind.is_null() | ~kind.is_in(KINDS),
        "bad_ratio": ((shares | merger) & (ratio <= 0)) | (shares & (ratio == 1)),
        "bad_amount": ((kind == "dividend") & (pl.col("amount").fill_null(0.0) <= 0)) | (pl.col("amount") < 0),
        "no_other": kind.is_in(["merger", "rename"]) & pl.col("other").is_null(),
    }
    told = rows.with_columns(
        rule=first_broken(broken),
        ratio=pl.when(shares | merger).then("ratio"),
        amount=pl.when((kind == "dividend") | merger).then("amount"),
        other=pl.when(kind.is_in(["merger", "rename"])).then("other"),
    )
    return _events(told)


def _adjusted_events(raw: pl.DataFrame) -> pl.DataFrame:
    rows = pl.DataFrame(
        {
            "row": pl.int_range(raw.height, eager=True, dtype=pl.Int64),
            "symbol": _text(raw["symbol"]),
            "ex_date": dates(raw["ts"]),
            "amount": numbers(raw["dividend"]),
            "ratio": numbers(raw["split"]),
        }
    )
    amount, ratio = pl.col("amount").fill_null(0.0), pl.col("ratio").fill_null(0.0)
    broken = {
        "no_symbol": pl.col("symbol").is_null(),
        "bad_date": pl.col("ex_date").is_null(),
        "no_event": (amount == 0) & (ratio == 0),
        "bad_ratio": (ratio < 0) | (ratio == 1),
        "bad_amount": amount < 0,
    }
    rows = rows.with_columns(rule=first_broken(broken))
    sound = rows.filter(pl.col("rule").is_null())
    splits = sound.filter(ratio > 0).with_columns(kind=pl.lit("split")).drop("amount")
    paid = sound.filter(amount > 0).with_columns(kind=pl.lit("dividend"), per_last_share=pl.lit(True)).drop("ratio")
    return _events(pl.concat([splits, paid, rows.filter(pl.col("rule").is_not_null())], how="diagonal"))


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in EVENTS.items() if name not in rows.columns]
    whole = rows.with_columns(lacking).with_columns(pl.col("per_last_share").fill_null(False))
    return whole.select(EVENTS.names()).cast(EVENTS).sort("row", "kind")


def _next_session(days: pl.Series, calendar: SessionCalendar) -> pl.Series:
    """The session after each date; the date after where the calendar does not reach."""
    following = {}
    for day in days.unique().drop_nulls():
        try:
            following[day] = calendar.next(day)
        except OdinError:
            following[day] = day + DAY
    return days.replace_strict(following, default=None, return_dtype=pl.Date)


def _text(column: pl.Series) -> pl.Series:
    """Stripped text; what is empty is null."""
    text = column.cast(pl.String).str.strip_chars()
    return pl.select(pl.when(text != "").then(text)).to_series()
