"""What a session of the server asks of the server that owns it."""

from collections.abc import MutableMapping
from typing import Any, Protocol

from wireproto.answering.pool import Pool
from wireproto.binding import Dialect
from wireproto.dispatch import Table
from wireproto.limits import Limits
from wireproto.poller import Poller
from wireproto.wire.connection import Connection
from wireproto.wire.handshake import Hello, Welcome

__all__ = ["SessionOwner"]


class SessionOwner(Protocol):
    """A server, as its sessions see it."""

    limits: Limits
    poller: Poller
    pool: Pool

    @property
    def sessions(self) -> MutableMapping[int, Any]:
        """The sessions by descriptor: each enters itself when it opens."""

    def connection(self) -> Connection:
        """The protocol's state of one more session."""

    def welcome(self, hello: Hello) -> tuple[Welcome, Table, str]:
        """Agree with a client: what to answer, the opcodes it may call, and the codec's name.

        Raises:
            HandshakeError: there is nothing to agree on.
        """

    def greeted(self, session: Any) -> None:
        """A client was welcomed on the session, whose lock is held."""

    def dialect(self, table: Table, codec: str, packing: int) -> Dialect:
        """What a connection speaks, for calls of the server: that of its table, in the codec of that name, packed by
        the algorithm of that number.
        """

    def forget(self, session: Any) -> None:
        """The session is about to give its descriptor back."""

    def note(self, host: str, subject: str, text: str) -> None:
        """Log a fault of a peer, now and then."""
