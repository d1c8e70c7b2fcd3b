"""The connection: handshake, calls of a client, liveness and the end.

Its events and their bytes: test_connection_events. Calls of every shape, of either side: test_connection_calls, and
test_connection_ends for what comes behind them.
"""

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
    STREAM_CREDIT,
    begin_stream,
    drain,
    final_error,
    greeted,
    half_closed,
    in_call,
    in_stream,
    numbered_after,
    opened,
    opened_both_ways,
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
    CallOver,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    FlaggedRequestReceived,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    PingReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import NO_CREDIT, PREAMBLE, TOP_BIT, U32_MAX, Credit
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
    assert pair.server.their_max_calls == HELLO.max_calls == 0
    assert repr(pair.client) == "<Connection client open calls=0>"
    pair = opened_both_ways(max_calls=3, one_way=2)
    for side in pair:
        assert (side.their_max_calls, side.one_way_credit) == (3, 2)


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


LAST_NUMBER = 2**31 - 1
"""The largest number of a call, after which comes 1."""


def test_ids_wrap_and_skip_zero_and_calls_in_flight() -> None:
    """After 2**31 - 1 comes 1, or the next id that no old stream still has; the other side follows."""
    for top_bit in (0, TOP_BIT):
        pair = opened_both_ways(max_calls=10)
        caller, answerer = (pair.server, pair.client) if top_bit else pair
        for _ in range(2):
            begin_stream(caller)
        pair.deliver(caller)
        numbered_after(top_bit | LAST_NUMBER - 2, *pair)
        ids = [caller.send_request(1, b"") for _ in range(4)]
        assert ids == [top_bit | low for low in (LAST_NUMBER - 1, LAST_NUMBER, 3, 4)]
        events = pair.deliver(caller)
        assert [event.call_id for event in events if isinstance(event, RequestReceived)] == ids
        numbered_after(top_bit | LAST_NUMBER, *pair)
        answerer.send_end(top_bit | 1)
        pair.settle()
        assert caller.send_request(1, b"") == top_bit | 1
        assert caller.send_request(1, b"") == top_bit | 5
        assert len(pair.deliver(caller)) == 2
        answerer.send_end(top_bit | 2)
        answerer.send_response(top_bit | 3, b"three")
        assert pair.deliver(answerer) == [EndReceived(top_bit | 2), ResponseReceived(top_bit | 3, 1, b"three")]


@pytest.mark.parametrize("top_bit", [0, TOP_BIT])
@pytest.mark.parametrize("last", [0, 1, 2**30 - 1, 2**30, LAST_NUMBER])
@pytest.mark.parametrize(("ahead", "accepted"), [(1, True), (2**30 - 1, True), (2**30, False), (LAST_NUMBER, False)])
def test_an_id_is_ahead_by_less_than_half_the_circle(last: int, ahead: int, accepted: bool, top_bit: int) -> None:
    """The number in a REQUEST's id is after the last one by serial arithmetic and is not 0, or the connection ends."""
    pair = opened_both_ways()
    answerer = pair.client if top_bit else pair.server
    numbered_after(top_bit | last, answerer)
    number = (last + ahead) % 2**31
    answerer.receive_data(raw(3, call_id=top_bit | number))
    if accepted and number:
        assert [type(event) for event in drain(answerer)] == [RequestReceived]
    else:
        assert reasons(answerer) == ["CALL_ID"]


@pytest.mark.parametrize("last", [LAST_NUMBER, 0])
def test_an_id_is_free_again_after_its_call(last: int) -> None:
    """An id that came round may be used when its call is over, and not before."""
    for answered in (True, False):
        pair = in_call()
        if answered:
            pair.server.send_response(1, b"")
        numbered_after(last, pair.server)
        pair.server.receive_data(raw(3, b"again"))
        (event,) = drain(pair.server)
        assert isinstance(event, RequestReceived) is answered


