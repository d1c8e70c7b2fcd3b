"""The connection: one table of events and their bytes, which drives both directions, whole and in pieces."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.wire.peers import (
    HELLO,
    NO_SERVICE,
    NOT_FOUND,
    PING,
    STREAM,
    STREAM_CREDIT,
    Pair,
    begin_stream,
    drain,
    greeted,
    in_call,
    in_stream,
    opened,
    opened_both_ways,
    plain,
    reasons,
    started,
    welcome,
)
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.status import Status
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import (
    NEED_DATA,
    CallOver,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    OneWayCreditReceived,
    PingReceived,
    PongReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import (
    HEADER,
    KINDS,
    PREAMBLE,
    TOP_BIT,
    Credit,
    Flag,
    Kind,
    pack,
    unpack,
)
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata


class Case(NamedTuple):
    """What one side sends, the bytes it makes, and the event its peer reports."""

    name: str
    begin: Callable[[], Pair]
    sender: Role
    send: Callable[[Connection], Any]
    wire: str
    event: Event
    more: bool = True  # whether the sender may send a PING next

    def sides(self) -> tuple[Connection, Connection]:
        """Sender and receiver, fresh, before the event."""
        pair = self.begin()
        sender = pair.client if self.sender is Role.CLIENT else pair.server
        return sender, pair.other(sender)


BOTH = Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK


def called() -> Pair:
    """The server has called its client."""
    pair = opened_both_ways()
    pair.server.send_request(0x10, b"")
    pair.deliver(pair.server)
    return pair


def cancelled() -> Pair:
    """Call 1 was cancelled."""
    pair = in_call()
    pair.client.send_cancel(1)
    pair.deliver(pair.client)
    return pair


def in_duplex() -> Pair:
    """Call 1 has two open halves with credit."""
    pair = opened_both_ways()
    pair.client.send_flagged_request(BOTH, 0x10, b"", STREAM, credit=STREAM_CREDIT)
    pair.deliver(pair.client)
    return pair


SERVICE_HEX = "1c" + HELLO.service.encode().hex()
CASES = [
    Case(
        "HELLO",
        started,
        Role.CLIENT,
        lambda client: client.send_hello(HELLO),
        "f5575001 00000054 01 00 00 00 0000 0000 00000000"
        "01 01 00010000 00000000 00000000 0000000000000000 02 02 07 6d73677061636b 01 04 70697065 04 74657374"
        + SERVICE_HEX,
        HelloReceived(HELLO),
        more=False,
    ),
    Case(
        "WELCOME",
        greeted,
        Role.SERVER,
        lambda server: server.send_welcome(welcome()),
        "f5575001 00000029 02 00 00 00 0000 0000 00000000"
        "01 02 00100000 00000100 0000ea60 0000000000000000 06 746573742f31",
        WelcomeReceived(welcome()),
    ),
    Case(
        "a refusal",
        greeted,
        Role.SERVER,
        lambda server: server.refuse(NO_SERVICE),
        "f5575001 00000028 07 00 00 00 0000 0000 00000000"
        "05 00 00000000 0f 554e4b4e4f574e5f53455256494345 0004 6e6f6e65",
        ConnectionEnded(NO_SERVICE),
        more=False,
    ),
    Case(
        "REQUEST",
        opened,
        Role.CLIENT,
        lambda client: client.send_request(0x1234, b"payload"),
        "00000013 03 00 02 01 1234 0000 00000001 7061796c6f6164",
        RequestReceived(1, 0x1234, EMPTY, b"payload"),
    ),
    Case(
        "REQUEST without a payload",
        opened,
        Role.CLIENT,
        lambda client: client.send_request(0, b""),
        "0000000c 03 00 02 01 0000 0000 00000001",
        RequestReceived(1, 0, EMPTY, b""),
    ),
    Case(
        "REQUEST with metadata",
        opened,
        Role.CLIENT,
        lambda client: client.send_request(0x10, b"p", pack_metadata(Metadata(deadline_ms=500, entries={"a": "b"}))),
        "0000001a 03 00 02 01 0010 000d 00000001 01 0004 000001f4 06 0003 01 61 62 70",
        RequestReceived(1, 0x10, Metadata(deadline_ms=500, entries={"a": "b"}), b"p"),
    ),
    Case(
        "REQUEST of a server",
        opened_both_ways,
        Role.SERVER,
        lambda server: server.send_request(0x1234, b"p"),
        "0000000d 03 00 02 01 1234 0000 80000001 70",
        RequestReceived(TOP_BIT | 1, 0x1234, EMPTY, b"p"),
    ),
    Case(
        "REQUEST of a stream",
        opened,
        Role.CLIENT,
        begin_stream,
        "00000017 03 08 02 01 0010 000b 00000001 05 0008 00000002 00000064",
        FlaggedRequestReceived(1, 0x10, Flag.ITEMS_COME_BACK, Metadata(credit=STREAM_CREDIT), b""),
    ),
    Case(
        "REQUEST of an upload",
        opened,
        Role.CLIENT,
        lambda client: client.send_flagged_request(Flag.ITEMS_FOLLOW, 0x11, b""),
        "0000000c 03 04 02 01 0011 0000 00000001",
        FlaggedRequestReceived(1, 0x11, Flag.ITEMS_FOLLOW, EMPTY, b""),
    ),
    Case(
        "REQUEST of a duplex call",
        opened,
        Role.CLIENT,
        lambda client: client.send_flagged_request(BOTH, 0x12, b"", STREAM, credit=STREAM_CREDIT),
        "00000017 03 0c 02 01 0012 000b 00000001 05 0008 00000002 00000064",
        FlaggedRequestReceived(1, 0x12, BOTH, Metadata(credit=STREAM_CREDIT), b""),
    ),
    Case(
        "REQUEST of a one-way call",
        opened_both_ways,
        Role.CLIENT,
        lambda client: client.send_flagged_request(Flag.ONE_WAY, 0x13, b"told"),
        "00000010 03 01 02 01 0013 0000 00000001 746f6c64",
        FlaggedRequestReceived(1, 0x13, Flag.ONE_WAY, EMPTY, b"told"),
    ),
    Case(
        "RESPONSE of a client",
        called,
        Role.CLIENT,
        lambda client: client.send_response(TOP_BIT | 1, b"a"),
        "0000000d 04 00 02 01 0010 0000 80000001 61",
        ResponseReceived(TOP_BIT | 1, 0x10, b"a"),
    ),
    Case(
        "RESPONSE of a call that was cancelled",
        cancelled,
        Role.SERVER,
        lambda server: server.send_response(1, b"answer"),
        "00000012 04 00 02 01 0010 0000 00000001 616e73776572",
        CallOver(1),
    ),
    Case(
        "ITEM of a request half",
        in_duplex,
        Role.CLIENT,
        lambda client: client.send_item(1, b"item"),
        "00000010 05 00 02 01 0010 0000 00000001 6974656d",
        ItemReceived(1, b"item"),
    ),
    Case(
        "END of a request half",
        in_duplex,
        Role.CLIENT,
        lambda client: client.send_end(1),
        "0000000c 06 00 00 00 0010 0000 00000001",
        RequestEnded(1),
    ),
    Case(
        "CREDIT of a request half",
        in_duplex,
        Role.SERVER,
        lambda server: server.send_credit(1, 0, 3),
        "00000014 09 00 00 00 0010 0000 00000001 00000000 00000003",
        CreditReceived(1, Credit(0, 3)),
    ),
    Case(
        "CREDIT of one-way calls",
        opened,
        Role.SERVER,
        lambda server: server.send_one_way_credit(258),
        "00000014 09 00 00 00 0000 0000 00000000 00000102 00000000",
        OneWayCreditReceived(258),
    ),
    Case(
        "RESPONSE",
        in_call,
        Role.SERVER,
        lambda server: server.send_response(1, b"answer"),
        "00000012 04 00 02 01 0010 0000 00000001 616e73776572",
        ResponseReceived(1, 0x10, b"answer"),
    ),
    Case(
        "ITEM",
        in_stream,
        Role.SERVER,
        lambda server: server.send_item(1, b"item"),
        "00000010 05 00 02 01 0010 0000 00000001 6974656d",
        ItemReceived(1, b"item"),
    ),
    Case(
        "END",
        in_stream,
        Role.SERVER,
        lambda server: server.send_end(1),
        "0000000c 06 00 00 00 0010 0000 00000001",
        EndReceived(1),
    ),
    Case(
        "ERROR of a call",
        in_call,
        Role.SERVER,
        lambda server: server.send_error(1, NOT_FOUND),
        "00000026 07 00 00 00 0010 0000 00000001 05 00 00000007 04 474f4e45 000d 6e6f2073756368207468696e67",
        ErrorReceived(1, NOT_FOUND),
    ),
    Case(
        "ERROR of a stream",
        in_stream,
        Role.SERVER,
        lambda server: server.send_error(1, CallError(Status.ABORTED)),
        "00000015 07 00 00 00 0010 0000 00000001 0a 00 00000000 00 0000",
        ErrorReceived(1, CallError(Status.ABORTED)),
    ),
    Case(
        "CANCEL",
        in_call,
        Role.CLIENT,
        lambda client: client.send_cancel(1),
        "0000000c 08 00 00 00 0010 0000 00000001",
        CancelReceived(1),
    ),
    Case(
        "CREDIT",
        in_stream,
        Role.CLIENT,
        lambda client: client.send_credit(1, 258, 65_536),
        "00000014 09 00 00 00 0010 0000 00000001 00000102 00010000",
        CreditReceived(1, Credit(258, 65_536)),
    ),
    Case(
        "PING of a client",
        opened,
        Role.CLIENT,
        lambda client: client.send_ping(b"12345678"),
        "00000014 0a 00 00 00 0000 0000 00000000 3132333435363738",
        PingReceived(b"12345678"),
    ),
    Case(
        "PING of a server",
        opened,
        Role.SERVER,
        lambda server: server.send_ping(b"12345678"),
        "00000014 0a 00 00 00 0000 0000 00000000 3132333435363738",
        PingReceived(b"12345678"),
    ),
    Case(
        "PONG",
        opened,
        Role.SERVER,
        lambda server: pinged(server, b"12345678"),
        "00000014 0b 00 00 00 0000 0000 00000000 3132333435363738",
        PongReceived(b"12345678"),
    ),
    Case(
        "GOAWAY",
        in_call,
        Role.SERVER,
        lambda server: server.send_goaway(CallError(Status.UNAVAILABLE, "BYE", "!", retry_after_ms=1)),
        "0000001d 0c 00 00 00 0000 0000 00000000 00000001 0e 00 00000001 03 425945 0001 21",
        GoAwayReceived(1, CallError(Status.UNAVAILABLE, "BYE", "!", retry_after_ms=1)),
    ),
    Case(
        "GOAWAY of a client",
        called,
        Role.CLIENT,
        lambda client: client.send_goaway(CallError(Status.UNAVAILABLE)),
        "00000019 0c 00 00 00 0000 0000 00000000 80000001 0e 00 00000000 00 0000",
        GoAwayReceived(TOP_BIT | 1, CallError(Status.UNAVAILABLE)),
    ),
    Case(
        "GOAWAY of a client that took no call",
        opened,
        Role.CLIENT,
        lambda client: client.send_goaway(CallError(Status.UNAVAILABLE)),
        "00000019 0c 00 00 00 0000 0000 00000000 00000000 0e 00 00000000 00 0000",
        GoAwayReceived(0, CallError(Status.UNAVAILABLE)),
    ),
    Case(
        "final ERROR of a server",
        in_call,
        Role.SERVER,
        lambda server: server.refuse(CallError(Status.UNAVAILABLE)),
        "00000015 07 00 00 00 0000 0000 00000000 0e 00 00000000 00 0000",
        ConnectionEnded(CallError(Status.UNAVAILABLE)),
        more=False,
    ),
    Case(
        "final ERROR of a client",
        in_call,
        Role.CLIENT,
        lambda client: client.fail(RemoteProtocolError("X", "y")),
        "00000017 07 00 00 00 0000 0000 00000000 03 00 00000000 01 58 0001 79",
        ConnectionEnded(CallError(Status.INVALID_ARGUMENT, "X", "y")),
        more=False,
    ),
]


def pinged(connection: Connection, data: bytes) -> None:
    """Let a connection receive a PING."""
    connection.receive_data(pack(Kind.PING, 0, 0, 0, 0, b"", data))
    drain(connection)


cases = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@cases
def test_what_is_sent_has_these_bytes(case: Case) -> None:
    """Sending queues exactly the bytes of the table, and taking them leaves nothing."""
    sender, _ = case.sides()
    assert sender.data_to_send() == b""
    case.send(sender)
    wire = bytes.fromhex(case.wire)
    assert sender.bytes_pending == len(wire)
    assert sender.data_to_send() == wire
    assert sender.bytes_pending == 0
    assert sender.data_to_send() == b""


@cases
def test_these_bytes_are_this_event(case: Case) -> None:
    """Received whole, the bytes of the table are one event."""
    _, receiver = case.sides()
    before = receiver.frames_received
    receiver.receive_data(bytes.fromhex(case.wire))
    assert plain(receiver.next_event()) == plain(case.event)
    assert receiver.next_event() is NEED_DATA
    assert repr(NEED_DATA) == "NEED_DATA"
    assert receiver.partial_length is None
    assert receiver.frames_received == before + 1


@cases
def test_byte_by_byte_they_are_the_same_event(case: Case) -> None:
    """Received one byte at a time, nothing happens before the last byte, and the length under way is known early."""
    _, receiver = case.sides()
    wire = bytes.fromhex(case.wire)
    begin = len(PREAMBLE) if wire.startswith(PREAMBLE) else 0
    for size in range(1, len(wire)):
        receiver.receive_data(wire[size - 1 : size])
        assert receiver.next_event() is NEED_DATA
        expected: int | None = len(wire) - begin
        if size < begin:
            expected = begin + HEADER.size
        elif size == begin:
            expected = None
        elif size < begin + 4:
            expected = HEADER.size
        assert receiver.partial_length == expected
    receiver.receive_data(wire[-1:])
    assert plain(receiver.next_event()) == plain(case.event)
    assert receiver.next_event() is NEED_DATA
    if case.more:
        # A frame that is shorter than the one before it comes out as soon as it is whole, too.
        for at in range(len(PING)):
            assert receiver.next_event() is NEED_DATA
            receiver.receive_data(PING[at : at + 1])
        assert receiver.next_event() == PingReceived(b"trailing")


@cases
def test_split_anywhere_they_are_the_same_event(case: Case) -> None:
    """Received in two or three pieces, cut anywhere, asked for events in between or not, it is the same event."""
    wire = bytes.fromhex(case.wire)
    for first, second in itertools.combinations_with_replacement(range(1, len(wire)), 2):
        _, receiver = case.sides()
        receiver.receive_data(wire[:first])
        if second % 2:
            assert receiver.next_event() is NEED_DATA
        receiver.receive_data(wire[first:second])
        assert receiver.next_event() is NEED_DATA
        receiver.receive_data(wire[second:])
        assert plain(receiver.next_event()) == plain(case.event)
        assert receiver.next_event() is NEED_DATA


@cases
def test_what_follows_is_the_next_event(case: Case) -> None:
    """Received with a PING behind it, whole or in part, the event is the same and the PING comes after it."""
    wire = bytes.fromhex(case.wire)
    for size in range(1, len(PING) + 1):
        _, receiver = case.sides()
        receiver.receive_data(wire + PING[:size])
        assert plain(receiver.next_event()) == plain(case.event)
        if not case.more:
            # After HELLO the client waits; after a final ERROR nothing counts.
            assert reasons(receiver) == (["EARLY_FRAME"] if isinstance(case.event, HelloReceived) else [])
            continue
        expected = [PingReceived(b"trailing")] if size == len(PING) else []
        assert drain(receiver) == expected
        receiver.receive_data(PING[size:])
        assert drain(receiver) == ([] if expected else [PingReceived(b"trailing")])


@cases
def test_cut_anywhere_it_is_a_truncated_frame(case: Case) -> None:
    """An end of input inside the bytes ends the connection as TRUNCATED_FRAME and reports no event; before them, it is
    an orderly end.
    """
    wire = bytes.fromhex(case.wire)
    boundaries = (0, len(PREAMBLE)) if wire.startswith(PREAMBLE) else (0,)
    for size in range(len(wire)):
        _, receiver = case.sides()
        receiver.receive_data(wire[:size])
        receiver.receive_eof()
        (event,) = drain(receiver)
        assert isinstance(event, ConnectionEnded)
        if size in boundaries:
            assert event.error is None
        else:
            assert isinstance(event.error, RemoteProtocolError)
            assert event.error.reason == "TRUNCATED_FRAME"
        assert drain(receiver) == []


@cases
def test_the_end_of_input_comes_after_the_last_event(case: Case) -> None:
    """An end of input noted before anything is parsed is reported after everything that came before it."""
    _, receiver = case.sides()
    receiver.receive_data(bytes.fromhex(case.wire))
    receiver.receive_eof()
    events = drain(receiver)
    assert plain(events[0]) == plain(case.event)
    assert [event for event in events if isinstance(event, ConnectionEnded)] == events[-1:]


def test_the_table_has_every_kind() -> None:
    """Every kind of frame is in the table of cases."""
    assert {unpack(bytes.fromhex(case.wire).removeprefix(PREAMBLE)).kind for case in CASES} == KINDS
