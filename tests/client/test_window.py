"""The window of bytes of a stream: how far the server may send ahead, and when the credit for it comes back."""

import random
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.client.fakes import PATIENCE, Peer, Script, serving
from tests.client.service import ECHO, SAY, SERVICE, EchoResponse, echo
from wireproto import Metadata, codecs, connect
from wireproto.client.calls import StreamCall
from wireproto.client.face import check_credit
from wireproto.client.stream import Stream
from wireproto.limits import Limits
from wireproto.wire.events import CancelReceived, CreditReceived, FlaggedRequestReceived, PongReceived
from wireproto.wire.frame import Credit


def say(peer: Peer, request: FlaggedRequestReceived, text: str) -> int:
    """Send one item; how many bytes of credit it took."""
    payload = peer.payload(SAY, EchoResponse(text=text))
    peer.connection.send_item(request.call_id, payload)
    peer.flush()
    return len(payload)


def saying(texts: Sequence[str]) -> Script:
    """Say all texts, as the credit allows, then serve."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        for text in texts:
            while not peer.connection.may_send_item(request.call_id):
                peer.expect(CreditReceived)
            say(peer, request, text)
        peer.connection.send_end(request.call_id)
        peer.flush()
        peer.serve()

    return script


def of_all_sizes() -> list[str]:
    chance = random.Random(7)
    return ["x" * chance.choice([0, 1, 30, 1000, 70_000]) for _ in range(150)]


@pytest.mark.parametrize(("credit", "batch"), [(64, None), (1, None), (3, 1), (64, 64)])
@pytest.mark.parametrize("window", [1, 40, 5000, 1024 * 1024, 2**32 - 1])
def test_a_stream_never_stalls(window: int, credit: int, batch: int | None) -> None:
    """Whatever the sizes: one item may be larger than the window, and of all sizes the credit comes back in time."""
    texts = of_all_sizes()
    with serving(saying(texts)) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(SAY, echo(), credit=credit, batch=batch, window=window)
        assert [item.text for item in stream] == texts
        assert client.call(ECHO, echo("x")).text == "x"


def test_credit_goes_back_when_half_of_the_window_was_taken() -> None:
    """That may be long before a batch of items is full; what goes back is what was taken, no more and no less."""
    texts = ["x" * size for size in (100, 100, 10, 200, 1, 600)]
    sizes = [len(payload_of(text)) for text in texts]
    window = 2 * (sizes[0] + sizes[1])
    seen: list[Credit | None] = []

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        assert isinstance(request.metadata, Metadata)
        seen.append(request.metadata.credit)
        for text in texts:
            while not peer.connection.may_send_item(request.call_id):
                seen.append(peer.expect(CreditReceived).more)
            say(peer, request, text)
        while peer.connection.credit(request.call_id)[1] < window:
            seen.append(peer.expect(CreditReceived).more)
        assert peer.connection.credit(request.call_id) == (64, window)
        peer.connection.send_end(request.call_id)
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(SAY, echo(), window=window)
        assert [item.text for item in stream] == texts
    returned = [
        Credit(2, sizes[0] + sizes[1]),
        Credit(2, sizes[2] + sizes[3]),
        Credit(2, sizes[4] + sizes[5]),
    ]
    assert seen == [Credit(64, window), *returned]


def payload_of(text: str) -> bytes:
    """An item, in the codec that the client prefers."""
    plan = codecs.get("msgpack").plan(EchoResponse, SERVICE.version, Limits(), request=False)
    return plan.encode(EchoResponse(text=text))


def test_a_stream_that_nobody_takes_from_holds_its_window_and_one_frame() -> None:
    """The server sends all that it may, and the client holds that, whatever the items are like."""
    window = 100_000
    sent: list[int] = []
    read = threading.Event()
    chance = random.Random(3)

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        while peer.connection.may_send_item(request.call_id):
            sent.append(say(peer, request, "x" * chance.randrange(60_000)))
        # Once this PING is answered the client has read all of it; and it granted nothing for what nobody took.
        peer.connection.send_ping(b"everyone")
        peer.flush()
        assert isinstance(peer.event(), PongReceived)
        assert not peer.connection.may_send_item(request.call_id)
        read.set()
        peer.expect(CancelReceived)
        peer.until_gone()

    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        client.stream(SAY, echo(), credit=1000, window=window) as stream,
    ):
        assert read.wait(PATIENCE)
        held = [len(payload) for payload in stream._call.items]
    assert held == sent
    assert window <= sum(held) < window + max(held)


class ModelServer:
    """In place of a link: a server that sends whenever it may, and of which CREDITs are counted.

    Attributes:
        left: credit that it has.
        credits: CREDITs since it was last set to 0.
    """

    def __init__(self, call: StreamCall, first: Credit) -> None:
        self.left = first
        self.credits = 0
        self._call = call

    def credit(self, call: StreamCall, items: int, size: int) -> None:
        assert call is self._call
        self.left = Credit(self.left.items + items, self.left.bytes + size)
        self.credits += 1

    def send(self, size: int) -> bool:
        if self.left.items < 1 or self.left.bytes < 1:
            return False
        self.left = Credit(self.left.items - 1, self.left.bytes - size)
        self._call.items.append(bytes(size))
        return True

    def cancel(self, call: StreamCall) -> None:
        assert call is self._call

    def abandon(self, call: StreamCall) -> None:
        assert call is self._call


class SizedBinding:
    """In place of a binding: an item is its length."""

    def decode(self, payload: bytes) -> int:
        return len(payload)


@pytest.mark.parametrize("seed", range(40))
def test_at_most_three_credits_are_left_behind_the_end(seed: int) -> None:
    """A server that ends a stream can still be sent CREDIT for what it sent; unless a batch was given, thrice at most.

    That is what servers count on: more would empty their bucket for what crosses the end of calls.
    """
    chance = random.Random(seed)
    credit, window = chance.choice([1, 2, 5, 64]), chance.choice([1, 10, 100])
    call = StreamCall()
    server = ModelServer(call, Credit(credit, window))
    begin = cast(Any, lambda: (server, SizedBinding(), call))
    stream: Stream[Any] = Stream(begin, check_credit(credit, None, window), window, None)
    most = 0
    for _ in range(500):
        stream.acknowledge()
        while server.send(chance.choice([0, 1, window // 2, window - 1, window, 10 * window])):
            pass
        assert call.items, "it stalls"
        if chance.random() < 0.2:  # the server ends it, and the client does not know yet
            server.credits = 0
            while call.items:
                next(stream)
            stream.acknowledge()
            most = max(most, server.credits)
        else:
            next(stream)
    stream.close()
    assert 1 <= most <= 3
