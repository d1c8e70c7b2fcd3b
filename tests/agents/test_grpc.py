"""gRPC has no calls of a server: what would be one is refused in words, on both sides."""

from typing import Any

import pytest

from tests.agents.service import AGENTS, ENROL, RUN, EnrolRequest, EnrolResponse, Order
from wireproto import CallError, ConfigError, Context, Handlers, LocalProtocolError, Retry, Status
from wireproto.cli.wanted import find
from wireproto.client.grpc import GrpcClient
from wireproto.server.gateway.gateway import GrpcGateway


def test_calls_of_a_server_are_not_over_grpc(caplog: pytest.LogCaptureFixture) -> None:
    """A client is told before anything is sent; a handler that asks for the client fails its call, and no more."""
    handlers = Handlers(AGENTS)

    @handlers.register(ENROL)
    def enrol(request: EnrolRequest, context: Context) -> EnrolResponse:
        context.client.on_close(lambda: None)
        return EnrolResponse(agents=1)

    with GrpcGateway(handlers, port=0) as gateway, GrpcClient(gateway.address, AGENTS) as client:
        with pytest.raises(CallError, match="gRPC has no calls of a server, use TCP") as caught:
            client.call(ENROL, EnrolRequest(name="x"), timeout=10)
        assert (caught.value.status, caught.value.retry) == (Status.FAILED_PRECONDITION, Retry.NEVER)
        assert "incident" not in caplog.text
        method: Any = RUN
        with pytest.raises(LocalProtocolError, match=r"Run is called by the server; .* gRPC has no calls of a server"):
            client.call(method, Order(), timeout=10)
        with pytest.raises(LocalProtocolError, match="Run is called by the server"):
            client.start(method, Order(), timeout=10).result(10)


def test_the_command_calls_what_clients_call() -> None:
    """``wireproto call`` and its like say why they cannot call such a method."""
    with pytest.raises(ConfigError, match="Run is called by the server; a client answers it"):
        find([AGENTS], "Run")
    assert find([AGENTS], "Enrol").method is ENROL
