"""What stands in a tear sheet, in which order, under which words and in which units: read by `page` and `markdown`."""

from dataclasses import dataclass
from typing import Final

OWN: Final = "own"  # each row of the table has its own unit


@dataclass(frozen=True)
class Column:
    """A column of a table: its title and how its values are written (`formats.UNITS`, text, or OWN)."""

    name: str
    title: str
    unit: str = "text"
    signed: bool = False  # coloured by sign


@dataclass(frozen=True)
class Shown:
    """A table of `TearSheet.tables`, what it is called and what its numbers were computed from."""

    table: str
    title: str
    columns: tuple[Column, ...]
    source: str
    most: int | None = None  # rows from each end that are shown; None is all


@dataclass(frozen=True)
class Section:
    title: str
    pictures: tuple[str, ...]
    tables: tuple[Shown, ...]


TILES: Final[tuple[tuple[str, str, str], ...]] = (  # headline, what it is called, unit
    ("total_return", "return, of capital", "percent"),
    ("sharpe", "Sharpe ratio, a year", "two_digits"),
    ("max_drawdown", "deepest drawdown, of capital", "percent"),
    ("annual_volatility", "volatility a year, of capital", "percent"),
    ("trades", "trades closed", "whole"),
    ("won", "trades won", "share"),
    ("net_of_notional", "net profit, of notional traded", "basis_points"),
    ("cost_of_notional", "costs, of notional traded", "basis_points"),
)
DETAILS: Final[tuple[tuple[str, str, str], ...]] = (
    ("sessions", "sessions", "whole"),
    ("sharpe_error", "standard error of the Sharpe ratio, a year", "two_digits"),
    ("sharpe_above_zero", "probability that the true Sharpe ratio is above 0", "share"),
    ("sharpe_deflated", "deflated: that it is above the best of unskilled trials", "share"),
    ("trials", "trials: candidates trained so far", "whole"),
    ("under_water_now", "sessions since the last peak", "whole"),
    ("market_beta", "beta to buy and hold", "three_digits"),
    ("mean_exposure", "mean exposure, long and short, of capital", "percent"),
    ("largest_exposure", "largest exposure, of capital", "percent"),
    ("mean_net_exposure", "mean net exposure, of capital", "percent"),
    ("mean_turnover", "mean turnover of a session, entries and exits, of capital", "percent"),
    ("profit_factor", "profit factor of trades", "two_digits"),
    ("payoff", "mean win over mean loss", "two_digits"),
    ("mean_won", "mean win", "basis_points"),
    ("mean_lost", "mean loss", "basis_points"),
    ("mean_net", "mean net return of a trade, whatever its size", "basis_points"),
    ("mean_cost", "mean cost of a trade", "basis_points"),
    ("mean_gross", "mean gross return of a trade", "basis_points"),
    ("mean_reward", "mean reward of a trade, in units of risk", "three_digits"),
    ("median_minutes", "median holding time", "duration"),
    ("over_night", "trades held over a night", "whole"),
    ("unfilled", "taken decisions that never filled", "whole"),
    ("open", "positions still open", "whole"),
    ("phase", "phase at the end", "whole"),
    ("champion", "champion at the end", "text"),
    ("epsilon", "share of random proposals at the end (ε)", "share"),
)

GROUP: Final = (
    Column("trades", "trades", "whole"),
    Column("won", "won", "share"),
    Column("profit", "net profit", "fine_percent", signed=True),
    Column("gross_return", "mean gross", "basis_points"),
    Column("cost", "mean cost", "basis_points"),
    Column("net_return", "mean net", "basis_points", signed=True),
    Column("reward", "mean reward", "three_digits", signed=True),
    Column("lower", "from", "three_digits"),
    Column("upper", "to", "three_digits"),
    Column("minutes", "median held", "duration"),
)
OF_TRADES: Final = (
    "replay_buffer (taken, closed) with executions; profit of capital, basis points of notional; reward in units of "
    "risk with its 95 % interval, clustered by session"
)
BY_SESSION: Final = (
    Column("sessions", "sessions", "whole"),
    Column("trades", "entries", "whole"),
    Column("total", "ODIN", "fine_percent", signed=True),
    Column("random", "random, mean", "fine_percent", signed=True),
    Column("hold", "buy and hold", "percent", signed=True),
    Column("mean", "mean a session", "basis_points", signed=True),
    Column("sharpe", "Sharpe", "two_digits", signed=True),
    Column("drawdown", "drawdown", "fine_percent"),
    Column("hit_rate", "above 0", "share"),
)
OF_SESSIONS: Final = "phase_state; returns are fractions of capital, added up; as decided at the close before"
TOLD_LEVELS: Final = {0: "lowest", 5: "5 %", 25: "25 %", 50: "median", 75: "75 %", 95: "95 %", 100: "highest"}
QUANTILES: Final = tuple(Column(f"q{level}", title, OWN) for level, title in TOLD_LEVELS.items())

