"""Payloads that are packed: what makes and reads them, and what a connection makes of the flag."""

import copy
import os
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import STREAM, STREAM_CREDIT, Pair, drain, opened, opened_both_ways, raw, reasons
from tests.zstandard import PACKAGE, zstd
from wireproto.errors import ConfigError, DecodeError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.wire import packing
from wireproto.wire.connection import Connection, PayloadTooLarge, Role
from wireproto.wire.events import FlaggedRequestReceived, ItemReceived, PackedItemReceived, PackedResponseReceived
from wireproto.wire.frame import TOP_BIT, Credit, Flag, Kind
from wireproto.wire.metadata import EMPTY
from wireproto.wire.packing import ALGORITHMS, PACKED_FROM, Packed, numbers_of, pack_payload, plain

MAX_FRAME = 4096
LARGEST = MAX_FRAME - 12
UPLOAD = Flag.ITEMS_FOLLOW
TEXT = b"a text that says the same again and again. " * 40

each_algorithm = pytest.mark.parametrize("algorithm", [1, 2], ids=["zlib", "zstd"])


def stream(data: bytes, algorithm: int) -> bytes:
    """A stream of an algorithm, by whoever wrote it and not by us."""
    return zlib.compress(data) if algorithm == 1 else zstd.compress(data)


def packed(data: bytes, algorithm: int, length: int | None = None) -> Packed:
    """A payload that is packed, whether or not that makes it shorter; it says another length than the true one."""
    return Packed(algorithm, struct.pack(">I", len(data) if length is None else length) + stream(data, algorithm))


# One payload.


@each_algorithm
@given(data=st.binary(max_size=2000) | st.integers(1, 5000).map(lambda size: b"ab" * size))
def test_what_is_packed_comes_out_again(algorithm: int, data: bytes) -> None:
    """A payload is packed only from 512 bytes on and where it becomes shorter, and unpack gives it back."""
    payload = pack_payload(data, algorithm)
    assert plain(payload) == data
    if isinstance(payload, Packed):
        assert len(payload) == len(data) >= PACKED_FROM == 512
        assert len(payload.body) < len(data)
        assert payload.body[:4] == struct.pack(">I", len(data))
        assert repr(payload) == f"<Packed {len(payload.body)} bytes for {len(data)}>"
    else:
        assert payload is data


def test_packed_payloads_are_equal_by_their_bytes() -> None:
    """Two are equal, and have one hash, when algorithm and bytes are the same."""
    one, same = packed(b"x", 1), packed(b"x", 1)
    assert (one == same, hash(one) == hash(same)) == (True, True)
    assert copy.deepcopy(one) == copy.copy(one) == one
    assert one not in (packed(b"x", 2), packed(b"y", 1), Packed(2, one.body), one.body)


@each_algorithm
def test_a_payload_is_packed_from_512_bytes_on(algorithm: int) -> None:
    """One byte less travels as it is, and so does what cannot be made shorter."""
    assert type(pack_payload(bytes(511), algorithm)) is bytes
    assert type(pack_payload(bytes(512), algorithm)) is Packed
    noise = os.urandom(5000)
    assert pack_payload(noise, algorithm) is noise


@each_algorithm
def test_a_foreign_stream_is_read(algorithm: int) -> None:
    """Any stream of the algorithm will do, at any level, with or without the length in it."""
    for level in (1, 5, 9):
        body = zlib.compress(TEXT, level) if algorithm == 1 else zstd.compress(TEXT, level)
        assert Packed(algorithm, struct.pack(">I", len(TEXT)) + body).unpack() == TEXT
    if algorithm == 2:
        maker = zstd.ZstdCompressor(options={zstd.CompressionParameter.content_size_flag: 0})
        body = maker.compress(TEXT, maker.FLUSH_FRAME)
        assert Packed(2, struct.pack(">I", len(TEXT)) + body).unpack() == TEXT


