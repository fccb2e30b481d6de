"""Artefacts by content, bundles of them, the log of deployments, and one pointer for each life and horizon."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001_registry", None


def upgrade() -> None:
    op.create_table(
        "artefacts",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("copy", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("added_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "copy"),
    )
    op.create_table(
        "bundles",
        sa.Column("life", sa.Text, nullable=False),
        sa.Column("horizon", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("parts", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("made_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("life", "horizon", "number"),
    )
    op.create_table(
        "deployments",
        sa.Column("life", sa.Text, nullable=False),
        sa.Column("horizon", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("from_version", sa.Text),
        sa.Column("to_version", sa.Text),
        sa.Column("effective", sa.Date),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("life", "horizon", "revision"),
    )
    op.create_table(
        "pointers",
        sa.Column("life", sa.Text, nullable=False),
        sa.Column("horizon", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("effective", sa.Date),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("followed", sa.Date),
        sa.PrimaryKeyConstraint("life", "horizon"),
    )
