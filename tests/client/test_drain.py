"""Closing with ``drain``: the writing side is shut first, and what is on its way still comes."""

import threading
from collections.abc import Iterator

import pytest

from tests.server.service import (
    DEFER,
    ECHO,
    FEED,
    SERVICE,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    FeedRequest,
    Stage,
)
from wireproto.client import Client, connect
from wireproto.errors import CallError, ConnectionLost, LocalProtocolError
from wireproto.server import Server
from wireproto.status import Status


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    with (
        Server(stage.handlers, codecs=["msgpack"], workers=4) as server,
        connect(server.address, SERVICE) as client,
    ):
        yield client


def test_answers_in_flight_still_come(stage: Stage, client: Client) -> None:
    """A call that is answered while the client drains has its answer; later ones are refused here."""
    answer = client.start(DEFER, DeferRequest(name="late"))
    future = stage.future("late")
    closer = threading.Thread(target=lambda: client.close(drain=20))
    closer.start()
    while not refused(client):
        pass
    future.set_result(DeferResponse(name="late"))
    assert answer.result(20).name == "late"
    closer.join(20)
    assert not closer.is_alive()


def refused(client: Client) -> bool:
    """Whether the client takes no calls any more."""
    try:
        client.call(ECHO, EchoRequest(text="x"))
    except LocalProtocolError:
        return True
    return False


def test_a_stream_ends_and_its_items_before_are_there(stage: Stage, client: Client) -> None:
    """Items sent before the end are read, then the stream is CANCELLED, as nobody can grant it credit."""
    stream = client.stream(FEED, FeedRequest(name="f"), credit=10)
    feed = stage.feed("f")
    feed.put("one", "two")
    assert next(stream).text == "one"
    while not stream._call.items:  # a turn of the server's may have taken the first one alone
        assert not feed.was_closed.wait(0.01)
    client.close(drain=20)
    assert next(stream).text == "two"
    with pytest.raises(CallError) as caught:
        next(stream)
    assert caught.value.status is Status.CANCELLED
    assert feed.was_closed.wait(20)


def test_the_end_of_a_call_that_was_cancelled_is_heard(
    stage: Stage, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that closed before it would reset the connection, and the server would log that."""
    stream = client.stream(FEED, FeedRequest(name="f"), credit=10)
    feed = stage.feed("f")
    stream.close()
    client.close(drain=20)
    assert feed.was_closed.wait(20)
    (link,) = client._line.links
    assert link._cause == "the client is done"
    assert link._connection.calls_in_flight == 0
    assert "failed" not in caplog.text


def test_draining_is_bounded(stage: Stage, client: Client) -> None:
    """What is not answered within the time is lost, and may have been processed."""
    answer = client.start(DEFER, DeferRequest(name="never"))
    stage.future("never")
    client.close(drain=0.1)
    with pytest.raises(ConnectionLost, match="may have been processed"):
        answer.result(20)
    stage.future("never").cancel()  # the server would wait for it


def test_with_nothing_in_flight_it_ends_at_once(client: Client) -> None:
    """A client that waits for nothing does not wait."""
    client.call(ECHO, EchoRequest(text="x"))
    client.close(drain=1000)
    client.close(drain=1000)
