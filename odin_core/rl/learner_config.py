"""What the learners of the trading environment are told: PPO, and SAC for comparison. No torch at import.

The environment's own settings are `rl.config`; the algorithms are `rl.ppo` and `rl.sac`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from odin_core.configuration import Settings

Schedule = Literal["constant", "linear"]


class PPOConfig(Settings):
    """Proximal policy optimisation (Schulman et al. 2017) as Stable-Baselines3 has it, on `environments` at once."""

    environments: int = Field(256, description="environments stepped together", ge=1, le=65536)
    rollout: int = Field(32, description="bars that each environment goes between two updates", ge=1)
    batch: int = Field(1024, description="decisions of one gradient step; divides environments × rollout", ge=2)
    epochs: int = Field(4, description="passes over one rollout", ge=1)
    steps: int = Field(2_000_000, description="bars of the whole training, all environments together", ge=1)
    learning_rate: float = Field(1e-3, description="Adam's step", gt=0)
    learning_rate_schedule: Schedule = Field("linear", description="constant, or linear to 0 at the end")
    clip: float = Field(0.2, description="how far an update may move a choice's probability, as a share of it", gt=0)
    clip_schedule: Schedule = Field("constant", description="constant, or linear to 0 at the end")
    target_kl: float | None = Field(None, description="an update stops at 1.5 times this divergence; null: never", gt=0)
    discount: float = Field(0.99, description="worth of a reward one bar later", ge=0, le=1)
    gae_lambda: float = Field(0.95, description="0: the critic's word; 1: rewards as they came", ge=0, le=1)
    entropy_weight: float = Field(0.01, description="what a nat of randomness in the choice is worth", ge=0)
    value_weight: float = Field(0.5, description="weight of the critic's squared error", ge=0)
    max_gradient: float = Field(0.5, description="norm at which a gradient is cut", gt=0)
    reward_scale: float = Field(
        100.0, description="factor on rewards before learning, so that log returns of a bar are of order 1", gt=0
    )
    hidden: tuple[int, ...] = Field((64, 64), description="units of each layer; actor and critic share none")
    activation: Literal["tanh", "relu"] = Field("tanh", description="between the layers")
    curriculum: bool = Field(True, description="given start contexts, weigh rare and difficult regimes up in time")
    hardness: float = Field(1.0, description="how strongly regimes with low reward are practised more", ge=0)
    threads: int = Field(1, description="of torch; other numbers give other last bits", ge=1)
    checkpoint_every: int = Field(10, description="updates between two checkpoints, where a folder is given", ge=1)

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.rollout * self.environments % self.batch:
            raise ValueError(
                f"batch={self.batch} does not divide environments × rollout = "
                f"{self.environments} × {self.rollout} = {self.environments * self.rollout}"
            )
        if any(units < 1 for units in self.hidden):
            raise ValueError(f"hidden={self.hidden}: a layer has at least one unit")
        return self

    @property
    def updates(self) -> int:
        """Rollouts of a whole training: the last one is not cut, so `steps` is rounded up."""
        return -(-self.steps // (self.environments * self.rollout))

    @classmethod
    def small(cls, **changes: object) -> Self:
        """Half a minute on one core with 300 columns."""
        return cls.of({"steps": 1_000_000} | changes, "PPOConfig.small")

    @classmethod
    def full(cls, **changes: object) -> Self:
        """Half an hour on one core with 300 columns."""
        return cls.of({"steps": 20_000_000, "environments": 1024, "batch": 8192, "hidden": (256, 256)} | changes,
                      "PPOConfig.full")  # fmt: skip


class SACConfig(Settings):
    """Soft actor-critic (Haarnoja et al. 2018) as Stable-Baselines3 has it, on the continuous form of the action."""

    environments: int = Field(64, description="environments stepped together", ge=1, le=65536)
    steps: int = Field(500_000, description="bars of the whole training, all environments together", ge=1)
    warm_up: int = Field(10_000, description="bars with uniformly random actions before learning", ge=0)
    buffer: int = Field(100_000, description="transitions remembered", ge=1)
    batch: int = Field(256, description="transitions of one gradient step", ge=1)
    gradient_steps: int = Field(4, description="gradient steps after each bar of all environments", ge=1)
    learning_rate: float = Field(3e-4, description="Adam's step", gt=0)
    discount: float = Field(0.99, description="worth of a reward one bar later", ge=0, le=1)
    target_rate: float = Field(0.005, description="share of the critic that its slow copy takes over", gt=0, le=1)
    reward_scale: float = Field(100.0, description="factor on rewards before learning", gt=0)
    hidden: tuple[int, ...] = Field((64, 64), description="units of each layer of actor and critics")
    threads: int = Field(1, description="of torch; other numbers give other last bits", ge=1)
    curve_every: int = Field(100, description="bars of each environment between two rows of the curve", ge=1)

    @property
    def bars(self) -> int:
        """Bars that each environment goes; `steps` is rounded up."""
        return -(-self.steps // self.environments)

    @classmethod
    def small(cls, **changes: object) -> Self:
        """About a minute on one core."""
        return cls.of({"steps": 100_000} | changes, "SACConfig.small")

    @classmethod
    def full(cls, **changes: object) -> Self:
        return cls.of({"steps": 5_000_000, "hidden": (256, 256)} | changes, "SACConfig.full")
