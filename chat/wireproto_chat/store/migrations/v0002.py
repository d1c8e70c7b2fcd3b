"""Chat version 2: when an account was last seen, conversations, deleted messages, and failed log-ins.

It only adds, so that nothing is rewritten: a second for a million messages, for their index.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what version 2 needs."""
    op.add_column("accounts", sa.Column("last_seen", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_messages_conversation", "messages", ["mailbox_id", "sender_id"])
    deleted = sa.text("body IS NULL")
    op.create_index(
        "ix_messages_deleted", "messages", ["mailbox_id", "seq"], sqlite_where=deleted, postgresql_where=deleted
    )
    op.create_table(
        "guesses",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("prefix", sa.String(64), primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_guesses_failed_at", "guesses", ["failed_at"])
    # A session that was used is the best that is known of when its account was there.
    op.execute(
        "UPDATE accounts SET last_seen = coalesce("
        "(SELECT max(used_at) FROM sessions WHERE sessions.account_id = accounts.id), 0)"
    )
