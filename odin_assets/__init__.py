"""The Dagster layer of ODIN: definitions, partitions, resources, assets, jobs, schedules, sensors.

Thinking is in odin_core."""

import gc
import warnings

# Importing Dagster makes hundreds of thousands of objects that last. Python's default is to look through all of them
# every few hundred new ones: a fifth of the time in which the graph loads.
gc.set_threshold(100_000, 50, 100)

# Dagster announces backfill_policy and owners as beta, once per asset; the pinned version has them.
warnings.filterwarnings("ignore", message=".*is currently in beta", module="dagster")
