"""Section 2: what a client makes of a server's headers."""

from collections.abc import Callable
from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, start, wait
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.service import BLOB, SHORT, BlobResponse, ShortResponse
from wireproto.conformance.sizes import longest, noise

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")
LARGEST_JUDGED = 32 * 1024 * 1024


@case("2.01")
def right_header(trial: Trial) -> None:
    """A REQUEST has the codec and version of WELCOME, its method's opcode, no flags, and what the caller said."""
    with trial.client(call("Short", text="hello"), call("Short", text="Zoë")) as callee:
        for text in ("hello", "Zoë"):
            request = callee.request(SHORT)
            if request.message.text != text:
                raise Deviation(f"the request says {request.message.text!r} and not {text!r}")
            callee.respond(request, ShortResponse(length=len(text)))
        callee.answered(0, length=5)
        callee.answered(1, length=3)


@case("2.02")
def byte_by_byte(trial: Trial) -> None:
    """A frame that comes one byte at a time is read."""
    with trial.client(SHORT_CALL) as callee:
        data = callee.response(callee.request(SHORT), ShortResponse(length=5))
        callee.send(*(data[n : n + 1] for n in range(len(data))))
        callee.answered(length=5)


@case("2.03")
def many_in_a_segment(trial: Trial) -> None:
    """Frames that come in one segment are all read, and so are those cut between two."""
    with trial.client(start("a", "Short", text="a"), start("b", "Short", text="b"), wait("a"), wait("b")) as callee:
        first, second = callee.request(SHORT), callee.request(SHORT)
        data = callee.response(first, ShortResponse(length=1)) + callee.response(second, ShortResponse(length=2))
        callee.send(data[:-3], data[-3:])
        callee.answered(2, length=1)
        callee.answered(3, length=2)


@case("2.04")
def ignorable(trial: Trial) -> None:
    """Frames of kinds 128 to 255 are skipped, whatever else their headers say."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        for kind in (128, 200, 255):
            callee.send(
                callee.frame(kind, b"later", metadata=b"more", codec=99, version=77, opcode=5, call_id=6, flags=255)
            )
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("2.05", over=Over.CODECS)
def longest_frame(trial: Trial) -> None:
    """A frame whose length is exactly HELLO's max frame is read."""
    with trial.client(call("Blob", size=1)) as callee:
        request = callee.request(BLOB)
        assert callee.hello is not None
        room = callee.hello.max_frame - 12
        if room > LARGEST_JUDGED:
            raise NotJudged(f"the client accepts frames of {callee.hello.max_frame} bytes")

        def payload(size: int) -> bytes:
            return callee.payload(BlobResponse(data=noise(size)))

        fits = longest(lambda size: len(payload(size)), room, room)
        if len(payload(fits)) != room:
            raise NotJudged(f"no answer in this codec has exactly {room} bytes")
        callee.respond(request, payload(fits))
        callee.answered(data=noise(fits).hex())


Wrong = Callable[[Callee, Request], bytes]


def _ends(number: str, reason: str, text: str, wrong: Wrong) -> None:
    """A frame, while a call is in flight, that ends the connection."""

    def run(trial: Trial) -> None:
        with trial.client(SHORT_CALL) as callee:
            callee.send(wrong(callee, callee.request(SHORT)))
            callee.ends(reason)
            callee.failed()

    CLIENT_CASES.add(number, text, run)


def _frame(kind: int, payload: bytes = b"", **changes: Any) -> Wrong:
    return lambda callee, request: callee.frame(kind, payload, to=request, **changes)


def _above_limit(callee: Callee, request: Request) -> bytes:
    assert callee.hello is not None
    if callee.hello.max_frame == 0xFFFF_FFFF:
        raise NotJudged("the client accepts frames of any length")
    return page.u32(callee.hello.max_frame + 1)


