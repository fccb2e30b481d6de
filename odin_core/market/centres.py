"""Financial centres: in which of them it is business hours, for markets that trade round the clock.

Hours are local to each centre, so that summer time moves them against UTC, on each centre's own dates. Weekends and a
centre's holidays are not told apart: when the market itself trades is `market.calendar`'s to say."""

from collections.abc import Sequence
from datetime import date, time
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Centre(NamedTuple):
    """Business hours, [open, close) local to `timezone`."""

    timezone: str
    open: time
    close: time


# The usual sessions of the currency market: from eight, in Tokyo from nine, to the end of the afternoon. Tokyo has no
# summer time. Source: BIS Triennial Survey 2019, "FX and OTC derivatives markets through the lens of the Triennial
# Survey", turnover by hour; conventions differ by an hour at either end.
CENTRES: Final = {
    "asia": Centre("Asia/Tokyo", time(9), time(18)),
    "london": Centre("Europe/London", time(8), time(17)),
    "new_york": Centre("America/New_York", time(8), time(17)),
}


def session_flags(ts: pl.Series, centres: Sequence[str] = tuple(CENTRES)) -> pl.DataFrame:
    """Whether each instant lies in the business hours of each centre: one boolean column per name, same length.

    ts: Datetime with a time zone, the start of a bar: 08:00 London is in, 17:00 is out. Null gives null.
    Raises ValueError for naive instants and KeyError for an unknown centre."""
    if not isinstance(ts.dtype, pl.Datetime) or ts.dtype.time_zone is None:
        raise ValueError(f"business hours need instants with a time zone, and these are {ts.dtype}")
    return pl.DataFrame({name: _in_hours(ts, CENTRES[name]) for name in centres})


@lru_cache(maxsize=256)
def business_hours(name: str, first: date, last: date) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When business hours begin and end in a centre, on each of its dates from `first` to `last`, both included: two
    arrays (dates,), microseconds since 1970 UTC, ascending, not to be written to. KeyError for an unknown centre."""
    centre = CENTRES[name]
    dates = pl.date_range(first, last, "1d", eager=True)
    begin, end = (
        dates.dt.combine(clock).dt.replace_time_zone(centre.timezone).dt.timestamp("us").to_numpy()
        for clock in (centre.open, centre.close)
    )
    begin.flags.writeable = end.flags.writeable = False
    return begin, end


def _in_hours(ts: pl.Series, centre: Centre) -> pl.Series:
    return ts.dt.convert_time_zone(centre.timezone).dt.time().is_between(centre.open, centre.close, closed="left")