class Broken(NamedTuple):
    """What is wrong with a packed payload, and how it is said."""

    name: str
    make: Callable[[int], Packed]
    problem: str


def _with(tail: Callable[[bytes], bytes]) -> Callable[[int], Packed]:
    def make(algorithm: int) -> Packed:
        return Packed(algorithm, struct.pack(">I", len(TEXT)) + tail(stream(TEXT, algorithm)))

    return make


BROKEN = [
    Broken("one byte less is said", lambda n: packed(TEXT, n, len(TEXT) - 1), f"more than the {len(TEXT) - 1} bytes"),
    Broken("one byte more is said", lambda n: packed(TEXT, n, len(TEXT) + 1), f"{len(TEXT)} of the {len(TEXT) + 1} "),
    Broken("1 is said", lambda n: packed(TEXT, n, 1), "more than the 1 bytes"),
    Broken("nothing is in it", lambda n: packed(b"", n, 1), "0 of the 1 bytes"),
    Broken("the last byte is missing", _with(lambda body: body[:-1]), "is cut"),
    Broken("half is missing", _with(lambda body: body[: len(body) // 2]), "is cut"),
    Broken("a byte follows", _with(lambda body: body + b"x"), "1 bytes follow"),
    Broken("a second stream follows", _with(lambda body: body + body), "bytes follow"),
    Broken("it is noise", _with(lambda body: b"\x55" * len(body)), "its stream is no"),
    Broken("it is the other algorithm's", lambda n: Packed(n, b"\0\0\1\0" + stream(bytes(256), 3 - n)), "stream is no"),
    Broken("a bit is flipped", _with(lambda body: bytes([body[0] ^ 1]) + body[1:]), "its stream is no"),
]


@each_algorithm
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_stream_is_refused(broken: Broken, algorithm: int) -> None:
    """A stream that is cut, followed, foreign, or of another length is a DecodeError that says so."""
    with pytest.raises(DecodeError, match=broken.problem):
        broken.make(algorithm).unpack()


def test_a_stream_with_a_dictionary_or_a_large_window_is_refused() -> None:
    """Neither algorithm has a dictionary here, and a zstd frame a window of at most 1 MiB."""
    maker = zlib.compressobj(zdict=TEXT[:60])
    body = maker.compress(TEXT) + maker.flush()
    with pytest.raises(DecodeError, match="not zlib's"):
        Packed(1, struct.pack(">I", len(TEXT)) + body).unpack()
    dictionary = zstd.ZstdDict(TEXT, is_raw=True)
    with pytest.raises(DecodeError):
        Packed(2, struct.pack(">I", len(TEXT)) + zstd.compress(TEXT, zstd_dict=dictionary)).unpack()
    data = os.urandom(1000) * 3000
    for log, right in ((20, True), (21, False)):
        body = zstd.compress(data, options={zstd.CompressionParameter.window_log: log})
        payload = Packed(2, struct.pack(">I", len(data)) + body)
        if right:
            assert payload.unpack() == data
        else:
            with pytest.raises(DecodeError, match="a window of at most 1048576 bytes"):
                payload.unpack()


@each_algorithm
def test_what_we_pack_keeps_within_the_window(algorithm: int) -> None:
    """A payload of several windows is packed so that a peer that holds us to the rule reads it."""
    data = os.urandom(100_000) * 30
    payload = pack_payload(data, algorithm)
    assert plain(payload) == data


def peak(function: Callable[[], object]) -> int:
    """Bytes of memory at the most, beyond what there was before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            function()
        except DecodeError:
            pass
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@each_algorithm
@pytest.mark.parametrize("said", [1, 1000, 1 << 20])
def test_a_bomb_costs_what_it_says_and_no_more(algorithm: int, said: int) -> None:
    """However much a stream would become, twice the length that was declared is the most memory it takes."""
    bomb = packed(bytes(64 << 20), algorithm, said)
    assert peak(bomb.unpack) <= 2 * said + len(bomb.body) + 2 * 65_536


@each_algorithm
def test_a_whole_bomb_is_unpacked_within_its_bounds(algorithm: int) -> None:
    """A MiB of zeros, 1029 : 1 by zlib and 20000 : 1 by zstd, takes 2 MiB while it is made."""
    bomb = packed(bytes(1 << 20), algorithm)
    assert len(bomb) / len(bomb.body) > (1000 if algorithm == 1 else 19_000)
    assert peak(bomb.unpack) <= 2 * len(bomb) + 2 * 65_536


@each_algorithm
@pytest.mark.parametrize("said", [1, 1 << 20])
def test_a_stream_as_long_as_its_payload_costs_no_third_time_of_it(algorithm: int, said: int) -> None:
    """What cannot be made shorter, and what follows a stream, takes twice the longer one of both at the most."""
    noise = random.Random(1).randbytes(1 << 20)
    follows = Packed(algorithm, struct.pack(">I", said) + stream(b"x", algorithm) + noise)
    for payload in (packed(noise, algorithm, said), follows):
        assert peak(payload.unpack) <= 2 * len(payload.body) + 2 * 65_536


# Names.


def test_algorithms_are_chosen_by_name() -> None:
    """Numbers_of keeps the order; one name may stand alone; what is not known is a ConfigError that says what is."""
    assert {name: each.number for name, each in ALGORITHMS.items()} == {"zlib": 1, "zstd": 2}
    assert numbers_of(("zstd", "zlib")) == (2, 1)
    assert numbers_of("zlib") == (1,)
    assert numbers_of(()) == ()
    with pytest.raises(ConfigError, match="compression 'gzip' is not known; there are zlib, zstd, and"):
        numbers_of(["gzip"])
    with pytest.raises(ConfigError, match="names an algorithm twice: 'zlib', 'zlib'"):
        numbers_of(["zlib", "zlib"])


def test_zstd_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package it is a ConfigError that says what to install, and zlib works all the same."""
    packing._numbers.cache_clear()
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError, match=r"pip install 'wireproto\[zstd\]'"):
        numbers_of(("zlib", "zstd"))
    assert numbers_of(("zlib",)) == (1,)


# On a connection.


def open_pair(algorithm: int = 1, *, first: Credit | None = None, max_frame: int = MAX_FRAME) -> Pair:
    return opened_both_ways(first or Credit(5, 10_000), packing=algorithm, limits=Limits(max_frame=max_frame))


def sides(pair: Pair, by: Role) -> tuple[Connection, Connection, int]:
    """Who begins a call, who answers it, and its id."""
    return (pair.client, pair.server, 1) if by is Role.CLIENT else (pair.server, pair.client, TOP_BIT | 1)


either = pytest.mark.parametrize("by", Role, ids=lambda role: f"by the {role.value}")


@either
@each_algorithm
def test_every_message_may_be_packed(by: Role, algorithm: int) -> None:
    """REQUEST, RESPONSE and ITEM of both halves arrive packed, as what they are, and a call goes on as ever."""
    pair = open_pair(algorithm)
    caller, answerer, call_id = sides(pair, by)
    payload = pack_payload(TEXT, algorithm)
    assert isinstance(payload, Packed)
    assert caller.send_request(7, payload) == call_id
    (request,) = pair.deliver(caller)
    assert isinstance(request, FlaggedRequestReceived)
    assert (request.call_id, request.opcode, request.flags, request.metadata) == (call_id, 7, Flag.NONE, EMPTY)
    assert plain(request.payload) == TEXT
    assert caller.own_calls == answerer.peer_calls == 1
    answerer.send_packed_response(call_id, payload)
    (response,) = pair.deliver(answerer)
    assert isinstance(response, PackedResponseReceived)
    assert (response.call_id, response.opcode, response.payload.unpack()) == (call_id, 7, TEXT)
    assert caller.calls_in_flight == answerer.calls_in_flight == 0
    duplex = caller.send_flagged_request(UPLOAD | Flag.ITEMS_COME_BACK, 8, b"", STREAM, credit=STREAM_CREDIT)
    caller.send_item(duplex, payload)
    caller.send_item(duplex, b"plain")
    _, first, second = pair.deliver(caller)
    assert isinstance(first, PackedItemReceived)
    assert plain(first.payload) == TEXT
    assert second == ItemReceived(duplex, b"plain")
    answerer.send_item(duplex, payload)
    (item,) = pair.deliver(answerer)
    assert isinstance(item, PackedItemReceived)
    assert plain(item.payload) == TEXT
    one_way = caller.send_flagged_request(Flag.ONE_WAY, 9, payload)
    (posted,) = pair.deliver(caller)
    assert isinstance(posted, FlaggedRequestReceived)
    assert (posted.call_id, posted.flags, plain(posted.payload)) == (one_way, Flag.ONE_WAY, TEXT)


@either
def test_a_unary_request_may_be_sent_as_any_other_that_is_packed(by: Role) -> None:
    """Without a flag of a shape it is the same call, in flight until its one answer."""
    pair = open_pair()
    caller, answerer, call_id = sides(pair, by)
    assert caller.send_flagged_request(Flag.NONE, 7, pack_payload(TEXT, 1)) == call_id
    (request,) = pair.deliver(caller)
    assert isinstance(request, FlaggedRequestReceived)
    assert (request.flags, plain(request.payload)) == (Flag.NONE, TEXT)
    assert caller.own_calls == answerer.peer_calls == 1
    answerer.send_response(call_id, b"")
    assert len(pair.deliver(answerer)) == 1
    assert caller.own_calls == answerer.peer_calls == 0


def test_packed_payloads_are_equal_by_what_the_frame_holds() -> None:
    """Two of the same bytes and algorithm are one key; the unpacked bytes, or another algorithm, are another."""
    first, second = (Packed(1, stream_of(TEXT)) for _ in range(2))
    assert first == second
    assert len({first, second, Packed(2, stream_of(TEXT))}) == 2
    assert first != TEXT


def stream_of(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + stream(data, 1)


def test_the_flag_stands_beside_the_shape() -> None:
    """0x02 is on the frame alone: a stream whose REQUEST is packed is a stream."""
    pair = open_pair()
    payload = pack_payload(TEXT, 1)
    call_id = pair.client.send_flagged_request(Flag.ITEMS_COME_BACK, 8, payload, STREAM, credit=STREAM_CREDIT)
    sent = pair.client.data_to_send()
    assert sent[4:8] == bytes([Kind.REQUEST, 0x0A, 2, 1])
    pair.server.receive_data(sent)
    (request,) = drain(pair.server)
    assert isinstance(request, FlaggedRequestReceived)
    assert request.flags == Flag.ITEMS_COME_BACK
    pair.server.send_item(call_id, b"")
    pair.server.send_end(call_id)


@either
def test_credit_counts_the_bytes_unpacked(by: Role) -> None:
    """A packed ITEM takes its unpacked length of the credit, on both sides, and may overrun it like any other."""
    pair = open_pair(first=Credit(5, 2000))
    caller, answerer, call_id = sides(pair, by)
    caller.send_flagged_request(UPLOAD, 8, b"")
    payload = pack_payload(bytes(1500), 1)
    assert isinstance(payload, Packed)
    assert len(payload.body) < 100
    caller.send_item(call_id, payload)
    assert caller.credit(call_id) == (4, 500)
    caller.send_item(call_id, payload)
    assert caller.credit(call_id) == (3, -1000)
    with pytest.raises(LocalProtocolError, match="no credit left"):
        caller.send_item(call_id, payload)
    assert len(pair.deliver(caller)) == 3
    assert answerer.credit_out(call_id) == (3, -1000)
    answerer.receive_data(raw(5, payload.body, flags=2, call_id=call_id, opcode=8))
    assert reasons(answerer) == ["CREDIT_EXCEEDED"]


@each_algorithm
@either
def test_the_limit_is_that_of_the_frame_unpacked(by: Role, algorithm: int) -> None:
    """The receiver's limit less one, the limit, and one more: the sender refuses what the receiver would."""
    block = b"\x78\x00\x00"
    for metadata in (b"", block):
        most = LARGEST - len(metadata)
        for size in (most - 1, most, most + 1):
            pair = open_pair(algorithm)
            pair.client.their_max_frame = pair.server.their_max_frame = MAX_FRAME
            caller, answerer, call_id = sides(pair, by)
            payload = packed(bytes(size), algorithm)
            if size <= most:
                caller.send_request(8, payload, metadata)
                (request,) = pair.deliver(caller)
                assert isinstance(request, FlaggedRequestReceived)
                assert len(request.payload) == size
                continue
            with pytest.raises(PayloadTooLarge) as caught:
                caller.send_request(8, payload, metadata)
            assert (caught.value.size, caught.value.limit) == (MAX_FRAME + 1, MAX_FRAME)
            assert (caller.own_calls, caller.bytes_pending) == (0, 0)
            answerer.receive_data(raw(3, payload.body, metadata, flags=2, call_id=call_id, opcode=8))
            assert reasons(answerer) == ["FRAME_TOO_LARGE"]


@either
def test_the_limit_holds_for_answers_and_items(by: Role) -> None:
    """A RESPONSE and an ITEM that stand for one byte too many are not sent, and end the connection where they come."""
    large = packed(bytes(LARGEST + 1), 1)
    for kind in (Kind.RESPONSE, Kind.ITEM):
        pair = open_pair()
        pair.client.their_max_frame = pair.server.their_max_frame = MAX_FRAME
        caller, answerer, call_id = sides(pair, by)
        if kind == Kind.RESPONSE:
            caller.send_request(8, b"")
        else:
            caller.send_flagged_request(Flag.ITEMS_COME_BACK, 8, b"", STREAM, credit=STREAM_CREDIT)
        pair.deliver(caller)
        with pytest.raises(PayloadTooLarge):
            (answerer.send_packed_response if kind == Kind.RESPONSE else answerer.send_item)(call_id, large)
        assert answerer.peer_calls == 1
        caller.receive_data(raw(kind, large.body, flags=2, call_id=call_id, opcode=8))
        assert reasons(caller) == ["FRAME_TOO_LARGE"]


BODIES: list[tuple[bytes, str]] = [
    (b"", "BAD_BODY"),
    (b"\0\0\0\1", "BAD_BODY"),
    (b"\0\0\0\0x", "BAD_BODY"),
    (struct.pack(">I", LARGEST + 1) + b"x", "FRAME_TOO_LARGE"),
    (b"\xff\xff\xff\xffx", "FRAME_TOO_LARGE"),
]


@pytest.mark.parametrize(("body", "reason"), BODIES)
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.RESPONSE, Kind.ITEM])
@either
def test_a_body_that_is_no_packed_payload_ends_the_connection(by: Role, kind: Kind, body: bytes, reason: str) -> None:
    """Under five bytes, a length of 0, and one above the limit are seen before anything is unpacked."""
    pair = open_pair()
    caller, answerer, call_id = sides(pair, by)
    receiver = answerer
    if kind == Kind.ITEM:
        caller.send_flagged_request(UPLOAD, 8, b"")
    elif kind == Kind.RESPONSE:
        caller.send_request(8, b"")
        receiver = caller
    pair.deliver(caller)
    receiver.receive_data(raw(kind, body, flags=2, call_id=call_id, opcode=8))
    assert reasons(receiver) == [reason]


def test_one_byte_unpacked_is_the_least() -> None:
    """A payload of five bytes that says 1 passes the connection, whatever its stream is."""
    pair = open_pair()
    pair.server.receive_data(raw(3, b"\0\0\0\1x", flags=2, call_id=1, opcode=8))
    (request,) = drain(pair.server)
    assert isinstance(request, FlaggedRequestReceived)
    assert len(request.payload) == 1


def test_the_flag_needs_an_algorithm() -> None:
    """Without one that was agreed on, 0x02 is RESERVED_FLAGS on every kind, and nothing packed is sent."""
    payload = pack_payload(TEXT, 1)
    assert isinstance(payload, Packed)
    for kind in (Kind.REQUEST, Kind.RESPONSE, Kind.ITEM):
        server = opened().server
        server.receive_data(raw(kind, payload.body, flags=2))
        assert reasons(server) == ["RESERVED_FLAGS"]
    pair = opened_both_ways()
    with pytest.raises(LocalProtocolError, match="packed by algorithm 1; none was agreed on"):
        pair.client.send_request(8, payload)
    with pytest.raises(LocalProtocolError, match="none was agreed on"):
        pair.client.send_flagged_request(Flag.ONE_WAY, 8, payload)
    assert (pair.client.own_calls, pair.client.last_call_id, pair.client.bytes_pending) == (0, 0, 0)
    other = open_pair(2)
    other.client.send_request(8, b"")
    other.deliver(other.client)
    with pytest.raises(LocalProtocolError, match="packed by algorithm 1; algorithm 2 was agreed on"):
        other.server.send_packed_response(1, payload)
    assert other.server.peer_calls == 1


def test_items_that_follow_leave_nothing_to_pack() -> None:
    """A REQUEST whose items follow is empty, so that it is BAD_BODY with the flag, whatever it holds."""
    for body in (b"", packed(b"x", 1).body):
        pair = open_pair()
        pair.server.receive_data(raw(3, body, flags=0x06, call_id=1, opcode=8))
        assert reasons(pair.server) == ["BAD_BODY"]
    with pytest.raises(LocalProtocolError, match="has no payload"):
        open_pair().client.send_flagged_request(UPLOAD, 8, pack_payload(TEXT, 1))


def test_an_answer_is_packed_only_where_one_may_be_sent() -> None:
    """``send_packed_response`` is held to the states of ``send_response``, and to streams likewise."""
    pair = open_pair()
    payload: Any = pack_payload(TEXT, 1)
    with pytest.raises(LocalProtocolError, match="call 1 is not in flight"):
        pair.server.send_packed_response(1, payload)
    pair.client.send_flagged_request(Flag.ITEMS_COME_BACK, 8, b"", STREAM, credit=STREAM_CREDIT)
    pair.deliver(pair.client)
    with pytest.raises(LocalProtocolError, match="RESPONSE has no place there"):
        pair.server.send_packed_response(1, payload)
    pair.server.close()
    with pytest.raises(LocalProtocolError, match="cannot send RESPONSE"):
        pair.server.send_packed_response(1, payload)
    assert pair.server.bytes_pending == 0


def test_a_packed_item_that_crosses_takes_of_the_allowance_unpacked() -> None:
    """What is dropped behind an early answer counts as what it stands for, too."""
    pair = open_pair(first=Credit(3, 2000), max_frame=MAX_FRAME)
    pair.client.send_flagged_request(UPLOAD, 8, b"")
    pair.deliver(pair.client)
    pair.server.send_response(1, b"")
    item = raw(5, packed(bytes(3000), 1).body, flags=2, call_id=1, opcode=8)
    pair.server.receive_data(item)
    assert drain(pair.server) == []
    pair.server.receive_data(item)
    assert drain(pair.server) == []
    pair.server.receive_data(item)  # 2000 and one frame of 4096 are allowed to cross, and this makes 9,000
    assert reasons(pair.server) == ["CREDIT_EXCEEDED"]


def test_the_algorithms_are_those_of_the_page() -> None:
    """The window that a reader keeps is the page's."""
    assert packing._MAX_WINDOW_LOG == 20
