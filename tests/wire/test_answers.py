"""What an answer says beside its payload: blocks both ways, and the frames that carry them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import opened_both_ways
from wireproto.errors import CallError, EncodeError, LocalProtocolError, PackedDetails
from wireproto.status import Retry, Status
from wireproto.wire.answers import MAX_ANSWER, Beside, pack_answer, pack_dropped, unpack_answer, with_entry
from wireproto.wire.connection import Connection, PayloadTooLarge
from wireproto.wire.events import (
    AnsweredBeside,
    AnswerUnreadable,
    CallOver,
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    ItemReceived,
    ResponseReceived,
    bare,
)
from wireproto.wire.frame import U32_MAX, Credit, Flag, Kind, pack
from wireproto.wire.metadata import CREDIT, DROPPED, ENTRY, TRACEPARENT, Metadata, as_header, is_reserved, pack_metadata

NAMES = st.from_regex(r"[a-z0-9._-]{1,12}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SAID = {"region": "eu", "traceparent": "00-ab", "who": "Zoë"}


def field(key: int, value: bytes) -> bytes:
    return bytes([key]) + len(value).to_bytes(2, "big") + value


def entry(name: bytes, value: bytes) -> bytes:
    return field(ENTRY, bytes([len(name)]) + name + value)


@given(st.dictionaries(NAMES.filter(lambda name: name != "traceparent"), TEXTS), st.integers(0, U32_MAX))
def test_an_answer_survives_its_block(said: dict[str, str], dropped: int) -> None:
    """What is packed is read again."""
    assert unpack_answer(Kind.END, pack_answer(said) + pack_dropped(dropped)) == Beside(said, dropped)


def test_an_answer_is_laid_out_as_documented() -> None:
    """traceparent is key 2, an entry key 6, and what was dropped key 8."""
    block = pack_answer({"traceparent": "00", "a": "é"}) + pack_dropped(7)
    assert block.hex(" ") == "02 00 02 30 30 06 00 04 01 61 c3 a9 08 00 04 00 00 00 07"
    assert (pack_answer({}), pack_dropped(0)) == (b"", b"")
    assert pack_dropped(U32_MAX + 5) == pack_dropped(U32_MAX)


@pytest.mark.parametrize("kind", [Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR])
def test_keys_of_other_kinds_are_read_over(kind: Kind) -> None:
    """Each kind has keys of its own; all others, known elsewhere or not, mean nothing there."""
    block = pack_answer({"a": "b", "traceparent": "c"}) + pack_dropped(3) + field(CREDIT, b"x") + field(0x5F, b"")
    said = {} if kind == Kind.ITEM else {"a": "b", "traceparent": "c"}
    assert unpack_answer(kind, block) == Beside(said, 3 if kind in (Kind.ITEM, Kind.END) else 0)


BROKEN = [
    (Kind.RESPONSE, b"\x06", "it ends inside a key"),
    (Kind.ITEM, b"\x06\x00\x02x", "key 6 declares 2 bytes and 1 are left"),
    (Kind.RESPONSE, field(ENTRY, b""), "an entry's name"),
    (Kind.ERROR, entry(b"A", b""), "an entry's name"),
    (Kind.END, entry(b"a", b"\xff"), "entry 'a' is not UTF-8"),
    (Kind.END, entry(b"a", b"") * 2, "entry 'a' is there twice"),
    (Kind.ERROR, field(TRACEPARENT, b"x") * 2, "'traceparent' is there twice"),
    (Kind.ERROR, field(TRACEPARENT, b"x") + entry(b"traceparent", b"y"), "'traceparent' is there twice"),
    (Kind.ERROR, field(TRACEPARENT, b""), "traceparent is not printable ASCII"),
    (Kind.ITEM, field(DROPPED, b"abc"), "dropped has 3 bytes and not 4"),
    (Kind.ITEM, field(DROPPED, bytes(4)) * 2, "dropped is there twice"),
    (Kind.ITEM, field(0x80 | ENTRY, b""), "key 6 must be understood"),
    (Kind.RESPONSE, field(0x80 | DROPPED, bytes(4)), "key 8 must be understood"),
    (Kind.END, field(0x80 | 0x40, b""), "key 64 must be understood"),
]


@pytest.mark.parametrize(("kind", "block", "problem"), BROKEN, ids=lambda given: str(given)[:24])
def test_a_broken_block_is_lost_data(kind: Kind, block: bytes, problem: str) -> None:
    """Whatever is wrong with a block fails the call as DATA_LOSS, BAD_METADATA, which may have been processed."""
    with pytest.raises(CallError, match=problem) as caught:
        unpack_answer(kind, block)
    error = caught.value
    assert (error.status, error.reason, error.retry) == (Status.DATA_LOSS, "BAD_METADATA", Retry.MAYBE_PROCESSED)


def test_an_entry_must_pass_every_door() -> None:
    """A name that gRPC has a use for is refused on all doors, and so is what would be too long on one of them."""
    assert with_entry(with_entry({}, "a", "b"), "a", "c") == {"a": "c"}
    assert with_entry({"a": "b"}, "traceparent", "00") == {"a": "b", "traceparent": "00"}
    for name in ("te", "authorization", "grpc-x", "wireproto-x", "a-bin"):
        assert is_reserved(name)
        with pytest.raises(EncodeError, match="gRPC has a use of its own"):
            with_entry({}, name, "x")
    for name, value in (("A", ""), ("", ""), ("a" * 65, ""), ("a", "\ud800"), ("traceparent", "")):
        with pytest.raises(EncodeError):
            with_entry({}, name, value)
    assert len(with_entry({}, "a", "x" * (MAX_ANSWER - 33))["a"]) == MAX_ANSWER - 33
    with pytest.raises(EncodeError, match="at most 7168"):
        with_entry({}, "a", "x" * (MAX_ANSWER - 32))


def test_an_entry_that_is_bytes_over_grpc_counts_a_third_more() -> None:
    """It travels as base64 there, under a longer name."""
    most = (MAX_ANSWER - 32 - len("a-bin")) * 3 // 4
    assert with_entry({}, "a", "x" * (most - 2) + "é")
    with pytest.raises(EncodeError, match="at most 7168"):
        with_entry({}, "a", "x" * (most - 1) + "é")


def test_what_is_no_ascii_is_bytes_over_grpc() -> None:
    """gRPC's headers are printable ASCII; the rest has a name of its own."""
    assert as_header("a", "b c") == ("a", "b c")
    for value in ("", " b", "é", "\n"):
        assert as_header("a", value) == ("a-bin", value.encode())


