"""Sections 2 and 3: payloads that are packed. All of them by zlib: a server that does not know it is not judged."""

import struct
import zlib

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.servers.uploads import held
from wireproto.conformance.service import (
    BLOB,
    COUNT,
    NOTE,
    NOTED,
    SHORT,
    SLEEP,
    SUM,
    BlobRequest,
    CountRequest,
    NotedRequest,
    NoteRequest,
    ShortRequest,
    SleepRequest,
    SumRequest,
)
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

TEXT = b"the same again and again; " * 200
ONE = SumRequest(number=1)
LARGE = SumRequest(number=1, data=bytes(20_000))


def _echo(caller: Caller, body: bytes) -> int:
    """An Echo whose payload says that it is packed, whatever it is."""
    return caller.request(ECHO, body, flags=page.PACKED)


@case("3.80", over=Over.ONCE)
def an_algorithm_is_chosen(bench: Bench) -> None:
    """The algorithm is the first of HELLO's list that the server knows; those that it does not know are passed over."""
    with bench.open_packing():
        pass
    for listed in ([0xF7, page.ZLIB], [page.ZLIB, 0xF7], [0xFF, 0xF0, page.ZLIB, 0xF1]):
        with bench.open(fields=page.tlv(page.PACKING_FIELD, bytes(listed))) as caller:
            if caller.packing != page.ZLIB:
                raise Deviation(f"{listed} was offered, and {caller.packing} was chosen")
            caller.alive()


@case("3.81", over=Over.ONCE)
def no_algorithm_is_chosen(bench: Bench) -> None:
    """Where HELLO lists no algorithm, or none that the server knows, WELCOME has none."""
    for fields in (b"", page.tlv(page.PACKING_FIELD, bytes([0xF3, 0xFA]))):
        with bench.open(fields=fields) as caller:
            if caller.packing:
                raise Deviation(f"the algorithm {caller.packing} was chosen, and it was not offered")
            caller.alive()


for number, text, value, times in (
    ("3.82", "A HELLO with an empty list of algorithms is BAD_BODY.", b"", 1),
    ("3.83", "A HELLO that lists the algorithm 0 is BAD_BODY.", b"\1\0", 1),
    ("3.84", "A HELLO that lists an algorithm twice is BAD_BODY.", b"\1\2\1", 1),
    ("3.85", "A HELLO with two lists of algorithms is BAD_BODY.", b"\1", 2),
):

    def wrong_list(bench: Bench, fields: bytes = page.tlv(page.PACKING_FIELD, value) * times) -> None:
        bench.refused("BAD_BODY", fields=fields)

    SERVER_CASES.add(number, text, wrong_list, over=Over.ONCE)


@case("2.70")
def packed_requests(bench: Bench) -> None:
    """A packed REQUEST means what it stands for, of every method, however long it is, and with others between."""
    with bench.open_packing() as caller:
        for data in (b"", b"x", TEXT, bytes(200_000)):
            call_id = caller.request(
                ECHO, EchoRequest(payload=data), packed=len(caller.payload(EchoRequest(payload=data))) > 0
            )
            if caller.response(ECHO, call_id).payload != data:
                raise Deviation(f"the echo of {len(data)} bytes, packed, is another")
            caller.alive()


