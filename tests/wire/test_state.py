"""The tables of states: what may be sent and received when, of a connection and of a call."""

from collections.abc import Callable, Iterator

import pytest

from tests.wire.peers import (
    ERROR_BODY,
    GOODBYE,
    HELLO,
    NOT_FOUND,
    ROOM,
    Pair,
    drain,
    half_closed,
    in_state,
    opened_both_ways,
    raw,
    reasons,
    welcome,
)
from wireproto.errors import LocalProtocolError
from wireproto.wire.calls import STATES_OF_A_CALL, CallPart, CallState
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import ConnectionEnded, PingReceived
from wireproto.wire.frame import (
    IGNORABLE,
    KINDS,
    PREAMBLE,
    TOP_BIT,
    Flag,
    Kind,
    pack_credit,
    pack_goaway,
)
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.state import END_OF_INPUT, FINAL, TRANSITIONS, Direction

DUPLEX, UPLOAD, UNARY = 1, 2, 3
"""Numbers of the calls of each side that are in flight where there can be any: one with two streams, one whose answer
is one message, and a unary one."""


def side_in(role: Role, state: State) -> Connection:
    """A connection in ``state``, with those calls."""
    side = in_state(role, state)
    for calls in (side._ours, side._theirs):
        if calls.top_bit | DUPLEX in calls.opcodes:
            calls.open(calls.top_bit | UPLOAD, 0x10, Flag.ITEMS_FOLLOW, ROOM, ROOM)
            calls.opcodes[calls.top_bit | UNARY] = 0x10
            calls.max_calls = 10
    return side


def ours(role: Role) -> int:
    """The top bit of the calls that this side begins."""
    return TOP_BIT if role is Role.SERVER else 0


def theirs(role: Role) -> int:
    """The top bit of the calls that the other side begins."""
    return TOP_BIT ^ ours(role)


def valid(role: Role) -> dict[int, bytes]:
    """A frame of each kind that this side may be sent while it is open."""
    mine, others = ours(role), theirs(role)
    return {
        Kind.HELLO: raw(1, HELLO.encode()),
        Kind.WELCOME: raw(2, welcome().encode()),
        Kind.REQUEST: raw(3, call_id=others | 9),
        Kind.RESPONSE: raw(4, call_id=mine | UNARY),
        Kind.ITEM: raw(5, call_id=mine | DUPLEX),
        Kind.END: raw(6, call_id=mine | DUPLEX),
        Kind.ERROR: raw(7, ERROR_BODY, call_id=mine | UPLOAD),
        Kind.CANCEL: raw(8, call_id=others | UPLOAD),
        Kind.CREDIT: raw(9, pack_credit(1, 1), call_id=mine | UPLOAD),
        Kind.PING: raw(10, bytes(8)),
        Kind.PONG: raw(11, bytes(8)),
        Kind.GOAWAY: raw(12, pack_goaway(0, GOODBYE)),
        FINAL: raw(7, ERROR_BODY, call_id=0, opcode=0),
        IGNORABLE: raw(0xFF, b"x" * 30, flags=255, codec=9, version=9, opcode=9),
    }


def sends(move: int, side: Connection) -> None:
    """Ask ``side`` to send one kind of frame, of a call that is in flight while it is open."""
    mine, others = ours(side.role), theirs(side.role)
    ways: dict[int, Callable[[], object]] = {
        Kind.HELLO: lambda: side.send_hello(HELLO),
        Kind.WELCOME: lambda: side.send_welcome(welcome()),
        Kind.REQUEST: lambda: side.send_request(1, b""),
        Kind.RESPONSE: lambda: side.send_response(others | UNARY, b""),
        Kind.ITEM: lambda: side.send_item(others | DUPLEX, b""),
        Kind.END: lambda: side.send_end(others | DUPLEX),
        Kind.ERROR: lambda: side.send_error(others | UPLOAD, NOT_FOUND),
        Kind.CANCEL: lambda: side.send_cancel(mine | UNARY),
        Kind.CREDIT: lambda: side.send_credit(others | UPLOAD, 1, 1),
        Kind.PING: lambda: side.send_ping(bytes(8)),
        Kind.GOAWAY: lambda: side.send_goaway(GOODBYE),
        FINAL: lambda: side.refuse(GOODBYE),
        END_OF_INPUT: side.end_output,
    }
    ways[move]()