# Frames -----------------------------------------------------------------------------------------------------------


def pair(most: int = 65_536) -> tuple[Connection, Connection]:
    """A client that accepts frames of so many bytes, and its server."""
    client, server = opened_both_ways(Credit(9, 9999), max_calls=9)
    server.their_max_frame = most
    return client, server


def move(source: Connection, sink: Connection) -> list[Event]:
    sink.receive_data(source.data_to_send())
    found: list[Event] = []
    while events := sink.next_events(8):
        found += events
    return found


def begin(client: Connection, server: Connection, flags: Flag = Flag.NONE) -> int:
    if flags:
        credit = Credit(9, 9999)
        block = pack_metadata(Metadata(credit=credit))
        call_id = client.send_flagged_request(flags, 0x10, b"", block, credit=credit)
    else:
        call_id = client.send_request(0x10, b"")
    move(client, server)
    return call_id


@pytest.mark.parametrize("at_once", [False, True])
def test_a_response_says_something_beside_itself(at_once: bool) -> None:
    """The event is another one; the call is over, and the next call has nothing of it."""
    client, server = pair()
    call_id = begin(client, server)
    server.set_metadata(call_id, b"dropped, for the next one replaces it")
    server.set_metadata(call_id, pack_answer(SAID))
    if at_once:
        client.receive_data(server.answer(call_id, b"yes"))
    else:
        server.send_response(call_id, b"yes")
    assert move(server, client) == [AnsweredBeside(ResponseReceived(call_id, 0x10, b"yes"), 0x10, Beside(SAID))]
    assert (server.calls_in_flight, client.calls_in_flight) == (0, 0)
    call_id = begin(client, server)
    server.send_response(call_id, b"yes")
    assert move(server, client) == [ResponseReceived(call_id, 0x10, b"yes")]


