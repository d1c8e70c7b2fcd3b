"""running serves for the length of a test, and tells when something of it is left."""

import threading
from collections.abc import Iterator

import pytest
from calculator import ADD, CALCULATOR, AddRequest, handlers

from tests.server.service import BLOCK, SERVICE, WHO, BlockRequest, Stage, WhoRequest
from wireproto import CallError, ConfigError, ConnectionLost, Limits, LocalProtocolError, Status
from wireproto.client import BlockingClient
from wireproto.schema import Service
from wireproto.testing import doors, running


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.open_gates()


def test_there_is_a_client_for_each_codec_and_for_grpc() -> None:
    """Without being told, every codec and gRPC have a door, in this order, and all lead to the handlers."""
    with running(handlers) as made:
        assert list(made)[:3] == ["pipe", "msgpack", "protobuf"]
        assert list(made)[-1] == "grpc"
        for door, client in made.items():
            assert isinstance(client, BlockingClient)
            assert client.codec == door
            assert client.call(ADD, AddRequest(left=2, right=3)).total == 5
        assert made.client is made["pipe"]
        assert made.address == made.server.address


def test_doors_can_be_chosen() -> None:
    """Only the codecs that are named have a door, and gRPC only if it is wanted."""
    with running(handlers, codecs=["msgpack"], grpc=False) as made:
        assert list(made) == ["msgpack"]
        assert made.gateway is None
        assert made.server.codecs == ["msgpack"]


def test_without_grpc_there_is_no_such_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed, the codecs have their doors all the same."""
    monkeypatch.setattr(doors, "has_grpc", lambda: False)
    with running(handlers) as made:
        assert "grpc" not in made
        assert len(made) >= 3


def test_authentication_and_limits_reach_every_door(stage: Stage) -> None:
    """``authenticate`` judges behind each door, and ``limits`` are the servers'."""
    with running(stage.handlers, authenticate=stage.authenticate, limits=Limits(max_calls=7)) as made:
        assert made.server.limits.max_calls == 7
        for client in made.values():
            with pytest.raises(CallError) as caught:
                client.call(WHO, WhoRequest())
            assert caught.value.status is Status.UNAUTHENTICATED
            assert client.call(WHO, WhoRequest(), metadata={"authorization": "user:ann"}).name == "ann"


def test_further_clients_come_through_the_same_doors() -> None:
    """A door lets another client in, which may be older, and names the doors when there is no such one."""
    with running(handlers) as made:
        for door, first in made.items():
            second = made.connect(door)
            assert second is not first
            assert second.call(ADD, AddRequest(left=2, right=3)).total == 5
        with pytest.raises(ConfigError, match=r"no door 'gate'; there are pipe, msgpack, protobuf.*grpc"):
            made.connect("gate")


def test_nothing_is_left() -> None:
    """Afterwards no thread is there that was not before, and the clients are closed."""
    before = set(threading.enumerate())
    with running(handlers) as made:
        clients = list(made.values())
    assert set(threading.enumerate()) <= before
    for client in clients:
        with pytest.raises((LocalProtocolError, ConnectionLost)):
            client.call(ADD, AddRequest(left=2, right=3))


def hang(stage: Stage, within: float, error: Exception | None = None) -> None:
    """A test whose handler does not return, and which may fail by itself."""
    with running(stage.handlers, codecs=["pipe"], grpc=False, within=within) as made:
        made.client.start(BLOCK, BlockRequest(name="stuck"))
        assert stage.inside("stuck").wait(20)
        if error is not None:
            raise error


def test_a_handler_that_hangs_is_reported(stage: Stage) -> None:
    """A thread that is still inside a handler fails the test, which is told where it is."""
    with pytest.raises(AssertionError, match=r"1 s after the end: wireproto-worker-\d+ in .*wait.*service\.py"):
        hang(stage, 1)


def test_a_failure_is_not_hidden_by_what_is_left(stage: Stage) -> None:
    """When the test failed, what is left is a note on its failure."""
    with pytest.raises(ZeroDivisionError) as caught:
        hang(stage, 0.1, ZeroDivisionError())
    assert "threads are left" in caught.value.__notes__[0]


def test_threads_may_be_left_on_purpose(stage: Stage) -> None:
    """With ``leaks=False`` nobody looks."""
    with running(stage.handlers, codecs=["pipe"], grpc=False, within=0.1, leaks=False) as made:
        made.client.start(BLOCK, BlockRequest(name="stuck"))
        assert stage.inside("stuck").wait(20)


def test_a_service_of_another_name_is_refused_and_leaves_nothing() -> None:
    """When a client cannot connect, what was started is closed again."""
    before = set(threading.enumerate())
    with pytest.raises(CallError, match="UNKNOWN_SERVICE"), running(handlers, service=SERVICE):
        pass
    assert set(threading.enumerate()) <= before


def test_clients_may_declare_the_service_themselves() -> None:
    """``service`` is what the clients were made for."""
    own = Service(CALCULATOR.full_name, methods=[ADD])
    with running(handlers, codecs=["pipe"], service=own) as made:
        assert all(client.service is own for client in made.values())
