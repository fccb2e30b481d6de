"""What alembic runs for every upgrade: the connection, its transaction and the schema come from `database.schema`."""

from alembic import context

given = context.config.attributes
context.configure(
    connection=given["connection"],
    version_table=given["version_table"],
    version_table_schema=given["schema"],
    transactional_ddl=True,
)
context.run_migrations()
