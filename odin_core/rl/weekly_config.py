"""How a life's week of reinforcement learning goes: what it learns from, what it is judged on. No torch at import."""

from typing import Final

from pydantic import Field

from odin_core.configuration import Settings
from odin_core.rl.learner_config import PPOConfig

STEPS: Final = 300_000
"""Bars of one seed's weekly training where the home says nothing else: five seeds take a minute or two."""


def weekly_ppo() -> PPOConfig:
    """The week's PPO where the home says nothing else."""
    return PPOConfig.small(steps=STEPS)


class WeekConfig(Settings):
    """The week's PPO of a life; the learner's own settings are `learner_config`, the environment's `config`."""

    lookback_sessions: int = Field(
        default=30, description="sessions whose bars it is trained on, before those that it is judged on", ge=2, le=2000
    )
    judged_sessions: int = Field(
        default=10, description="the last sessions, which no seed is trained on and all are judged on", ge=2, le=500
    )
    seeds: int = Field(
        default=5, description="trainings that differ in their seed alone; the first counts", ge=5, le=50
    )
    seeds_min_share: float = Field(default=0.8, description="of them must beat random of the same turnover", ge=0, le=1)
    error: float = Field(default=0.05, description="chance of passing without any skill, one-sided", gt=0, lt=1)
    draws: int = Field(default=40, description="random portfolios of the same turnover", ge=1, le=10_000)
    warm_start: bool = Field(default=True, description="begin at the policy of the week before, where it fits")
    encoder: str = Field(
        default="", description="an encoder's version; empty: the newest that has not seen the judged sessions"
    )