def test_a_stream_says_what_was_dropped() -> None:
    """An ITEM says how many were left out before it, END how many behind the last, and the rest of what there is."""
    client, server = pair()
    call_id = begin(client, server, Flag.ITEMS_COME_BACK)
    server.set_metadata(call_id, pack_answer(SAID))
    server.send_item(call_id, b"one")
    server.send_item_behind(call_id, b"two", 5)
    server.send_end(call_id, dropped=U32_MAX + 1)
    assert move(server, client) == [
        ItemReceived(call_id, b"one"),
        AnsweredBeside(ItemReceived(call_id, b"two"), 0x10, Beside({}, 5)),
        AnsweredBeside(EndReceived(call_id), 0x10, Beside(SAID, U32_MAX)),
    ]


def test_an_item_behind_others_needs_credit_like_any_other() -> None:
    """Without it, and of a call that is over, it cannot be sent; nor one that is too large with what it says."""
    client, server = pair(4096)
    call_id = begin(client, server, Flag.ITEMS_COME_BACK)
    with pytest.raises(PayloadTooLarge):
        server.send_item_behind(call_id, bytes(4096 - 12 - 6), 1)
    server.send_item_behind(call_id, bytes(4096 - 12 - 7), 1)
    for _ in range(2):
        server.send_item_behind(call_id, bytes(4000), 1)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        server.send_item_behind(call_id, b"", 1)
    with pytest.raises(LocalProtocolError, match="is not in flight"):
        server.send_item_behind(77, b"", 1)


def test_an_error_has_details_and_metadata() -> None:
    """Both come with it, and what the error is by itself stays as it was."""
    client, server = pair()
    call_id = begin(client, server)
    error = CallError(Status.ABORTED, "NO", "not now")
    error.packed_details = PackedDetails("a.v1.B", b"xy")
    server.set_metadata(call_id, pack_answer(SAID))
    server.send_error(call_id, error)
    (found,) = move(server, client)
    assert isinstance(found, AnsweredBeside)
    assert found.beside == Beside(SAID)
    assert isinstance(found.event, ErrorReceived)
    assert found.event.error.packed_details == PackedDetails("a.v1.B", b"xy")
    assert found.event.error.reason == "NO"


@pytest.mark.parametrize(
    ("details", "said", "message", "left"),
    [
        (4000, 0, 0, (4000, 0)),
        (4080, 0, 0, (4080, 0)),
        (5000, 0, 0, (None, 0)),
        (4000, 4000, 0, (None, 4000)),
        (2000, 2080, 0, (None, 2080)),
        (1000, 2100, 2048, (None, 0)),
    ],
    ids=["both", "the most", "too long", "too long together", "over the frame", "metadata over the frame"],
)
def test_what_does_not_fit_an_error_is_left_out(
    details: int, said: int, message: int, left: tuple[object, int]
) -> None:
    """Details are left out first, by their own limit, by that of both, and by the peer's frame; then the metadata."""
    client, server = pair(4096 if said == 2080 or message else 65_536)
    call_id = begin(client, server)
    error = CallError(Status.ABORTED, "NO", "m" * message)
    error.packed_details = PackedDetails("a.v1.B", bytes(details))
    if said:
        server.set_metadata(call_id, pack_answer({"a": "x" * said}))
    server.send_error(call_id, error)
    (found,) = move(server, client)
    event, beside = (found.event, found.beside) if isinstance(found, AnsweredBeside) else (found, Beside({}))
    assert isinstance(event, ErrorReceived)
    packed = event.error.packed_details
    assert (None if packed is None else len(packed.payload), len(beside.metadata.get("a", ""))) == left
    assert event.error.message == "m" * message


