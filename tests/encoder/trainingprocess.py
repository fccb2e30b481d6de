"""A training in a process of its own, which a test may kill: `python trainingprocess.py FOLDER`. Says each step."""

import sys
from pathlib import Path

from plantedsamples import QUICK, planted_samples

from odin_core.encoder.training import train

SAMPLES = planted_samples(5, symbols=3, sessions=20)
CONFIG = QUICK.model_copy(update={"steps": 100, "patience": 100, "dropout": 0.2})


def say(done: int, steps: int, what: str) -> None:
    print(f"{done}/{steps} {what}", flush=True)


if __name__ == "__main__":
    print(train(SAMPLES, CONFIG, checkpoints=Path(sys.argv[1]), progress=say).version, flush=True)
