"""ODIN's thinking: pure functions and small classes, usable in a notebook. Nothing here imports dagster."""