STATES = [(role, state) for role in Role for state in State]
states = pytest.mark.parametrize(
    ("role", "state"), STATES, ids=[f"{role.value}-{state.value}" for role, state in STATES]
)


@states
@pytest.mark.parametrize("kind", [*range(14), 127, 128, 255])
def test_what_is_received_is_in_the_table_or_refused(role: Role, state: State, kind: int) -> None:
    """In every state a frame of every kind is taken and leads where the table says, or ends the connection."""
    side = side_in(role, state)
    following = TRANSITIONS.get((role, state, Direction.RECEIVE), {})
    frames = valid(role)
    wire = frames.get(kind) or frames[IGNORABLE] if kind in KINDS or kind & IGNORABLE else raw(kind)
    if kind == 0:
        wire = frames[FINAL]
    side.receive_data(PREAMBLE + wire if state in (State.START, State.GREETING) else wire)
    events = drain(side)
    ends = [event for event in events if isinstance(event, ConnectionEnded)]
    if state is State.CLOSED or (role, state) == (Role.SERVER, State.HALF_CLOSED):
        assert events == []
        return
    move = IGNORABLE if kind & IGNORABLE else kind
    if (role, state) == (Role.SERVER, State.GREETING):
        assert [end.error.reason for end in ends if end.error] == ["EARLY_FRAME"]
    elif move in following:
        assert side.state is following[move]
        assert bool(ends) is (kind == 0)
    else:
        expected = "UNEXPECTED_KIND" if kind in KINDS or kind in (0, 128, 255) else "UNKNOWN_KIND"
        assert [end.error.reason for end in ends if end.error] == [expected]
        assert side.state is State.CLOSED


@states
@pytest.mark.parametrize("move", [FINAL, END_OF_INPUT, *(kind for kind in Kind if kind != Kind.PONG)])
def test_what_is_sent_is_in_the_table_or_refused(role: Role, state: State, move: int) -> None:
    """In every state sending every kind leads where the table says, or is a LocalProtocolError and sends nothing."""
    side = side_in(role, state)
    following = TRANSITIONS.get((role, state, Direction.SEND), {})
    if move in following:
        sends(move, side)
        assert side.state is following[move]
        assert bool(side.bytes_pending) is (move != END_OF_INPUT)
    elif move in (Kind.CANCEL, Kind.CREDIT):
        sends(move, side)  # it would say nothing to the peer any more: nothing happens
        assert not side.bytes_pending
    else:
        with pytest.raises(LocalProtocolError):
            sends(move, side)
        assert side.state is state
        assert side.data_to_send() == b""


@states
def test_an_end_of_input_is_in_the_table(role: Role, state: State) -> None:
    """In every state the end of input at a frame boundary is an orderly end, reported once."""
    side = side_in(role, state)
    following = TRANSITIONS.get((role, state, Direction.RECEIVE), {})
    side.receive_eof()
    if END_OF_INPUT in following:
        assert drain(side) == [ConnectionEnded(None)]
        assert side.state is following[END_OF_INPUT]
    else:
        assert state is State.CLOSED or (role, state) == (Role.SERVER, State.HALF_CLOSED)
    assert drain(side) == []
    assert side.error is None


MOVES_WHILE_OPEN = [
    (role, move)
    for role in Role
    for move in TRANSITIONS[role, State.OPEN, Direction.SEND]
    if move not in (FINAL, END_OF_INPUT, Kind.PONG)
]
while_open = pytest.mark.parametrize(("role", "move"), MOVES_WHILE_OPEN)


