"""The real ``Connection``, in both roles, put in the place of the model's sides: every call completes, nothing is lost.

The programs, the moves and what is checked are the model's (``test_wire_model.py``). Ids also go round a small circle.
Faults that are planted into the real one, a method at a time, show that the same runs would find them there.
"""

from collections.abc import Callable
from typing import Final

import pytest

from tests.properties.test_wire_model import ExchangeMachine
from tests.properties.wire_model.exchange import Exchange, run
from tests.properties.wire_model.frames import Amount, CallShape, ConnectionEnds
from tests.properties.wire_model.real import ConnectionSide
from tests.properties.wire_model.rules import Rules, Scale
from tests.properties.wire_model.sides import ModelSide
from wireproto.errors import LocalProtocolError, RemoteProtocolError
from wireproto.reasons import failure
from wireproto.wire import calls, connection
from wireproto.wire.calls import Calls
from wireproto.wire.connection import Connection
from wireproto.wire.events import Event
from wireproto.wire.frame import TOP_BIT, Flag, Frame, Kind, pack_error
from wireproto.wire.framing import Framing


class ConnectionExchangeMachine(ExchangeMachine):
    """The machine of the model over real connections."""

    def make_exchange(self, scale: Scale) -> Exchange:
        """Both sides are real."""
        return Exchange(scale, self.judged_by, ConnectionSide)


TestConnectionExchangeMachine = ConnectionExchangeMachine.TestCase


@pytest.mark.parametrize("runs", [150, pytest.param(1_000, marks=pytest.mark.long)])
def test_real_connections_complete_everything(runs: int) -> None:
    """Seeded runs, 1,200 moves each, end with no call stuck, no message lost and no peer ended."""
    for seed in range(runs):
        run(seed, Rules(), make_side=ConnectionSide)


def test_a_real_connection_understands_the_model() -> None:
    """The same moves, with the same choices, come to the same outcomes as between the model's sides."""
    for seed in range(100):
        real = run(seed, Rules(), make_side=ConnectionSide)
        model = run(seed, Rules(), make_side=ModelSide)
        for ours, theirs in zip(real.programs, model.programs, strict=True):
            assert [(call.number, call.outcome) for call in ours.began] == [
                (call.number, call.outcome) for call in theirs.began
            ]
            assert (ours.ran, ours.dropped, ours.discarded) == (theirs.ran, theirs.dropped, theirs.discarded)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_real_connections_complete_everything_for_long() -> None:
    """A million frames, in runs of 300, 1,200 and 6,000 moves."""
    frames = 0
    for seed in range(1_000, 5_100):
        frames += run(seed, Rules(), (5, 20, 100)[seed % 3], ConnectionSide).frames
    assert frames > 1_000_000


def test_an_old_call_does_not_lie_behind_goaway() -> None:
    """A stream that is older than half the circle of ids is in flight still, and was taken; see the model's test."""
    scale = Scale(modulus=16)
    client, server = ConnectionSide(0, scale, Rules()), ConnectionSide(TOP_BIT, scale, Rules())

    def deliver(sender: ConnectionSide, receiver: ConnectionSide) -> None:
        while sender.output:
            receiver.receive(sender.output.popleft())

    old = client.begin(CallShape.STREAM, 0, Amount(1, 1))
    for latest in range(2, 12):
        assert client.begin(CallShape.UNARY, 0) == latest
        deliver(client, server)
        assert server.send_response(latest)
        deliver(server, client)
    behind = client.begin(CallShape.UNARY, 0)
    assert (old, behind) == (1, 12)
    assert not client.lies_behind(1, 11)
    assert client.lies_behind(12, 11)
    # Behind the end of the numbers, too.
    deliver(client, server)
    assert server.send_response(12)
    deliver(server, client)
    for latest in (13, 14, 15, 2):
        assert client.begin(CallShape.UNARY, 0) == latest
        if latest != 2:
            deliver(client, server)
            assert server.send_response(latest)
            deliver(server, client)
    assert not client.lies_behind(1, 15)
    assert client.lies_behind(2, 15)


# Planted faults.

Fault = Callable[[pytest.MonkeyPatch], None]
"""Puts something wrong in the place of one method of the real connection."""


def strict_bytes(patch: pytest.MonkeyPatch) -> None:
    """The receiver lets no ITEM take more than the bytes that are left."""
    right = connection._READERS[Kind.ITEM]

    def read(self: Connection, frame: Frame) -> Event | None:
        halves = self._calls_of(frame.call_id).halves.get(frame.call_id)
        if halves is not None and len(frame.payload) > halves.bytes_to_come:
            raise RemoteProtocolError("CREDIT_EXCEEDED", "an item takes more than is left")
        return right(self, frame)

    patch.setitem(connection._READERS, Kind.ITEM, read)


def spent_twice_at_the_receiver(patch: pytest.MonkeyPatch) -> None:
    """An ITEM that comes takes two of the credit."""
    right = connection._READERS[Kind.ITEM]

    def read(self: Connection, frame: Frame) -> Event | None:
        event = right(self, frame)
        if (halves := self._calls_of(frame.call_id).halves.get(frame.call_id)) is not None:
            halves.items_to_come -= 1
        return event

    patch.setitem(connection._READERS, Kind.ITEM, read)


def spent_twice_at_the_sender(patch: pytest.MonkeyPatch) -> None:
    """An ITEM that is sent takes its bytes twice."""
    right = Connection.send_item

    def send_item(self: Connection, call_id: int, payload: bytes) -> None:
        right(self, call_id, payload)
        self._calls_of(call_id).halves[call_id].bytes_to_send -= len(payload)

    patch.setattr(Connection, "send_item", send_item)


