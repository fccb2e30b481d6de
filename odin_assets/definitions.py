"""What Dagster loads: the graph of every market that has a profile. `workspace.yaml` and `dg` name this module."""

from odin_assets.build import build_definitions
from odin_core.market.profile import profile_names

defs = build_definitions(profile_names())
