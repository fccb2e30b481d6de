"""Rows of a file as bars, by the file's layout: names, numbers, stamps, symbols and the terms of derivatives.

No file is opened here and no row is left out or judged: what cannot be read becomes null (infinite, for a volume or
open interest, so that it differs from one that is missing) and is judged by `intake.judging`."""

import re
from collections.abc import Mapping
from string import Formatter
from typing import Literal, NamedTuple

import polars as pl

from odin_core.market.bars import MINUTE, UTC
from odin_core.market.intake.judging import minutes_of
from odin_core.market.intake.layout import EPOCHS, TERMS, Layout
from odin_core.market.sources.source import INSTRUMENTS, SOURCE_BARS

ISO = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z")
PRICES = ("open", "high", "low", "close")
MISSING = ("", "-", "--", "na", "n/a", "nan", "null", "none", "nil")  # what files write where they have no number
Zone = Literal["in the stamps", "of the layout", "missing"]


class Reading(NamedTuple):
    """Rows as bars. `zone`: where the zone of the stamps came from; "missing": they have none and the layout names
    none, so they were taken for UTC. `instruments`: INSTRUMENTS of the symbols with terms; None where there are none.
    `unread`: of each row the first stamp or price, with its column, that stands there and could not be read, else null;
    None where no such column is text."""

    bars: pl.DataFrame
    zone: Zone
    instruments: pl.DataFrame | None
    unread: pl.Series | None


def read_by(layout: Layout, found: Mapping[str, str], raw: pl.DataFrame) -> Reading:
    """Bars (SOURCE_BARS; a tick is one whose four prices are its own), one per row and in the same order. `found`:
    which column of `raw` is which of the layout's."""
    ts, zone = stamps_of(layout, found, raw)
    columns = {p: found["price" if layout.rows != "bars" else p] for p in PRICES}
    price = {p: _number(layout, raw, name) for p, name in columns.items()}
    prices = [(value / layout.price_divisor).alias(name) for name, value in price.items()]
    terms = _terms(layout, found, raw)
    bars = raw.select(
        ts,
        *prices,
        *(_figure(layout, raw, found.get(name)).alias(name) for name in ("volume", "oi")),
        _symbol(layout, found).alias("symbol"),
        *terms.values(),
    )
    if "ts" not in found:  # the day is given from outside, to every row that is a bar
        bars = bars.with_columns(pl.when(pl.any_horizontal(pl.col(p).is_not_null() for p in PRICES)).then("ts"))
    if layout.symbol_form is not None:
        bars = bars.with_columns(_made_symbol(layout.symbol_form))
    unread = _unread(layout, found, raw, ts, list(dict.fromkeys(columns.values())))
    return Reading(bars.select(*SOURCE_BARS), zone, _instruments(bars) if terms else None, unread)


def _unread(
    layout: Layout, found: Mapping[str, str], raw: pl.DataFrame, ts: pl.Series, prices: list[str]
) -> pl.Series | None:
    """See Reading. What stands for a missing value was read."""
    failed: list[pl.Expr] = []
    if "ts" in found and raw.schema[found["ts"]] == pl.String:
        given = _stamp_text(raw, found)
        is_failed = ts.is_null() & ~given.fill_null("").str.to_lowercase().is_in(MISSING)
        failed.append(pl.when(is_failed).then(pl.lit(f"{found['ts']} ") + given))
    for name in (name for name in prices if raw.schema[name] == pl.String):
        given = _text(raw, name)
        is_failed = _number(layout, raw, name).is_null() & ~given.str.to_lowercase().is_in(MISSING)
        failed.append(pl.when(is_failed).then(pl.lit(f"{name} ") + given))
    return raw.select(pl.coalesce(failed).alias("unread")).to_series() if failed else None


