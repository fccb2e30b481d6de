"""The synthetic exchange, session by session: regimes, prices at open and close, order flow, and the planted edge.

Every session draws from a stream of its own, so a history is one cumulative sum over sessions from a fixed epoch and a
longer one never changes a shorter one. Minutes are filled in by `market.synthetic`; nothing here is in minutes.

The edge: during a session each symbol has an unseen flow u ~ N(0, 1), which pushes price and volume in its last hour
and a half. The next session's open-to-close return drifts by `√edge · strength · c[regime] · tanh(u) / sd(tanh u)`
standard deviations, where c is positive in calm and negative in volatile regimes: flow continues in calm markets and
reverts in volatile ones. The dial is thus a share of variance, not of drift. The drift replaces as much noise as it
adds variance, so the dial changes no volatility."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from odin_core.market.calendar import SessionCalendar
from odin_core.randomness import stream

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REGIMES = ("calm", "normal", "volatile")
REGULAR_MINUTES = 375
TANH_SD = 0.627928  # standard deviation of tanh(u) for u ~ N(0, 1)


@dataclass(frozen=True, kw_only=True)
class MarketModel:
    """Numbers of the synthetic market. Shares are of the variance of a session's open-to-close return; regime tuples
    are in the order of REGIMES. Sizes are those of NSE minute bars of 2016 and 2021."""

    succession: tuple[tuple[float, float, float], ...] = (  # which regime follows which
        (0.0, 0.8, 0.2),
        (0.5, 0.0, 0.5),
        (0.2, 0.8, 0.0),
    )
    regime_sessions: tuple[int, int] = (4, 12)  # length of a regime, uniform
    regime_volatility: tuple[float, float, float] = (0.65, 1.0, 1.6)
    regime_volume: tuple[float, float, float] = (0.8, 1.0, 1.4)
    session_volatility: float = 0.014  # open to close, normal regime, median symbol
    volatility_spread: float = 0.12  # sd of its logarithm over symbols
    market_share: float = 0.18
    sector_share: float = 0.12
    flow_share: float = 0.18  # of the session in which the flow is seen
    sectors: int = 8
    gap_volatility: float = 0.45  # sd of the overnight gap over the session's
    gap_market_share: float = 0.35
    jump_probability: float = 0.01  # of an overnight gap four times its size
    strength: float = 0.58  # of the edge, in standard deviations of the next return
    edge_by_regime: tuple[float, float, float] = (1.0, 0.5, -1.15)
    price_range: tuple[float, float] = (250.0, 3000.0)
    daily_value: float = 2.0e9  # traded value of the median symbol and session, in the market's currency
    value_spread: float = 0.7  # sd of its logarithm over liquid symbols
    illiquid_share: float = 0.08  # of symbols
    illiquid_value: float = 0.04  # of the median symbol's traded value
    illiquid_missing: tuple[float, float] = (0.03, 0.05)  # share of minutes without a row
    illiquid_zero: float = 0.06  # share of minutes with a row but no trade
    liquid_missing: float = 0.0003
    halt_probability: float = 0.005  # per symbol and session
    halt_minutes: tuple[int, int] = (15, 60)

    @property
    def flow_loading(self) -> float:
        return self.flow_share**0.5


@dataclass(frozen=True, kw_only=True)
class Universe:
    """What distinguishes the symbols, drawn once per seed. Arrays have shape (symbols,)."""

    symbols: tuple[str, ...]
    volatility: FloatArray  # of a normal regime's open-to-close log return
    market_loading: FloatArray
    sector: IntArray
    price: FloatArray  # before the first session
    shares: FloatArray  # expected volume of a regular session
    missing: FloatArray  # probability that a minute has no row
    zero: FloatArray  # probability that a minute has a row without a trade


@dataclass(frozen=True, kw_only=True)
class SessionPath:
    """One session as seen from above. Factors and flows are standard normal; arrays are over sectors or symbols."""

    session: date
    minutes: int
    regime: int  # index into REGIMES
    scale: FloatArray  # sd of the open-to-close log return
    log_open: FloatArray
    market: float
    sector: FloatArray
    own: FloatArray  # own part of the return, in units of `scale`: what remains after factors, flow and drift
    flow: FloatArray
    drift: FloatArray  # planted, in units of `scale`, known since the previous close
    signal: FloatArray  # what the flow says about the next session: its drift at edge 1, in units of its `scale`


def draw_universe(seed: int, epoch: date, count: int, model: MarketModel) -> Universe:
    """The symbols of an exchange: SYN001, SYN002, …"""
    rng = stream(seed, epoch, "exchange.universe")
    volatility = model.session_volatility * np.exp(model.volatility_spread * rng.standard_normal(count))
    loading = np.sqrt(model.market_share) + rng.uniform(-0.08, 0.08, count)
    lowest, highest = model.price_range
    price = lowest * (highest / lowest) ** rng.random(count)
    value = model.daily_value * np.exp(model.value_spread * rng.standard_normal(count).clip(-1.5, 2.5))
    illiquid = np.zeros(count, dtype=bool)
    illiquid[rng.permutation(count)[: round(model.illiquid_share * count)]] = True
    value[illiquid] = model.daily_value * model.illiquid_value * rng.uniform(0.6, 1.5, illiquid.sum())
    missing = np.where(illiquid, rng.uniform(*model.illiquid_missing, count), model.liquid_missing)
    return Universe(
        symbols=tuple(f"SYN{i + 1:03d}" for i in range(count)),
        volatility=volatility,
        market_loading=loading,
        sector=rng.permutation(np.arange(count) % model.sectors),
        price=price,
        shares=value / price,
        missing=missing,
        zero=np.where(illiquid, model.illiquid_zero, 0.0),
    )


class SessionPaths:
    """The history of an exchange from its epoch to the end of its calendar, computed at once and kept: some 1,000
    sessions of 50 symbols take 60 ms and 4 MB. A session's values depend on no later session."""

    def __init__(
        self, calendar: SessionCalendar, epoch: date, universe: Universe, seed: int, edge: float, model: MarketModel
    ) -> None:
        self.sessions = calendar.sessions(calendar.next(epoch - timedelta(days=1)))
        self._index = {session: k for k, session in enumerate(self.sessions)}
        self._model = model
        self._minutes = np.array([calendar.minutes(session) for session in self.sessions])
        self._draw(seed, len(universe.symbols))
        self._walk(universe, edge)

    def __contains__(self, session: date) -> bool:
        return session in self._index

    def regime(self, session: date) -> str:
        return REGIMES[self._regime[self._index[session]]]

    def path(self, session: date) -> SessionPath:
        k = self._index[session]
        return SessionPath(
            session=session,
            minutes=int(self._minutes[k]),
            regime=int(self._regime[k]),
            scale=self._scale[k],
            log_open=self._log_open[k],
            market=float(self._market[k]),
            sector=self._sector[k],
            own=self._own[k],
            flow=self._flow[k],
            drift=self._drift[k],
            signal=self._signal[k],
        )

    def _draw(self, seed: int, count: int) -> None:
        sectors, jump = self._model.sectors, self._model.jump_probability
        sessions = len(self.sessions)
        uniform = np.empty((sessions, 2 + count))
        normal = np.empty((sessions, 2 + sectors + 3 * count))
        for k, session in enumerate(self.sessions):
            rng = stream(seed, session, "exchange.session")
            rng.random(out=uniform[k])
            rng.standard_normal(out=normal[k])
        self._regime = _regimes(uniform[:, :2], self._model.succession, self._model.regime_sessions)
        self._market, gap_market = normal[:, 0], normal[:, 1:2]
        self._sector = normal[:, 2 : 2 + sectors]
        self._noise, self._flow, gap = np.split(normal[:, 2 + sectors :], 3, axis=1)
        common = self._model.gap_market_share
        jumps = np.where(uniform[:, 2:] < jump, 4.0, 1.0)
        self._gap = self._model.gap_volatility * jumps * (common**0.5 * gap_market + (1 - common) ** 0.5 * gap)

    def _walk(self, universe: Universe, edge: float) -> None:
        model = self._model
        coefficient = model.strength * np.array(model.edge_by_regime)[self._regime][:, None]
        self._signal = coefficient * np.tanh(self._flow) / TANH_SD
        self._drift = edge**0.5 * _after_one(self._signal)
        own_share = 1 - universe.market_loading**2 - model.sector_share
        replaced = model.flow_share + edge * _after_one(coefficient) ** 2
        self._own = np.sqrt(own_share - replaced) * self._noise
        level = np.array(model.regime_volatility)[self._regime][:, None]
        self._scale = level * np.sqrt(self._minutes / REGULAR_MINUTES)[:, None] * universe.volatility
        common = (
            self._market[:, None] * universe.market_loading + model.sector_share**0.5 * self._sector[:, universe.sector]
        )
        total = common + self._own + model.flow_loading * self._flow + self._drift
        open_to_close = self._scale * total - self._scale**2 / 2
        night = level * universe.volatility
        gap = night * self._gap - (night * model.gap_volatility) ** 2 / 2
        self._log_open = np.log(universe.price) + np.cumsum(gap + open_to_close, axis=0) - open_to_close


def _regimes(uniform: FloatArray, succession: tuple[tuple[float, ...], ...], length: tuple[int, int]) -> IntArray:
    """Regimes of successive sessions from uniform draws of shape (sessions, 2): which comes next, and for how long.
    The first is drawn from the stationary distribution of the succession."""
    matrix = np.array(succession)
    bounds = np.cumsum(np.linalg.matrix_power(matrix, 512)[0])[:-1].tolist()
    rows = np.cumsum(matrix, axis=1)[:, :-1].tolist()
    regimes, left = [], 0
    for choice, duration in uniform.tolist():
        if left == 0:
            regimes.append(sum(choice >= bound for bound in bounds))
            bounds = rows[regimes[-1]]
            left = length[0] + int(duration * (length[1] + 1 - length[0]))
        else:
            regimes.append(regimes[-1])
        left -= 1
    return np.array(regimes, dtype=np.int64)


def _after_one(values: FloatArray) -> FloatArray:
    """Values moved one session later; the first session follows none and gets zero."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])
