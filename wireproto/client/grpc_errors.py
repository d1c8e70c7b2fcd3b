"""What grpcio raises, as the errors of the other client."""

from collections.abc import Callable
from typing import Any

from grpc_status import rpc_status

from wireproto.address import Address
from wireproto.client.grpc_again import UNREACHED
from wireproto.errors import CallError, ConnectionLost, HandshakeError
from wireproto.protos.status import BrokenMessage, from_rpc_status
from wireproto.reasons import failure
from wireproto.status import Retry, Status

__all__ = ["read_failure"]

# grpcio has one status for everything that befalls a connection, and tells what it was in words only. With other words
# than these a call may have been processed, so a change of them costs advice and never promises too much.
_HTTP_1 = "Trying to connect an http1.x server"
"""So it takes the HTTP answer that our TCP door, like any web server, has for an HTTP/2 client."""
_REFUSED_STREAM = "RST_STREAM with error code 7"
"""What HTTP/2 (RFC 9113, 8.7) has for a request of which a server promises that it did nothing with it."""


def read_failure(error: Any, address: Address, unreached: Callable[[], object], *, closed: bool) -> CallError:
    """What grpcio raised, as what the other client would have; without what stands beside it.

    Args:
        error: of grpcio, or its object of the call.
        address: of the server, for texts.
        unreached: called where no connection came about.
        closed: the client was closed.
    """
    try:
        details = rpc_status.from_call(error)
    except (ValueError, BrokenMessage):
        details = None  # another server's, and broken, or at odds with the rest
    if details is not None and details.code:
        return from_rpc_status(details)
    if closed:
        return ConnectionLost("the client was closed")
    status = Status(error.code().value[0])
    text = error.details() or status.name
    if status is Status.UNAVAILABLE:
        if _HTTP_1 in text:
            return HandshakeError(
                Status.INVALID_ARGUMENT,
                "FOREIGN_PROTOCOL",
                f"{address} does not speak gRPC: give the gateway's port (wireproto serve --grpc-port), "
                "or use wireproto.connect for a server's TCP port",
                retry=Retry.NEVER,
            )
        if text.startswith(UNREACHED):
            unreached()
            return ConnectionLost(f"{address} cannot be reached: {text}", retry=Retry.NOT_PROCESSED)
        if _REFUSED_STREAM in text:
            return ConnectionLost(f"{address} refused the call: {text}", retry=Retry.NOT_PROCESSED)
        return ConnectionLost(f"the connection to {address} was lost: {text}")
    if status is Status.DEADLINE_EXCEEDED:
        return failure("DEADLINE", text)
    if status is Status.CANCELLED:
        return failure("CANCELLED", text)
    return CallError(status, "", text)
