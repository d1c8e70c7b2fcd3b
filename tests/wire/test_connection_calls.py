"""Calls of every shape, begun by either side: their halves, their credit, their states, and how many there may be."""

import itertools
from collections.abc import Callable

import msgspec
import pytest

from tests.wire.ends import (
    BODIES,
    DUPLEX,
    KINDS_OF_CALLS,
    SHAPES,
    STREAMED,
    UNARY,
    UPLOAD,
    Ends,
    begin,
    begun,
    either,
    ends,
)
from tests.wire.peers import (
    ERROR_BODY,
    GOODBYE,
    HELLO,
    NOT_FOUND,
    STREAM_CREDIT,
    drain,
    final_error,
    half_closed,
    in_state,
    numbered_after,
    opened,
    raw,
    reasons,
    started,
    welcome,
)
from wireproto.errors import LocalProtocolError
from wireproto.status import Retry, Status
from wireproto.wire.calls import CallPart, CallState
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    CallOver,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    FlaggedRequestReceived,
    GoAwayReceived,
    ItemReceived,
    OneWayCreditReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import NO_CREDIT, PREAMBLE, TOP_BIT, U32_MAX, Credit, Flag, Kind, pack_credit
from wireproto.wire.metadata import EMPTY

# Request halves.


@either
def test_an_upload_is_answered_with_one_message(by: Role) -> None:
    """ITEMs of the request half take the first credit of the side that answers, until END; then comes RESPONSE."""
    caller, answerer, call_id, _ = call = ends(by)
    assert caller.send_flagged_request(UPLOAD, 0x10, b"") == call_id
    assert call.deliver() == [FlaggedRequestReceived(call_id, 0x10, UPLOAD, EMPTY, b"")]
    assert caller.credit(call_id) == answerer.credit_out(call_id) == (2, 10)
    assert caller.credit_out(call_id) == answerer.credit(call_id) == NO_CREDIT
    caller.send_item(call_id, b"abc")
    caller.send_item(call_id, b"defg")
    with pytest.raises(LocalProtocolError, match="no credit left"):
        caller.send_item(call_id, b"")
    assert call.deliver() == [ItemReceived(call_id, b"abc"), ItemReceived(call_id, b"defg")]
    assert caller.credit(call_id) == answerer.credit_out(call_id) == (0, 3)
    assert answerer.send_credit(call_id, 1, 7)
    assert call.deliver_back() == [CreditReceived(call_id, Credit(1, 7))]
    assert caller.credit(call_id) == answerer.credit_out(call_id) == (1, 10)
    caller.send_end(call_id)
    behind_end: list[Callable[[], object]] = [
        lambda: caller.send_item(call_id, b""),
        lambda: caller.send_end(call_id),
    ]
    for send in behind_end:
        with pytest.raises(LocalProtocolError, match=f"call {call_id} is answering: (ITEM|END) has no place there"):
            send()
    assert call.deliver() == [RequestEnded(call_id)]
    assert answerer.send_credit(call_id, 1, 1) is False
    answerer.send_response(call_id, b"answer")
    assert call.deliver_back() == [ResponseReceived(call_id, 0x10, b"answer")]
    assert caller.calls_in_flight == answerer.calls_in_flight == 0


@either
def test_without_a_first_credit_an_upload_waits_for_some(by: Role) -> None:
    """Where the field of the handshake is left out, a request half begins with nothing."""
    caller, answerer, call_id, _ = call = begun(by, UPLOAD, NO_CREDIT)
    assert caller.credit(call_id) == answerer.credit_out(call_id) == NO_CREDIT
    assert not caller.may_send_item(call_id)
    answerer.send_credit(call_id, 1, 1)
    call.deliver_back()
    caller.send_item(call_id, b"long")
    assert call.deliver() == [ItemReceived(call_id, b"long")]
    assert caller.credit(call_id) == answerer.credit_out(call_id) == (0, -3)


