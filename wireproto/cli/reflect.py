"""What a server says of the services it hosts, for commands that were given no source of them."""

from contextlib import AbstractContextManager

from wireproto.address import Address
from wireproto.cli.command import CALL_STATUS, Failure
from wireproto.client import BlockingClient
from wireproto.control import DESCRIBE, DescribeRequest, declare
from wireproto.errors import HandshakeError
from wireproto.schema import Service

__all__ = ["hosted"]


def hosted(address: Address, connected: AbstractContextManager[BlockingClient], timeout: float) -> list[Service]:
    """The services of a server, declared anew from its description.

    Args:
        address: of the server, for the sentence when it has no description.
        connected: opens a client of the control service there, and closes it.
        timeout: seconds for the answer.

    Raises:
        Failure: the server does not describe itself.
    """
    try:
        with connected as client:
            described = client.call(DESCRIBE, DescribeRequest(), timeout=timeout)
    except HandshakeError as error:
        if error.reason != "UNKNOWN_SERVICE":
            raise
        # A server that somebody else wrote, maybe.
        sentence = f"{address} does not describe itself; say with --service MODULE:SERVICE what it serves"
        raise Failure(f"{sentence}\n{error}", CALL_STATUS + error.status) from error
    return [declare(each) for each in described.services]