@pytest.mark.parametrize("ending", ["end", "error", "response"])
def test_an_id_that_comes_round_carries_nothing_over(ending: str) -> None:
    """A call whose id was once a cancelled one's has no credit and is not cancelled, on either side."""
    pair = in_call() if ending == "response" else in_stream()
    pair.client.send_cancel(1)
    pair.deliver(pair.client)
    if ending == "end":
        pair.server.send_end(1)
    elif ending == "error":
        pair.server.send_error(1, NOT_FOUND)
    else:
        pair.server.send_response(1, b"")
    assert pair.deliver(pair.server) == [CallOver(1)]
    assert pair.client.credit_out(1) == pair.server.credit(1) == NO_CREDIT
    numbered_after(LAST_NUMBER, *pair)
    assert pair.client.send_request(0x10, b"") == 1
    pair.deliver(pair.client)
    with pytest.raises(LocalProtocolError, match="ITEM has no place there"):
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
    """Each item takes one and its bytes of the credit, CREDIT adds to both, and both sides agree on what is left."""
    pair = in_stream()
    assert pair.client.credit_out(1) == pair.server.credit(1) == STREAM_CREDIT == (2, 100)
    assert pair.client.credit(1) == pair.server.credit_out(1) == NO_CREDIT
    pair.server.send_item(1, b"a")
    pair.server.send_item(1, b"bcd")
    assert pair.server.credit(1) == (0, 96)
    assert not pair.server.may_send_item(1)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        pair.server.send_item(1, b"c")
    assert pair.deliver(pair.server) == [ItemReceived(1, b"a"), ItemReceived(1, b"bcd")]
    assert pair.client.credit_out(1) == (0, 96)
    assert pair.client.send_credit(1, 1, 4)
    assert pair.client.credit_out(1) == (1, 100)
    assert pair.deliver(pair.client) == [CreditReceived(1, Credit(1, 4))]
    assert pair.server.may_send_item(1)
    pair.server.send_item(1, b"c")
    pair.server.send_end(1)
    assert pair.server.credit(1) == NO_CREDIT
    assert not pair.server.may_send_item(1)
    assert pair.deliver(pair.server) == [ItemReceived(1, b"c"), EndReceived(1)]
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 0
    assert pair.client.credit_out(1) == NO_CREDIT


@pytest.mark.parametrize(("credit", "more"), [(NO_CREDIT, (1, 1)), (Credit(1, 0), (0, 1)), (Credit(0, 1), (1, 0))])
def test_an_item_takes_both_an_item_and_a_byte(credit: Credit, more: tuple[int, int]) -> None:
    """A stream that was granted nothing, or no item, or no byte, sends its first item after CREDIT of what lacks."""
    pair = opened()
    begin_stream(pair.client, credit=credit)
    pair.deliver(pair.client)
    assert not pair.server.may_send_item(1)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        pair.server.send_item(1, b"")
    pair.client.send_credit(1, *more)
    pair.deliver(pair.client)
    pair.server.send_item(1, b"")
    assert pair.deliver(pair.server) == [ItemReceived(1, b"")]
    assert pair.server.credit(1) == pair.client.credit_out(1) == (0, 1)


def test_bytes_may_go_below_zero_by_one_item() -> None:
    """With one byte left an ITEM of any length is sent and taken; what is below zero must come back before the next."""
    pair = opened()
    begin_stream(pair.client, credit=Credit(5, 1))
    pair.deliver(pair.client)
    pair.server.send_item(1, bytes(1000))
    assert pair.deliver(pair.server) == [ItemReceived(1, bytes(1000))]
    assert pair.server.credit(1) == pair.client.credit_out(1) == (4, -999)
    for more, enough in ((998, False), (1, False), (1, True)):
        pair.client.send_credit(1, 0, more)
        pair.deliver(pair.client)
        assert pair.server.may_send_item(1) is enough
    assert pair.server.credit(1) == pair.client.credit_out(1) == (4, 1)


def test_a_stream_without_credit_in_its_metadata_has_none() -> None:
    """Metadata that grant nothing, are not there or cannot be read grant no credit of the answer half."""
    for block in (b"", pack_metadata(Metadata(deadline_ms=5)), b"\x01"):
        pair = opened()
        pair.client.send_flagged_request(0x08, 1, b"", block)
        (event,) = pair.deliver(pair.client)
        assert isinstance(event, FlaggedRequestReceived)
        assert isinstance(event.metadata, CallError) is (block == b"\x01")
        assert pair.client.credit_out(1) == pair.server.credit(1) == NO_CREDIT


@pytest.mark.parametrize(
    ("credit", "items", "size"),
    [
        (Credit(2, 100), U32_MAX - 2, U32_MAX - 100),
        (Credit(U32_MAX, 0), 0, U32_MAX),
        (Credit(0, U32_MAX - 1), U32_MAX, 1),
    ],
)
def test_credit_grows_to_its_limit(credit: Credit, items: int, size: int) -> None:
    """Items and bytes grow to 2**32 - 1 each; one more of either is not sent, and received it ends the connection."""
    for more_items, more_size in ((items, size), (items + 1, size), (items, size + 1)):
        pair = opened()
        begin_stream(pair.client, credit=credit)
        pair.deliver(pair.client)
        fits = (more_items, more_size) == (items, size)
        if fits:
            assert pair.client.send_credit(1, more_items, more_size)
            assert pair.deliver(pair.client) == [CreditReceived(1, Credit(more_items, more_size))]
            assert pair.client.credit_out(1) == pair.server.credit(1) == (U32_MAX, U32_MAX)
            continue
        with pytest.raises(LocalProtocolError, match="would be more than 4294967295"):
            pair.client.send_credit(1, more_items, more_size)
        assert pair.client.credit_out(1) == credit
        assert pair.client.data_to_send() == b""
        pair.server.receive_data(raw(9, struct.pack(">II", min(more_items, U32_MAX), min(more_size, U32_MAX))))
        overflows = max(more_items, more_size) <= U32_MAX
        assert [type(event) for event in drain(pair.server)] == [ConnectionEnded if overflows else CreditReceived]


