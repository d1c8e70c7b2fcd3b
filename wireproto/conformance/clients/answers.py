"""Sections 5 and 6: what a client makes of what stands beside an answer, and of the details of an error."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, stream
from wireproto.conformance.service import COUNT, SHORT, CountResponse, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")
COUNTING = stream("Count", 8, items=1)

TRACE = "00-ab"
BESIDE = page.entry(b"region", b"eu") + page.entry(b"who", "Zoë".encode()) + page.field(page.TRACEPARENT_KEY, b"00-ab")
SAID = {"region": "eu", "who": "Zoë", "traceparent": TRACE}
UNKNOWN = page.field(0x5E, b"?") + page.field(page.CREDIT_KEY, b"") + page.field(page.AUTHORIZATION_KEY, b"x")
"""Keys that nobody knows, and keys of requests with values that would be wrong there: all are read over."""

BROKEN = page.field(page.ENTRY_KEY, b"\x01a")[:-1]
MUST = page.field(0x80 | 0x5E, b"")
DETAILS = b"\x01\x00\x14\x12example.v1.Nothing\xff"


def dropped(count: int) -> bytes:
    return page.field(page.DROPPED_KEY, page.u32(count))


def _goes_on(callee: Callee, step: int) -> None:
    """One more call is answered: the connection takes no harm."""
    callee.respond(callee.request(SHORT), ShortResponse(length=5))
    callee.answered(step, length=5)


def _response(callee: Callee, request: Request, metadata: bytes) -> None:
    payload = callee.payload(ShortResponse(length=5))
    callee.send(callee.frame(page.RESPONSE, payload, to=request, metadata=metadata))


@case("5.10")
def response(trial: Trial) -> None:
    """A RESPONSE may have entries and a trace; keys that mean nothing there are read over."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        _response(callee, callee.request(SHORT), BESIDE + UNKNOWN + page.field(page.DROPPED_KEY, b"x"))
        _goes_on(callee, 1)
        callee.answered(length=5)
        callee.said_beside(metadata=SAID)


@case("5.11")
def item(trial: Trial) -> None:
    """An ITEM may say how many were left out before it; keys that mean nothing there are read over."""
    with trial.client(COUNTING, SHORT_CALL) as callee:
        request = callee.request(COUNT)
        payload = callee.payload(CountResponse(number=1))
        callee.send(callee.frame(page.ITEM, payload, to=request, metadata=dropped(7) + UNKNOWN + page.entry(b"A", b"")))
        callee.end(request)
        _goes_on(callee, 1)
        callee.streamed([{"number": 1, "padding": ""}])
        callee.said_beside(dropped=7)


@case("5.12")
def end(trial: Trial) -> None:
    """END may have entries and a trace, and say how many items were left out; other keys are read over."""
    with trial.client(COUNTING, SHORT_CALL) as callee:
        request = callee.request(COUNT)
        callee.send(callee.frame(page.END, to=request, metadata=BESIDE + dropped(page.U32_MOST) + UNKNOWN))
        _goes_on(callee, 1)
        callee.streamed([])
        callee.said_beside(metadata=SAID, dropped=page.U32_MOST)


@case("5.13")
def error(trial: Trial) -> None:
    """The ERROR of a call may have entries and a trace; other keys are read over, and the error is what it is."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        request = callee.request(SHORT)
        body = page.error_body(page.NOT_FOUND, b"GONE", b"it is gone")
        callee.send(callee.frame(page.ERROR, body, to=request, metadata=BESIDE + UNKNOWN + dropped(1)))
        _goes_on(callee, 1)
        callee.failed(status=page.NOT_FOUND, reason="GONE", message="it is gone")


def _broken(number: str, kind: int, metadata: bytes, what: str) -> None:
    """A case in which an answer has metadata that fail its call."""

    def run(trial: Trial) -> None:
        with trial.client(COUNTING if kind == page.END else SHORT_CALL, SHORT_CALL) as callee:
            if kind == page.RESPONSE:
                _response(callee, callee.request(SHORT), metadata)
            else:
                request = callee.request(COUNT if kind == page.END else SHORT)
                body = page.error_body(page.NOT_FOUND, b"GONE") if kind == page.ERROR else b""
                callee.send(callee.frame(kind, body, to=request, metadata=metadata))
            _goes_on(callee, 1)
            callee.failed(status=page.DATA_LOSS, reason="BAD_METADATA")

    name = page.KIND_NAMES[kind]
    text = f"The metadata of {name} {what}: its call alone fails, with DATA_LOSS and BAD_METADATA."
    CLIENT_CASES.add(number, text, run)


_broken("5.14", page.RESPONSE, BROKEN, "are cut short")
_broken("5.15", page.END, BESIDE + page.entry(b"region", b"us"), "have a name twice")
_broken("5.16", page.ERROR, MUST, "have a key that must be understood and is not known")
_broken(
    "5.18", page.RESPONSE, page.field(0x80 | page.DROPPED_KEY, page.u32(1)), "have a key that must be understood there"
)
_broken("5.19", page.END, page.field(page.DROPPED_KEY, b"abc"), "have a number of three bytes")


@case("5.17")
def broken_item(trial: Trial) -> None:
    """A stream of which an ITEM has broken metadata fails with DATA_LOSS and BAD_METADATA, and is cancelled."""
    with trial.client(COUNTING, SHORT_CALL) as callee:
        request = callee.request(COUNT)
        payload = callee.payload(CountResponse(number=1))
        callee.send(callee.frame(page.ITEM, payload, to=request, metadata=BROKEN))
        callee.cancelled(request)
        callee.error(request, page.CANCELLED, b"CANCELLED")
        _goes_on(callee, 1)
        callee.failed(status=page.DATA_LOSS, reason="BAD_METADATA")


def _details(trial: Trial, tail: bytes) -> None:
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        more: dict[str, Any] = {"tail": tail}
        callee.error(callee.request(SHORT), page.NOT_FOUND, b"GONE", b"it is gone", **more)
        _goes_on(callee, 1)
        callee.failed(status=page.NOT_FOUND, reason="GONE", message="it is gone")


@case("5.20")
def details_of_nobody(trial: Trial) -> None:
    """Details of a message that the method does not declare leave the error as it is."""
    _details(trial, DETAILS)


@case("5.21")
def details_that_are_broken(trial: Trial) -> None:
    """Details without a name, or with a name that is cut or no UTF-8, and further ones, leave the error as it is."""
    for value in (b"", b"\x00x", b"\x05a", b"\x01\xff"):
        _details(trial, page.field(page.DETAILS_FIELD, value) + page.field(page.DETAILS_FIELD, b"\x01a"))
