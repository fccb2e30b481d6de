"""The table of docs/files.md: every recorded file, imported as the command would, and what became of it.

    python tests/filetable.py            # runs all imports (minutes) and writes the table into the page

Numbers come from the runs; `note` is what a person should know. Checked by tests/market/intake/test_files_page.py."""

import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import NamedTuple

from odin_core.errors import OdinError
from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import Said
from odin_core.market.intake.importing import import_files
from odin_core.market.profile import load_profile

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "market"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "files.md"
BEGIN, END = "<!-- table: python tests/filetable.py -->", "<!-- end of table -->"
HEAD = "| file | market | read as | rows | bars | quarantined | findings that block | worth knowing |"


class Entry(NamedTuple):
    """A file, the market it goes to, what the user must say, and a note."""

    file: str
    market: str
    note: str
    said: Said = Said()


KOLKATA, NEW_YORK = "Asia/Kolkata", "America/New_York"
EOD = Said(date=date(2025, 11, 14))
ENTRIES = [
    Entry("nse_equity_1m_2021.parquet", "nse", "recorder outages stay gaps; prints outside the hours held"),
    Entry("nse_equity_1m_2016.parquet", "nse", "clean in shape; quiet minutes are repeats with volume 0"),
    Entry("nse_equity_1m_2015.parquet", "nse", "six symbols without volume (null); FEDERALBNK 1:1 bonus, prices raw"),
    Entry("nse_index_1m.parquet", "nse", "pre-open and closing prints held; outage day 2021-02-24 runs to 17:00"),
    Entry("nse_futures_index_1m.parquet", "nse_options", "open interest kept"),
    Entry("nse_options_1m.parquet", "nse_options", "open interest kept; terms become instruments of each session"),
    Entry("nse_options_eod.parquet", "nse_options", "one day, terms become instruments", Said(interval="day")),
    Entry("crypto_1m.parquet", "crypto", "three outages of the exchange are real gaps"),
    Entry("crypto_perp_1m_gappy.parquet", "crypto", "one minute in five: a downloader's paging bug"),
    Entry("crypto_venues_1m_202303.parquet", "crypto", "the USDC de-peg is real and stays"),
    Entry("metals_fx_1m.parquet", "metals", "FX and the 6E future belong to other markets", Said(symbols=("XAUUSD",))),
    Entry("us_equity_1m.parquet", "us", "minutes before 09:30 and after 16:00 New York held"),
    Entry("index_fx_5m.parquet", "indices", "EURUSD left out", Said(interval="5m", symbols=("US30", "NAS100"))),
    Entry("multi_asset_1h.parquet", "metals", "silver", Said(interval="60m", symbols=("XAGUSD",))),
    Entry("multi_asset_1h.parquet", "indices", "the Dow", Said(interval="60m", symbols=("US30",))),
    Entry("multi_asset_1h.parquet", "crypto", "the volume's scale changes", Said(interval="60m", symbols=("ETHUSDT",))),
    Entry("nse_daily_unadjusted.parquet", "nse", "raw prices; splits need `odin data actions`"),
    Entry("nse_daily_adjusted.parquet", "nse", "adjusted, which a file cannot show: do not import it"),
    Entry("nse_corporate_actions.parquet", "nse", "by `odin data actions`"),
    Entry("us_daily_unadjusted.parquet", "us", "raw prices"),
    Entry("us_factors.parquet", "us", "by `odin data actions`"),
    Entry("fundamentals_nse_pit.parquet", "nse", "no bars"),
    Entry("fundamentals_nse_snapshot.parquet", "nse", "no bars"),
    Entry("fundamentals_sp500_snapshot.parquet", "us", "no bars"),
    Entry(
        "raw/nse_reliance_1m_out_of_order_rows_spaces.csv",
        "nse",
        "two rows out of order, sorted in",
        Said(symbol="RELIANCE", timezone=KOLKATA),
    ),
    Entry(
        "raw/nifty_1m_headerless_bar_end_labels_outage_day.txt",
        "nse",
        "ends moved to starts; the same bars as nse_index_1m",
    ),
    Entry("raw/nifty_1m_evening_muhurat_session.txt", "nse", "the evening session is in the calendar"),
    Entry("raw/banknifty_1m_wrong_magnitude_rest_of_day.txt", "nse", "2015-03-30 from 09:56 is at 1/11 of its level"),
    Entry(
        "raw/nse_tcs_ticks_epoch_zero_row.csv",
        "nse",
        "351 minute bars, equal to those in nse_equity_1m_2021 in every value",
        Said(symbol="TCS"),
    ),
    Entry(
        "raw/xauusd_1m_buddhist_calendar_12h_clock.csv",
        "metals",
        "year 2566 less 543; the file names no zone, so the user must",
        Said(symbol="XAUUSD", timezone="UTC"),
    ),
    Entry(
        "raw/spy_1m_extended_hours_offset_changes_at_dst.csv",
        "us",
        "both offsets read; minutes outside the regular hours held",
        Said(symbol="SPY"),
    ),
    Entry(
        "raw/aapl_1m_descending_bar_end_labels.csv",
        "us",
        "refused without --stamps end; newest first, sorted in",
        Said(symbol="AAPL", timezone=NEW_YORK, stamps="end"),
    ),
    Entry("raw/nse_futures_eod_zero_padded_with_footnote.csv", "nse_options", "symbols made of the terms", EOD),
    Entry("raw/aapl_1d_trailing_garbage_line.csv", "us", "years before the calendar held", Said(symbol="AAPL")),
    Entry("raw/hdfcbank_1d_header_repeated_inside.csv", "nse", "series IL is HDFCBANK-IL; early years held"),
    Entry("raw/reliance_1d_quoted_padded_fields.csv", "nse", "padding and quotes removed"),
    Entry(
        "raw/hdfcbank_1d_descending_thousands_separators.csv",
        "nse",
        "closes and volumes equal nse_daily_unadjusted",
        Said(symbol="HDFCBANK"),
    ),
    Entry(
        "raw/hdfcbank_1d_headerless_scaled_integers.csv",
        "nse",
        "not HDFCBANK at all: it is GOOGL of us_daily_unadjusted, all 1,761 days; the report says that 81 of them are "
        "no sessions",
        Said(symbol="HDFCBANK"),
    ),
    Entry("raw/hdfcbank_1d_ticker_text_row_at_end.csv", "nse", "columns found by name"),
    Entry("raw/reliance_1d_three_line_header.csv", "nse", "", Said(symbol="RELIANCE")),
    Entry(
        "raw/hdfcbank_1d_transposed_dates_as_columns.csv",
        "nse",
        "2,000 columns, 2,000 sessions; no volume",
        Said(symbol="HDFCBANK"),
    ),
    Entry("raw/bcheur_trades_headerless_epoch.csv", "crypto", "trades become minute bars", Said(symbol="BCHEUR")),
    Entry("raw/aapl_factor_file_future_sentinel_date.csv", "us", "by `odin data actions`"),
]