@while_open
def test_a_side_sends_goaway_once(role: Role, move: int) -> None:
    """Who has sent GOAWAY may do all else as before, and not send it again."""
    side = side_in(role, State.OPEN)
    side.send_goaway(GOODBYE)
    assert side.state is State.OPEN
    side.data_to_send()
    if move == Kind.GOAWAY:
        with pytest.raises(LocalProtocolError, match="after GOAWAY"):
            sends(move, side)
    else:
        sends(move, side)
    assert bool(side.bytes_pending) is (move != Kind.GOAWAY)


@while_open
def test_behind_a_goaway_that_was_received_no_request_is_sent(role: Role, move: int) -> None:
    """Who has received GOAWAY begins no calls, and does all else as before."""
    side = side_in(role, State.OPEN)
    side.receive_data(valid(role)[Kind.GOAWAY])
    drain(side)
    assert side.state is State.OPEN
    if move == Kind.REQUEST:
        with pytest.raises(LocalProtocolError, match="after GOAWAY"):
            sends(move, side)
        with pytest.raises(LocalProtocolError, match="after GOAWAY"):
            side.send_flagged_request(Flag.ITEMS_COME_BACK, 1, b"")
    else:
        sends(move, side)
    assert bool(side.bytes_pending) is (move != Kind.REQUEST)


@pytest.mark.parametrize("role", Role)
def test_a_second_goaway_ends_the_connection(role: Role) -> None:
    """Each side says GOAWAY once; the other one holds it to that."""
    side = side_in(role, State.OPEN)
    side.receive_data(valid(role)[Kind.GOAWAY] * 2)
    *_, last = drain(side)
    assert isinstance(last, ConnectionEnded)
    assert last.error is not None
    assert last.error.reason == "UNEXPECTED_KIND"


def test_a_ping_that_crosses_a_half_close_is_not_answered() -> None:
    """A client that has ended its output is told of a PING that did not know of it, and sends nothing."""
    client = half_closed().client
    client.receive_data(valid(Role.CLIENT)[Kind.PING])
    assert drain(client) == [PingReceived(bytes(8))]
    assert not client.bytes_pending
    assert client.state is State.HALF_CLOSED


def test_the_hurried_words_follow_the_table() -> None:
    """The short path is open for REQUEST, RESPONSE and ITEM in exactly the states in which the table allows them."""
    for role, state in STATES:
        side = side_in(role, state)
        received = TRANSITIONS.get((role, state, Direction.RECEIVE), {})
        sent = TRANSITIONS.get((role, state, Direction.SEND), {})
        kind = Kind.REQUEST if role is Role.SERVER else Kind.RESPONSE
        assert (side._hot_in == (kind << 24 | 0x0201)) is (kind in received)
        for word, kind in (
            (side._hot_request, Kind.REQUEST),
            (side._hot_answer, Kind.RESPONSE),
            (side._hot_item, Kind.ITEM),
        ):
            assert word == (kind << 24 | 0x0201 if kind in sent else -1)


def test_the_hurried_words_follow_goaway() -> None:
    """Behind its own GOAWAY a server judges REQUESTs one by one, and behind the other side's a client sends none."""
    server, client = side_in(Role.SERVER, State.OPEN), side_in(Role.CLIENT, State.OPEN)
    server.send_goaway(GOODBYE)
    assert server._hot_in == -1
    client.receive_data(server.data_to_send())
    drain(client)
    assert client._hot_request == -1
    assert client._hot_in == Kind.RESPONSE << 24 | 0x0201


# The states of a call.


SHAPES = (Flag.NONE, Flag.ITEMS_COME_BACK, Flag.ITEMS_FOLLOW, Flag.ITEMS_COME_BACK | Flag.ITEMS_FOLLOW)
OF_A_CALL = (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT)


def calls_in_states() -> Iterator[tuple[CallPart, Flag, CallState, Role]]:
    """Every state that a call of every shape can be in at either of its sides, begun by either side."""
    for began_by in Role:
        for part in CallPart:
            for flags in SHAPES:
                for state in (CallState.BOTH_OPEN, CallState.ANSWERING, CallState.CANCELLED):
                    if state is not CallState.BOTH_OPEN or flags & Flag.ITEMS_FOLLOW:
                        yield part, flags, state, began_by


