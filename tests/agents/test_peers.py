"""Clients that answer a server frame by frame, and break off."""

from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from tests.agents.conftest import Branch
from tests.agents.service import AGENTS, RUN, TAIL, Line, Order, Result
from tests.agents.test_calls import Kept, wait_until
from tests.server.peer import Peer
from wireproto import CallError, Limits, Retry, Status
from wireproto.connected import ConnectedClient
from wireproto.wire.events import ConnectionEnded, FlaggedRequestReceived, RequestReceived
from wireproto.wire.frame import Credit
from wireproto.wire.handshake import Hello

GARBAGE = b"this is no frame"


class AnsweringPeer(Peer):
    """A client that may be called, and answers what it is told to."""

    def hello(self) -> Hello:
        return msgspec.structs.replace(
            super().hello(), max_calls=100, first_credit=Credit(16, 65_536), one_way_credit=8
        )

    def call_id(self) -> int:
        """Of the next call of the server's."""
        while not isinstance(event := self.event(), RequestReceived | FlaggedRequestReceived):
            assert not isinstance(event, ConnectionEnded), event.error
        return event.call_id

    def encoded(self, message: Any) -> bytes:
        return self.codec.plan(type(message), 1, Limits(), request=False).encode(message)


@pytest.fixture
def seen() -> list[ConnectedClient]:
    return []


def test_answers_in_front_of_a_broken_frame_count(branch: Branch, seen: list[ConnectedClient]) -> None:
    """A client that breaks the protocol in the same write has answered before: each outcome is the one that it gave."""
    office = branch.office(on_client=seen.append)
    with AnsweringPeer(office.server, AGENTS) as peer:
        wait_until(lambda: bool(seen))
        (agent,) = seen
        sink = Kept()
        answered: Future[Result] = agent.start(RUN, Order(), timeout=20)
        failed: Future[Result] = agent.start(RUN, Order(), timeout=20)
        ended = agent.stream(TAIL, Order(), sink, timeout=20)
        left: Future[Result] = agent.start(RUN, Order(), timeout=20)
        first, second, third, _ = (peer.call_id() for _ in range(4))
        connection = peer.connection
        connection.send_response(first, peer.encoded(Result(text="dug")))
        connection.send_error(second, CallError(Status.ABORTED, "BROKEN", "it is broken"))
        connection.send_item(third, peer.encoded(Line(text="a line")))
        connection.send_end(third)
        peer.socket.sendall(connection.data_to_send() + GARBAGE)
        assert answered.result(10).text == "dug"
        error = failed.exception(10)
        assert isinstance(error, CallError)
        assert error.reason == "BROKEN"
        assert ended.result(10) is None
        assert sink.texts == ["a line"]
        lost = left.exception(10)
        assert isinstance(lost, CallError)
        assert lost.retry is Retry.MAYBE_PROCESSED


def test_requests_that_are_still_written_may_be_processed(branch: Branch, seen: list[ConnectedClient]) -> None:
    """What waits in the output of a connection that the server ends goes out before the last word: a client may act on
    it, so that none of these calls is said not to have been processed.
    """
    office = branch.office(on_client=seen.append, limits=Limits(heartbeat=0, high_watermark=1 << 25))
    with AnsweringPeer(office.server, AGENTS) as peer:
        wait_until(lambda: bool(seen))
        (agent,) = seen
        futures = [agent.start(RUN, Order(text="x" * 200_000), timeout=60) for _ in range(60)]
        (session,) = office.server.sessions.values()
        wait_until(lambda: session.transport.pending > 400_000)  # the kernel takes no more
        peer.socket.sendall(GARBAGE)
        errors = [future.exception(10) for future in futures]
        assert len({peer.call_id() for _ in futures}) == len(futures)
    for error in errors:
        assert isinstance(error, CallError)
        assert error.retry is Retry.MAYBE_PROCESSED