PERFORMANCE: Final = Shown(
    "performance",
    "Against the baselines",
    (
        Column("metric", "metric"),
        Column("odin", "ODIN", OWN),
        Column("random", "random, mean", OWN),
        Column("random_low", "random, 5 %", OWN),
        Column("random_high", "random, 95 %", OWN),
        Column("below", "random ones below ODIN", "share"),
        Column("hold", "buy and hold", OWN),
    ),
    "phase_state: session_return, random_returns (as many trades of the same sizes each session), hold_return (all "
    "capital, equal weights, no costs). Doing nothing earns 0. Fractions of fixed capital: nothing compounds",
)
AGAINST: Final = Shown(
    "against",
    "ODIN less a baseline",
    (
        Column("baseline", "baseline"),
        Column("sessions", "sessions", "whole"),
        Column("difference", "mean of a session", "basis_points", signed=True),
        Column("lower", "from", "basis_points"),
        Column("upper", "to", "basis_points"),
        Column("sharpe_difference", "Sharpe ratio", "two_digits", signed=True),
        Column("sharpe_lower", "from", "two_digits"),
        Column("sharpe_upper", "to", "two_digits"),
    ),
    "phase_state; basis points of capital; 95 % intervals at one look: Student's over sessions for the mean, the "
    "stationary block bootstrap of paired sessions for the Sharpe ratio; of random portfolios the mean of their ratios",
)
PHASES: Final = Shown(
    "phases",
    "Changes of phase",
    (
        Column("session", "session"),
        Column("from", "from", "whole"),
        Column("to", "to", "whole"),
        Column("reason", "why"),
    ),
    "phase_state",
)
SECTIONS: Final[tuple[Section, ...]] = (
    Section("Return", ("equity",), (PERFORMANCE, AGAINST)),
    Section(
        "By time",
        ("rolling_sharpe",),
        (
            Shown(
                "drawdowns",
                "Deepest drawdowns",
                (
                    Column("peak", "last peak"),
                    Column("trough", "deepest"),
                    Column("recovered", "recovered"),
                    Column("depth", "depth, of capital", "fine_percent", signed=True),
                    Column("sessions", "sessions below the peak", "whole"),
                ),
                "phase_state: running sum of session_return; a dash is before the first session, or not yet",
            ),
        ),
    ),
    Section(
        "By regime and phase",
        (),
        (
            Shown("sessions_by_regime", "By volatility regime", (Column("group", "regime"), *BY_SESSION), OF_SESSIONS),
            Shown("sessions_by_phase", "By phase", (Column("group", "phase"), *BY_SESSION), OF_SESSIONS),
            PHASES,
        ),
    ),
    Section(
        "Trades",
        ("trade_distribution",),
        (
            Shown("distribution", "Distribution over trades", (Column("what", "of a trade"), *QUANTILES), OF_TRADES),
            Shown("trades_by_source", "By who decided", (Column("group", "decided by"), *GROUP), OF_TRADES),
            Shown("trades_by_size", "By size", (Column("group", "size, of capital"), *GROUP), OF_TRADES),
            Shown("trades_by_side", "By side", (Column("group", "side"), *GROUP), OF_TRADES),
            Shown("trades_by_regime", "By volatility regime", (Column("group", "regime"), *GROUP), OF_TRADES),
            Shown("trades_by_exit_reason", "By how they ended", (Column("group", "ended by"), *GROUP), OF_TRADES),
            Shown("trades_by_symbol", "By symbol", (Column("group", "symbol"), *GROUP), OF_TRADES, most=8),
        ),
    ),
    Section(
        "Exposure and costs",
        ("exposure_and_costs",),
        (
            Shown(
                "costs",
                "What trading cost",
                (
                    Column("part", "part"),
                    Column("amount", "amount", "whole"),
                    Column("of_capital", "of capital", "fine_percent"),
                    Column("of_notional", "of notional", "basis_points"),
                    Column("of_gross", "of gross profit", "share"),
                ),
                "executions of closed trades, both legs, in the market's currency; notional is that of the entries",
            ),
        ),
    ),
    Section(
        "Decisions",
        ("confidence",),
        (
            Shown(
                "decisions",
                "Taken, skipped, rejected",
                (
                    Column("status", "status"),
                    Column("reject_reason", "why rejected"),
                    Column("decisions", "decisions", "whole"),
                    Column("outcomes", "with an outcome", "whole"),
                    Column("net_return", "mean net", "basis_points", signed=True),
                    Column("reward", "mean reward", "three_digits", signed=True),
                ),
                "replay_buffer; of decisions that were not taken: what they would have earned",
            ),
            Shown(
                "calibration",
                "Confidence against outcome",
                (
                    Column("rows", "decisions", "whole"),
                    Column("probability", "stated, mean", "share"),
                    Column("happened", "ended above costs", "share"),
                    Column("lower", "from", "share"),
                    Column("upper", "to", "share"),
                ),
                "replay_buffer: decisions of models, taken or not, with an outcome; 95 % intervals over sessions",
            ),
            Shown(
                "evidence",
                "Rewards of models on sessions after their training",
                (
                    Column("who", "model"),
                    Column("baseline", "against"),
                    Column("sessions", "sessions", "whole"),
                    Column("decisions", "decisions", "whole"),
                    Column("reward", "mean reward", "three_digits", signed=True),
                    Column("theirs", "baseline's", "three_digits", signed=True),
                    Column("excess", "excess", "three_digits", signed=True),
                    Column("lower", "from", "three_digits"),
                    Column("upper", "to", "three_digits"),
                    Column("ic", "rank IC", "three_digits"),
                ),
                "candidate_scores; units of risk; the session is the unit; 95 % intervals at one look",
            ),
        ),
    ),
    Section(
        "Retrains",
        (),
        (
            Shown(
                "retrains",
                "Each week's candidate",
                (
                    Column("session", "session"),
                    Column("version", "candidate"),
                    Column("contexts", "rows", "whole"),
                    Column("outcome", "outcome"),
                    Column("reason", "why"),
                ),
                "evaluation_report",
            ),
        ),
    ),
)
OF_QUANTITY: Final = {  # row of `distribution` → what it is called, its unit
    "net_return": ("net return", "basis_points"),
    "gross_return": ("gross return", "basis_points"),
    "cost": ("cost", "basis_points"),
    "reward": ("reward, units of risk", "three_digits"),
    "minutes": ("holding time", "duration"),
    "notional": ("notional, currency", "whole"),
}