def test_credit_has_a_range() -> None:
    """Credit of nothing or below, or for a unary call, is not sent; for a call that is over it is silently none."""
    pair = in_stream()
    for items, size in ((0, 0), (-1, 5), (5, -1), (1, -1)):
        with pytest.raises(LocalProtocolError, match="are no credit"):
            pair.client.send_credit(1, items, size)
    unary = pair.client.send_request(1, b"")
    with pytest.raises(LocalProtocolError, match="nothing comes of call 2 that takes credit"):
        pair.client.send_credit(unary, 1, 1)
    assert [type(event) for event in pair.deliver(pair.client)] == [RequestReceived]
    assert pair.server.credit(1) == STREAM_CREDIT
    assert pair.client.send_credit(99, 1, 1) is False
    assert not pair.client.send_cancel(99)
    assert pair.client.data_to_send() == b""


def test_credit_and_cancel_that_cross_the_answer_are_ignored() -> None:
    """CREDIT and CANCEL of a call that is over mean nothing and harm nothing."""
    pair = in_stream()
    pair.client.send_credit(1, 1, 1)
    pair.client.send_cancel(1)
    pair.server.send_end(1)
    assert pair.deliver(pair.client) == []
    assert pair.deliver(pair.server) == [CallOver(1)]
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 0


@pytest.mark.parametrize("last", ["response", "error", "end"])
def test_a_cancelled_call_is_silent_and_counts_until_its_terminal_frame(last: str) -> None:
    """After CANCEL the client reports of the call that it is over and nothing else; until then it is in flight."""
    pair = in_call() if last == "response" else in_stream()
    assert pair.client.send_cancel(1)
    assert not pair.client.send_cancel(1)
    assert pair.client.send_credit(1, 1, 1) is False
    if last != "response":
        pair.server.send_item(1, b"crossing")
    assert pair.deliver(pair.client) == [CancelReceived(1)]
    assert pair.server.calls_in_flight == 1
    assert pair.deliver(pair.server) == []
    assert pair.client.calls_in_flight == 1
    with pytest.raises(LocalProtocolError, match=r"no credit left|cancelled: ITEM has no place there"):
        pair.server.send_item(1, b"late")
    if last == "response":
        pair.server.send_response(1, b"")
    elif last == "error":
        pair.server.send_error(1, CallError(Status.CANCELLED))
    else:
        pair.server.send_end(1)
    assert pair.deliver(pair.server) == [CallOver(1)]
    assert pair.client.calls_in_flight == pair.server.calls_in_flight == 0
    pair.client.receive_data(raw(4))
    assert drain(pair.client) == []
    assert pair.client.state is State.OPEN


def test_items_of_a_cancelled_stream_take_credit() -> None:
    """What still comes of a stream that was cancelled is dropped, and judged as before: the credit is what it was."""
    pair = in_stream()
    pair.client.send_cancel(1)
    pair.client.receive_data(raw(5, b"x") * 2)
    assert drain(pair.client) == []
    assert pair.client.credit_out(1) == (0, 98)
    pair.client.receive_data(raw(5, b"x"))
    assert reasons(pair.client) == ["CREDIT_EXCEEDED"]


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
@pytest.mark.parametrize("going", [False, True])
def test_an_answer_that_is_written_at_once_is_the_same(queued: bool, going: bool) -> None:
    """``answer`` gives what ``send_response`` queues, behind what was queued before, and the call is over."""
    wires = []
    for at_once in (False, True):
        pair = in_call()
        if going:
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


def test_an_answer_written_at_once_takes_its_call_with_it() -> None:
    """A call that was cancelled and is answered at once leaves nothing behind; the other calls keep what they have."""
    pair = in_call()
    begin_stream(pair.client)
    pair.client.send_cancel(1)
    pair.deliver(pair.client)
    assert len(pair.server.answer(1, b"")) == 16
    assert (pair.server.credit(2), pair.server.calls_in_flight) == (STREAM_CREDIT, 1)
    with pytest.raises(LocalProtocolError, match="call 1 is not in flight"):
        pair.server.answer(1, b"")


