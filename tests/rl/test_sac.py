"""SAC on the continuous form: what the form means, the actor as Stable-Baselines3 has it, learning, the same bits."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rlbatches import Signals

from odin_core.rl.callbacks import CURVE
from odin_core.rl.choices import DIMENSIONS
from odin_core.rl.isolation import isolated
from odin_core.rl.learner_config import SACConfig
from odin_core.rl.policy import ObservationMismatch
from odin_core.rl.sac import ContinuousActions, ContinuousPolicy, TrainedSAC, _actor_weights, to_choices, train_sac

TINY = SACConfig(environments=8, steps=400, warm_up=80, buffer=4000, batch=32, gradient_steps=1, hidden=(16,),
                 reward_scale=1.0, threads=1, curve_every=10)  # fmt: skip


def trained(config: SACConfig = TINY, seed: int = 1, **options: Any) -> TrainedSAC:
    return train_sac(Signals(config.environments, actions=DIMENSIONS), config, seed=seed, **options)


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_every_continuous_action_is_a_choice_and_outside_counts_as_the_end(action: list[float]):
    chosen = to_choices([action]).actions()[0]
    assert (chosen >= 0).all()
    assert (chosen < DIMENSIONS).all()
    assert chosen.tolist() == to_choices([np.clip(action, -1, 1)]).actions()[0].tolist()


def test_every_choice_has_the_same_share_of_the_form():
    grid = np.linspace(-1, 1, 24_001)
    chosen = to_choices(np.stack([grid] * 4, axis=1)).actions()
    for dimension, k in enumerate(DIMENSIONS):
        np.testing.assert_allclose(np.bincount(chosen[:, dimension]) / len(grid), 1 / k, atol=1e-3)


def test_the_policy_is_stable_baselines_actor_without_noise():
    from stable_baselines3 import SAC

    with isolated(1):
        model = SAC("MlpPolicy", ContinuousActions(Signals(2, actions=DIMENSIONS), 1.0), seed=3, device="cpu",
                    policy_kwargs={"net_arch": [16, 8]}, buffer_size=10)  # fmt: skip
        seen = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
        expected, _ = model.predict(seen, deterministic=True)
        policy = ContinuousPolicy(_actor_weights(model.actor))
    np.testing.assert_allclose(policy.continuous(seen), expected, atol=1e-6)
    with pytest.raises(ObservationMismatch, match="policy of 5 columns"):
        policy.choose(seen[:, :4])


def test_what_pays_is_learned():
    config = TINY.model_copy(update={"steps": 8000, "batch": 128, "learning_rate": 5e-3, "discount": 0.0})  # fmt: skip
    found = trained(config)
    assert found.curve["reward"][-5:].mean() > 0.5 > 0.3 > found.curve["reward"][0]
    seen = np.random.default_rng(9).normal(size=(500, 5)).astype(np.float32)
    assert (found.policy.choose(seen).position == seen[:, :3].argmax(axis=1)).mean() > 0.7


def test_the_same_seed_gives_the_same_bits_and_a_curve():
    before = torch.get_rng_state()
    once, again = trained(), trained()
    assert torch.equal(before, torch.get_rng_state())
    assert once.policy.version == again.policy.version != trained(seed=2).policy.version
    assert once.curve.schema == CURVE
    assert once.curve["steps"].to_list() == [80, 160, 240, 320, 400]
    assert once.curve["value_loss"][-1] is not None
