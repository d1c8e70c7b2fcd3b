"""The connection: handshake, calls, liveness and the end. Its events and their bytes: test_connection_events."""

import itertools
import struct
from collections.abc import Callable

import msgspec
import pytest

from tests.wire.peers import (
    ERROR_BODY,
    GOODBYE,
    HELLO,
    NO_SERVICE,
    NOT_FOUND,
    PING,
    STREAM,
    drain,
    final_error,
    greeted,
    half_closed,
    in_call,
    in_stream,
    opened,
    plain,
    raw,
    reasons,
    started,
    welcome,
)
from wireproto.errors import CallError, HandshakeError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.status import Retry, Status
from wireproto.wire.connection import MAX_STRAY_ANSWERS, PayloadTooLarge, State
from wireproto.wire.events import (
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    PingReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import (
    PREAMBLE,
)
from wireproto.wire.metadata import Metadata, pack_metadata

# The handshake.


def test_the_handshake_tells_each_side_the_others_limits() -> None:
    """After the handshake both sides know version, codec, heartbeat, and what the other accepts."""
    limits = Limits(max_frame=8192, max_calls=3)
    pair = opened(limits)
    for side in pair:
        assert (side.version, side.codec, side.heartbeat_ms) == (1, 2, 60_000)
    assert pair.client.their_max_frame == 8192
    assert pair.client.their_max_calls == 3
    assert pair.server.their_max_frame == HELLO.max_frame
    assert repr(pair.client) == "<Connection client open calls=0>"


def test_frames_are_short_until_the_handshake_is_done() -> None:
    """HELLO and WELCOME are limited to 4 KiB exactly; afterwards our own limit counts exactly."""
    padding = HELLO_MAX_FRAME - 12 - len(HELLO.encode()) - 4
    longest = HELLO.encode() + struct.pack(">HH", 99, padding) + bytes(padding)
    server = started().server
    server.receive_data(PREAMBLE + raw(1, longest))
    assert drain(server) == [HelloReceived(HELLO)]
    client = greeted().client
    padding = HELLO_MAX_FRAME - 12 - len(welcome().encode()) - 4
    client.receive_data(PREAMBLE + raw(2, welcome().encode() + struct.pack(">HH", 99, padding) + bytes(padding)))
    assert drain(client) == [WelcomeReceived(welcome())]

    limits = Limits(max_frame=5000)
    for size, accepted in ((4987, True), (4988, True), (4989, False)):
        server = opened(limits).server
        server.receive_data(raw(3, bytes(size)))
        (event,) = drain(server)
        assert isinstance(event, RequestReceived) is accepted


def test_digests_that_do_not_fit_are_left_out() -> None:
    """A HELLO that would be over 4 KiB with its digests is sent without them."""
    many = msgspec.structs.replace(HELLO, digests=dict.fromkeys(range(1000), 7))
    for digests, kept in ((600, 600), (1000, 0)):
        pair = started()
        pair.client.send_hello(msgspec.structs.replace(many, digests=dict.fromkeys(range(digests), 7)))
        (event,) = pair.deliver(pair.client)
        assert isinstance(event, HelloReceived)
        assert len(event.hello.digests) == kept


def test_a_client_that_does_not_wait_is_refused_at_welcome() -> None:
    """Bytes that came behind HELLO fail the connection when WELCOME is sent, whatever they are."""
    pair = started()
    pair.client.send_hello(HELLO)
    pair.server.receive_data(pair.client.data_to_send() + raw(3)[:1])
    assert pair.server.next_event() == HelloReceived(HELLO)
    pair.server.send_welcome(welcome())
    assert pair.server.state is State.CLOSED
    assert final_error(pair.server.data_to_send()).reason == "EARLY_FRAME"
    assert reasons(pair.server) == ["EARLY_FRAME"]


def test_a_server_may_refuse_before_hello() -> None:
    """A server that is full says so before it reads; the client understands it whether it has greeted or not."""
    full = CallError(Status.UNAVAILABLE, "TOO_MANY_CONNECTIONS", "come back later", retry=Retry.NOT_PROCESSED)
    for client in (started().client, greeted().client):
        server = started().server
        server.refuse(full)
        client.receive_data(server.data_to_send())
        (event,) = drain(client)
        assert isinstance(event, ConnectionEnded)
        assert isinstance(event.error, CallError)
        assert event.error.reason == "TOO_MANY_CONNECTIONS"
        assert [plain(other) for other in drain(server)] == [plain(ConnectionEnded(full))]


def test_a_refused_handshake_is_a_handshake_error() -> None:
    """A final ERROR that answers HELLO reaches the client as a HandshakeError; later ones as CallError."""
    pair = greeted()
    pair.server.refuse(NO_SERVICE)
    (event,) = pair.deliver(pair.server)
    assert isinstance(event, ConnectionEnded)
    assert type(event.error) is HandshakeError
    pair = opened()
    pair.server.refuse(GOODBYE)
    (event,) = pair.deliver(pair.server)
    assert isinstance(event, ConnectionEnded)
    assert type(event.error) is CallError


# Calls.


def test_ids_begin_at_one_and_rise() -> None:
    """The first call has id 1 and each further one the next, on both sides."""
    pair = opened()
    assert [pair.client.send_request(1, b"") for _ in range(3)] == [1, 2, 3]
    pair.deliver(pair.client)
    assert pair.client.last_call_id == pair.server.last_call_id == 3
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 3


def test_ids_wrap_and_skip_zero_and_calls_in_flight() -> None:
    """After 2**32 - 1 comes 1, or the next id that no old stream still has; the server follows."""
    pair = opened()
    for _ in range(2):
        pair.client.send_request(1, b"", STREAM, credit=2)
    pair.deliver(pair.client)
    pair.client.last_call_id = pair.server.last_call_id = 2**32 - 3
    ids = [pair.client.send_request(1, b"") for _ in range(4)]
    assert ids == [2**32 - 2, 2**32 - 1, 3, 4]
    events = pair.deliver(pair.client)
    assert [event.call_id for event in events if isinstance(event, RequestReceived)] == ids
    pair.client.last_call_id = pair.server.last_call_id = 2**32 - 1
    pair.server.send_end(1)
    pair.settle()
    assert pair.client.send_request(1, b"") == 1
    assert pair.client.send_request(1, b"") == 5
    assert len(pair.deliver(pair.client)) == 2
    pair.server.send_end(2)
    pair.server.send_response(3, b"three")
    assert pair.deliver(pair.server) == [EndReceived(2), ResponseReceived(3, 1, b"three")]


@pytest.mark.parametrize("last", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize(("ahead", "accepted"), [(1, True), (2**31 - 1, True), (2**31, False), (2**32 - 1, False)])
def test_an_id_is_ahead_by_less_than_half_the_circle(last: int, ahead: int, accepted: bool) -> None:
    """A REQUEST's id is after the last one by serial arithmetic and is not 0, or the connection ends."""
    server = opened().server
    server.last_call_id = last
    call_id = (last + ahead) % 2**32
    server.receive_data(raw(3, call_id=call_id))
    (event,) = drain(server)
    assert isinstance(event, RequestReceived) is (accepted and call_id != 0)


@pytest.mark.parametrize("last", [2**32 - 1, 0])
def test_an_id_is_free_again_after_its_call(last: int) -> None:
    """An id that came round may be used when its call is over, and not before."""
    for answered in (True, False):
        pair = in_call()
        if answered:
            pair.server.send_response(1, b"")
        pair.server.last_call_id = last
        pair.server.receive_data(raw(3, b"again"))
        (event,) = drain(pair.server)
        assert isinstance(event, RequestReceived) is answered


@pytest.mark.parametrize("ending", ["end", "error", "response"])
def test_an_id_that_comes_round_carries_nothing_over(ending: str) -> None:
    """A call whose id was once a cancelled stream's has no credit and is not cancelled, on either side."""
    pair = in_stream()
    pair.client.send_cancel(1)
    pair.deliver(pair.client)
    if ending == "end":
        pair.server.send_end(1)
    elif ending == "error":
        pair.server.send_error(1, NOT_FOUND)
    else:
        pair.client._credits = {}  # as if it had been begun as a unary call
        pair.server.send_response(1, b"")
    assert pair.deliver(pair.server) == []
    assert pair.client.credit(1) == pair.server.credit(1) == 0
    pair.client.last_call_id = pair.server.last_call_id = 2**32 - 1
    assert pair.client.send_request(0x10, b"") == 1
    pair.deliver(pair.client)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        pair.server.send_item(1, b"")
    pair.server.send_response(1, b"again")
    assert pair.deliver(pair.server) == [ResponseReceived(1, 0x10, b"again")]


def test_bad_metadata_fail_the_call_only() -> None:
    """Metadata that cannot be read, or are too long, come as the error to answer with; the connection lives."""
    pair = opened(Limits(max_metadata=64))
    for block, reason in (
        (b"\x01", "BAD_METADATA"),
        (b"\xff\x00\x00", "UNKNOWN_METADATA"),
        (bytes(65), "METADATA_TOO_LARGE"),
    ):
        call_id = pair.client.send_request(1, b"", block)
        (event,) = pair.deliver(pair.client)
        assert isinstance(event, RequestReceived)
        assert isinstance(event.metadata, CallError)
        assert event.metadata.reason == reason
        assert event.metadata.__traceback__ is None
        pair.server.send_error(call_id, event.metadata)
        assert [type(answer) for answer in pair.deliver(pair.server)] == [ErrorReceived]
    pair.client.send_request(1, b"", pack_metadata(Metadata(authorization="x" * 61)))
    (event,) = pair.deliver(pair.client)
    assert isinstance(event, RequestReceived)
    assert event.metadata == Metadata(authorization="x" * 61)


def test_calls_beyond_the_cap_are_refused_one_by_one() -> None:
    """At the cap a REQUEST is answered "not processed" without an event, and everything else goes on."""
    pair = opened(Limits(max_calls=2))
    ids = [pair.client.send_request(7, b"") for _ in range(4)]
    events = pair.deliver(pair.client)
    assert [event.call_id for event in events if isinstance(event, RequestReceived)] == ids[:2]
    answers = pair.deliver(pair.server)
    for answer, call_id in zip(answers, ids[2:], strict=True):
        assert isinstance(answer, ErrorReceived)
        assert answer.call_id == call_id
        assert (answer.error.status, answer.error.reason) == (Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert answer.error.retry is Retry.NOT_PROCESSED
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 2
    pair.client.send_ping(bytes(8))
    pair.client.send_cancel(ids[0])
    assert pair.deliver(pair.client) == [PingReceived(bytes(8)), CancelReceived(ids[0])]
    pair.server.send_response(ids[0], b"")
    pair.settle()
    assert pair.client.send_request(7, b"") == 5
    assert [type(event) for event in pair.deliver(pair.client)] == [RequestReceived]


def test_a_held_call_counts() -> None:
    """A call answered early counts against the cap until its handler is released."""
    pair = opened(Limits(max_calls=1))
    call_id = pair.client.send_request(7, b"")
    pair.deliver(pair.client)
    pair.server.hold()
    pair.server.send_error(call_id, CallError(Status.DEADLINE_EXCEEDED))
    pair.settle()
    assert pair.server.calls_in_flight == 1
    pair.client.send_request(7, b"")
    assert pair.deliver(pair.client) == []
    pair.server.release()
    assert pair.server.calls_in_flight == 0
    pair.client.send_request(7, b"")
    assert len(pair.deliver(pair.client)) == 1
    with pytest.raises(LocalProtocolError, match="no call is held"):
        pair.server.release()


def test_a_call_is_answered_once() -> None:
    """What is not in flight cannot be answered."""
    pair = in_call()
    assert len(pair.server.answer(1, b"")) == 16
    ways: list[Callable[[], object]] = [
        lambda: pair.server.send_response(1, b""),
        lambda: pair.server.answer(1, b""),
        lambda: pair.server.send_error(1, NOT_FOUND),
        lambda: pair.server.send_item(1, b""),
        lambda: pair.server.send_end(1),
        lambda: pair.server.send_response(2, b""),
    ]
    for send in ways:
        with pytest.raises(LocalProtocolError, match=r"call [12] is not in flight"):
            send()
    assert pair.server.data_to_send() == b""


def test_a_stream_sends_what_it_has_credit_for() -> None:
    """Each item takes one of the credit, CREDIT adds to it, and both sides agree on what is left."""
    pair = in_stream()
    assert pair.client.credit(1) == pair.server.credit(1) == 2
    pair.server.send_item(1, b"a")
    pair.server.send_item(1, b"b")
    assert pair.server.credit(1) == 0
    with pytest.raises(LocalProtocolError, match="no credit left"):
        pair.server.send_item(1, b"c")
    assert pair.deliver(pair.server) == [ItemReceived(1, b"a"), ItemReceived(1, b"b")]
    assert pair.client.credit(1) == 0
    assert pair.client.send_credit(1, 1)
    assert pair.client.credit(1) == 1
    assert pair.deliver(pair.client) == [CreditReceived(1, 1)]
    pair.server.send_item(1, b"c")
    pair.server.send_end(1)
    assert pair.server.credit(1) == 0
    assert pair.deliver(pair.server) == [ItemReceived(1, b"c"), EndReceived(1)]
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == pair.client.credit(1) == 0


def test_a_stream_may_begin_without_credit() -> None:
    """A stream whose REQUEST grants nothing sends its first item after CREDIT."""
    pair = opened()
    pair.client.send_request(1, b"", credit=0)
    pair.deliver(pair.client)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        pair.server.send_item(1, b"")
    pair.client.send_credit(1, 1)
    pair.deliver(pair.client)
    pair.server.send_item(1, b"")
    assert pair.deliver(pair.server) == [ItemReceived(1, b"")]


def test_credit_has_a_range() -> None:
    """Credit out of range, or for a unary call, is not sent; for a call that is over it is silently none."""
    pair = in_stream()
    for amount in (0, -1, 2**32 - 2):
        with pytest.raises(LocalProtocolError, match="credit of call 1"):
            pair.client.send_credit(1, amount)
    assert pair.client.send_credit(1, 2**32 - 3)
    unary = pair.client.send_request(1, b"")
    with pytest.raises(LocalProtocolError, match="no stream"):
        pair.client.send_credit(unary, 1)
    assert [type(event) for event in pair.deliver(pair.client)] == [CreditReceived, RequestReceived]
    assert pair.server.credit(1) == 2**32 - 1
    assert pair.client.send_credit(99, 1) is False
    assert not pair.client.send_cancel(99)
    assert pair.client.data_to_send() == b""


def test_credit_and_cancel_that_cross_the_answer_are_ignored() -> None:
    """CREDIT and CANCEL of a call that is over mean nothing and harm nothing."""
    pair = in_stream()
    pair.client.send_credit(1, 1)
    pair.client.send_cancel(1)
    pair.server.send_end(1)
    assert pair.deliver(pair.client) == []
    assert pair.deliver(pair.server) == []
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 0


@pytest.mark.parametrize("last", ["response", "error", "end"])
def test_a_cancelled_call_is_silent_and_counts_until_its_terminal_frame(last: str) -> None:
    """After CANCEL the client reports nothing of the call; it is in flight until its one terminal frame."""
    pair = opened()
    stream = last != "response"
    pair.client.send_request(1, b"", STREAM if stream else b"", credit=2 if stream else None)
    pair.deliver(pair.client)
    assert pair.client.send_cancel(1)
    assert not pair.client.send_cancel(1)
    assert pair.client.send_credit(1, 1) is False
    assert pair.deliver(pair.client) == [CancelReceived(1)]
    assert pair.server.calls_in_flight == 1
    if stream:
        pair.server.send_item(1, b"late")
        assert pair.deliver(pair.server) == []
    assert pair.client.calls_in_flight == 1
    if last == "response":
        pair.server.send_response(1, b"")
    elif last == "error":
        pair.server.send_error(1, CallError(Status.CANCELLED))
    else:
        pair.server.send_end(1)
    assert pair.deliver(pair.server) == []
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 0
    pair.server._calls[1] = 1
    pair.server.send_response(1, b"")
    assert pair.deliver(pair.server) == []
    assert pair.client.state is State.OPEN


def test_stray_answers_are_dropped_up_to_a_number() -> None:
    """Answers of every kind to calls that are not in flight are dropped; one too many ends the connection."""
    pair = in_call()
    strays = [raw(4, call_id=77), raw(5, call_id=77), raw(6, call_id=77), raw(7, ERROR_BODY, call_id=77)]
    for stray in itertools.islice(itertools.cycle(strays), MAX_STRAY_ANSWERS):
        pair.client.receive_data(stray)
        assert drain(pair.client) == []
    pair.server.send_response(1, b"still")
    assert pair.deliver(pair.server) == [ResponseReceived(1, 0x10, b"still")]
    pair.client.receive_data(strays[0])
    assert reasons(pair.client) == ["STRAY_ANSWERS"]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("draining", [False, True])
def test_an_answer_that_is_written_at_once_is_the_same(queued: bool, draining: bool) -> None:
    """``answer`` gives what ``send_response`` queues, behind what was queued before, and the call is over."""
    wires = []
    for at_once in (False, True):
        pair = in_call()
        if draining:
            pair.server.send_goaway(GOODBYE)
            pair.server.data_to_send()
        if queued:
            pair.server.send_ping(b"12345678")
        if at_once:
            wires.append(pair.server.answer(1, b"answer"))
        else:
            pair.server.send_response(1, b"answer")
            wires.append(pair.server.data_to_send())
        assert pair.server.bytes_pending == pair.server.calls_in_flight == 0
        assert pair.server.data_to_send() == b""
    assert wires[0] == wires[1]


def test_an_answer_written_at_once_takes_the_calls_credit_with_it() -> None:
    """A call that was granted credit and is answered at once leaves none behind; the other calls keep theirs."""
    pair = in_stream()
    pair.client.send_request(0x10, b"", STREAM, credit=2)
    pair.deliver(pair.client)
    pair.server.answer(1, b"")
    assert (pair.server.credit(1), pair.server.credit(2), pair.server.calls_in_flight) == (0, 2, 1)


def test_a_client_has_nothing_to_answer() -> None:
    """Answering is the server's: for a client it is a local error, and nothing is queued."""
    pair = in_call()
    with pytest.raises(LocalProtocolError, match="a client cannot send RESPONSE while open"):
        pair.client.answer(1, b"")
    assert pair.client.data_to_send() == b""


@pytest.mark.parametrize("kind", ["request", "response", "answer", "item", "hello"])
def test_what_is_too_large_is_not_sent(kind: str) -> None:
    """A frame over the peer's limit is PayloadTooLarge, with both numbers, and leaves the call as it was."""
    pair = in_stream()
    pair.client.their_max_frame = pair.server.their_max_frame = 5000
    fits, too_large = bytes(4988), bytes(4989)
    if kind == "hello":
        fresh = started().client
        with pytest.raises(PayloadTooLarge):
            fresh.send_hello(
                msgspec.structs.replace(HELLO, codecs=tuple((number, "x" * 32) for number in range(1, 256)))
            )
        assert fresh.state is State.START
        assert fresh.data_to_send() == b""
        return
    ways: dict[str, Callable[[bytes], object]] = {
        "request": lambda payload: pair.client.send_request(1, payload),
        "response": lambda payload: pair.server.send_response(1, payload),
        "answer": lambda payload: pair.server._queue(pair.server.answer(1, payload)),
        "item": lambda payload: pair.server.send_item(1, payload),
    }
    send = ways[kind]
    for payload in (too_large, bytes(2**24)):
        with pytest.raises(PayloadTooLarge) as caught:
            send(payload)
        assert (caught.value.size, caught.value.limit) == (12 + len(payload), 5000)
        assert "the peer accepts 5000" in str(caught.value)
    assert not pair.client.bytes_pending
    assert not pair.server.bytes_pending
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 1
    assert pair.server.credit(1) == 2
    send(fits)
    assert pair.client.bytes_pending + pair.server.bytes_pending == 5004


def test_metadata_over_their_field_are_not_sent() -> None:
    """A metadata block over 65,535 bytes is a LocalProtocolError and begins no call."""
    client = opened().client
    with pytest.raises(LocalProtocolError, match="65536 bytes"):
        client.send_request(1, b"", bytes(65_536))
    assert client.calls_in_flight == client.last_call_id == 0


# Liveness, draining, the end.


def test_a_ping_is_answered_by_itself() -> None:
    """A PING is reported and its PONG queued at once, with the same eight bytes, on both sides."""
    pair = opened()
    for side in pair:
        side.send_ping(b"abcdefgh")
        assert pair.deliver(side) == [PingReceived(b"abcdefgh")]
        assert pair.deliver(pair.other(side)) == [PongReceived(b"abcdefgh")]
    for size in (0, 7, 9):
        with pytest.raises(LocalProtocolError, match="8 bytes"):
            pair.client.send_ping(bytes(size))


def test_unknown_ignorable_frames_are_skipped() -> None:
    """A frame of an unknown kind with the top bit is counted and skipped, whatever the rest of its header says."""
    pair = in_call()
    for side in pair:
        before = side.frames_received
        for kind in range(0x80, 0x100):
            side.receive_data(raw(kind, b"payload", b"metadata", flags=kind, codec=9, version=9, call_id=kind))
        side.receive_data(PING)
        assert drain(side) == [PingReceived(b"trailing")]
        assert side.frames_received == before + 129


def test_after_goaway_new_calls_are_refused_and_old_ones_answered() -> None:
    """A REQUEST that crosses GOAWAY is answered "not processed"; calls before it go on; the client starts no more."""
    pair = in_call()
    crossing = pair.client.send_request(9, b"")
    pair.server.send_goaway(GOODBYE)
    assert pair.deliver(pair.client) == []
    pair.server.send_response(1, b"done")
    goaway, error, response = pair.deliver(pair.server)
    assert isinstance(goaway, GoAwayReceived)
    assert goaway.last_call_id == 1
    assert isinstance(error, ErrorReceived)
    assert (error.call_id, error.error.status, error.error.reason) == (crossing, Status.UNAVAILABLE, "SHUTTING_DOWN")
    assert error.error.retry is Retry.NOT_PROCESSED
    assert response == ResponseReceived(1, 0x10, b"done")
    assert pair.client.state is pair.server.state is State.DRAINING
    with pytest.raises(LocalProtocolError, match="cannot send REQUEST while draining"):
        pair.client.send_request(9, b"")
    pair.client.send_ping(bytes(8))
    assert pair.deliver(pair.client) == [PingReceived(bytes(8))]


def test_a_half_closed_client_is_answered() -> None:
    """After the client's end of input the server still answers what is in flight, and nothing else begins."""
    pair = half_closed()
    pair.server.send_response(1, b"late")
    assert pair.deliver(pair.server) == [ResponseReceived(1, 0x10, b"late")]
    pair.server.fail(RemoteProtocolError("WRITE_TIMEOUT", "too slow"))
    assert pair.server.state is State.CLOSED
    assert drain(pair.server) == []
    assert final_error(pair.server.data_to_send()).reason == "WRITE_TIMEOUT"


def test_failing_is_once_and_closing_is_silent() -> None:
    """Fail queues one final ERROR and does nothing when it is over; close queues nothing; either is reported once."""
    pair = opened()
    pair.server.fail(RemoteProtocolError("TOO_MANY_PINGS", "slow down", Status.RESOURCE_EXHAUSTED))
    sent = pair.server.data_to_send()
    assert final_error(sent).status is Status.RESOURCE_EXHAUSTED
    pair.server.fail(RemoteProtocolError("AGAIN", ""))
    pair.server.close()
    assert pair.server.data_to_send() == b""
    assert reasons(pair.server) == ["TOO_MANY_PINGS"]
    with pytest.raises(LocalProtocolError):
        pair.server.refuse(GOODBYE)

    pair.client.send_request(1, b"queued before")
    pair.client.close()
    assert len(pair.client.data_to_send()) == 29
    pair.client.close()
    assert drain(pair.client) == [ConnectionEnded(None)]
    assert pair.client.error is None

    unborn = started().client
    unborn.fail(RemoteProtocolError("HELLO_TIMEOUT", ""))
    assert unborn.data_to_send() == b""
    assert reasons(unborn) == ["HELLO_TIMEOUT"]