def test_metadata_may_be_too_much_for_the_peer() -> None:
    """A RESPONSE or an END that would be too large with it is refused, and the call is still in flight."""
    client, server = pair(4096)
    unary, stream = begin(client, server), begin(client, server, Flag.ITEMS_COME_BACK)
    for call_id in (unary, stream):
        server.set_metadata(call_id, pack_answer({"a": "x" * 4090}))
    with pytest.raises(PayloadTooLarge):
        server.send_response(unary, b"")
    with pytest.raises(PayloadTooLarge):
        server.send_end(stream)
    assert server.calls_in_flight == 2
    with pytest.raises(LocalProtocolError, match="at most 7168"):
        server.set_metadata(unary, bytes(MAX_ANSWER + 1))
    with pytest.raises(LocalProtocolError, match="not in flight"):
        server.set_metadata(99, b"")


def answer(kind: Kind, call_id: int, block: bytes) -> bytes:
    of_message = kind in (Kind.RESPONSE, Kind.ITEM)
    body = b"\x0a\x00\x00\x00\x00\x00\x00\x00\x00" if kind == Kind.ERROR else b""
    return pack(kind, 2 if of_message else 0, 1 if of_message else 0, 0x10, call_id, block, body)


@pytest.mark.parametrize("kind", [Kind.RESPONSE, Kind.END, Kind.ERROR])
def test_a_broken_answer_fails_its_call_alone(kind: Kind) -> None:
    """The call is over as a failed one, and the connection goes on."""
    client, server = pair()
    call_id = begin(client, server, Flag.ITEMS_COME_BACK if kind == Kind.END else Flag.NONE)
    client.receive_data(answer(kind, call_id, b"\x06"))
    event = client.next_event()
    assert isinstance(event, ErrorReceived)
    assert (event.call_id, event.error.status, event.error.reason) == (call_id, Status.DATA_LOSS, "BAD_METADATA")
    assert client.calls_in_flight == 0
    call_id = begin(client, server)
    server.send_response(call_id, b"yes")
    assert move(server, client) == [ResponseReceived(call_id, 0x10, b"yes")]


def test_a_broken_item_is_for_the_client_to_cancel() -> None:
    """The stream goes on at the server, so the call is in flight until it was cancelled and had its terminal frame."""
    client, server = pair()
    call_id = begin(client, server, Flag.ITEMS_COME_BACK)
    client.receive_data(answer(Kind.ITEM, call_id, b"\x06"))
    event = client.next_event()
    assert isinstance(event, AnswerUnreadable)
    assert (event.call_id, event.error.reason) == (call_id, "BAD_METADATA")
    assert client.send_cancel(call_id)
    client.receive_data(answer(Kind.ITEM, call_id, b"\x06") + answer(Kind.END, call_id, b"\x06"))
    assert client.next_event() == CallOver(call_id)


def test_the_request_half_has_no_metadata() -> None:
    """ITEM and END of whoever began the call have nothing to say beside them."""
    for kind in (Kind.ITEM, Kind.END):
        client, server = pair()
        call_id = begin(client, server, Flag.ITEMS_FOLLOW)
        server.receive_data(answer(kind, call_id, pack_dropped(1)))
        event = server.next_event()
        assert isinstance(event, ConnectionEnded)
        assert getattr(event.error, "reason", "") == "UNEXPECTED_METADATA"


def test_cancelling_keeps_what_the_answer_says() -> None:
    """A call that was given metadata and then is cancelled still has its terminal frame, whose place is free then."""
    client, server = pair()
    call_id = begin(client, server)
    server.set_metadata(call_id, pack_answer(SAID))
    client.send_cancel(call_id)
    move(client, server)
    server.send_error(call_id, CallError(Status.CANCELLED, "CANCELLED"))
    assert move(server, client) == [CallOver(call_id)]


def test_an_answer_can_be_taken_without_what_stands_beside_it() -> None:
    """For whoever counts what came; an answer that comes by itself is the same."""
    answer = ResponseReceived(1, 0x10, b"yes")
    assert bare(AnsweredBeside(answer, 0x10, Beside(SAID))) is answer
    assert bare(answer) is answer
