"""What crosses the end of a call, GOAWAY, and the end of the client's output, in calls that either side began."""

import itertools
from collections.abc import Callable

import pytest

from tests.wire.ends import (
    BODIES,
    DUPLEX,
    KINDS_OF_CALLS,
    LARGEST,
    MAX_FRAME,
    SHAPES,
    STREAMED,
    UNARY,
    UPLOAD,
    begin,
    begun,
    either,
    ends,
)
from tests.wire.peers import (
    GOODBYE,
    NOT_FOUND,
    Pair,
    drain,
    half_closed,
    in_state,
    numbered_after,
    opened,
    opened_both_ways,
    raw,
    reasons,
)
from wireproto.errors import CallError, LocalProtocolError
from wireproto.status import Retry, Status
from wireproto.wire.calls import MAX_CROSSED, REFILL
from wireproto.wire.connection import MAX_STRAY_ANSWERS, Connection, Role, State
from wireproto.wire.events import (
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    FlaggedRequestReceived,
    GoAwayReceived,
    ItemReceived,
    PingReceived,
    ResponseReceived,
)
from wireproto.wire.frame import TOP_BIT, Credit, Flag, Kind, pack_credit, pack_goaway

# What crosses the end of a call.


def answered_early(first: Credit, *, sizes: tuple[int, ...] = ()) -> Connection:
    """The answerer of an upload that is over before its END was read, and so many ITEMs of it."""
    call = begun(Role.CLIENT, UPLOAD, first)
    for size in sizes:
        call.caller.send_item(1, bytes(size))
    assert len(call.deliver()) == len(sizes)
    call.answerer.send_response(1, b"")
    call.answerer.data_to_send()
    return call.answerer


def refused_going() -> Connection:
    """A server that has refused an upload behind its GOAWAY."""
    call = ends(Role.CLIENT)
    call.answerer.send_goaway(GOODBYE)
    begin(call.caller, UPLOAD)
    assert call.deliver() == []
    call.answerer.data_to_send()
    return call.answerer


def refused_full() -> Connection:
    """A server that has refused an upload because it had as many calls as it takes."""
    call = ends(Role.CLIENT, max_calls=1)
    begin(call.caller, DUPLEX)
    begin(call.caller, UPLOAD)
    assert len(call.deliver()) == 1
    call.answerer.data_to_send()
    return call.answerer


def cancelled_early() -> Connection:
    """An upload whose CANCEL was read before it ended: nothing can cross that."""
    call = begun(Role.CLIENT, UPLOAD)
    call.caller.send_cancel(1)
    call.deliver()
    call.answerer.send_error(1, NOT_FOUND)
    return call.answerer


def complete() -> Connection:
    """An upload that had sent END before it was answered."""
    call = begun(Role.CLIENT, UPLOAD)
    call.caller.send_end(1)
    call.deliver()
    call.answerer.send_response(1, b"")
    return call.answerer


CROSSING = [
    pytest.param(lambda: answered_early(Credit(2, 10)), (10, MAX_FRAME), id="a whole first credit"),
    pytest.param(lambda: answered_early(Credit(3, 20), sizes=(10,)), (10, MAX_FRAME), id="what is left of it"),
    pytest.param(lambda: answered_early(Credit(2, 0)), (0, 0), id="no bytes"),
    pytest.param(lambda: answered_early(Credit(3, 10), sizes=(15,)), (0, 0), id="bytes below zero"),
    pytest.param(lambda: answered_early(Credit(2, 1)), (1, MAX_FRAME), id="one byte"),
    pytest.param(refused_going, (10, MAX_FRAME), id="refused behind GOAWAY"),
    pytest.param(refused_full, (10, MAX_FRAME), id="refused at the cap"),
]
"""Two ITEMs may cross, and so many bytes together: the credit that was left, and one frame for the overrun."""


@pytest.mark.parametrize(("make", "room"), CROSSING)
def test_items_cross_the_end_of_their_call(make: Callable[[], Connection], room: tuple[int, int]) -> None:
    """Exactly as many ITEMs and bytes are dropped as the caller may have sent; one more of either ends it."""
    size = sum(room)
    first = min(size, LARGEST)
    fits, too_long = [first, size - first], [first, size - first + 1]
    for sizes in (fits, too_long):
        side = make()
        for length in sizes[:-1]:
            side.receive_data(raw(5, bytes(length), call_id=9))
            assert drain(side) == []
        side.receive_data(raw(5, bytes(sizes[-1]), call_id=9))
        assert reasons(side) == ([] if sizes is fits else ["CREDIT_EXCEEDED"])
    side = make()
    side.receive_data(raw(5, call_id=9) * 2)
    assert drain(side) == []
    side.receive_data(raw(5, call_id=9))
    assert reasons(side) == ["CREDIT_EXCEEDED"]