@either
def test_the_halves_of_a_duplex_call_know_nothing_of_each_other(by: Role) -> None:
    """Each half has a credit of its own, and the answer half goes on behind the END of the request half."""
    caller, answerer, call_id, _ = call = begun(by, DUPLEX)
    assert caller.credit(call_id) == answerer.credit_out(call_id) == (2, 10)
    assert caller.credit_out(call_id) == answerer.credit(call_id) == STREAM_CREDIT
    caller.send_item(call_id, b"there")
    answerer.send_item(call_id, b"back")
    caller.send_end(call_id)
    assert call.deliver() == [ItemReceived(call_id, b"there"), RequestEnded(call_id)]
    assert call.deliver_back() == [ItemReceived(call_id, b"back")]
    assert caller.credit(call_id) == (1, 5)
    assert caller.credit_out(call_id) == answerer.credit(call_id) == (1, 96)
    assert caller.send_credit(call_id, 5, 0)
    answerer.send_item(call_id, b"more")
    answerer.send_end(call_id)
    assert call.deliver() == []
    assert call.deliver_back() == [ItemReceived(call_id, b"more"), EndReceived(call_id)]


@either
@pytest.mark.parametrize("flags", [UPLOAD, DUPLEX], ids=["upload", "duplex"])
@pytest.mark.parametrize("last", [Kind.END, Kind.CANCEL])
def test_credit_that_crosses_the_end_of_a_request_half_is_reported(by: Role, flags: Flag, last: Kind) -> None:
    """CREDIT that was sent before END or CANCEL was read ends nothing; nothing more can be sent with it."""
    caller, answerer, call_id, _ = call = begun(by, flags)
    if last is Kind.END:
        caller.send_end(call_id)
    else:
        assert caller.send_cancel(call_id)
    assert answerer.send_credit(call_id, 1, 1)
    assert call.deliver_back() == [CreditReceived(call_id, Credit(1, 1))]
    with pytest.raises(LocalProtocolError, match="ITEM has no place there"):
        caller.send_item(call_id, b"")
    assert call.deliver() == [RequestEnded(call_id) if last is Kind.END else CancelReceived(call_id)]
    assert answerer.send_credit(call_id, 1, 1) is False


def test_a_request_half_takes_no_more_credit_than_its_field() -> None:
    """Both numbers grow to 2**32 - 1 and no further, at their sender and at their receiver."""
    call = begun(Role.CLIENT, UPLOAD, Credit(U32_MAX - 1, 1))
    for items, size in ((2, 0), (0, U32_MAX)):
        with pytest.raises(LocalProtocolError, match="would be more than"):
            call.answerer.send_credit(1, items, size)
    assert call.answerer.send_credit(1, 1, U32_MAX - 1)
    assert call.deliver_back() == [CreditReceived(1, Credit(1, U32_MAX - 1))]
    assert call.caller.credit(1) == (U32_MAX, U32_MAX)
    call.caller.receive_data(raw(9, pack_credit(0, 1)))
    assert reasons(call.caller) == ["CREDIT_OVERFLOW"]


# One-way calls.


@either
def test_a_one_way_call_is_over_at_once(by: Role) -> None:
    """It takes an id and one of the credit, and nothing can be said of it any more by either side."""
    caller, answerer, call_id, _ = call = ends(by, one_way=2, max_calls=1)
    begin(caller, UNARY)
    assert caller.send_flagged_request(Flag.ONE_WAY, 0x11, b"told") == call_id + 1
    assert len(call.deliver()) == 2
    assert caller.one_way_credit == answerer._theirs.one_way == 1
    assert caller.own_calls == answerer.peer_calls == 1
    ways: list[Callable[[], object]] = [
        lambda: answerer.send_response(call_id + 1, b""),
        lambda: answerer.send_error(call_id + 1, NOT_FOUND),
        lambda: answerer.send_end(call_id + 1),
    ]
    for send in ways:
        with pytest.raises(LocalProtocolError, match="is not in flight"):
            send()
    assert caller.send_cancel(call_id + 1) is False
    answerer.send_goaway(GOODBYE)
    (goaway,) = call.deliver_back()
    assert isinstance(goaway, GoAwayReceived)
    assert goaway.last_call_id == call_id + 1


@either
def test_one_way_calls_do_not_count_against_the_cap(by: Role) -> None:
    """With as many calls in flight as there may be, one-way calls are still taken, and the reverse."""
    caller, _, call_id, _ = call = ends(by, one_way=2, max_calls=1)
    for flags in (Flag.ONE_WAY, UNARY, Flag.ONE_WAY):
        begin(caller, flags)
    assert [type(event) for event in call.deliver()] == [
        FlaggedRequestReceived,
        RequestReceived,
        FlaggedRequestReceived,
    ]
    assert call.deliver_back() == []
    assert caller.own_calls == 1
    assert caller.last_call_id & ~TOP_BIT == (3 if by is Role.CLIENT else 0)
    assert caller._ours.last == call_id + 2


