"""REQUESTs that come together with HELLO: what is sent, read, skipped and refused. Live calls: client/test_early."""

from collections.abc import Callable

import msgspec
import pytest

from tests.wire.peers import CODEC, HELLO, PING, STREAM_CREDIT, VERSION, Pair, drain, final_error, reasons, started
from tests.wire.peers import welcome as plain_welcome
from wireproto.errors import CallError, HandshakeError, LocalProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.status import Status
from wireproto.testing.grease import GreasingConnection
from wireproto.wire.connection import PayloadTooLarge, Role, State
from wireproto.wire.early import EarlyRequest, early_problem
from wireproto.wire.events import (
    ConnectionEnded,
    ErrorReceived,
    FlaggedRequestReceived,
    HelloReceived,
    ItemReceived,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import HEADER_AFTER_LENGTH, NO_CREDIT, PREAMBLE, Credit, Flag, Kind, pack
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata

UNARY = EarlyRequest(7, b"payload", pack_metadata(Metadata(traceparent="a")))
STREAM = EarlyRequest(
    8, b"all", pack_metadata(Metadata(credit=STREAM_CREDIT)), Flag.ITEMS_COME_BACK, credit=STREAM_CREDIT
)
UPLOAD = EarlyRequest(9, flags=Flag.ITEMS_FOLLOW)
FIRST = Credit(3, 300)


def early_pair(*early: EarlyRequest, hello: Hello = HELLO) -> tuple[Pair, list[int]]:
    """HELLO was sent with these calls and has arrived."""
    pair = started()
    ids = pair.client.send_hello(hello, early)
    (event,) = pair.deliver(pair.client)
    assert isinstance(event, HelloReceived)
    assert event.hello == msgspec.structs.replace(hello, early=event.hello.early)
    assert bool(event.hello.early) == bool(early)
    return pair, ids


def welcome(**changes: object) -> Welcome:
    changed: Welcome = msgspec.structs.replace(plain_welcome(), first_credit=FIRST, **changes)
    return changed


def test_early_calls_are_read_once_hello_is_answered() -> None:
    """They are told behind HELLO and never before WELCOME is queued, and answered behind it."""
    pair, ids = early_pair(UNARY, STREAM, UPLOAD)
    assert ids == [1, 2, 3]
    assert pair.client.own_calls == 3
    assert drain(pair.server) == []
    assert not pair.server.bytes_pending
    pair.server.send_welcome(welcome())
    unary, stream, upload = drain(pair.server)
    assert unary == RequestReceived(1, 7, Metadata(traceparent="a"), b"payload")
    assert stream == FlaggedRequestReceived(2, 8, Flag.ITEMS_COME_BACK, Metadata(credit=STREAM_CREDIT), b"all")
    assert upload == FlaggedRequestReceived(3, 9, Flag.ITEMS_FOLLOW, EMPTY, b"")
    pair.server.send_response(1, b"answer")
    pair.server.send_item(2, b"item")
    assert pair.deliver(pair.server) == [
        WelcomeReceived(welcome()),
        ResponseReceived(1, 7, b"answer"),
        ItemReceived(2, b"item"),
    ]
    pair.client.send_item(3, b"given")
    assert pair.deliver(pair.client) == [ItemReceived(3, b"given")]
    assert pair.client.send_request(7, b"", b"") == 4
    assert pair.deliver(pair.client) == [RequestReceived(4, 7, EMPTY, b"")]


def test_items_wait_for_the_credit_of_welcome() -> None:
    """Before it there is none, and none but the first credit with it; where items come back it is what was granted."""
    pair, (stream, upload) = early_pair(STREAM, UPLOAD)
    assert pair.client.credit(upload) == NO_CREDIT
    assert pair.client.credit_out(stream) == STREAM_CREDIT
    pair.server.send_welcome(welcome())
    pair.deliver(pair.server)
    assert pair.client.credit(upload) == FIRST
    assert pair.client.credit(stream) == NO_CREDIT
    assert not pair.client.send_credit(99, 1, 1)
    assert pair.client.send_cancel(upload)


def test_before_welcome_a_call_is_neither_cancelled_nor_granted_credit() -> None:
    """Nothing is sent but what came with HELLO."""
    pair, (unary, stream) = early_pair(UNARY, STREAM)
    assert not pair.client.send_cancel(unary)
    assert not pair.client.send_credit(stream, 1, 1)
    with pytest.raises(LocalProtocolError):
        pair.client.send_request(7, b"", b"")
    assert not pair.client.bytes_pending


@pytest.mark.parametrize(
    ("hello", "changes"),
    [
        (HELLO, {"codec": 1}),
        (msgspec.structs.replace(HELLO, max_version=3), {}),
    ],
    ids=["another codec", "another version"],
)
@pytest.mark.parametrize("garbage", [False, True], ids=["calls", "garbage"])
def test_what_is_written_for_another_choice_is_skipped(hello: Hello, changes: dict[str, int], garbage: bool) -> None:
    """Exactly those bytes, whatever they are; the client is told which calls are over, and may send them again."""
    pair = started()
    ids = pair.client.send_hello(hello, [UNARY, UPLOAD])
    sent = pair.client.data_to_send()
    size = sum(len(each.pack(hello, 1)) for each in (UNARY, UPLOAD))
    pair.server.receive_data(sent[:-size] + b"\0" * size if garbage else sent)
    assert len(drain(pair.server)) == 1
    pair.server.send_welcome(welcome(**changes))
    assert drain(pair.server) == []
    assert pair.deliver(pair.server) == [WelcomeReceived(welcome(**changes), tuple(ids))]
    assert pair.client.own_calls == 0
    assert pair.client.send_request(7, b"again", b"") == 3
    assert pair.deliver(pair.client) == [RequestReceived(3, 7, EMPTY, b"again")]
    pair.server.send_response(3, b"")
    assert pair.deliver(pair.server) == [ResponseReceived(3, 7, b"")]


def test_a_refusal_skips_them_too() -> None:
    """Behind a final ERROR nothing is read, and the calls were not looked at."""
    pair, _ = early_pair(UNARY)
    pair.server.refuse(HandshakeError(Status.NOT_FOUND, "UNKNOWN_SERVICE", "none"))
    (ended,) = drain(pair.server)
    assert isinstance(ended, ConnectionEnded)
    (told,) = pair.deliver(pair.server)
    assert isinstance(told, ConnectionEnded)
    assert isinstance(told.error, HandshakeError)


@pytest.mark.parametrize("cut", range(1, 100, 7))
def test_hello_is_told_when_its_early_calls_are_there(cut: int) -> None:
    """However the bytes are cut, HELLO is told once all that it announced has come, and not before."""
    pair = started()
    pair.client.send_hello(HELLO, [UNARY])
    sent = pair.client.data_to_send()
    pair.server.receive_data(sent[:-cut])
    assert drain(pair.server) == []
    assert pair.server.state is (State.GREETING if cut <= len(UNARY.pack(HELLO, 1)) else State.START)
    for at in range(len(sent) - cut, len(sent)):
        assert drain(pair.server) == []
        pair.server.receive_data(sent[at : at + 1])
    (event,) = drain(pair.server)
    assert isinstance(event, HelloReceived)
    pair.server.send_welcome(welcome())
    assert [type(each) for each in drain(pair.server)] == [RequestReceived]


@pytest.mark.parametrize(("left", "expected"), [(0, []), (1, ["TRUNCATED_FRAME"])])
def test_an_end_of_input_before_they_are_whole(left: int, expected: list[str]) -> None:
    """It is an orderly end between HELLO and them, and none within."""
    pair = started()
    pair.client.send_hello(HELLO, [UNARY])
    sent = pair.client.data_to_send()
    pair.server.receive_data(sent[: len(sent) - len(UNARY.pack(HELLO, 1)) + left])
    pair.server.receive_eof()
    ends = [each.error for each in drain(pair.server) if isinstance(each, ConnectionEnded)]
    assert len(ends) == 1
    assert [error.reason for error in ends if error is not None] == expected


def test_a_half_close_behind_them_is_one() -> None:
    """A client may ask at once, end its output, and read the answer."""
    pair = started()
    pair.client.send_hello(HELLO, [UNARY])
    pair.server.receive_data(pair.client.data_to_send())
    pair.server.receive_eof()
    assert isinstance(pair.server.next_event(), HelloReceived)
    pair.server.send_welcome(welcome())
    begun, ended = drain(pair.server)
    assert isinstance(begun, RequestReceived)
    assert ended == ConnectionEnded(None)
    pair.server.send_response(1, b"answer")
    assert ResponseReceived(1, 7, b"answer") in pair.deliver(pair.server)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("more", [b"\0", PING])
def test_more_than_was_announced_is_early(more: bytes, before: bool) -> None:
    """A byte beyond them before WELCOME ends the connection, whether HELLO was told by then or not."""
    pair = started()
    pair.client.send_hello(HELLO, [UNARY])
    sent = pair.client.data_to_send()
    pair.server.receive_data(sent + more if before else sent)
    assert isinstance(pair.server.next_event(), HelloReceived)
    if before:
        pair.server.send_welcome(welcome())
    else:
        pair.server.receive_data(more)
    assert reasons(pair.server) == ["EARLY_FRAME"]
    assert final_error(pair.server.data_to_send()).reason == "EARLY_FRAME"


def request(kind: int = Kind.REQUEST, flags: int = 0, payload: bytes = b"") -> bytes:
    return pack(kind, CODEC, VERSION, 7, 1, b"", payload, flags)


WRONG: dict[str, tuple[bytes, str]] = {
    "a part of a frame": (request(payload=b"long")[:-1], "the last 19 early bytes are no whole frame"),
    "less than a header": (b"\0", "the last 1 early bytes are no whole frame"),
    "a length below a header": (b"\0\0\0\x0b" + bytes(11), "the last 15 early bytes are no whole frame"),
    "another kind": (request() + PING, f"a frame of kind {Kind.PING:d} came before HELLO was answered"),
    "an unknown kind": (request(kind=200), "a frame of kind 200 came before"),
    "an item": (request(flags=4) + request(kind=Kind.ITEM), f"a frame of kind {Kind.ITEM:d} came before"),
    "a one-way call": (request(flags=Flag.ONE_WAY), "a one-way call came before HELLO was answered"),
    "a packed call": (request(flags=Flag.PACKED), "a packed REQUEST came before HELLO was answered"),
    "a one-way call with more flags": (request(flags=Flag.ONE_WAY | 4), "a one-way call came before"),
}


@pytest.mark.parametrize("name", WRONG)
def test_only_whole_requests_may_be_early(name: str) -> None:
    """Anything else is refused in place of WELCOME, and nothing of it is read."""
    data, problem = WRONG[name]
    assert problem in early_problem(data)
    pair = started()
    hello = msgspec.structs.replace(HELLO, early=len(data))
    pair.client.send_hello(hello)
    pair.server.receive_data(pair.client.data_to_send() + data)
    assert isinstance(pair.server.next_event(), HelloReceived)
    pair.server.send_welcome(welcome())
    assert reasons(pair.server) == ["EARLY_FRAME"]
    assert problem in final_error(pair.server.data_to_send()).message


def test_they_are_judged_as_any_other_request() -> None:
    """Codec, version, id and number of calls are looked at behind WELCOME; what is refused there is told as always."""
    assert early_problem(b"") == early_problem(request() * 2) == ""
    pair, _ = early_pair(UNARY, UNARY, STREAM)
    pair.server.send_welcome(welcome(max_calls=1))
    assert [type(each) for each in drain(pair.server)] == [RequestReceived]
    _, *errors = pair.deliver(pair.server)
    assert [each.error.reason for each in errors if isinstance(each, ErrorReceived)] == ["TOO_MANY_CALLS"] * 2
    for wrong, reason in [
        (pack(Kind.REQUEST, 1, VERSION, 7, 1, b"", b""), "WRONG_CODEC"),
        (pack(Kind.REQUEST, CODEC, VERSION + 1, 7, 1, b"", b""), "WRONG_VERSION"),
        (pack(Kind.REQUEST, CODEC, VERSION, 7, 0, b"", b""), "CALL_ID"),
        (request(flags=0x40), "RESERVED_FLAGS"),
    ]:
        pair = started()
        pair.client.send_hello(msgspec.structs.replace(HELLO, early=len(wrong)))
        pair.server.receive_data(pair.client.data_to_send() + wrong)
        drain(pair.server)
        pair.server.send_welcome(welcome())
        assert reasons(pair.server) == [reason]


@pytest.mark.parametrize(
    ("early", "problem"),
    [
        (EarlyRequest(7, flags=Flag.ONE_WAY), "a one-way call takes credit that only WELCOME gives"),
        (EarlyRequest(7, flags=Flag.PACKED), "nothing is packed before WELCOME"),
        (EarlyRequest(7, flags=0x40), "cannot have the flags 0x40"),
        (EarlyRequest(7, b"x", flags=Flag.ITEMS_FOLLOW), "has no payload"),
    ],
)
def test_what_may_not_be_early_is_not_sent(early: EarlyRequest, problem: str) -> None:
    """Nothing is queued, and the connection may still greet."""
    pair = started()
    with pytest.raises(LocalProtocolError, match=problem):
        pair.client.send_hello(HELLO, [UNARY, early])
    assert not pair.client.bytes_pending
    assert pair.client.own_calls == 0
    assert pair.client.send_hello(HELLO, [UNARY]) == [1]


@pytest.mark.parametrize("over", [0, 1])
def test_hello_and_the_early_calls_are_4096_bytes_at_most(over: int) -> None:
    """By the length of HELLO and the bytes that follow it; a client sends no more, and a server takes no more."""
    hello = msgspec.structs.replace(HELLO, digests={number: number for number in range(100)})
    size = HELLO_MAX_FRAME - HEADER_AFTER_LENGTH - len(msgspec.structs.replace(hello, early=1).encode())
    fits = EarlyRequest(7, bytes(size - len(EarlyRequest(7).pack(hello, 1)) + over))
    client = started().client
    if over:
        with pytest.raises(PayloadTooLarge):
            client.send_hello(hello, [fits])
        assert not client.bytes_pending
        assert client.send_hello(hello) == []
    else:
        assert client.send_hello(hello, [fits]) == [1]
    server = started().server
    body = msgspec.structs.replace(hello, early=size + over).encode()
    server.receive_data(PREAMBLE + pack(Kind.HELLO, 0, 0, 0, 0, b"", body) + bytes(size + over))
    first = server.next_event()
    if over:
        assert isinstance(first, ConnectionEnded)
        assert final_error(server.data_to_send()).reason == "BAD_BODY"
    else:
        assert isinstance(first, HelloReceived)


@pytest.mark.parametrize("state", ["greeting", "open"])
def test_a_client_greets_once(state: str) -> None:
    """HELLO is the first thing, with early calls or without."""
    pair, _ = early_pair(UNARY)
    if state == "open":
        pair.server.send_welcome(welcome())
        pair.deliver(pair.server)
    with pytest.raises(LocalProtocolError):
        pair.client.send_hello(HELLO, [UNARY])
    assert pair.client.own_calls == 1


def test_a_greasing_client_offers_what_nobody_speaks() -> None:
    """Its early calls are written for that, so that a server skips them; without room for both, grease is left out."""
    server = GreasingConnection(Role.SERVER, seed=1)
    client = GreasingConnection(Role.CLIENT, seed=2)
    ids = client.send_hello(HELLO, [UNARY])
    server.receive_data(client.data_to_send())
    (event,) = drain(server)
    assert isinstance(event, HelloReceived)
    assert event.hello.max_version > VERSION
    server.send_welcome(welcome())
    client.receive_data(server.data_to_send())
    greeted = drain(client)[0]
    assert isinstance(greeted, WelcomeReceived)
    assert greeted.skipped == tuple(ids)
    room = HELLO_MAX_FRAME - HEADER_AFTER_LENGTH - len(msgspec.structs.replace(HELLO, early=1).encode())
    tight = EarlyRequest(7, bytes(room - len(EarlyRequest(7).pack(HELLO, 1))))
    plain = GreasingConnection(Role.CLIENT, seed=3)
    assert plain.send_hello(HELLO, [tight]) == [1]
    reader = started(Limits()).server
    reader.receive_data(plain.data_to_send())
    (event,) = drain(reader)
    assert isinstance(event, HelloReceived)
    assert event.hello.max_version == VERSION


def test_a_client_that_is_lost_or_refused_keeps_no_calls_in_flight_for_ever() -> None:
    """The end of the connection is the end of them; whose fault it is tells whether they were looked at."""
    ends: list[Callable[[Pair], None]] = [
        lambda pair: pair.client.receive_eof(),
        lambda pair: pair.client.receive_data(PREAMBLE + b"\0"),
    ]
    for end in ends:
        pair, _ = early_pair(UNARY)
        end(pair)
        pair.client.receive_eof()
        (event,) = drain(pair.client)
        assert isinstance(event, ConnectionEnded)
        assert not isinstance(event.error, CallError)
