"""Bars of every interval, partitioned by interval: a load or a read of one interval touches no other's pages."""

from alembic import op

revision, down_revision = "0001_price_history", None
INTERVALS = ("1m", "5m", "15m", "60m", "day")


def upgrade() -> None:
    op.execute(
        """
        create table stock_price_history (
            symbol text not null,
            "interval" text not null,
            ts timestamptz not null,
            open double precision not null,
            high double precision not null,
            low double precision not null,
            close double precision not null,
            volume double precision,
            oi double precision,
            primary key (symbol, "interval", ts)
        ) partition by list ("interval")
        """
    )
    for name in INTERVALS:
        op.execute(f"create table stock_price_history_{name} partition of stock_price_history for values in ('{name}')")
    op.execute("create table stock_price_history_other partition of stock_price_history default")
    op.execute("comment on column stock_price_history.ts is 'start of the bar'")
    op.execute("comment on column stock_price_history.volume is 'null where the source has none'")
    op.execute("comment on column stock_price_history.oi is 'open interest at the end of the bar, null without'")
