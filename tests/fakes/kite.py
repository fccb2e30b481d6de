"""Kite Connect in miniature: candles, list of instruments, profile, login; the shapes of kite.trade/docs/connect/v3.

It refuses what the vendor refuses: a wrong token, one from before 06:00 IST, a span that is too long, a fourth request
for history within a second."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import polars as pl

from fakes.serving import Clock, FakeServer, RateLimit, Reply, Request, as_json

IST = ZoneInfo("Asia/Kolkata")
API_KEY, API_SECRET, ACCESS_TOKEN = "kitekeykitekey00", "secret-of-the-app-4711", "token-of-today-0815"
SECRETS = {"KITE_API_KEY": API_KEY, "KITE_API_SECRET": API_SECRET, "KITE_ACCESS_TOKEN": ACCESS_TOKEN}
LONGEST = {"minute": 60, "3minute": 100, "5minute": 100, "10minute": 100, "15minute": 200, "30minute": 200}
LONGEST |= {"60minute": 400, "day": 2000}
HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type"
)
COLUMNS = [*HEADER.split(","), "segment", "exchange"]
LISTED = [  # the vendor's own rows, blanks and zeros included
    "738561,2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.05,1,EQ,NSE,NSE",
    "408065,1594,INFY,INFOSYS,0,,0,0.1,1,EQ,NSE,NSE",
    "256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE",
    "260105,1100,NIFTY BANK,NIFTY BANK,0,,0,0,0,EQ,INDICES,NSE",
    "264969,1035,INDIA VIX,INDIA VIX,0,,0,0,0,EQ,INDICES,NSE",
    "408065,1594,INFY,INFOSYS,0,,0,0.1,1,EQ,NSE,NSE",
    "13238786,51714,NIFTY24JANFUT,NIFTY,0,2024-01-25,0,0.05,50,FUT,NFO-FUT,NFO",
    "10967554,42842,NIFTY24JAN21500CE,NIFTY,0,2024-01-25,21500,0.05,50,CE,NFO-OPT,NFO",
    "10967810,42843,NIFTY24JAN21500PE,NIFTY,0,2024-01-25,21500,0.05,50,PE,NFO-OPT,NFO",
    "12345678,48225,IDEA24JAN8.5PE,IDEA,0,2024-01-25,8.5,0.05,80000,PE,NFO-OPT,NFO",
]


def error(status: int, kind: str, message: str) -> Reply:
    return as_json({"status": "error", "message": message, "data": None, "error_type": kind}, status)


class FakeKite(FakeServer):
    """`held`: (the vendor's interval, its trading symbol) → bars (SOURCE_BARS). `repeats`: each reply begins with the
    candle before it, as a vendor does that rounds `from` down."""

    def __init__(
        self,
        held: Mapping[tuple[str, str], pl.DataFrame],
        clock: Clock,
        listed: Sequence[str] = LISTED,
        repeats: bool = False,
    ) -> None:
        super().__init__(clock)
        rows = [dict(zip(COLUMNS, line.split(","), strict=True)) for line in listed]
        self.listed = rows
        self.repeats = repeats
        self.access_token = ACCESS_TOKEN
        self.token_ends = next_six(clock.now())
        self.history_limit = RateLimit(3, 1, clock)
        self.other_limit = RateLimit(10, 1, clock)
        self.request_token: str | None = None
        self.held: dict[tuple[str, str], tuple[list[datetime], list[list[object]]]] = {}
        for (interval, symbol), frame in held.items():
            self.hold(interval, symbol, frame)

    def hold(self, interval: str, symbol: str, bars: pl.DataFrame) -> None:
        """Have these bars from now on, in place of what was held of the symbol."""
        token = next(row["instrument_token"] for row in self.listed if row["tradingsymbol"] == symbol)
        self.held[interval, token] = _as_sent(bars.sort("ts", maintain_order=True))

    def answer(self, request: Request) -> Reply:
        if request.path == "/session/token" and request.method == "POST":
            return self._login(request)
        authorized = request.headers.get("Authorization") == f"token {API_KEY}:{self.access_token}"
        if not authorized or self.clock.now() >= self.token_ends:
            return error(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        history = request.path.startswith("/instruments/historical/")
        if not (self.history_limit if history else self.other_limit).allows():
            return error(429, "NetworkException", "Too many requests")
        if history:
            return self._candles(*request.path.split("/")[3:5], request)
        if request.path.startswith("/instruments/"):
            return self._dump(request.path.split("/")[2])
        if request.path == "/user/profile":
            return as_json({"status": "success", "data": {"user_id": "AB1234", "exchanges": ["NSE", "NFO"]}})
        return error(404, "GeneralException", "Route not found")

    def _candles(self, token: str, interval: str, request: Request) -> Reply:
        if token not in {row["instrument_token"] for row in self.listed}:
            return error(400, "InputException", "invalid token")
        since, until = (_ist(request.query[edge]) for edge in ("from", "to"))
        if until - since > timedelta(days=LONGEST[interval]):
            return error(400, "InputException", f"interval exceeds max limit: {LONGEST[interval]} days")
        at, rows = self.held.get((interval, token), ([], []))
        wanted = [i for i, ts in enumerate(at) if since <= ts <= until]
        if self.repeats and wanted:
            wanted = [*range(max(0, wanted[0] - 1), wanted[0]), *wanted]
        width = 7 if request.query.get("oi") == "1" else 6
        return as_json({"status": "success", "data": {"candles": [rows[i][:width] for i in wanted]}})

    def _dump(self, exchange: str) -> Reply:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in self.listed if row["exchange"] == exchange)
        return Reply(body=text.getvalue().encode(), content_type="text/csv")

    def _login(self, request: Request) -> Reply:
        sent = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        checksum = hashlib.sha256(f"{API_KEY}{self.request_token}{API_SECRET}".encode()).hexdigest()
        if self.request_token is None or sent.get("checksum") != checksum:
            return error(403, "TokenException", "Token is invalid or has expired.")
        self.request_token = None  # good once
        self.access_token = "token-of-a-new-day-0816"
        self.token_ends = next_six(self.clock.now())
        user = {"user_id": "AB1234", "access_token": self.access_token, "login_time": "2024-06-03 08:01:02"}
        return as_json({"status": "success", "data": user})


def next_six(now: datetime) -> datetime:
    """When a token from `now` runs out."""
    local = now.astimezone(IST)
    day = local.date() + timedelta(days=local.time() >= time(6))
    return datetime.combine(day, time(6), IST).astimezone(UTC)


def _ist(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=IST)


def _as_sent(bars: pl.DataFrame) -> tuple[list[datetime], list[list[object]]]:
    stamps = bars["ts"].dt.convert_time_zone("Asia/Kolkata").dt.strftime("%Y-%m-%dT%H:%M:%S%z")
    values = bars.select("open", "high", "low", "close", pl.col("volume", "oi").fill_null(0).cast(pl.Int64)).rows()
    return bars["ts"].to_list(), [[stamp, *row] for stamp, row in zip(stamps, values, strict=True)]
