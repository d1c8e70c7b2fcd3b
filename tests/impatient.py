"""Connections whose heartbeat is milliseconds where seconds were agreed, for tests that wait for silence."""

from wireproto.wire.connection import Connection
from wireproto.wire.handshake import Welcome

__all__ = ["ImpatientConnection"]


class ImpatientConnection(Connection):
    """A side that sends PINGs, and gives its peer up, ten times as early as was agreed. No peer may ask for that."""

    __slots__ = ()

    def _agree(self, welcome: Welcome) -> None:
        super()._agree(welcome)
        self.heartbeat_ms //= 10
