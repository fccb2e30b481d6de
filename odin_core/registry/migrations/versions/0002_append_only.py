"""Triggers: rows of artefacts, bundles and deployments are added and never changed."""

from alembic import op

from odin_core.registry.tables import make_append_only

revision, down_revision = "0002_append_only", "0001_registry"


def upgrade() -> None:
    make_append_only(op.get_bind())