def options(said: Said) -> str:
    """What the user said, as the command's options."""
    given = {name: value for name, value in vars(said).items() if value}
    return " ".join(f"--{k} {','.join(v) if isinstance(v, tuple) else v}" for k, v in given.items())


def line(entry: Entry) -> str:
    """One line of the table, from an import into a new lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake, calendar = Lake(Path(folder)), session_calendar(load_profile(entry.market))
        path = FOLDER / entry.file
        try:
            report = import_files([path], lake=lake, calendar=calendar, said=entry.said).files[0]
        except OdinError as error:
            why = str(error).removeprefix(f"{path} is no file of bars: ")
            return _row(entry, "refused", "", "", "", "", f"{why}")
        quarantined = ", ".join(f"{n:,} {rule}" for rule, n in report.quarantined.items())
        read_as = f"{report.layout}, {report.interval}"
        return _row(entry, read_as, f"{report.rows:,}", f"{report.bars:,}", quarantined, _blocking(lake), entry.note)


def _blocking(lake: Lake) -> str:
    """Findings of severity error by rule: how many symbol-sessions."""
    counts: Counter[str] = Counter()
    for session in lake.sessions("data_quality"):
        counts.update(lake.read("data_quality", session).filter(severity="error")["rule"].to_list())
    return ", ".join(f"{n:,} {rule}" for rule, n in sorted(counts.items()))


def _row(entry: Entry, *cells: str) -> str:
    name = f"`{entry.file}`" + (f"<br>{options(entry.said)}" if options(entry.said) else "")
    return f"| {name} | {entry.market} | " + " | ".join(cells) + " |"


def table() -> str:
    rows = []
    for entry in ENTRIES:
        print(entry.file, file=sys.stderr, flush=True)
        rows.append(line(entry))
    return "\n".join([HEAD, "|---|---|---|--:|--:|---|---|---|", *rows])


def in_page() -> str:
    """The table that the page holds."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
