"""A market's bars and fundamentals in PostgreSQL: tables made by migrations, loaded from the lake and read in bulk.

A market has a schema of its own, so that two markets may use the same symbol. `connection` opens a database and says in
ODIN's words what went wrong, `schema` brings its tables up to date, `transfer` moves rows both ways. That a database is
also a source of bars is said in `market.sources.postgres`."""
