"""Settings of offline learning from the replay buffer: `reinforce` learns by them, `reward_engine` gets its weights."""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from odin_core.configuration import Settings


class RiskWeights(NamedTuple):
    """How much each term of the risk-adjusted objective counts; `reward_engine` has the formulas."""

    mean: float = 1.0
    sharpe: float = 0.0
    sortino: float = 0.0
    drawdown: float = 0.0
    leverage: float = 0.0
    free_leverage: float = 1.0
    weigh_by_size: bool = False


class ReinforceConfig(Settings):
    """REINFORCE on logged decisions. `seed` decides the network's first weights and which sessions make a batch."""

    evidence: Literal["explored", "choices"] = Field(
        "explored",
        description="explored: decisions made by chance teach by the action drawn, taken or not; choices: every "
        "decision teaches by its choice",
    )
    heads: Literal["side", "factored", "joint"] = Field(
        "side",
        description="an action's logit is the sum of one each for its side, size, stop and target. side: whether to "
        "trade and the side depend on the context, the others are the same everywhere; factored: all depend on it; "
        "joint: every action of the grid has a logit of its own",
    )
    mirrored: bool = Field(
        True, description="learn from each decision upside down as well, with buying and selling exchanged"
    )
    relative: bool = Field(
        True,
        description="take off a trade's reward what the session's other decisions say its side earned: learn which "
        "symbols do better, not where the whole market goes, for which there are too few sessions",
    )
    hidden: int = Field(32, ge=0, le=1024, description="units of the hidden layer; 0 for a linear policy")
    trade_probability: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="of the prior, which the policy starts as: it trades so often and draws the action uniformly",
    )
    entropy: float = Field(
        0.15, ge=0, le=100, description="weight of the entropy bonus: minus the divergence from the prior, in nats"
    )
    mean: float = Field(1.0, ge=0, le=1e6, description="weight of the mean reward in the objective, units of risk")
    sharpe: float = Field(
        0.02, ge=0, le=1e6, description="weight of mean over standard deviation of the sessions' rewards"
    )
    sortino: float = Field(
        0.0, ge=0, le=1e6, description="weight of mean over downside deviation of the sessions' rewards"
    )
    drawdown: float = Field(
        0.02, ge=0, le=1e6, description="penalty on the deepest drawdown of the summed rewards, over the sessions"
    )
    leverage: float = Field(
        0.0, ge=0, le=1e6, description="penalty on a trade's size beyond free_leverage, shares of the largest size"
    )
    free_leverage: float = Field(0.5, ge=0, le=1, description="size that costs no penalty, share of the largest size")
    weigh_by_size: bool = Field(
        False, description="count a trade's reward in proportion to its size instead of alike, whatever its size"
    )
    clip: float = Field(20.0, gt=0, le=1e9, description="importance weights are cut at this")
    self_normalised: bool = Field(
        True, description="divide by the sum of the weights (SNIPS) rather than the number of decisions (IPS)"
    )
    baseline: Literal["none", "mean", "linear"] = Field(
        "linear",
        description="what is taken off a reward before it counts: nothing; the mean of other sessions; a linear model "
        "of the features fitted on other sessions",
    )
    learning_rate: float = Field(0.01, gt=0, le=1, description="of Adam")
    weight_decay: float = Field(0.001, ge=0, le=10, description="of AdamW")
    steps: int = Field(400, ge=1, le=1_000_000, description="updates at most")
    batch_sessions: int = Field(20, ge=0, le=1_000_000, description="sessions drawn for each update; 0 for all of them")
    evaluate_every: int = Field(10, ge=1, le=1_000_000, description="updates between two looks at the later sessions")
    patience: int = Field(
        10, ge=1, le=1_000_000, description="looks at the later sessions without a better one after which it stops"
    )
    caution: float = Field(
        1.0,
        ge=0,
        le=10,
        description="standard errors that a look's value must be better by: it stops by the lower bound",
    )
    validation_share: float = Field(0.2, gt=0, lt=1, description="of the sessions: later ones that decide when to stop")
    test_share: float = Field(0.25, ge=0, lt=1, description="of the sessions: the last, which only the report sees")
    embargo: int = Field(1, ge=0, le=1000, description="sessions left out before validation and before test")
    min_decisions: int = Field(300, ge=1, le=1_000_000_000, description="resolved decisions that learning asks for")
    min_sessions: int = Field(20, ge=3, le=1_000_000, description="sessions with resolved decisions that it asks for")
    seed: int = Field(7, ge=0, le=2**63 - 1, description="of the weights and of the batches")

    @model_validator(mode="after")
    def _leaves_sessions_to_learn_from(self) -> "ReinforceConfig":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share + test_share = {self.validation_share + self.test_share:g} leaves no session to "
                f"learn from; together they must be below 1"
            )
        return self

    @property
    def risk(self) -> RiskWeights:
        return RiskWeights(
            self.mean, self.sharpe, self.sortino, self.drawdown, self.leverage, self.free_leverage, self.weigh_by_size
        )
