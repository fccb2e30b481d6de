"""Speed of a full weekly gate without training, on a demo life of 122 sessions at its last week's end: five sessions
scored, evidence, verdict, drift reference, five seeds of the walk-forward, and the reports.

Peer: the training of that week's candidate, which the gate does not contain."""

import tempfile
from dataclasses import replace
from typing import Any

import demo_life
import polars as pl
from timing import seconds

from odin_core.evaluation.gate_report import report_markdown
from odin_core.evaluation.sensitivity import seed_spread
from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.learning import WEEKS_END, try_candidate
from odin_core.lifecycle.run import loop_rules, restore
from odin_core.market.data import MarketData
from odin_core.policies.joint import train_joint
from odin_core.training.window import TrainingWindow

REPEATS = 3


def run() -> list[dict[str, Any]]:
    """Seconds; medians of three."""
    with tempfile.TemporaryDirectory() as folder:
        demo_life.main(folder, str(demo_life.FIRST), str(demo_life.LAST))
        life = lives.current(open_home(folder), "demo")
        assert life is not None
        rules = loop_rules(life, MarketData.of(life.home, "demo", life.config).profile)
        state = restore(life, MarketData.of(life.home, "demo", life.config), rules)
    config, window, ceiling = rules.config, TrainingWindow(list(state.window)), rules.profile.ic_alarm
    monday = state.window[-5].session
    unscored = replace(state, scores=state.scores.filter(pl.col("session") < monday))

    def trial() -> None:
        found = try_candidate(unscored, config, ceiling)
        assert found.judged is not None
        found.reports(state.window[-1].session, WEEKS_END)
        report_markdown(found.judged.verdict, {})

    training = seconds(lambda: train_joint(window, config.learner, config.seed), REPEATS)
    seeds = seconds(lambda: seed_spread(window, config.learner, range(config.promotion.seeds)), REPEATS)
    gate = seconds(trial, REPEATS) - training + seeds
    return [{"bench": "gate", "value": gate, "unit": "s", "peer": "training one candidate", "peer_value": training}]