def no_crossing(patch: pytest.MonkeyPatch) -> None:
    """Nothing may cross the end of a call."""

    def let_cross(self: Calls, items: int, size: int, max_frame: int) -> None:
        """Leave the allowance as it is."""

    patch.setattr(Calls, "let_cross", let_cross)


def no_overrun(patch: pytest.MonkeyPatch) -> None:
    """The bytes that may cross are those that were left, without the frame by which one ITEM may go over them."""
    right = Calls.let_cross
    patch.setattr(Calls, "let_cross", lambda self, items, size, max_frame: right(self, items, size, 0))


def one_overrun_for_all(patch: pytest.MonkeyPatch) -> None:
    """The frame for the overrun is granted with the first call that needs it, and not with each."""
    right = Calls.let_cross

    def let_cross(self: Calls, items: int, size: int, max_frame: int) -> None:
        right(self, items, size, 0 if self._crosses()._items else max_frame)

    patch.setattr(Calls, "let_cross", let_cross)


def no_room_for_refused(patch: pytest.MonkeyPatch) -> None:
    """The ITEMs of an upload that was refused are not let cross."""

    def refuse(self: Connection, frame: Frame, reason: str, message: str) -> None:
        if not frame.flags & Flag.ONE_WAY:
            self._send(Kind.ERROR, frame.opcode, frame.call_id, pack_error(failure(reason, message)))

    patch.setattr(Connection, "_refuse_call", refuse)


def ids_in_flight(patch: pytest.MonkeyPatch) -> None:
    """The next id is the next number, whether a call in flight has it or not."""

    def next_id(self: Calls) -> int:
        return self.last + 1 if self.last + 1 < self.stop else self.top_bit + 1

    patch.setattr(Calls, "next_id", next_id)


def no_refill(patch: pytest.MonkeyPatch) -> None:
    """The bucket of frames that cross is not refilled by the calls that end."""
    patch.setattr(calls, "REFILL", 0)


def behind_by_numbers(patch: pytest.MonkeyPatch) -> None:
    """Which calls lie behind GOAWAY is told by their ids alone."""

    def lies_behind(self: Calls, call_id: int, last: int) -> bool:
        return 0 < (call_id - last) % self._circle < self._circle // 2

    patch.setattr(Calls, "lies_behind", lies_behind)


def remembered(patch: pytest.MonkeyPatch) -> None:
    """A client that ended its output still judges and answers what comes of the server's calls."""
    patch.setattr(Connection, "_is_forgotten", lambda self, frame: False)


def not_lost(patch: pytest.MonkeyPatch) -> None:
    """A server that has read the end of its client's output waits on for the answers to its own calls."""
    patch.setattr(Connection, "_read_end_of_input", Framing._read_end_of_input)


def cancelled_and_open(patch: pytest.MonkeyPatch) -> None:
    """CANCEL leaves the call as it was at its caller, open for ITEMs."""
    right = Connection.send_cancel

    def send_cancel(self: Connection, call_id: int) -> bool:
        before = self._ours.state_of(call_id).state
        sent = right(self, call_id)
        if sent:
            self._ours.halves[call_id].state = before
        return sent

    patch.setattr(Connection, "send_cancel", send_cancel)


def cancelled_and_answering(patch: pytest.MonkeyPatch) -> None:
    """CANCEL is reported and changes nothing at the side that answers the call."""
    right = connection._READERS[Kind.CANCEL]

    def read(self: Connection, frame: Frame) -> Event | None:
        before = self._calls_of(frame.call_id).state_of(frame.call_id).state
        event = right(self, frame)
        if event is not None:
            self._calls_of(frame.call_id).halves[frame.call_id].state = before
        return event

    patch.setitem(connection._READERS, Kind.CANCEL, read)


def unnoticed_at_the_caller(patch: pytest.MonkeyPatch) -> None:
    """A call that its caller cancelled is over with that, and not with its terminal frame."""
    right = Connection.send_cancel

    def send_cancel(self: Connection, call_id: int) -> bool:
        sent = right(self, call_id)
        if sent:
            self._ours.forget(call_id)
        return sent

    patch.setattr(Connection, "send_cancel", send_cancel)


FAULTS: Final[tuple[tuple[Fault, int], ...]] = (
    (strict_bytes, 20),
    (spent_twice_at_the_receiver, 20),
    (spent_twice_at_the_sender, 20),
    (no_crossing, 20),
    (no_overrun, 20),
    (one_overrun_for_all, 20),
    (no_room_for_refused, 5),
    (ids_in_flight, 20),
    (no_refill, 100),
    (behind_by_numbers, 20),
    (remembered, 20),
    (not_lost, 20),
    (cancelled_and_open, 20),
    (cancelled_and_answering, 20),
    (unnoticed_at_the_caller, 20),
)
"""Each with the length of the runs: what other calls left over hides some faults in long ones; others take time."""


@pytest.mark.parametrize(("fault", "stretches"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, stretches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 300 runs a call is stuck, a message is lost, an honest peer is ended, or something is sent amiss."""
    fault(monkeypatch)

    def some_runs() -> None:
        for seed in range(300):
            run(seed, Rules(), stretches, ConnectionSide)

    with pytest.raises((AssertionError, ConnectionEnds, LocalProtocolError)):
        some_runs()
