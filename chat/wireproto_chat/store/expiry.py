"""How long the chat keeps what it does not keep for ever, and the job that deletes what is over."""

from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = ["GUESS_KEPT", "KEY_KEPT", "NAME_HELD", "TOKEN_IDLE", "TOKEN_LIFETIME", "TOKEN_STEP", "Expire"]

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR

TOKEN_IDLE = 7 * _DAY
"""Microseconds after its last use at which a token ends."""

TOKEN_LIFETIME = 30 * _DAY
"""... after the password was given."""

TOKEN_STEP = _HOUR
"""How exactly the last use of a token is known; spares a write on every call."""

NAME_HELD = 30 * _DAY
"""How long the name of a deleted account is not given to anybody else."""

KEY_KEPT = 7 * _DAY
"""How long an idempotency key is known after its last use."""

KEY_STEP = _DAY
"""How exactly the last use of a key is known."""

GUESS_KEPT = _DAY
"""How long a log-in that failed counts, after the last one."""

AT_ONCE = 1000
"""Keys deleted in one transaction, so that no send waits long behind it."""


class Expire(WriteJob[bool]):
    """Deletes tokens, failed log-ins and idempotency keys that are over; answers whether there may be more."""

    __slots__ = ()

    def apply(self, tx: Transaction) -> bool:
        tx.run(tx.sql.sessions_expire, tx.now - TOKEN_IDLE, tx.now - TOKEN_LIFETIME)
        tx.run(tx.sql.guesses_expire, tx.now - GUESS_KEPT)
        return tx.run(tx.sql.keys_expire, tx.now - KEY_KEPT, AT_ONCE) >= AT_ONCE
