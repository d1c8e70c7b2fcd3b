"""The calls that a server begins on one connection, beside a session that only counts."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.agents.service import AGENTS, RUN, Order
from tests.wire.peers import opened_both_ways
from wireproto.binding import Dialect
from wireproto.codecs import select
from wireproto.errors import CallError
from wireproto.limits import Limits
from wireproto.server.calling import Calling
from wireproto.status import Retry, Status


class Posted:
    """A pool that keeps what it is given."""

    def __init__(self) -> None:
        self.actions: list[Callable[..., object]] = []

    def post(self, action: Callable[..., object]) -> None:
        self.actions.append(action)

    def run(self) -> None:
        """Run all that."""
        while self.actions:
            self.actions.pop(0)(None)


class CrowdedSession:
    """A session whose output waits for the kernel, which takes all of it when it is asked to: then there is room, and
    the session says so, as it does in the middle of a write.
    """

    def __init__(self, max_calls: int, limits: Limits | None = None) -> None:
        self.pair = opened_both_ways(max_calls=max_calls)
        self.connection = self.pair.server
        self.lock = threading.Lock()
        self.pool: Any = Posted()
        self.peer, self.codec, self.closed, self.limits = "127.0.0.1:1", "msgpack", False, limits or Limits()
        self.calling = Calling(self)  # type: ignore[arg-type] # what is missing is not asked for here

    def dialect(self) -> Dialect:
        return Dialect(AGENTS, select(["msgpack"])[0], 1, self.limits, by="server")

    def unsent_locked(self) -> tuple[int, int]:
        return 0, 1

    def room_locked(self) -> int:
        return 1

    def flush_locked(self) -> None:
        self.calling.wake_locked()

    def flush_soon(self) -> None:
        """Nobody reads here but by ``pair``."""

    def alarm_locked(self, deadline: float) -> None:
        """No time passes here."""

    def one_less_locked(self) -> None:
        """It does not end."""


@pytest.mark.parametrize("max_calls", [1, 2])
def test_room_that_sending_makes_is_nobody_elses(max_calls: int) -> None:
    """A call that waits is sent with the place that it was given, though others are told of room meanwhile."""
    session = CrowdedSession(max_calls)
    calling, (client, server) = session.calling, session.pair
    for number in range(max_calls + 3):
        calling.start(RUN, Order(count=number), timeout=60)
    assert server.own_calls == max_calls
    for _ in range(3):
        begun = session.pair.deliver(server)
        client.send_response(begun[0].call_id, b"")  # type: ignore[union-attr]
        for event in session.pair.deliver(client):
            with session.lock:
                calling.event_locked(event)
        assert server.own_calls == max_calls
    assert client.bytes_pending == 0  # none was refused


def test_calls_that_a_client_never_answers_are_bounded() -> None:
    """Whatever a client says that it takes: calls that were given up are in flight until it has answered them."""
    session = CrowdedSession(max_calls=0xFFFF_FFFF, limits=Limits(start_queue=3))
    for number in range(20):
        session.calling.start(RUN, Order(count=number), timeout=60).cancel()
    assert session.connection.own_calls == 3
    begun = session.pair.deliver(session.connection)
    session.pair.client.send_error(begun[0].call_id, CallError(Status.CANCELLED, "CANCELLED"))  # type: ignore[union-attr]
    waits = session.calling.start(RUN, Order(), timeout=60)
    assert not waits.done()
    for event in session.pair.deliver(session.pair.client):
        with session.lock:
            session.calling.event_locked(event)
    assert session.connection.own_calls == 3
    session.pool.run()
    assert not waits.done()


def test_calls_that_a_client_will_not_look_at_were_not_processed() -> None:
    """GOAWAY decides that, and not the advice for a retry that stands in it; each call has an error of its own."""
    session = CrowdedSession(max_calls=3)
    futures = [session.calling.start(RUN, Order(count=number), timeout=60) for number in range(2)]
    odd = CallError(Status.INTERNAL, "X_ODD", "it burns", retry=Retry.MAYBE_PROCESSED, retry_after_ms=7)
    session.pair.client.send_goaway(odd)
    for event in session.pair.deliver(session.pair.client):
        with session.lock:
            session.calling.event_locked(event)
    session.pool.run()
    errors = [future.exception(0) for future in futures]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, CallError)
        assert (error.status, error.reason, error.message) == (Status.INTERNAL, "X_ODD", "it burns")
        assert (error.retry, error.retry_after_ms) == (Retry.NOT_PROCESSED, 7)
