"""A policy as a value: the functions of Stable-Baselines3's networks, and a file that is whole or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy

from odin_core.rl.policy import (
    ACTIVATIONS,
    ActorCritic,
    ObservationMismatch,
    PolicyUnreadable,
    Structure,
    TradingPolicy,
    of_sb3,
    to_sb3,
)

STRUCTURE = Structure(7, (3, 4, 4, 4), (16, 8))


def a_policy(structure: Structure = STRUCTURE, seed: int = 0) -> TradingPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TradingPolicy(structure, ActorCritic(structure).state_dict(), {"seed": seed, "through": "2024-05-31"})


def observations(n: int, columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def theirs(structure: Structure) -> ActorCriticPolicy:
    return ActorCriticPolicy(
        spaces.Box(-1, 1, (structure.observation,)), spaces.MultiDiscrete(structure.actions), lambda _: 1e-3,
        net_arch={"pi": list(structure.hidden), "vf": list(structure.hidden)},
        activation_fn=ACTIVATIONS[structure.activation],
    )  # fmt: skip


@pytest.mark.parametrize("hidden", [(), (5,), (64, 64)], ids=["no layer", "one layer", "two layers"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_it_is_the_function_of_stable_baselines_with_the_same_weights(hidden: tuple[int, ...], activation: str):
    structure = Structure(7, (3, 4, 2), hidden, activation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        other = theirs(structure)
        for weight in other.parameters():  # their first weights of the actor's last layer are nearly 0
            torch.nn.init.normal_(weight)
    policy = TradingPolicy(structure, of_sb3(other.state_dict(), structure))
    seen = observations(200, 7)
    with torch.no_grad():
        chosen, values, _ = other(torch.tensor(seen), deterministic=True)
        distribution = other.get_distribution(torch.tensor(seen)).distribution
    assert np.array_equal(policy.actions(seen), chosen.numpy())
    assert np.array_equal(policy.value(seen), values.numpy().ravel())
    for found, expected in zip(policy.probabilities(seen), distribution, strict=True):
        np.testing.assert_allclose(found, expected.probs.numpy(), rtol=1e-5, atol=1e-7)
    back = to_sb3(policy.weights, structure)
    assert all(torch.equal(back[name], weight) for name, weight in other.state_dict().items())


def test_choices_are_the_likeliest_and_probabilities_sum_to_one():
    policy, seen = a_policy(), observations(300, 7)
    found = policy.probabilities(seen)
    assert [p.shape for p in found] == [(300, 3), (300, 4), (300, 4), (300, 4)]
    for column, p in zip(policy.actions(seen).T, found, strict=True):
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
        assert np.array_equal(column, p.argmax(axis=1))


def test_no_observation_no_choice():
    policy = a_policy()
    nothing = np.empty((0, 7), np.float32)
    assert policy.actions(nothing).shape == (0, 4)
    assert policy.value(nothing).shape == (0,)
    assert [p.shape for p in policy.probabilities(nothing)] == [(0, 3), (0, 4), (0, 4), (0, 4)]


@pytest.mark.parametrize("shape", [(4, 6), (7,), (2, 7, 1)])
def test_observations_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ObservationMismatch, match=r"policy of 7 columns"):
        a_policy().actions(np.zeros(shape, np.float32))


def test_what_is_saved_is_loaded_and_equal_content_makes_equal_bytes(tmp_path: Path):
    policy = a_policy()
    policy.save(tmp_path / "kept")
    back = TradingPolicy.load(tmp_path / "kept")
    assert (back.structure, back.facts, back.version) == (policy.structure, policy.facts, policy.version)
    seen = observations(20, 7)
    assert np.array_equal(back.value(seen), policy.value(seen))
    assert back.to_bytes() == policy.to_bytes() == a_policy().to_bytes()
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["policy.json", "policy.safetensors"]


def test_the_version_follows_the_weights_and_not_the_facts():
    policy = a_policy()
    assert TradingPolicy(policy.structure, policy.weights, {"told": "otherwise"}).version == policy.version
    assert a_policy(seed=1).version != policy.version


WHOLE = a_policy(Structure(3, (3, 2), (4,))).to_bytes()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_one_changed_bit_anywhere_is_refused(byte: int, bit: int):
    damaged = bytearray(WHOLE)
    damaged[byte] ^= 1 << bit
    with pytest.raises(PolicyUnreadable):
        TradingPolicy.from_bytes(bytes(damaged))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_was_cut_off_is_refused(length: int):
    with pytest.raises(PolicyUnreadable):
        TradingPolicy.from_bytes(WHOLE[:length])


def test_a_policy_that_is_not_there_is_refused_by_its_path(tmp_path: Path):
    with pytest.raises(PolicyUnreadable, match=r"nothing/policy\.safetensors"):
        TradingPolicy.load(tmp_path / "nothing")
