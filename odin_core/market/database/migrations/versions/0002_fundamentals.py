"""Fundamentals in long form: one row per symbol, figure, period, moment at which it became known, and origin."""

from alembic import op

revision, down_revision = "0002_fundamentals", "0001_price_history"


def upgrade() -> None:
    op.execute(
        """
        create table stock_fundamentals (
            symbol text not null,
            figure text not null,
            period text not null default '',
            known_at timestamptz not null,
            origin text not null default '',
            value double precision,
            primary key (symbol, figure, period, known_at, origin)
        )
        """
    )
    op.execute("comment on column stock_fundamentals.known_at is 'first moment at which a decision may use the value'")
    op.execute("comment on column stock_fundamentals.period is 'what the value is about; empty where nobody says'")
    op.execute("comment on column stock_fundamentals.value is 'null: known to be unavailable'")
