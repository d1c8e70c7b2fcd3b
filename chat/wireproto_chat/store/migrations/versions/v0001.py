"""The tables that ``Store`` makes in a new database. Every chain of migrations begins at a database that has them."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Do nothing: the tables are there."""