def test_a_side_answers_no_call_of_its_own() -> None:
    """Answering is for whoever did not begin the call: else it is a local error, nothing is queued or forgotten."""
    pair = in_call()
    ways: list[Callable[[], object]] = [
        lambda: pair.client.answer(1, b""),
        lambda: pair.client.send_response(1, b""),
        lambda: pair.client.send_error(1, NOT_FOUND),
        lambda: pair.client.send_end(1),
    ]
    for send in ways:
        with pytest.raises(LocalProtocolError, match=r"call 1 is (not in flight|answering: \w+ has no place there)"):
            send()
    assert pair.client.data_to_send() == b""
    assert pair.client.calls_in_flight == 1


def test_a_hello_that_is_too_large_is_not_sent() -> None:
    """A HELLO over what every server accepts is PayloadTooLarge, and the client may greet with another one."""
    fresh = started().client
    with pytest.raises(PayloadTooLarge):
        fresh.send_hello(msgspec.structs.replace(HELLO, codecs=tuple((number, "x" * 32) for number in range(1, 256))))
    assert fresh.state is State.START
    assert fresh.data_to_send() == b""
    fresh.send_hello(HELLO)


@pytest.mark.parametrize("kind", ["request", "stream", "one-way", "response", "answer", "item", "item of a request"])
def test_what_is_too_large_is_not_sent(kind: str) -> None:
    """A frame over the peer's limit is PayloadTooLarge, with both numbers, and leaves no trace: no id, no credit."""
    pair = opened_both_ways(max_calls=10)
    client, server = pair
    client.send_request(1, b"")
    begin_stream(client)
    client.send_flagged_request(0x04, 1, b"")
    pair.deliver(client)
    client.their_max_frame = server.their_max_frame = 5000
    fits, too_large = bytes(4988), bytes(4989)
    ways: dict[str, Callable[[bytes], object]] = {
        "request": lambda payload: client.send_request(1, payload),
        "stream": lambda payload: client.send_flagged_request(0x08, 1, payload),
        "one-way": lambda payload: client.send_flagged_request(0x01, 1, payload),
        "response": lambda payload: server.send_response(1, payload),
        "answer": lambda payload: server._queue(server.answer(1, payload)),
        "item": lambda payload: server.send_item(2, payload),
        "item of a request": lambda payload: client.send_item(3, payload),
    }
    send = ways[kind]
    before = [(side.own_calls, side.peer_calls, side.last_call_id, side.one_way_credit) for side in pair]
    for payload in (too_large, bytes(2**24)):
        with pytest.raises(PayloadTooLarge) as caught:
            send(payload)
        assert (caught.value.size, caught.value.limit) == (12 + len(payload), 5000)
        assert "the peer accepts 5000" in str(caught.value)
    assert not client.bytes_pending
    assert not server.bytes_pending
    assert before == [(side.own_calls, side.peer_calls, side.last_call_id, side.one_way_credit) for side in pair]
    assert (server.credit(2), client.credit(3)) == (STREAM_CREDIT, (2, 10))
    sent = send(fits)
    assert client.bytes_pending + server.bytes_pending == 5004
    assert sent in (None, 4)


def test_a_credit_that_is_too_large_grants_nothing() -> None:
    """A CREDIT that the peer would not accept changes no number on this side."""
    pair = in_stream()
    pair.client.their_max_frame = 19
    pair.server.their_max_frame = 19
    with pytest.raises(PayloadTooLarge):
        pair.client.send_credit(1, 1, 1)
    assert pair.client.credit_out(1) == STREAM_CREDIT
    one_way = pair.server._theirs.one_way
    with pytest.raises(PayloadTooLarge):
        pair.server.send_one_way_credit(1)
    assert pair.server._theirs.one_way == one_way
    assert pair.client.bytes_pending == pair.server.bytes_pending == 0


def test_metadata_over_their_field_are_not_sent() -> None:
    """A metadata block over 65,535 bytes is a LocalProtocolError and begins no call."""
    client = opened().client
    with pytest.raises(LocalProtocolError, match="65536 bytes"):
        client.send_request(1, b"", bytes(65_536))
    client.their_max_frame = 2**20
    with pytest.raises(LocalProtocolError, match="65536 bytes"):
        client.send_flagged_request(0x08, 1, b"", bytes(65_536))
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
    assert pair.client.state is pair.server.state is State.OPEN
    assert (pair.server.goaway_sent, pair.client.goaway_received) == (True, True)
    assert (pair.client.goaway_sent, pair.server.goaway_received) == (False, False)
    with pytest.raises(LocalProtocolError, match="cannot send REQUEST while open, after GOAWAY"):
        pair.client.send_request(9, b"")
    pair.client.send_ping(bytes(8))
    assert pair.deliver(pair.client) == [PingReceived(bytes(8))]


def test_a_half_closed_client_is_answered() -> None:
    """After the client's end of input the server still answers what is in flight, and nothing else begins."""
    pair = half_closed()
    assert pair.client.own_calls == pair.server.peer_calls == 1
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
