"""Stable-Baselines3 draws from the process's generators and sets their seeds; here it gets them for itself alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.distributions import Distribution


@contextmanager
def isolated(threads: int) -> Iterator[None]:
    """Torch runs on `threads`, and its distributions do not check what they are given: numbers that are not finite are
    found after each update (`ppo.Diverged`). Afterwards threads, checks and the generators of torch, numpy and random
    are as before."""
    before, python, legacy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    checked = Distribution._validate_args
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            Distribution.set_default_validate_args(checked)
            torch.set_num_threads(before)
            np.random.set_state(legacy)
            random.setstate(python)