CALLS_IN_STATES = list(calls_in_states())
calls = pytest.mark.parametrize(
    ("part", "flags", "state", "began_by"),
    CALLS_IN_STATES,
    ids=[f"{by.value}-{part.value}-{flags:#04x}-{state.value}" for part, flags, state, by in CALLS_IN_STATES],
)


def call_in(flags: Flag, state: CallState, began_by: Role) -> tuple[Pair, Connection, int]:
    """Two connections with one call in this state on both sides, the one that began it, and the id of the call."""
    pair = opened_both_ways(ROOM)
    side = pair.client if began_by is Role.CLIENT else pair.server
    if flags:
        call_id = side.send_flagged_request(flags, 0x10, b"", pack_metadata(Metadata(credit=ROOM)), credit=ROOM)
    else:
        call_id = side.send_request(0x10, b"")
    pair.deliver(side)
    if state is CallState.ANSWERING and flags & Flag.ITEMS_FOLLOW:
        side.send_end(call_id)
    elif state is CallState.CANCELLED:
        side.send_cancel(call_id)
    pair.deliver(side)
    return pair, side, call_id


def body_of(kind: Kind) -> bytes:
    """A payload that the kind may have."""
    return {Kind.ERROR: ERROR_BODY, Kind.CREDIT: pack_credit(1, 1)}.get(kind, b"")


@calls
@pytest.mark.parametrize("kind", OF_A_CALL)
def test_a_call_receives_what_its_table_says(
    part: CallPart, flags: Flag, state: CallState, began_by: Role, kind: Kind
) -> None:
    """In every state of a call a frame of every kind leads where the table says, or ends the connection."""
    pair, side, call_id = call_in(flags, state, began_by)
    receiver = side if part is CallPart.BEGAN else pair.other(side)
    table = receiver._ours if part is CallPart.BEGAN else receiver._theirs
    receiver.receive_data(raw(kind, body_of(kind), call_id=call_id))
    step = STATES_OF_A_CALL.get((part, state, Direction.RECEIVE), {}).get(kind)
    if step is None or step.only & ~flags or step.never & flags:
        assert reasons(receiver) == ["WRONG_HALF"]
        return
    drain(receiver)
    assert receiver.state is State.OPEN
    if step.then is CallState.OVER:
        assert call_id not in table.opcodes
    else:
        assert table.state_of(call_id).state is (step.then or state)


@calls
@pytest.mark.parametrize("kind", OF_A_CALL)
def test_a_call_sends_what_its_table_says(
    part: CallPart, flags: Flag, state: CallState, began_by: Role, kind: Kind
) -> None:
    """In every state of a call only what the table allows is sent, and it leads where the table says."""
    pair, side, call_id = call_in(flags, state, began_by)
    sender = side if part is CallPart.BEGAN else pair.other(side)
    table = sender._ours if part is CallPart.BEGAN else sender._theirs
    ways: dict[Kind, Callable[[], object]] = {
        Kind.RESPONSE: lambda: sender.send_response(call_id, b""),
        Kind.ITEM: lambda: sender.send_item(call_id, b""),
        Kind.END: lambda: sender.send_end(call_id),
        Kind.ERROR: lambda: sender.send_error(call_id, NOT_FOUND),
        Kind.CANCEL: lambda: sender.send_cancel(call_id),
        Kind.CREDIT: lambda: sender.send_credit(call_id, 1, 1),
    }
    step = STATES_OF_A_CALL.get((part, state, Direction.SEND), {}).get(kind)
    sender.data_to_send()
    if step is None or step.only & ~flags or step.never & flags:
        try:
            said = ways[kind]()
        except LocalProtocolError:
            said = False
        assert said is False
        assert not sender.bytes_pending
        assert table.state_of(call_id).state is state
        return
    ways[kind]()
    assert sender.bytes_pending
    if step.then is CallState.OVER:
        assert call_id not in table.opcodes
    else:
        assert table.state_of(call_id).state is (step.then or state)