@either
def test_one_way_calls_wait_for_credit(by: Role) -> None:
    """Without credit none is sent, and no id is used; CREDIT of no call gives more."""
    caller, answerer, call_id, _ = call = ends(by, one_way=1)
    caller.send_flagged_request(Flag.ONE_WAY, 0x11, b"")
    with pytest.raises(LocalProtocolError, match="no credit for another one-way call"):
        caller.send_flagged_request(Flag.ONE_WAY, 0x11, b"")
    assert answerer.send_one_way_credit(1)
    assert call.deliver_back() == [OneWayCreditReceived(1)]
    assert caller.one_way_credit == 1
    assert caller.send_flagged_request(Flag.ONE_WAY, 0x11, b"") == call_id + 1
    assert len(call.deliver()) == 2
    caller._ours.one_way = 1  # as if it had been granted more
    caller.send_flagged_request(Flag.ONE_WAY, 0x11, b"")
    (end,) = call.deliver()
    assert isinstance(end, ConnectionEnded)
    assert end.error is not None
    assert end.error.reason == "CREDIT_EXCEEDED"


@either
def test_one_way_credit_has_a_range(by: Role) -> None:
    """It grows by 1 or more to 2**32 - 1, in one step or in two, and one more is not sent, nor taken."""
    caller, answerer, _, _ = call = ends(by, one_way=1)
    for calls in (0, -1, U32_MAX):
        with pytest.raises(LocalProtocolError, match="must grow by 1 or more and stay within 4294967295"):
            answerer.send_one_way_credit(calls)
    assert answerer.data_to_send() == b""
    assert answerer.send_one_way_credit(U32_MAX - 1)
    assert call.deliver_back() == [OneWayCreditReceived(U32_MAX - 1)]
    assert caller.one_way_credit == U32_MAX
    with pytest.raises(LocalProtocolError, match="must grow"):
        answerer.send_one_way_credit(1)
    caller.receive_data(raw(9, pack_credit(1, 0), call_id=0, opcode=0))
    assert reasons(caller) == ["CREDIT_OVERFLOW"]


def test_one_way_credit_is_none_without_its_field() -> None:
    """Peers that say nothing of one-way calls take none."""
    for side in opened():
        assert side.one_way_credit == 0
        with pytest.raises(LocalProtocolError, match="no credit for another one-way call"):
            side.send_flagged_request(Flag.ONE_WAY, 0x11, b"")


def test_one_way_credit_of_a_connection_that_is_over_is_not_sent() -> None:
    """Where nothing can be sent any more it is told so, whatever was asked for."""
    for side in (*half_closed(), started().server, in_state(Role.CLIENT, State.CLOSED)):
        assert side.send_one_way_credit(1) is False
        assert side.data_to_send() == b""


# The states of a call, each with every kind of frame. Written from the text, not from the table of the package.

BEGAN, ANSWERS = CallPart.BEGAN, CallPart.ANSWERS
BOTH_OPEN, ANSWERING, CANCELLED = CallState.BOTH_OPEN, CallState.ANSWERING, CallState.CANCELLED

OF_CALLERS: dict[tuple[CallState, str], str] = {
    (BOTH_OPEN, "upload"): "ITEM END CANCEL",
    (BOTH_OPEN, "duplex"): "ITEM END CREDIT CANCEL",
    (ANSWERING, "unary"): "CANCEL",
    (ANSWERING, "stream"): "CREDIT CANCEL",
    (ANSWERING, "upload"): "CANCEL",
    (ANSWERING, "duplex"): "CREDIT CANCEL",
    (CANCELLED, "unary"): "",
    (CANCELLED, "stream"): "",
    (CANCELLED, "upload"): "",
    (CANCELLED, "duplex"): "",
}
"""(state, shape) -> what whoever began the call may send, and whoever answers it may be sent, both in this state."""

TO_CALLERS: dict[tuple[CallState, str], str] = {
    (BOTH_OPEN, "upload"): "CREDIT RESPONSE ERROR",
    (BOTH_OPEN, "duplex"): "CREDIT ITEM END ERROR",
    (ANSWERING, "unary"): "RESPONSE ERROR",
    (ANSWERING, "stream"): "ITEM END ERROR",
    (ANSWERING, "upload"): "CREDIT RESPONSE ERROR",
    (ANSWERING, "duplex"): "CREDIT ITEM END ERROR",
    (CANCELLED, "unary"): "RESPONSE ERROR",
    (CANCELLED, "stream"): "ITEM END ERROR",
    (CANCELLED, "upload"): "CREDIT RESPONSE ERROR",
    (CANCELLED, "duplex"): "CREDIT ITEM END ERROR",
}
"""(state, shape) -> what whoever began the call may be sent in this state."""