@case("2.71", needs=Needs.SHAPES)
def packed_shapes(bench: Bench) -> None:
    """REQUESTs of streams and of one-way calls may be packed, and ITEMs, some and others not."""
    with bench.open_packing() as caller:
        call_id = caller.request(COUNT, CountRequest(items=2, padding=5000), packed=True, credit=10)
        for _ in range(2):
            caller.item(COUNT, call_id)
        caller.expect(page.END, call_id)
        call_id = caller.upload(SUM)
        caller.wait_for_room(call_id)
        caller.send(caller.item_frame(SUM, call_id, LARGE, packed=True))
        for packed in (False, True):
            caller.wait_for_room(call_id)
            caller.send(caller.item_frame(SUM, call_id, ONE, packed=packed))
        caller.complete(SUM, call_id)
        answer = caller.response(SUM, call_id)
        if (answer.total, answer.size, answer.items) != (3, 20_000, 3):
            raise Deviation(f"three items that sum up to 3 and have 20000 bytes were answered {answer}")
        caller.wait_for_one_way_room()
        key = f"packed {caller.peer.socket.getsockname()}"
        before = caller.call(NOTED, NotedRequest(key=key)).count
        caller.send(caller.request_frame(NOTE, NoteRequest(key=key, number=1), packed=True)[1])
        for _ in range(100):
            if caller.call(NOTED, NotedRequest(key=key)).count == before + 1:
                return
            caller.call(SLEEP, SleepRequest(milliseconds=20))
        raise Deviation("a packed one-way call has not run")


@case("2.72", over=Over.CODECS)
def without_an_algorithm(bench: Bench) -> None:
    """Where no algorithm was agreed on, a packed frame is RESERVED_FLAGS, of each kind that may be one."""
    for kind in page.OF_MESSAGES:
        with bench.open() as caller:
            caller.send(caller.frame(kind, page.packed_body(b"x"), flags=page.PACKED))
            caller.ends("RESERVED_FLAGS")


@case("2.73", over=Over.CODECS)
def packed_frames_without_messages(bench: Bench) -> None:
    """With an algorithm the flag is RESERVED_FLAGS all the same on kinds that carry no message, and so is any other."""
    for kind, payload, flags in (
        (page.END, b"", page.PACKED),
        (page.CANCEL, b"", page.PACKED),
        (page.CREDIT, page.credit_body(1, 1), page.PACKED),
        (page.PING, bytes(8), page.PACKED),
        (page.REQUEST, page.packed_body(b"x"), page.PACKED | 0x10),
        (page.REQUEST, page.packed_body(b"x"), page.PACKED | page.ONE_WAY | page.ITEMS_COME_BACK),
    ):
        with bench.open_packing() as caller:
            caller.send(caller.frame(kind, payload, flags=flags))
            caller.ends("RESERVED_FLAGS")


@case("2.74", over=Over.CODECS)
def short_packed_payloads(bench: Bench) -> None:
    """A packed payload of less than five bytes, and one that stands for none, is BAD_BODY."""
    for body in (b"", b"\0\0\0\1", b"\0\0\0\0" + zlib.compress(b"")):
        with bench.open_packing() as caller:
            _echo(caller, body)
            caller.ends("BAD_BODY")


@case("2.75", over=Over.CODECS)
def packed_before_items(bench: Bench) -> None:
    """A REQUEST whose items follow has nothing to pack: with both flags it is BAD_BODY."""
    for body in (b"", page.packed_body(b"x")):
        with bench.open_packing() as caller:
            caller.request(ECHO, body, flags=page.PACKED | page.ITEMS_FOLLOW)
            caller.ends("BAD_BODY")


@case("2.76", over=Over.CODECS)
def the_longest_unpacked(bench: Bench) -> None:
    """A packed payload may stand for as much as max frame would hold; one byte more is FRAME_TOO_LARGE, unread."""
    metadata = page.field(0x40, bytes(20))
    for block in (b"", metadata):
        with bench.open_packing() as caller:
            assert caller.welcome is not None
            most = caller.welcome.max_frame - page.AFTER_LENGTH - len(block)
            if most <= 64 * 1024 * 1024:
                # No message at all, so that it is refused; but the connection has read it.
                caller.error(
                    caller.request(ECHO, page.packed_body(b"x", length=most), block, flags=page.PACKED), "BAD_PAYLOAD"
                )
                caller.alive()
            if most < page.U32_MOST:
                caller.request(ECHO, struct.pack(">I", most + 1) + b"x", block, flags=page.PACKED)
                caller.ends("FRAME_TOO_LARGE")


