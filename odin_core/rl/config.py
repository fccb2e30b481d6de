"""Settings of the trading environment. What a market charges and how it fills is its profile's (`execution.orders`,
`execution.costs`); here is what the task of learning adds: capital, reward, episodes, randomisation, limits."""

from typing import Self

from pydantic import Field, model_validator

from odin_core.configuration import Settings
from odin_core.execution.costs import ChargeRates, CostSchedule
from odin_core.rl.choices import SIZES

RATES = ChargeRates(brokerage_rate=0.0001, exchange_rate=0.00003, regulator_rate=0.000001, sell_tax_rate=0.0001)
COSTS = CostSchedule(intraday=RATES, delivery=RATES)
"""Charges of an environment that is told none: 1.3 basis points of a buy, 2.3 of a sale."""


class EnvironmentConfig(Settings):
    """The task: a position in one symbol at a time, decided on at the end of each bar."""

    capital: float = Field(default=1_000_000.0, description="currency at the beginning of an episode", gt=0)
    max_position: float = Field(default=1.0, description="notional of a full-size position / equity", gt=0, le=10)
    entry_bars: int = Field(default=3, description="bars in which an entry may fill, then the rest is cancelled", ge=1)
    episode_bars: int = Field(default=375, description="bars of an episode, if its symbol has as many left", ge=1)

    lambda_drawdown: float = Field(default=0.5, description="reward lost per unit of a larger maximum drawdown", ge=0)
    lambda_trade: float = Field(default=0.0001, description="reward lost in the bar in which a trade is entered", ge=0)
    lambda_hold: float = Field(default=0.000005, description="reward lost per bar and unit of notional / equity", ge=0)
    efficiency: float = Field(
        default=0.0, description="reward gained per unit of net return on a position's notional; 0 = none", ge=0
    )

    cost_factor: tuple[float, float] = Field(
        default=(0.8, 1.25), description="range of an episode's factor on half-spread and charges"
    )
    slippage_factor: tuple[float, float] = Field(
        default=(0.5, 2.0), description="range of an episode's factor on slippage and impact"
    )
    latency_bars: tuple[int, int] = Field(
        default=(0, 1), description="range of the bars of latency that an episode adds to the market's own"
    )
    random_start: bool = Field(default=True, description="whether episodes start anywhere, or at a symbol's first row")
    random_symbol: bool = Field(default=True, description="whether episodes are of any symbol, or of the first one")

    max_trades: int = Field(default=20, description="trades that may be entered in one session", ge=1)
    max_exposure: float = Field(default=1.0, description="largest notional of an entry / equity", gt=0)
    max_drawdown: float = Field(default=0.2, description="drawdown at which no more positions are entered", gt=0, le=1)
    ruin: float = Field(default=0.5, description="fraction of the capital at which equity ends the episode", gt=0, lt=1)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name in ("cost_factor", "slippage_factor", "latency_bars"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}={[low, high]}: it must be two numbers, 0 or more, that ascend")
        return self

    @model_validator(mode="after")
    def _something_may_be_entered(self) -> Self:
        least = SIZES[0] * self.max_position
        if least > self.max_exposure:
            raise ValueError(
                f"max_exposure={self.max_exposure:g} forbids every position: the smallest is a quarter of "
                f"max_position, {least:g}; raise max_exposure or lower max_position"
            )
        return self

    def without_randomisation(self) -> Self:
        """The same task with the market's own costs, slippage and latency: for evaluation. Starts stay as they are."""
        return self.model_copy(
            update={"cost_factor": (1.0, 1.0), "slippage_factor": (1.0, 1.0), "latency_bars": (0, 0)}
        )
