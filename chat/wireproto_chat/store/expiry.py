"""How long the chat keeps what it does not keep for ever, and the job that deletes what is over.

All of it is microseconds of the store's age, see ``clocks``.
"""

from wireproto_chat.store.clocks import LONGEST_GAP
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = ["GUESS_KEPT", "KEY_KEPT", "NAME_HELD", "TOKEN_IDLE", "TOKEN_LIFETIME", "TOKEN_STEP", "Expire"]

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR

TOKEN_IDLE = 7 * _DAY
"""After its last use a token ends."""

TOKEN_LIFETIME = 30 * _DAY
"""... after the password was given."""

TOKEN_STEP = _HOUR
"""How exactly the last use of a token is known; spares a write on every call."""

NAME_HELD = 30 * _DAY
"""How long the name of a deleted account is not given to anybody else."""

KEY_STEP = _DAY
"""How exactly the last use of an idempotency key is known."""

KEY_KEPT = 7 * _DAY + KEY_STEP + LONGEST_GAP
"""How long a key is known after the last use that is known of it. Seven days are promised after each use, and a clock
that was wrong when the server was started takes none of them: somebody's repetition would be a second message."""

GUESS_KEPT = _DAY
"""How long a log-in that failed counts, after the last one."""

AT_ONCE = 1000
"""Keys deleted in one transaction, so that no send waits long behind it."""


class Expire(WriteJob[bool]):
    """Deletes tokens, failed log-ins and idempotency keys that are over; answers whether there may be more.

    A token or a key that is not what was stored stays: its age may be what is wrong in it.
    """

    __slots__ = ()

    def apply(self, tx: Transaction) -> bool:
        sql = tx.sql
        sessions = tx.sound(sql.sessions_over, tx.age - TOKEN_IDLE, tx.age - TOKEN_LIFETIME)
        tx.run_each(sql.session_drop, [row[:1] for row in sessions])
        tx.run(sql.guesses_expire, tx.age - GUESS_KEPT)
        keys = tx.sound(sql.keys_over, tx.age - KEY_KEPT, AT_ONCE)
        tx.run_each(sql.key_drop, [row[:2] for row in keys])
        return len(keys) >= AT_ONCE
