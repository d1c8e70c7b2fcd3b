"""`wireproto call` without a service's source: what the server says of itself is enough."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import run
from tests.cli.services import other, shop
from wireproto import Server, Status


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of two services."""
    with Server([shop, other]) as server:
        yield str(server.address)


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_a_method_is_called_without_its_source(address: str, codec: str) -> None:
    """The message classes made from the description write and read the same bytes, in every codec."""
    method = "example.v1.ShopService/Paint"
    done = run("call", address, method, "name=wall", 'colours=["RED", 2]', "--codec", codec)
    assert json.loads(done.stdout) == {"text": "wall:RED+BLUEx1", "digest": b"wall".hex(), "at": "2026-01-31T12:00:00Z"}


def test_a_stream_is_called_without_its_source(address: str) -> None:
    """A described stream method is a stream."""
    done = run("call", address, "Count", "to=3")
    assert done.stdout == '{"number": 1}\n{"number": 2}\n{"number": 3}\n'


def test_a_name_of_two_services_must_say_which(address: str) -> None:
    """Both are offered with their service's name in front."""
    done = run("call", address, "Paint", "name=a")
    assert done.exit_code == 2
    assert "example.v1.ShopService/Paint, example.v1.OtherService/Paint" in done.stderr


def test_the_schema_is_known_before_the_call(address: str) -> None:
    """A wrong field or method is refused here, as with the source."""
    assert "CountRequest.to takes an integer" in run("call", address, "Count", "to=many").stderr
    assert "did you mean Count?" in run("call", address, "Cuont").stderr


def test_health_needs_no_service(address: str) -> None:
    """The control service can be asked for by a client that knows no other."""
    assert json.loads(run("call", address, "Check").stdout)["health"] == "SERVING"
    described = json.loads(run("call", address, "Describe").stdout)["services"]
    assert [service["full_name"] for service in described] == ["example.v1.ShopService", "example.v1.OtherService"]


def test_a_service_that_is_not_there_is_the_servers_answer(address: str) -> None:
    """The control service answers for a service it does not know."""
    done = run("call", address, "Describe", "service=example.v1.NoService")
    assert done.exit_code == 10 + Status.NOT_FOUND
    assert "UNKNOWN_SERVICE" in done.stderr
