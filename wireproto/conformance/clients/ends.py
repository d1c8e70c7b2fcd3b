"""Sections 6, 8 and 14: bodies, how connections end, and what may be added."""

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Trial, call, close
from wireproto.conformance.case import Deviation, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import FAIL, SHORT, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


for _number, _text, _body in (
    ("6.01", "An ERROR with status 0 is BAD_BODY.", page.error_body(0)),
    ("6.02", "An ERROR with status 17 is BAD_BODY.", page.error_body(17)),
    ("6.03", "An ERROR with retry 3 is BAD_BODY.", page.error_body(14, retry=3)),
    ("6.04", "An ERROR whose reason is not UPPER_SNAKE is BAD_BODY.", page.error_body(14, b"lower")),
    ("6.05", "An ERROR whose reason has 65 characters is BAD_BODY.", page.error_body(14, b"R" * 65)),
    ("6.06", "An ERROR whose message is not UTF-8 is BAD_BODY.", page.error_body(14, b"R", b"\xff")),
    ("6.07", "An ERROR that ends within its message is BAD_BODY.", page.error_body(14, b"R", b"text")[:-1]),
    ("6.08", "An ERROR that ends within a field is BAD_BODY.", page.error_body(14, b"R", b"t", tail=b"\x01\x00\x05a")),
    ("6.09", "An empty ERROR is BAD_BODY.", b""),
):

    def _bad_body(trial: Trial, body: bytes = _body) -> None:
        with trial.client(call("Fail", status=2)) as callee:
            request = callee.request(FAIL)
            callee.send(callee.frame(page.ERROR, body, to=request))
            callee.ends("BAD_BODY")
            callee.failed()

    CLIENT_CASES.add(_number, _text, _bad_body)


@case("6.10")
def error_with_fields(trial: Trial) -> None:
    """Fields at the end of an ERROR are read over."""
    with trial.client(call("Fail", status=2)) as callee:
        callee.error(callee.request(FAIL), 2, b"AS_ASKED", b"text", tail=b"\x01\x00\x03abc\xff\x00\x00")
        callee.failed(status=2, reason="AS_ASKED", message="text")


@case("8.01")
def orderly_end(trial: Trial) -> None:
    """A client that closes ends its output between two frames, without an ERROR."""
    with trial.client(SHORT_CALL, close()) as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.closes("the last answer")
        callee.answered(length=5)


@case("8.02")
def end_within_a_frame(trial: Trial) -> None:
    """An end of input within a frame is TRUNCATED_FRAME, and fails the calls in flight."""
    with trial.client(SHORT_CALL) as callee:
        data = callee.response(callee.request(SHORT), ShortResponse(length=5))
        callee.send(data[:-1])
        callee.peer.end_output()
        callee.ends("TRUNCATED_FRAME")
        callee.failed()


@case("8.03")
def bad_payload(trial: Trial) -> None:
    """An answer that is no message of its method fails its call, and the connection goes on."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        callee.respond(callee.request(SHORT), b"\xff\xff\xff")
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.failed(0)
        callee.answered(1, length=5)


@case("8.04", over=Over.CODECS)
def nothing_after_the_end(trial: Trial) -> None:
    """Nothing is answered behind the client's final ERROR, and what still comes is dropped."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        wrong = callee.frame(page.PING, bytes(7))
        callee.send(wrong + callee.response(request, ShortResponse(length=5)) + callee.frame(page.PING, bytes(8)))
        callee.ends("BAD_BODY")
        callee.failed()


@case("8.05", over=Over.CODECS)
def reason_is_read(trial: Trial) -> None:
    """A client whose connection is closed behind a final ERROR has read it, although it was about to send."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        request = callee.request(SHORT)
        callee.send(
            callee.response(request, ShortResponse(length=5)) + callee.frame(page.ERROR, page.error_body(8, b"FULL"))
        )
        callee.peer.end_output()
        while not isinstance(found := callee.first(), Ending):
            if found.kind != page.REQUEST:
                raise Deviation(f"{page.shown(found)} came behind a final ERROR")
        callee.answered(0, length=5)
        callee.failed(1)


@case("14.01")
def grease(trial: Trial) -> None:
    """A server of a later day, with fields and kinds unknown here, is spoken with."""
    with trial.client(SHORT_CALL, call("Fail", status=2), fields=page.tlv(0x8001, b"later")) as callee:
        request = callee.request(SHORT)
        callee.send(callee.frame(0xC1, b"later", opcode=0, call_id=0))
        callee.respond(request, ShortResponse(length=5))
        callee.error(callee.request(FAIL), 2, b"LATER", b"", tail=b"\x63\x00\x01x")
        callee.answered(0, length=5)
        callee.failed(1, reason="LATER")