@pytest.mark.parametrize("make", [complete, cancelled_early, lambda: answered_early(Credit(0, 10))])
def test_no_item_crosses_where_none_can_have_been_sent(make: Callable[[], Connection]) -> None:
    """Behind END or CANCEL, or without an item of credit, no ITEM is under way."""
    side = make()
    side.receive_data(raw(5))
    assert reasons(side) == ["CREDIT_EXCEEDED"]


def test_allowances_of_several_calls_add_up() -> None:
    """What may cross is counted of all calls together, and used once."""
    call = ends(Role.CLIENT, Credit(1, 5))
    for _ in range(2):
        begin(call.caller, UPLOAD)
    call.deliver()
    for call_id in (1, 2):
        call.answerer.send_error(call_id, NOT_FOUND)
    call.answerer.receive_data(raw(5, bytes(LARGEST)) + raw(5, bytes(LARGEST), call_id=2))
    assert drain(call.answerer) == []
    call.answerer.receive_data(raw(5, call_id=2))
    assert reasons(call.answerer) == ["CREDIT_EXCEEDED"]


CROSSERS = {Kind.END: raw(6, call_id=5), Kind.CANCEL: raw(8, call_id=2**30 + 5), Kind.CREDIT: raw(9, pack_credit(1, 0))}


