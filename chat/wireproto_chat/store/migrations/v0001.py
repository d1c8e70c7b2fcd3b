"""The tables of wireproto 0.1, which that release made without alembic. A database that has them begins here."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: they are there."""
