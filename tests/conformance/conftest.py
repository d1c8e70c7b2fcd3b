"""A right server of the conformance service."""

from collections.abc import Iterator

import pytest

from wireproto.conformance.service import authenticate, make_handlers
from wireproto.limits import Limits
from wireproto.server import Server

QUICK = Limits(hello_timeout=1.0, frame_timeout=1.0)
"""For what is judged by waiting for it."""


@pytest.fixture(scope="package")
def address() -> Iterator[tuple[str, int]]:
    server = Server(make_handlers(), port=0, authenticate=authenticate, limits=QUICK)
    server.start()
    yield server.address.host, server.address.port
    server.shutdown(0.5)  # calls that sleep for long are nobody's any more