_ends(
    "2.10",
    "FRAME_TOO_LARGE",
    "A length of one more than HELLO's max frame is FRAME_TOO_LARGE as soon as its four bytes are there.",
    _above_limit,
)
_ends("2.11", "FRAME_TOO_SHORT", "A length of 11 is FRAME_TOO_SHORT.", _frame(page.RESPONSE, length=11))
_ends(
    "2.12",
    "METADATA_OVERRUN",
    "Metadata that end behind the frame are METADATA_OVERRUN.",
    _frame(page.RESPONSE, metadata_length=9),
)
_ends("2.13", "UNKNOWN_KIND", "Kind 0 is UNKNOWN_KIND.", _frame(0))
_ends("2.14", "UNKNOWN_KIND", "Kind 13 is UNKNOWN_KIND.", _frame(13))
_ends("2.15", "RESERVED_FLAGS", "A flag on a RESPONSE is RESERVED_FLAGS.", _frame(page.RESPONSE, flags=128))
_ends("2.16", "RESERVED_FLAGS", "A flag on a PING is RESERVED_FLAGS.", _frame(page.PING, bytes(8), flags=1))
_ends(
    "2.29",
    "RESERVED_FLAGS",
    "A flag of a REQUEST on a RESPONSE is RESERVED_FLAGS.",
    _frame(page.RESPONSE, flags=page.ITEMS_COME_BACK),
)
_ends(
    "2.30",
    "RESERVED_FLAGS",
    "A one-way REQUEST of the server's whose items follow is RESERVED_FLAGS.",
    _frame(page.REQUEST, call_id=page.TOP_BIT | 1, flags=page.ONE_WAY | page.ITEMS_FOLLOW),
)
_ends(
    "2.31",
    "RESERVED_FLAGS",
    "A flag of a REQUEST of the server's that says nothing of its shape is RESERVED_FLAGS.",
    _frame(page.REQUEST, call_id=page.TOP_BIT | 1, flags=0x02),
)
_ends("2.17", "WRONG_CODEC", "A RESPONSE with codec 0 is WRONG_CODEC.", _frame(page.RESPONSE, codec=0))
_ends(
    "2.18",
    "WRONG_CODEC",
    "An ERROR with a codec other than 0 is WRONG_CODEC.",
    _frame(page.ERROR, page.error_body(), codec=1),
)
_ends("2.19", "WRONG_VERSION", "A RESPONSE with another version is WRONG_VERSION.", _frame(page.RESPONSE, version=99))
_ends(
    "2.20",
    "WRONG_VERSION",
    "A PONG with a version other than 0 is WRONG_VERSION.",
    _frame(page.PONG, bytes(8), version=1),
)
_ends("2.21", "CALL_ID", "A RESPONSE with call id 0 is CALL_ID.", _frame(page.RESPONSE, call_id=0))
_ends("2.32", "CALL_ID", "A CANCEL with call id 0 is CALL_ID.", _frame(page.CANCEL, call_id=0, opcode=0))
_ends(
    "2.33",
    "WRONG_OPCODE",
    "A CREDIT of one-way calls, whose call id is 0, with an opcode is WRONG_OPCODE.",
    _frame(page.CREDIT, page.credit_body(1, 0), call_id=0, opcode=1),
)
_ends(
    "2.34",
    "BAD_BODY",
    "A REQUEST of the server's whose items follow has no payload, else BAD_BODY.",
    _frame(page.REQUEST, b"x", call_id=page.TOP_BIT | 1, flags=page.ITEMS_FOLLOW),
)
_ends("2.22", "CALL_ID", "A PING with a call id is CALL_ID.", _frame(page.PING, bytes(8), call_id=1))
_ends(
    "2.23",
    "WRONG_OPCODE",
    "A RESPONSE whose opcode is not its call's is WRONG_OPCODE.",
    _frame(page.RESPONSE, opcode=99),
)
_ends(
    "2.24",
    "WRONG_OPCODE",
    "An ERROR whose opcode is not its call's is WRONG_OPCODE.",
    _frame(page.ERROR, page.error_body(), opcode=99),
)
_ends("2.25", "WRONG_OPCODE", "A PING with an opcode is WRONG_OPCODE.", _frame(page.PING, bytes(8), opcode=1))
_ends(
    "2.26",
    "UNEXPECTED_METADATA",
    "A final ERROR with metadata is UNEXPECTED_METADATA.",
    _frame(page.ERROR, page.error_body(), metadata=b"\x07\0\0", call_id=0, opcode=0),
)
_ends("2.27", "BAD_BODY", "A PING of 7 bytes is BAD_BODY.", _frame(page.PING, bytes(7)))
_ends("2.28", "BAD_BODY", "A GOAWAY of 3 bytes is BAD_BODY.", _frame(page.GOAWAY, bytes(3)))

_ends("7.01", "UNEXPECTED_KIND", "HELLO from a server is UNEXPECTED_KIND.", _frame(page.HELLO, bytes(30)))
_ends("7.02", "CALL_ID", "A REQUEST of a server that names a call of the client's is CALL_ID.", _frame(page.REQUEST))
_ends("7.03", "WRONG_HALF", "CANCEL of a call of the client's is WRONG_HALF.", _frame(page.CANCEL))
_ends(
    "7.04",
    "WRONG_HALF",
    "CREDIT of a call of the client's whose items do not follow is WRONG_HALF.",
    _frame(page.CREDIT, page.credit_body(1, 1)),
)
