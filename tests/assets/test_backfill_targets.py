"""What Dagit accepts when a backfill is launched must not depend on the order of a set in its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = """
import time
import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView, TemporalContext
from dagster._core.execution.backfill import PartitionBackfill
from dagster._time import get_current_datetime
from odin_assets.assets.learning import WEEKLY
from odin_assets.definitions import defs
from odin_assets.jobs import LOOP_NAMES, UPSTREAM

SELECTIONS = {
    "demo": [(*UPSTREAM, *LOOP_NAMES, *WEEKLY), LOOP_NAMES, ("features", *LOOP_NAMES), ("price_history", *LOOP_NAMES)],
    "nse": [(*UPSTREAM, "corporate_actions", "fundamentals", *LOOP_NAMES), ("fundamentals", *LOOP_NAMES)],
}
instance, graph = dg.DagsterInstance.ephemeral(), defs.resolve_asset_graph()
now = TemporalContext(effective_dt=get_current_datetime(), last_event_id=None)
view = AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
for market, selections in SELECTIONS.items():
    for names in selections:
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="x", asset_graph=graph, backfill_timestamp=time.time(), tags={}, title=None, description=None,
            partition_names=["2023-01-02", "2023-01-03", "2023-01-04"], all_partitions=False, run_config=None,
            asset_selection=[dg.AssetKey([market, name]) for name in names], dynamic_partitions_store=instance,
        )
        target = backfill.asset_backfill_data.target_subset
        subsets = [
            view.get_entity_subset_from_asset_graph_subset(target, dg.AssetKey([market, name])).get_internal_value()
            for name in LOOP_NAMES
        ]
        if any(one != other for one in subsets for other in subsets):  # as dagster_graphql compares them
            print(market, *names)
"""


@pytest.mark.parametrize("seed", ["2", "4", "5"])  # with a second way into the loop, these and most others were refused
def test_a_backfill_of_the_loop_has_one_target_in_whatever_order_the_graph_is_walked(seed: str):
    done = subprocess.run(
        [sys.executable, "-c", TARGETS], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