def _text(raw: pl.DataFrame, name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars() if raw.schema[name] == pl.String else pl.col(name)


def _number(layout: Layout, raw: pl.DataFrame, name: str) -> pl.Expr:
    value = _text(raw, name)
    if raw.schema[name] == pl.String:
        value = _with_point(layout, value)
    return value.cast(pl.Float64, strict=False)


def _with_point(layout: Layout, value: pl.Expr) -> pl.Expr:
    """Numbers without separators of thousands and with a point before their decimals. A separator counts as one only
    before groups of digits, the last of them three (1,234,567 or 12,34,567); elsewhere the number stays as it is and
    cannot be read, and so does one with a point where decimals follow a comma."""
    if layout.thousands is not None:
        apart, point = re.escape(layout.thousands), re.escape(layout.decimal)
        groups = rf"^[+-]?\d{{1,3}}(?:{apart}\d{{2,3}})*{apart}\d{{3}}(?:{point}\d*)?$"
        plain = value.str.replace_all(layout.thousands, "", literal=True)
        value = pl.when(value.str.contains(groups)).then(plain).otherwise(value)
    if layout.decimal == ".":
        return value
    return pl.when(~value.str.contains(".", literal=True)).then(value.str.replace(layout.decimal, ".", literal=True))


def _figure(layout: Layout, raw: pl.DataFrame, name: str | None) -> pl.Expr:
    """A number that may be missing: infinite where it was given and could not be read."""
    if name is None:
        return pl.lit(None, pl.Float64)
    number = _number(layout, raw, name)
    if raw.schema[name] != pl.String:
        return number
    return pl.when(number.is_null() & (_text(raw, name) != "")).then(float("inf")).otherwise(number)


def _symbol(layout: Layout, found: Mapping[str, str]) -> pl.Expr:
    symbol = pl.lit(layout.symbol, pl.String)
    if "symbol" in found:
        symbol = pl.col(found["symbol"]).cast(pl.String).str.strip_chars()
    if "series" not in found or not layout.main_series:
        return symbol
    series = pl.col(found["series"]).cast(pl.String).str.strip_chars()
    return (
        pl.when(series.is_in(layout.main_series)).then(symbol).otherwise(pl.concat_str(symbol, series, separator="-"))
    )


def _made_symbol(form: str) -> pl.Expr:
    """A contract's symbol out of its terms, in capitals; null where a term is."""
    parts: list[pl.Expr] = []
    for literal, name, spec, _ in Formatter().parse(form):
        parts.append(pl.lit(literal))
        if name == "expiry":
            parts.append(pl.col(name).dt.strftime(spec or "%d%b%y"))
        elif name is not None:
            parts.append(pl.col(name).cast(pl.String).str.replace(r"\.0$", ""))
    return pl.concat_str(parts).str.to_uppercase().alias("symbol")


def stamps_of(layout: Layout, found: Mapping[str, str], raw: pl.DataFrame) -> tuple[pl.Series, Zone]:
    """`ts` in UTC as the start of the bar, and where its zone came from."""
    if "ts" not in found:
        dated = pl.Series("ts", [layout.date], dtype=pl.Date).cast(UTC).new_from_index(0, raw.height)
        return dated, "of the layout"
    given = raw[found["ts"]]
    if given.dtype == pl.String:
        ts, zone = _parsed(layout, _stamp_text(raw, found))
    elif given.dtype.is_numeric():
        ts, zone = _since_1970(layout, given), "in the stamps"
    else:
        ts, zone = _typed(layout, given)
    sane = ts.dt.year().is_between(1, 9998)
    ts = ts.set(~sane.fill_null(True), None).alias("ts")
    minutes = minutes_of(layout.interval)
    is_end = layout.stamps == "end" and layout.rows == "bars" and minutes is not None
    return (ts - MINUTE * minutes if is_end and minutes else ts), zone


def _zone_of_naive(layout: Layout) -> Zone:
    return "missing" if layout.timezone is None and not layout.is_dated_by_day else "of the layout"


def _stamp_text(raw: pl.DataFrame, found: Mapping[str, str]) -> pl.Series:
    columns = [found[name] for name in ("ts", "clock") if name in found]
    parts = [pl.col(name).cast(pl.String).str.strip_chars() for name in columns]
    return raw.select(pl.concat_str(parts, separator=" ").alias("ts")).to_series()


def _typed(layout: Layout, given: pl.Series) -> tuple[pl.Series, Zone]:
    """Stamps that are dates or instants already."""
    zone = getattr(given.dtype, "time_zone", None)
    if zone is not None:
        return given.cast(pl.Datetime("us", zone)).dt.convert_time_zone("UTC"), "in the stamps"
    return _zoned(layout, given.cast(pl.Datetime("us"))), _zone_of_naive(layout)


def _zoned(layout: Layout, local: pl.Series) -> pl.Series:
    """Local stamps in UTC. An hour that the clocks showed twice, or never, is no time."""
    zone = "UTC" if layout.is_dated_by_day else layout.timezone or "UTC"
    aware = local.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return aware.dt.convert_time_zone("UTC")


def _since_1970(layout: Layout, number: pl.Series) -> pl.Series:
    unit = next((EPOCHS[form] for form in layout.time_formats if form in EPOCHS), 1)
    return (number.cast(pl.Float64) * unit).round().cast(pl.Int64, strict=False).cast(UTC)


def _parsed(layout: Layout, text: pl.Series) -> tuple[pl.Series, Zone]:
    """Text as UTC by the first format that fits, those with a zone before the others; what fits none is null, and so is
    a stamp without a zone among others that have one, where the layout names none."""
    if layout.year_offset:
        text = _in_gregorian_years(text, layout.year_offset)
    stamps = pl.Series("ts", [None], dtype=UTC).new_from_index(0, len(text))
    has_zoned = has_naive = False
    for form in sorted(layout.time_formats, key=lambda form: not _is_zoned(form)):
        missing = stamps.is_null()
        if not (missing & text.is_not_null()).any():
            break
        if _is_zoned(form):
            read = _parsed_zoned(layout, form, text)
            has_zoned |= bool(read.is_not_null().any())
        elif has_zoned and _zone_of_naive(layout) == "missing":
            break
        else:
            read = _zoned(layout, text.str.to_datetime(form, time_unit="us", strict=False))
            has_naive |= bool((missing & read.is_not_null()).any())
        stamps = stamps.zip_with(~missing, read.alias("ts"))
    if has_zoned and not has_naive:
        return stamps, "in the stamps"
    return stamps, _zone_of_naive(layout) if has_naive else "of the layout"


def _is_zoned(form: str) -> bool:
    return form == "iso" or form in EPOCHS or "z" in form.replace("%%", "")


def _parsed_zoned(layout: Layout, form: str, text: pl.Series) -> pl.Series:
    if form in EPOCHS:
        return _since_1970(layout, text.cast(pl.Float64, strict=False))
    if form != "iso":
        return text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
    iso = text.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    parsed = [iso.str.to_datetime(f, time_unit="us", time_zone="UTC", strict=False) for f in ISO]
    return pl.select(pl.coalesce(parsed)).to_series()


def _in_gregorian_years(text: pl.Series, offset: int) -> pl.Series:
    """The first four digits of each stamp less the offset, before it is read: 29 February is none in every calendar."""
    parts = pl.col("ts").str.extract_groups(r"^(.*?)(\d{4})(.*)$")
    year = (parts.struct.field("2").cast(pl.Int64) - offset).cast(pl.String).str.zfill(4)
    whole = pl.concat_str(parts.struct.field("1"), year, parts.struct.field("3"))
    return text.alias("ts").to_frame().select(whole.alias("ts")).to_series()


def _terms(layout: Layout, found: Mapping[str, str], raw: pl.DataFrame) -> dict[str, pl.Expr]:
    terms: dict[str, pl.Expr] = {}
    for name in (term for term in TERMS if term in found):
        column = found[name]
        if name in ("underlying", "right"):
            terms[name] = pl.col(column).cast(pl.String).str.strip_chars()
        elif name != "expiry":
            terms[name] = _number(layout, raw, column)
        elif raw.schema[column] == pl.String:
            terms[name] = pl.col(column).str.strip_chars().str.to_date(layout.expiry_format, strict=False)
        else:
            terms[name] = pl.col(column).cast(pl.Date)
        terms[name] = terms[name].alias(name)
    return terms


def _instruments(bars: pl.DataFrame) -> pl.DataFrame:
    """One row per symbol, by its first row. What has a right is an option, else what expires a future."""
    unique = bars.filter(pl.col("symbol").is_not_null()).unique("symbol", keep="first", maintain_order=True)
    full = unique.select(
        pl.col(name).cast(dtype) if name in unique.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in INSTRUMENTS.items()
    )
    right = pl.col("right").str.to_uppercase().str.slice(0, 1)
    future = pl.when(pl.col("expiry").is_not_null()).then(pl.lit("future"))
    kind = pl.when(right.is_not_null()).then(pl.lit("option")).otherwise(future)
    return full.with_columns(right.alias("right"), kind.alias("kind"))