OF_ANSWERERS: dict[tuple[CallState, str], str] = {
    (BOTH_OPEN, "upload"): "CREDIT RESPONSE ERROR",
    (BOTH_OPEN, "duplex"): "CREDIT ITEM END ERROR",
    (ANSWERING, "unary"): "RESPONSE ERROR",
    (ANSWERING, "stream"): "ITEM END ERROR",
    (ANSWERING, "upload"): "RESPONSE ERROR",
    (ANSWERING, "duplex"): "ITEM END ERROR",
    (CANCELLED, "unary"): "RESPONSE ERROR",
    (CANCELLED, "stream"): "END ERROR",
    (CANCELLED, "upload"): "RESPONSE ERROR",
    (CANCELLED, "duplex"): "END ERROR",
}
"""(state, shape) -> what whoever answers the call may send in this state."""

WAYS: dict[Kind, Callable[[Connection, int], object]] = {
    Kind.RESPONSE: lambda side, call_id: side.send_response(call_id, b""),
    Kind.ITEM: lambda side, call_id: side.send_item(call_id, b""),
    Kind.END: lambda side, call_id: side.send_end(call_id),
    Kind.ERROR: lambda side, call_id: side.send_error(call_id, NOT_FOUND),
    Kind.CANCEL: lambda side, call_id: side.send_cancel(call_id),
    Kind.CREDIT: lambda side, call_id: side.send_credit(call_id, 1, 1),
}
PLACES = [
    pytest.param(state, shape, kind, id=f"{state.value} {shape} {kind.name}")
    for (state, shape), kind in itertools.product(OF_CALLERS, KINDS_OF_CALLS)
]


def brought_to(by: Role, state: CallState, shape: str, *, read: bool = True) -> Ends:
    """Call 1 is in this state, on both sides if the answerer has read all of it, else on the caller's alone."""
    call = begun(by, SHAPES[shape])
    if state is CANCELLED:
        call.caller.send_cancel(call.call_id)
    elif state is ANSWERING and SHAPES[shape] & UPLOAD:
        call.caller.send_end(call.call_id)
    data = call.caller.data_to_send()
    if read:
        call.answerer.receive_data(data)
        drain(call.answerer)
    return call


@either
@pytest.mark.parametrize(("state", "shape", "kind"), PLACES)
def test_a_frame_of_a_call_has_its_places(by: Role, state: CallState, shape: str, kind: Kind) -> None:
    """Received where the state of the call has no place for it, each kind is WRONG_HALF; elsewhere it ends nothing."""
    for part, places in ((BEGAN, TO_CALLERS), (ANSWERS, OF_CALLERS)):
        call = brought_to(by, state, shape)
        side = call.caller if part is BEGAN else call.answerer
        side.receive_data(raw(kind, BODIES.get(kind, b""), call_id=call.call_id))
        found = drain(side)
        if kind.name in places[state, shape].split():
            assert side.state is State.OPEN
            assert not any(isinstance(event, ConnectionEnded) for event in found)
        else:
            (end,) = found
            assert isinstance(end, ConnectionEnded)
            assert end.error is not None
            assert (end.error.reason, end.error.status) == ("WRONG_HALF", Status.INVALID_ARGUMENT)
            assert kind.name in str(end.error)
            assert state.value in str(end.error)
            assert final_error(side.data_to_send()).reason == "WRONG_HALF"


@either
@pytest.mark.parametrize(("state", "shape", "kind"), PLACES)
def test_a_side_sends_what_has_a_place(by: Role, state: CallState, shape: str, kind: Kind) -> None:
    """What has no place is not sent, and changes nothing; what has one is, and the peer is not hurt by it."""
    for part, places in ((BEGAN, OF_CALLERS), (ANSWERS, OF_ANSWERERS)):
        call = brought_to(by, state, shape)
        side, call_id = (call.caller if part is BEGAN else call.answerer), call.call_id
        before = (side.credit(call_id), side.credit_out(call_id), side.calls_in_flight)
        if kind.name in places[state, shape].split():
            assert WAYS[kind](side, call_id) in (None, True)
            assert side.bytes_pending
            assert not any(isinstance(event, ConnectionEnded) for event in call.pair.deliver(side))
        else:
            try:
                assert WAYS[kind](side, call_id) is False
            except LocalProtocolError:
                assert kind is not Kind.CANCEL
            assert (side.credit(call_id), side.credit_out(call_id), side.calls_in_flight) == before
            assert side.data_to_send() == b""


