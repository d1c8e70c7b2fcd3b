"""A server in a child of its process: the child lets go of it, and the parent serves on."""

import os
import sys
from collections.abc import Callable

import pytest

from tests.children import in_child
from tests.server.service import ECHO, EchoRequest, Stage
from wireproto import ConfigError, Server, connect
from wireproto.client.grpc import connect as connect_grpc
from wireproto.server.gateway import GrpcGateway

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

PATIENCE = 20.0


def refuse_start(door: Server | GrpcGateway) -> None:
    """It says whose it is."""
    with pytest.raises(ConfigError, match="before a fork"):
        door.start()


def serve_own(stage: Stage) -> None:
    """The child has a server of its own."""
    with Server(stage.handlers) as own, connect(own.address, stage.handlers.service) as client:
        assert client.call(ECHO, EchoRequest(text="own")).text == "own"


WAYS: dict[str, Callable[[Server, Stage], object]] = {
    "nothing": lambda server, stage: None,
    "shut down": lambda server, stage: server.shutdown(1.0),
    "leave its block": lambda server, stage: server.__exit__(None, None, None),
    "wait for its end": lambda server, stage: server.wait(1.0),
    "start": lambda server, stage: refuse_start(server),
    "serve": lambda server, stage: serve_own(stage),
    "end as an interpreter": lambda server, stage: sys.exit(0),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_child_does_the_parent_serves_on(way: str) -> None:
    """Connections that are open and new ones are served, and the child has none of their descriptors."""
    stage = Stage()
    with Server(stage.handlers) as server:
        with connect(server.address, stage.handlers.service) as client:
            assert client.call(ECHO, EchoRequest(text="before")).text == "before"
            descriptors = {session.transport.fd for session in server.sessions.values()}
            assert server._listener is not None
            descriptors.add(server._listener.fileno())

            def act() -> None:
                held = {int(name) for name in os.listdir("/proc/self/fd")}
                assert not descriptors & {
                    fd for fd in held if os.path.realpath(f"/proc/self/fd/{fd}").find("socket") > 0
                }
                WAYS[way](server, stage)

            expected = 1 if way == "end as an interpreter" else 0  # SystemExit comes out of ``act``
            assert in_child(act) == expected
            assert client.call(ECHO, EchoRequest(text="after")).text == "after"
            with connect(server.address, stage.handlers.service) as other:
                assert other.call(ECHO, EchoRequest(text="new")).text == "new"
        assert server.shutdown(PATIENCE) == []
    stage.open_gates()


def test_a_gateway_in_a_child() -> None:
    """Shutting it down there returns at once, and the parent's serves on."""
    stage = Stage()
    with (
        GrpcGateway(stage.handlers, port=0) as gateway,
        connect_grpc(gateway.address, stage.handlers.service) as client,
    ):
        assert client.call(ECHO, EchoRequest(text="before")).text == "before"

        def act() -> None:
            assert gateway.shutdown(5.0) == []
            refuse_start(gateway)

        assert in_child(act) == 0
        assert client.call(ECHO, EchoRequest(text="after")).text == "after"
    stage.open_gates()
