"""What alembic runs to apply the revisions, on the connection that ``maintenance.upgrade`` has open and inside its
transaction.

Alembic runs this file by its path; nothing imports it.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