def test_a_cancelled_call_of_each_shape_reports_its_end_alone() -> None:
    """Whatever its terminal frame says, the caller of a cancelled call is told that its place is free."""
    for by, (shape, flags) in itertools.product(Role, SHAPES.items()):
        call = brought_to(by, CANCELLED, shape)
        if flags & STREAMED:
            call.answerer.send_end(call.call_id)
        else:
            call.answerer.send_response(call.call_id, b"")
        assert call.deliver_back() == [CallOver(call.call_id)]
        assert call.caller.calls_in_flight == call.answerer.calls_in_flight == 0


# Refusals.


@either
def test_calls_beyond_the_cap_of_the_other_side_are_refused(by: Role) -> None:
    """Either side says in the handshake how many calls it takes, and refuses those beyond, one by one."""
    caller, answerer, call_id, _ = call = ends(by, max_calls=2)
    for flags in (UPLOAD, UNARY, UNARY, STREAMED):
        begin(caller, flags)
    assert [type(event) for event in call.deliver()] == [FlaggedRequestReceived, RequestReceived]
    answers = call.deliver_back()
    for answer, number in zip(answers, (2, 3), strict=True):
        assert isinstance(answer, ErrorReceived)
        assert answer.call_id == call_id + number
        assert (answer.error.reason, answer.error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
    assert caller.own_calls == answerer.peer_calls == 2
    assert answerer.own_calls == caller.peer_calls == 0
    answerer.send_response(call_id + 1, b"")
    call.deliver_back()
    begin(caller, UNARY)
    assert [type(event) for event in call.deliver()] == [RequestReceived]


def test_a_client_without_handlers_refuses_what_the_server_begins() -> None:
    """A client that said 0 in HELLO takes no calls of any shape; the connection lives."""
    pair = opened()
    for flags in SHAPES.values():
        begin(pair.server, flags)
    assert pair.deliver(pair.server) == []
    answers = pair.deliver(pair.client)
    assert len(answers) == 4
    for answer in answers:
        assert isinstance(answer, ErrorReceived)
        assert answer.error.reason == "TOO_MANY_CALLS"
        assert "0 calls are in flight on this connection" in answer.error.message
    assert pair.server.own_calls == pair.client.peer_calls == 0
    assert pair.server.state is State.OPEN


class SmallCircle(Connection):
    """A connection whose numbers are 1 to 7."""

    __slots__ = ()
    _circle = 8


def test_where_no_id_is_free_no_call_begins() -> None:
    """With all ids that lie ahead in flight a REQUEST of any shape is refused here, and leaves no trace."""
    small = SmallCircle(Role.CLIENT)
    small.send_hello(HELLO)
    accepted = {"max_calls": 10, "first_credit": Credit(2, 10), "one_way_credit": 2}
    small.receive_data(PREAMBLE + raw(Kind.WELCOME, msgspec.structs.replace(welcome(), **accepted).encode()))
    assert [type(event) for event in drain(small)] == [WelcomeReceived]
    for flags, call_id in ((UPLOAD, 1), (STREAMED, 2), (UNARY, 3)):
        assert begin(small, flags) == call_id
    numbered_after(6, small)
    assert begin(small, UNARY) == 7
    numbered_after(6, small)
    assert small.data_to_send()
    for flags in SHAPES.values():
        with pytest.raises(LocalProtocolError, match="no id is free"):
            begin(small, flags)
        with pytest.raises(LocalProtocolError, match="no id is free"):
            small.send_flagged_request(Flag.ONE_WAY, 0x10, b"")
    assert (small.own_calls, small.last_call_id, small.one_way_credit) == (4, 6, 2)
    assert small.data_to_send() == b""
    small.receive_data(raw(7, ERROR_BODY))
    assert [type(event) for event in drain(small)] == [ErrorReceived]
    assert begin(small, UNARY) == 1
    assert begin(small, UNARY) == 4
