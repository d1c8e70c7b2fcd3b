"""Sections 2 and 3: payloads that are packed. All of them by zlib: a client that does not offer it is not judged."""

import zlib
from collections.abc import Callable

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, duplex, post, stream, upload
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import (
    BLOB,
    COUNT,
    MIRROR,
    NOTE,
    REFLECT,
    SHORT,
    SUM,
    BlobResponse,
    CountResponse,
    MirrorResponse,
    ReflectResponse,
    ShortResponse,
    SumResponse,
)

case = CLIENT_CASES.case

DATA = b"the same again and again; " * 100
LARGE = "00" * 5000
FIRST = page.CreditBody(100, 1 << 20)
DATA_LOSS = 15


@case("3.60", over=Over.ONCE)
def the_offer(trial: Trial) -> None:
    """A client that lists algorithms lists one at least, each from 1 on and once; that the server takes none is no
    obstacle."""
    with trial.client(call("Blob", size=10)) as callee:
        callee.respond(callee.request(BLOB), BlobResponse(data=DATA))
        callee.answered(data=DATA.hex())


def _wrong_choice(number: str, text: str, value: bytes) -> None:
    def run(trial: Trial) -> None:
        with trial.client(call("Short", text="x"), greet=False) as callee:
            if page.ZLIB not in callee.read_hello().packing:
                raise NotJudged("the client does not pack, or not by zlib")
            callee.send(callee.welcome(fields=page.tlv(page.PACKING_FIELD, value)))
            callee.ends("BAD_BODY")
            callee.refused()

    CLIENT_CASES.add(number, text, run, over=Over.ONCE)


_wrong_choice("3.61", "A WELCOME with an algorithm that was not offered is BAD_BODY.", b"\xf7")
_wrong_choice("3.62", "A WELCOME with two algorithms is BAD_BODY.", b"\1\1")
_wrong_choice("3.63", "A WELCOME with the algorithm 0 is BAD_BODY.", b"\0")
_wrong_choice("3.64", "A WELCOME whose field of the algorithm is empty is BAD_BODY.", b"")


@case("2.60")
def packed_answers(trial: Trial) -> None:
    """A packed RESPONSE means what it stands for, and so does one between that is not packed."""
    with trial.client(call("Blob", size=1), call("Blob", size=2), call("Blob", size=3), greet=False) as callee:
        callee.greet_packing()
        for data in (DATA, b"plain", bytes(100_000)):
            request = callee.request(BLOB)
            if data == b"plain":
                callee.respond(request, BlobResponse(data=data))
            else:
                callee.send_packed(page.RESPONSE, request, page.packed_body(callee.payload(BlobResponse(data=data))))
        callee.answered(0, data=DATA.hex())
        callee.answered(1, data=b"plain".hex())
        callee.answered(2, data=bytes(100_000).hex())


@case("2.61")
def packed_items(trial: Trial) -> None:
    """Packed ITEMs are items like others, and may stand between those."""
    with trial.client(stream("Count", 8, items=4), greet=False) as callee:
        callee.greet_packing()
        request = callee.request(COUNT)
        for number in range(4):
            item = CountResponse(number=number, padding=bytes(600))
            if number % 2:
                callee.item(request, item)
            else:
                callee.send_packed(page.ITEM, request, page.packed_body(callee.payload(item)))
        callee.end(request)
        items = callee.result().get("items")
        if not isinstance(items, list) or [each.get("number") for each in items] != [0, 1, 2, 3]:
            raise Deviation(f"four items came, and the client said {callee.result()}")


@case("2.62", needs=Needs.SHAPES)
def what_the_client_packs(trial: Trial) -> None:
    """What a client packs is right: requests, items and one-way calls, each within the server's max frame unpacked."""
    steps = (
        call("Mirror", data=LARGE),
        upload("Sum", [{"number": 1, "data": LARGE}, {"number": 2}, {"number": 3, "data": LARGE}]),
        duplex("Reflect", [{"number": 4, "data": LARGE}], 8),
        post("Note", key="x" * 2000, number=5),
    )
    with trial.client(*steps, greet=False) as callee:
        callee.greet_packing(first=FIRST, one_way=5)
        mirrored = callee.request(MIRROR)
        if mirrored.message.data.hex() != LARGE:
            raise Deviation("the request says something else than the caller")
        callee.respond(mirrored, MirrorResponse(number=7))
        summed = callee.request(SUM)
        found = [callee.given(SUM, summed) for _ in range(3)]
        if [(each.number, each.data.hex()) for each in found] != [(1, LARGE), (2, ""), (3, LARGE)]:
            raise Deviation("the items say something else than the caller")
        callee.completed(summed)
        callee.respond(summed, SumResponse(total=6))
        reflected = callee.request(REFLECT)
        item = callee.given(REFLECT, reflected)
        callee.item(reflected, ReflectResponse(number=item.number, data=item.data))
        callee.completed(reflected)
        callee.end(reflected)
        if callee.request(NOTE).message.key != "x" * 2000:
            raise Deviation("the one-way call says something else than the caller")
        callee.answered(0, number=7)
        callee.answered(1, total=6)