@pytest.mark.parametrize("wire", CROSSERS.values(), ids=[kind.name for kind in CROSSERS])
def test_frames_cross_the_end_of_their_call_up_to_a_number(wire: bytes) -> None:
    """A thousand END, CREDIT and CANCEL of calls that are over are dropped, and the next one ends the connection."""
    server = ends(Role.CLIENT).answerer
    for _ in range(MAX_CROSSED):
        server.receive_data(wire)
    assert drain(server) == []
    server.receive_data(wire)
    (end,) = drain(server)
    assert isinstance(end, ConnectionEnded)
    assert end.error is not None
    assert (end.error.reason, end.error.status) == ("TOO_MANY_FRAMES", Status.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("how", ["unary", "at once", "one-way", "refused"])
def test_each_call_that_ends_lets_eight_more_cross(calls: int, how: str) -> None:
    """The bucket of a thousand is refilled by each call that ends, however it does, and never beyond a thousand."""
    assert (MAX_CROSSED, REFILL) == (1_000, 8)
    call = ends(Role.CLIENT, one_way=9, max_calls=1)
    if how == "refused":
        begin(call.caller, UNARY)
        call.deliver()
    server = call.answerer

    def end_calls(count: int) -> None:
        for _ in range(count):
            begin(call.caller, Flag.ONE_WAY if how == "one-way" else UNARY)
            call.deliver()
            if how == "unary":
                server.send_response(call.caller._ours.last, b"")
            elif how == "at once":
                server.answer(call.caller._ours.last, b"")
            server.data_to_send()
            call.caller._ours.opcodes.clear()

    def drop(count: int) -> None:
        server.receive_data(raw(8, call_id=77) * count)
        assert drain(server) == []

    end_calls(3)
    drop(MAX_CROSSED)
    end_calls(calls)
    drop(calls * REFILL)
    server.receive_data(raw(8, call_id=77))
    assert reasons(server) == ["TOO_MANY_FRAMES"]


@either
def test_answers_to_no_call_are_strays_at_whoever_begins_calls(by: Role) -> None:
    """Whatever comes of a call of one's own that is not in flight is dropped 16 times, be it CREDIT or CANCEL."""
    caller, _, call_id, _ = ends(by)
    kinds = itertools.islice(itertools.cycle(KINDS_OF_CALLS), MAX_STRAY_ANSWERS)
    for kind in kinds:
        caller.receive_data(raw(kind, BODIES.get(kind, b""), call_id=call_id))
        assert drain(caller) == []
    caller.receive_data(raw(4, call_id=call_id))
    assert reasons(caller) == ["STRAY_ANSWERS"]


@either
@pytest.mark.parametrize("kind", [Kind.RESPONSE, Kind.ERROR])
def test_nobody_answers_its_own_call_that_is_over(by: Role, kind: Kind) -> None:
    """RESPONSE and ERROR come from whoever answers; of a call that is answered here they are wrong, over or not."""
    call = begun(by, UNARY)
    call.answerer.send_response(call.call_id, b"")
    call.answerer.receive_data(raw(kind, BODIES.get(kind, b""), call_id=call.call_id))
    assert reasons(call.answerer) == ["WRONG_HALF"]


# GOAWAY.


def test_both_sides_may_go_away() -> None:
    """Each side says it once, about the calls of the other; calls in flight are answered, both ways."""
    pair = opened_both_ways()
    for side, other in ((pair.client, pair.server), (pair.server, pair.client)):
        call_id = begin(other, UNARY)
        pair.deliver(other)
        side.send_goaway(GOODBYE)
        (event,) = pair.deliver(side)
        assert isinstance(event, GoAwayReceived)
        assert (event.last_call_id, event.error.reason) == (call_id, "SHUTTING_DOWN")
        with pytest.raises(LocalProtocolError, match="cannot send GOAWAY while open, after GOAWAY"):
            side.send_goaway(GOODBYE)
        with pytest.raises(LocalProtocolError, match="cannot send REQUEST while open, after GOAWAY"):
            begin(other, UNARY)
        with pytest.raises(LocalProtocolError, match="cannot send REQUEST while open, after GOAWAY"):
            begin(other, STREAMED)
    for side, other in ((pair.client, pair.server), (pair.server, pair.client)):
        assert (side.goaway_sent, side.goaway_received, side.state) == (True, True, State.OPEN)
        call_id = other._ours.last
        side.send_response(call_id, b"late")
        assert pair.deliver(side) == [ResponseReceived(call_id, 0x10, b"late")]


@either
def test_who_said_goaway_may_still_begin_calls(by: Role) -> None:
    """GOAWAY is about the calls of the peer; those of its sender go on and begin, and the peer answers them."""
    caller, answerer, call_id, _ = call = ends(by)
    caller.send_goaway(GOODBYE)
    begin(caller, DUPLEX)
    assert [type(event) for event in call.deliver()] == [GoAwayReceived, FlaggedRequestReceived]
    answerer.send_item(call_id, b"item")
    answerer.send_credit(call_id, 1, 1)
    answerer.send_end(call_id)
    assert call.deliver_back() == [
        ItemReceived(call_id, b"item"),
        CreditReceived(call_id, Credit(1, 1)),
        EndReceived(call_id),
    ]


@either
def test_calls_that_cross_goaway_are_answered_not_processed(by: Role) -> None:
    """They are refused one by one and their ids count; one-way calls are dropped without a word or a credit."""
    caller, answerer, call_id, _ = call = ends(by)
    for flags in (*SHAPES.values(), Flag.ONE_WAY):
        begin(caller, flags)
    answerer.send_goaway(GOODBYE)
    assert call.deliver() == []
    goaway, *answers = call.deliver_back()
    assert isinstance(goaway, GoAwayReceived)
    assert goaway.last_call_id == 0
    for at, answer in enumerate(answers):
        assert isinstance(answer, ErrorReceived)
        assert (answer.call_id, answer.error.reason) == (call_id + at, "SHUTTING_DOWN")
        assert answer.error.retry is Retry.NOT_PROCESSED
    assert len(answers) == 4
    assert caller.own_calls == answerer.peer_calls == 0
    assert answerer._theirs.last == call_id + 4
    assert answerer._theirs.one_way == 2
    answerer.receive_data(raw(3, call_id=call_id + 4))
    assert reasons(answerer) == ["CALL_ID"]


@either
def test_a_call_behind_goaway_is_in_flight_until_its_answer(by: Role) -> None:
    """GOAWAY ends no call by itself: the refusal of one that crossed it is its terminal frame, and no stray."""
    caller, answerer, call_id, _ = call = ends(by)
    begin(caller, UNARY)
    call.deliver()
    answerer.send_goaway(GOODBYE)
    begin(caller, UNARY)
    data = answerer.data_to_send()
    caller.receive_data(data)
    assert [type(event) for event in drain(caller)] == [GoAwayReceived]
    assert [caller.lies_behind(each, call_id) for each in (call_id, call_id + 1)] == [False, True]
    assert caller.own_calls == 2
    call.deliver()
    assert [type(event) for event in call.deliver_back()] == [ErrorReceived]
    assert (caller.own_calls, caller._stray) == (1, 0)


def test_calls_lie_behind_goaway_by_the_order_in_which_they_began() -> None:
    """Numbers that begin anew, and streams that are older than that, are told apart."""
    for top_bit in (0, TOP_BIT):
        pair = opened_both_ways(max_calls=10)
        caller = pair.server if top_bit else pair.client
        old, plain = begin(caller, STREAMED), begin(caller, UNARY)
        numbered_after(top_bit | 2**31 - 3, *pair)
        late, later, anew = begin(caller, UNARY), begin(caller, UPLOAD), begin(caller, UNARY)
        assert [each & ~TOP_BIT for each in (old, plain, late, later, anew)] == [1, 2, 2**31 - 2, 2**31 - 1, 3]
        for last, behind in (
            (0, [anew]),
            (late, [later, anew]),
            (later, [anew]),
            (anew, []),
            (top_bit | 2**31 - 3, [late, later, anew]),
        ):
            assert [each for each in (old, plain, late, later, anew) if caller.lies_behind(each, last)] == behind, last


# The end of the client's output.


def in_states(pair: Pair) -> tuple[State, State]:
    """Of the client and the server."""
    return pair.client.state, pair.server.state


def test_a_client_that_ended_its_output_says_nothing() -> None:
    """Every way of sending is refused, or told that nothing was sent."""
    client = half_closed().client
    begin_ways: list[Callable[[], object]] = [
        lambda: client.send_request(1, b""),
        lambda: client.send_flagged_request(STREAMED, 1, b""),
        lambda: client.send_ping(bytes(8)),
        lambda: client.send_goaway(GOODBYE),
        lambda: client.send_item(1, b""),
        lambda: client.refuse(GOODBYE),
        client.end_output,
    ]
    for send in begin_ways:
        with pytest.raises(LocalProtocolError, match=r"a client cannot send .* while half closed"):
            send()
    assert client.send_cancel(1) is False
    assert client.send_credit(1, 1, 1) is False
    assert client.send_one_way_credit(1) is False
    assert client.data_to_send() == b""


def test_a_half_closed_client_hears_all_of_its_calls() -> None:
    """Items, credit and answers of its own calls are reported, GOAWAY and PING too; the end of input closes it."""
    pair = opened_both_ways()
    for flags in (DUPLEX, UNARY):
        begin(pair.client, flags)
    pair.deliver(pair.client)
    pair.client.end_output()
    pair.server.send_item(1, b"item")
    pair.server.send_credit(1, 1, 1)
    pair.server.send_response(2, b"answer")
    pair.server.send_ping(b"12345678")
    pair.server.send_goaway(GOODBYE)
    pair.server.send_end(1)
    item, credit, response, ping, goaway, end = pair.deliver(pair.server)
    assert [item, credit] == [ItemReceived(1, b"item"), CreditReceived(1, Credit(1, 1))]
    assert [response, ping] == [ResponseReceived(2, 0x10, b"answer"), PingReceived(b"12345678")]
    assert isinstance(goaway, GoAwayReceived)
    assert end == EndReceived(1)
    assert pair.client.data_to_send() == b""
    pair.client.receive_eof()
    assert drain(pair.client) == [ConnectionEnded(None)]
    assert in_states(pair) == (State.CLOSED, State.OPEN)


def test_a_half_closed_client_drops_what_comes_of_the_servers_calls() -> None:
    """Its calls from the server are over, and neither they nor new ones are judged or answered any more."""
    pair = opened_both_ways()
    begin(pair.server, DUPLEX)
    pair.deliver(pair.server)
    assert pair.client.peer_calls == 1
    pair.client.end_output()
    assert pair.client.peer_calls == 0
    pair.server.send_item(TOP_BIT | 1, b"item")
    pair.server.send_end(TOP_BIT | 1)
    pair.server.send_cancel(TOP_BIT | 1)
    for flags in SHAPES.values():
        begin(pair.server, flags)
    pair.server.send_flagged_request(Flag.ONE_WAY, 0x10, b"")
    assert pair.deliver(pair.server) == []
    pair.client.receive_data(raw(5, bytes(2000), call_id=TOP_BIT | 1) * 10 + raw(3, call_id=TOP_BIT | 1))
    assert drain(pair.client) == []
    assert pair.client.state is State.HALF_CLOSED
    with pytest.raises(LocalProtocolError, match="cannot send RESPONSE while half closed"):
        pair.client.send_response(TOP_BIT | 1, b"")
    # What cannot be read is judged still.
    pair.client.receive_data(raw(9, b"", call_id=TOP_BIT | 1))
    assert reasons(pair.client) == ["BAD_BODY"]


def test_a_broken_rule_ends_a_half_closed_client_without_a_word() -> None:
    """It can send no final ERROR, so that it only reports the end."""
    client = half_closed().client
    client.receive_data(raw(5))
    assert reasons(client) == ["WRONG_HALF"]
    assert client.data_to_send() == b""


def test_a_server_that_reads_the_end_loses_its_own_calls() -> None:
    """Nobody can answer them; those of the client are answered, and nothing else is sent."""
    pair = opened_both_ways()
    begin(pair.client, DUPLEX)
    begin(pair.client, UPLOAD)
    pair.deliver(pair.client)
    begin(pair.server, UNARY)
    begin(pair.server, STREAMED)
    server = pair.server
    pair.client.end_output()
    server.receive_eof()
    assert drain(server) == [ConnectionEnded(None)]
    assert (server.own_calls, server.peer_calls, server.state) == (0, 2, State.HALF_CLOSED)
    server.data_to_send()
    refused: list[Callable[[], object]] = [
        lambda: server.send_request(1, b""),
        lambda: server.send_flagged_request(STREAMED, 1, b""),
        lambda: server.send_goaway(GOODBYE),
        lambda: server.send_ping(bytes(8)),
    ]
    for send in refused:
        with pytest.raises(LocalProtocolError, match=r"a server cannot send .* while half closed"):
            send()
    assert server.send_credit(1, 1, 1) is False
    assert server.send_cancel(TOP_BIT | 1) is False
    server.send_item(1, b"item")
    server.send_end(1)
    server.send_error(2, CallError(Status.CANCELLED, "CANCELLED"))
    assert [type(event) for event in pair.deliver(server)] == [ItemReceived, EndReceived, ErrorReceived]


def test_only_an_open_client_ends_its_output() -> None:
    """A server never does, and a client not before WELCOME, nor twice."""
    for role, state in itertools.product(Role, State):
        side = in_state(role, state)
        if (role, state) == (Role.CLIENT, State.OPEN):
            side.end_output()
            assert side.state is State.HALF_CLOSED
            continue
        with pytest.raises(LocalProtocolError, match="cannot send the end of its output"):
            side.end_output()
        assert side.state is state


def test_the_end_of_a_call_at_a_half_closed_server_lets_nothing_cross() -> None:
    """Nothing is under way behind the end of input: there is no allowance to be kept."""
    pair = opened_both_ways()
    begin(pair.client, UPLOAD)
    pair.deliver(pair.client)
    pair.server.receive_eof()
    drain(pair.server)
    pair.server.send_error(1, NOT_FOUND)
    assert pair.server._theirs._crossing is None


def test_goaway_may_name_no_call_or_any() -> None:
    """What GOAWAY names is reported as it is; which calls lie behind it is asked for one by one."""
    for last in (0, 1, 2**31 - 1):
        client = opened().client
        client.receive_data(raw(12, pack_goaway(last, GOODBYE)))
        (event,) = drain(client)
        assert isinstance(event, GoAwayReceived)
        assert event.last_call_id == last


@pytest.mark.parametrize(
    ("flags", "payload"), [(0x02, b""), (0x10, b""), (0x05, b""), (0x09, b""), (0x04, b"x"), (0x0C, b"x")]
)
def test_a_request_that_no_peer_would_take_is_not_sent(flags: int, payload: bytes) -> None:
    """Flags that are no shape's, and a payload where items follow, are a local error; no id is used."""
    client = opened_both_ways().client
    with pytest.raises(LocalProtocolError, match="a REQUEST"):
        client.send_flagged_request(flags, 7, payload)
    assert (client.own_calls, client.last_call_id, client.bytes_pending) == (0, 0, 0)
