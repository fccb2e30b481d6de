"""The Dagster layer of ODIN: definitions, partitions, resources, assets, jobs, schedules, sensors.

Thinking is in odin_core."""

import warnings

# Dagster announces backfill_policy and owners as beta, once per asset; the pinned version has them.
warnings.filterwarnings("ignore", message=".*is currently in beta", module="dagster")