@case("2.77")
def broken_streams(bench: Bench) -> None:
    """A stream that is cut, followed, of another length, packed twice or none fails its call, BAD_PAYLOAD."""
    with bench.open_packing() as caller:
        good = caller.payload(EchoRequest(payload=TEXT))
        primed = zlib.compressobj(zdict=TEXT[:50])
        for body in (
            page.packed_body(good, length=len(good) - 1),
            page.packed_body(good, length=len(good) + 1),
            page.packed_body(good, length=1),
            page.packed_body(bytes(8 << 20), length=1000),
            page.packed_body(good, cut=1),
            page.packed_body(good, cut=4),
            page.packed_body(good, tail=b"x"),
            page.packed_body(good, tail=zlib.compress(good)),
            page.u32(len(good)) + b"no stream at all",
            page.u32(len(good)) + primed.compress(good) + primed.flush(),
            page.packed_body(zlib.compress(good)),
        ):
            caller.error(_echo(caller, body), "BAD_PAYLOAD", retry=page.NEVER)
        caller.alive()


@case("2.78", needs=Needs.SHAPES)
def broken_items(bench: Bench) -> None:
    """An ITEM that is packed wrongly fails its call, BAD_PAYLOAD, and the connection goes on."""
    with bench.open_packing() as caller:
        for tail, cut in ((b"x", 0), (b"", 1)):
            call_id = caller.upload(SUM)
            caller.wait_for_room(call_id)
            body = page.packed_body(caller.payload(LARGE), tail=tail, cut=cut)
            caller.send(caller.frame(page.ITEM, body, opcode=SUM.opcode, call_id=call_id, flags=page.PACKED))
            caller.error(call_id, "BAD_PAYLOAD")
        caller.alive()


@case("2.79", needs=Needs.SERVICE)
def limits_count_unpacked(bench: Bench) -> None:
    """The longest request of a method is that of the payload unpacked."""
    with bench.open_packing() as caller:
        body = page.packed_body(b"x" * 65)
        caller.error(caller.request(SHORT, body, flags=page.PACKED), "REQUEST_TOO_LARGE")
        request = ShortRequest(text="x" * 20)
        if caller.response(SHORT, caller.request(SHORT, request, packed=True)).length != 20:
            raise Deviation("a packed request within the limit was answered wrongly")


@case("2.80", needs=Needs.SHAPES, over=Over.CODECS)
def credit_counts_unpacked(bench: Bench) -> None:
    """A packed ITEM takes what it stands for of the bytes, and one without a byte of credit is CREDIT_EXCEEDED."""
    with bench.open_packing() as caller:
        call_id = held(caller)
        caller.call(SLEEP, SleepRequest(milliseconds=200))  # whatever the server grants beyond is read by then
        assert caller.welcome is not None
        large = SumRequest(data=bytes(min(200_000, (caller.welcome.max_frame - 1000) // 3)))
        while caller.room(call_id).bytes > 0:
            if caller.room(call_id).items < 2:
                raise NotJudged("the server grants fewer items than its bytes allow")
            caller.send(caller.item_frame(SUM, call_id, large, packed=True))
        caller.alive()
        if caller.room(call_id).bytes > 0:
            raise Deviation("credit came back for bytes that were not taken")
        caller.send(caller.item_frame(SUM, call_id, ONE, packed=True))
        caller.ends("CREDIT_EXCEEDED")


@case("2.81", needs=Needs.SERVICE)
def packed_answers(bench: Bench) -> None:
    """Answers and items come packed or not, each frame by itself, and within the client's max frame unpacked."""
    with bench.open_packing() as caller:
        for size in (0, 1, 511, 512, 600, 5000, 300_000):
            if len(caller.call(BLOB, BlobRequest(size=size)).data) != size:
                raise Deviation(f"a blob of {size} bytes has another length")
        call_id = caller.request(COUNT, CountRequest(items=5, padding=3000), credit=10)
        for _ in range(5):
            if len(caller.item(COUNT, call_id).padding) != 3000:
                raise Deviation("an item with 3000 bytes has another length")
        caller.expect(page.END, call_id)