Wrong = Callable[[Callee, Request], bytes]


def _ends(number: str, reason: str, text: str, wrong: Wrong, *, packing: bool = True) -> None:
    def run(trial: Trial) -> None:
        with trial.client(call("Blob", size=1), greet=False) as callee:
            if packing:
                callee.greet_packing()
            else:
                callee.greet()
            callee.send(wrong(callee, callee.request(BLOB)))
            callee.ends(reason)
            callee.failed()

    CLIENT_CASES.add(number, text, run, over=Over.CODECS)


def _says(kind: int, body: bytes, flags: int = page.PACKED) -> Wrong:
    return lambda callee, request: callee.frame(kind, body, to=request, flags=flags)


def _too_long(callee: Callee, request: Request) -> bytes:
    assert callee.hello is not None
    if callee.hello.max_frame >= page.U32_MOST - 12:
        raise NotJudged("the client accepts frames of any length")
    body = page.u32(callee.hello.max_frame - page.AFTER_LENGTH + 1) + b"x"
    return callee.frame(page.RESPONSE, body, to=request, flags=page.PACKED)


_ends(
    "2.63",
    "RESERVED_FLAGS",
    "Where no algorithm was agreed on, a packed RESPONSE is RESERVED_FLAGS.",
    _says(page.RESPONSE, page.packed_body(b"x")),
    packing=False,
)
_ends(
    "2.64",
    "RESERVED_FLAGS",
    "With an algorithm the flag is RESERVED_FLAGS all the same on an ERROR.",
    _says(page.ERROR, page.error_body(5)),
)
_ends("2.65", "BAD_BODY", "A packed RESPONSE of four bytes is BAD_BODY.", _says(page.RESPONSE, b"\0\0\0\1"))
_ends(
    "2.66",
    "BAD_BODY",
    "A packed RESPONSE that stands for no bytes is BAD_BODY.",
    _says(page.RESPONSE, b"\0\0\0\0" + zlib.compress(b"")),
)
_ends(
    "2.67",
    "FRAME_TOO_LARGE",
    "A packed RESPONSE that stands for one byte more than max frame holds is FRAME_TOO_LARGE.",
    _too_long,
)


@case("2.68")
def broken_answers(trial: Trial) -> None:
    """An answer whose stream is cut, followed, or of another length fails its call with DATA_LOSS, and no other."""
    good = BlobResponse(data=DATA)
    steps = [call("Blob", size=1)] * 6
    with trial.client(*steps, greet=False) as callee:
        callee.greet_packing()
        size = len(callee.payload(good))
        for wrong in (
            {"cut": 1},
            {"tail": b"x"},
            {"length": size + 1},
            {"length": size - 1},
            {"length": 1},
        ):
            body = page.packed_body(callee.payload(good), **wrong)
            callee.send_packed(page.RESPONSE, callee.request(BLOB), body)
        callee.send_packed(page.RESPONSE, callee.request(BLOB), page.packed_body(callee.payload(good)))
        for number in range(5):
            callee.failed(number, status=DATA_LOSS)
        callee.answered(5, data=DATA.hex())


@case("2.69")
def broken_items(trial: Trial) -> None:
    """A stream of which an item is packed wrongly fails with DATA_LOSS and is cancelled; the connection goes on."""
    with trial.client(stream("Count", 8, items=4), call("Short", text="x"), greet=False) as callee:
        callee.greet_packing()
        request = callee.request(COUNT)
        payload = callee.payload(CountResponse(number=0, padding=bytes(600)))
        callee.send_packed(page.ITEM, request, page.packed_body(payload, cut=1))
        while (found := callee.read()).kind == page.CREDIT:
            pass
        if (found.kind, found.call_id) != (page.CANCEL, request.call_id):
            raise Deviation(f"CANCEL of the stream was due, and {page.shown(found)} came")
        callee.error(request, 1, b"CANCELLED")
        callee.respond(callee.request(SHORT), ShortResponse(length=1))
        callee.failed(0, status=DATA_LOSS)
        callee.answered(1, length=1)
