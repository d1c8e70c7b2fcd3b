"""The limits of calls whose items come from the caller, and of one-way calls: just below each, at it, and above it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server.peer import Peer, until
from tests.server.test_uploads import ADD_UP, ITERATE, NOTE, PLAIN, UPLOADS, Chunk, Desk
from tests.wire.peers import drain, opened, raw
from wireproto.conformance.raw import frame
from wireproto.errors import CallError
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.wire.calls import MAX_CROSSED, REFILL
from wireproto.wire.events import ConnectionEnded, CreditReceived, ErrorReceived, ResponseReceived

AROUND = (-1, 0, 1)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.set()


@pytest.fixture
def uploads(desk: Desk) -> Iterator[Callable[..., Peer]]:
    """Starts servers with methods of every shape, with some limits changed, and gives a peer of each."""
    servers: list[Server] = []
    peers: list[Peer] = []

    def start(**limits: Any) -> Peer:
        server = Server(desk.handlers, codecs=["msgpack"], limits=Limits(**limits))
        server.start()
        servers.append(server)
        peers.append(Peer(server, UPLOADS))
        return peers[-1]

    yield start
    desk.gate.set()
    for peer in peers:
        peer.socket.close()
    for server in servers:
        server.shutdown(5)


def push(peer: Peer, *sizes: int) -> str:
    """Begin an upload whose sink takes nothing behind its first item, and send items whatever credit there is: the
    reason that the connection ends with, if it does.
    """
    call_id = peer.start(ADD_UP, Chunk())
    peer.flush()
    payload = peer.codec.plan(Chunk, 1, Limits()).encode(Chunk(number=500))
    for size in sizes:
        peer.socket.sendall(
            frame(5, payload.ljust(size, b"\0"), codec=2, version=1, opcode=ADD_UP.opcode, call_id=call_id)
        )
    peer.start(PLAIN, Chunk(number=1))
    while True:
        event = peer.event()
        if isinstance(event, ResponseReceived):
            return ""
        if isinstance(event, ConnectionEnded):
            assert isinstance(event.error, CallError)
            return event.error.reason


@pytest.mark.parametrize("off", AROUND)
def test_the_first_credit(uploads: Callable[..., Peer], off: int) -> None:
    """So many items, and so many bytes, may be sent before the call is looked at; the last item may go over them."""
    few = uploads(first_items=4, window_items=4, first_bytes=1000, window_bytes=1000)
    assert few.connection._ours.first == (4, 1000)
    assert push(few, *[10] * (4 + off)) == ("CREDIT_EXCEEDED" if off > 0 else "")
    large = uploads(first_bytes=1000, window_bytes=1000)
    assert push(large, 1000 + off, 500) == ("CREDIT_EXCEEDED" if off >= 0 else "")


def test_the_whole_window(uploads: Callable[..., Peer], desk: Desk) -> None:
    """Once the call is admitted its credit is the whole window, in items and in bytes."""
    peer = uploads(window_items=20, window_bytes=70_000)
    call_id = peer.start(ADD_UP, Chunk())
    more = peer.expect(CreditReceived).more
    assert (more, peer.connection.credit(call_id)) == ((4, 4_464), (20, 70_000))


@pytest.mark.parametrize("off", AROUND)
def test_the_windows_of_one_connection(uploads: Callable[..., Peer], desk: Desk, off: int) -> None:
    """A call has a whole window as long as all windows stay within the limit."""
    peer = uploads(max_held=65_536 + 1_048_576 + off)
    stuck = peer.start(ADD_UP, Chunk())
    peer.expect(CreditReceived)
    peer.connection.send_cancel(stuck)
    peer.start(PLAIN, Chunk(number=1))
    peer.expect(ResponseReceived)
    assert peer.over == [stuck]
    for _ in range(2):
        peer.send(ADD_UP, peer.start(ADD_UP, Chunk()), Chunk(number=500))
    peer.flush()
    until(lambda: len(desk.futures) == 2, "both are admitted, and have an item")
    peer.start(PLAIN, Chunk(number=1))
    whole = 0
    while not isinstance(event := peer.event(), ResponseReceived):
        whole += isinstance(event, CreditReceived)
    assert whole == (1 if off >= 0 else 0)


def test_the_wait_for_an_item(uploads: Callable[..., Peer]) -> None:
    """A handler that iterates waits for so long, and no less."""
    peer = uploads(item_timeout=0.3)
    began = time.monotonic()
    call_id = peer.start(ITERATE, Chunk())
    peer.send(ITERATE, call_id, Chunk(number=1))
    while not isinstance(event := peer.event(), ErrorReceived):
        pass
    assert event.error.reason == "ITEM_TIMEOUT"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("off", AROUND)
def test_one_way_calls(uploads: Callable[..., Peer], off: int) -> None:
    """So many may be on their way or run; one more without credit ends the connection."""
    peer = uploads(one_way_calls=3)
    assert peer.connection.one_way_credit == 3
    peer.connection._ours.one_way = 9
    for _ in range(3 + off):
        peer.start(NOTE, Chunk(number=500))
    peer.start(PLAIN, Chunk(number=1))
    event = peer.event()
    assert isinstance(event, ConnectionEnded) is (off > 0)


@pytest.mark.parametrize("ended", [0, 1])
@pytest.mark.parametrize("off", AROUND)
def test_what_crosses_the_end_of_calls(off: int, ended: int) -> None:
    """So many END, CREDIT and CANCEL of calls that are over are dropped; a call that ends makes room for some more."""
    pair = opened()
    cancel = raw(8, call_id=99)
    pair.server.receive_data(cancel * (MAX_CROSSED - REFILL))
    for call_id in range(1, ended + 1):
        pair.server.receive_data(raw(3, call_id=call_id))
        drain(pair.server)
        pair.server.send_response(call_id, b"")
    pair.server.receive_data(cancel * (REFILL * (1 + ended) + off))
    ends = drain(pair.server)
    assert bool(ends) is (off > 0)
