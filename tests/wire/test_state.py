"""The table of states: what may be sent and received when."""

from collections.abc import Callable

import pytest

from tests.wire.peers import ERROR_BODY, GOODBYE, HELLO, NOT_FOUND, drain, in_state, raw, welcome
from wireproto.errors import LocalProtocolError
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    ConnectionEnded,
)
from wireproto.wire.frame import (
    IGNORABLE,
    KINDS,
    PREAMBLE,
    Kind,
    pack_credit,
    pack_goaway,
)
from wireproto.wire.state import END_OF_INPUT, FINAL, TRANSITIONS, Direction

VALID = {
    Kind.HELLO: raw(1, HELLO.encode()),
    Kind.WELCOME: raw(2, welcome().encode()),
    Kind.REQUEST: raw(3, call_id=9),
    Kind.RESPONSE: raw(4),
    Kind.ITEM: raw(5),
    Kind.END: raw(6),
    Kind.ERROR: raw(7, ERROR_BODY),
    Kind.CANCEL: raw(8),
    Kind.CREDIT: raw(9, pack_credit(1)),
    Kind.PING: raw(10, bytes(8)),
    Kind.PONG: raw(11, bytes(8)),
    Kind.GOAWAY: raw(12, pack_goaway(0, GOODBYE)),
    FINAL: raw(7, ERROR_BODY, call_id=0, opcode=0),
    IGNORABLE: raw(0xFF, b"x" * 30, flags=255, codec=9, version=9, opcode=9),
}


def sends(move: int, connection: Connection) -> None:
    """Ask ``connection`` to send one kind of frame."""
    ways: dict[int, Callable[[], object]] = {
        Kind.HELLO: lambda: connection.send_hello(HELLO),
        Kind.WELCOME: lambda: connection.send_welcome(welcome()),
        Kind.REQUEST: lambda: connection.send_request(1, b""),
        Kind.RESPONSE: lambda: connection.send_response(1, b""),
        Kind.ITEM: lambda: connection.send_item(1, b""),
        Kind.END: lambda: connection.send_end(1),
        Kind.ERROR: lambda: connection.send_error(1, NOT_FOUND),
        Kind.CANCEL: lambda: connection.send_cancel(1),
        Kind.CREDIT: lambda: connection.send_credit(1, 1),
        Kind.PING: lambda: connection.send_ping(bytes(8)),
        Kind.GOAWAY: lambda: connection.send_goaway(GOODBYE),
        FINAL: lambda: connection.refuse(GOODBYE),
    }
    ways[move]()


STATES = [(role, state) for role in Role for state in State if (role, state) != (Role.CLIENT, State.HALF_CLOSED)]
states = pytest.mark.parametrize(
    ("role", "state"), STATES, ids=[f"{role.value}-{state.value}" for role, state in STATES]
)


@states
@pytest.mark.parametrize("kind", [*range(14), 127, 128, 255])
def test_what_is_received_is_in_the_table_or_refused(role: Role, state: State, kind: int) -> None:
    """In every state a frame of every kind is taken and leads where the table says, or ends the connection."""
    side = in_state(role, state)
    following = TRANSITIONS.get((role, state, Direction.RECEIVE), {})
    wire = VALID.get(kind) or VALID[IGNORABLE] if kind in KINDS or kind & IGNORABLE else raw(kind)
    if kind == 0:
        wire = VALID[FINAL]
    side.receive_data(PREAMBLE + wire if state in (State.START, State.GREETING) else wire)
    events = drain(side)
    ends = [event for event in events if isinstance(event, ConnectionEnded)]
    if state is State.CLOSED or state is State.HALF_CLOSED:
        assert events == []
        return
    move = IGNORABLE if kind & IGNORABLE else kind
    if (role, state) == (Role.SERVER, State.GREETING):
        assert [end.error.reason for end in ends if end.error] == ["EARLY_FRAME"]
    elif move in following:
        if kind == Kind.RESPONSE:  # right in this state, wrong for a stream
            assert [end.error.reason for end in ends if end.error] == ["WRONG_ANSWER"]
            return
        assert side.state is following[move]
        assert bool(ends) is (kind == 0)
    else:
        expected = "UNEXPECTED_KIND" if kind in KINDS or kind in (0, 128, 255) else "UNKNOWN_KIND"
        assert [end.error.reason for end in ends if end.error] == [expected]
        assert side.state is State.CLOSED


@states
@pytest.mark.parametrize("move", [FINAL, *(kind for kind in Kind if kind != Kind.PONG)])
def test_what_is_sent_is_in_the_table_or_refused(role: Role, state: State, move: int) -> None:
    """In every state sending every kind leads where the table says, or is a LocalProtocolError and sends nothing."""
    side = in_state(role, state)
    following = TRANSITIONS.get((role, state, Direction.SEND), {})
    if move in following:
        sends(move, side)
        assert side.state is following[move]
        assert side.bytes_pending
    elif move in (Kind.CANCEL, Kind.CREDIT) and 1 not in side._calls:
        sends(move, side)  # of a call that is over: nothing happens
        assert not side.bytes_pending
    else:
        with pytest.raises(LocalProtocolError):
            sends(move, side)
        assert side.state is state
        assert side.data_to_send() == b""


@states
def test_an_end_of_input_is_in_the_table(role: Role, state: State) -> None:
    """In every state the end of input at a frame boundary is an orderly end, reported once."""
    side = in_state(role, state)
    following = TRANSITIONS.get((role, state, Direction.RECEIVE), {})
    side.receive_eof()
    if END_OF_INPUT in following:
        assert drain(side) == [ConnectionEnded(None)]
        assert side.state is following[END_OF_INPUT]
    else:
        assert state in (State.CLOSED, State.HALF_CLOSED)
    assert drain(side) == []
    assert side.error is None


def test_the_hurried_words_follow_the_table() -> None:
    """The short path is open for REQUEST and RESPONSE in exactly the states in which the table lets them in."""
    for role, state in STATES:
        side = in_state(role, state)
        kind = Kind.REQUEST if role is Role.SERVER else Kind.RESPONSE
        lets_in = kind in TRANSITIONS.get((role, state, Direction.RECEIVE), {})
        answers_itself = role is Role.SERVER and state is State.DRAINING
        assert (side._hot_in == (kind << 24 | 0x0201)) is (lets_in and not answers_itself)
        kind = Kind.RESPONSE if role is Role.SERVER else Kind.REQUEST
        hot, never = (side._hot_answer, side._hot_request)[:: 1 if role is Role.SERVER else -1]
        assert (hot == (kind << 24 | 0x0201)) is (kind in TRANSITIONS.get((role, state, Direction.SEND), {}))
        assert never == -1
