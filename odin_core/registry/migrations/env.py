"""What alembic runs for every upgrade: the connection and its transaction come from `registry.database`."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"], transactional_ddl=True)
context.run_migrations()
