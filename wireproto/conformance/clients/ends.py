"""Sections 6, 8 and 14: bodies, how connections end, and what may be added."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Trial, call, close
from wireproto.conformance.case import Deviation, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import FAIL, SHORT, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


for _number, _text, _body in (
    ("6.01", "An ERROR with status 0 is BAD_BODY.", page.error_body(0)),
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


for _number, _text, _body, _due in (
    ("6.02", "An ERROR with status 17 fails its call with UNKNOWN.", page.error_body(17), {"status": 2}),
    ("6.03", "An ERROR with retry 3 fails its call with NEVER.", page.error_body(14, retry=3), {"retry": 0}),
    ("6.04", "A reason that is not UPPER_SNAKE is read as none.", page.error_body(14, b"lower"), {"reason": ""}),
    ("6.05", "A reason of 65 characters is read as none.", page.error_body(14, b"R" * 65), {"reason": ""}),
    ("6.11", "A reason that is not UTF-8 is read as none.", page.error_body(14, b"\xff"), {"reason": ""}),
):

    def _read_all_the_same(trial: Trial, body: bytes = _body, due: dict[str, Any] = _due) -> None:
        with trial.client(call("Fail", status=2), call("Fail", status=2)) as callee:
            callee.send(callee.frame(page.ERROR, body, to=callee.request(FAIL)))
            callee.error(callee.request(FAIL), 10, b"AS_ASKED")
            callee.failed(0, **due)
            callee.failed(1, status=10, reason="AS_ASKED")

    CLIENT_CASES.add(_number, _text, _read_all_the_same)


@case("6.12")
def reason_in_the_message(trial: Trial) -> None:
    """The bytes of a reason outside its alphabet stand in the message, behind what the ERROR says."""
    with trial.client(call("Fail", status=2)) as callee:
        callee.error(callee.request(FAIL), 2, b"not-upper", b"a text")
        message = callee.failed(status=2, reason="")["message"]
        if not message.startswith("a text") or "not-upper" not in message:
            raise Deviation(f"the message is {message!r}; 'a text' was sent, and the reason 'not-upper'")


@case("6.13")
def unknown_final_error(trial: Trial) -> None:
    """A final ERROR with an unknown status, retry and reason is final all the same, and is not answered."""
    with trial.client(SHORT_CALL) as callee:
        callee.request(SHORT)
        callee.send(callee.frame(page.ERROR, page.error_body(99, b"x-later", b"good bye", retry=9)))
        callee.closes("the final ERROR")
        if "good bye" not in str(callee.failed()):
            raise Deviation(f"the text of the final ERROR is not in {callee.failed()}")


@case("6.14")
def unknown_goaway(trial: Trial) -> None:
    """A GOAWAY with an unknown status, retry and reason is one: the call that it names goes on."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        why = page.error_body(99, b"x-later", b"", retry=9)
        callee.send(callee.frame(page.GOAWAY, page.goaway_body(request.call_id, why)))
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


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
    with trial.client(SHORT_CALL, call("Fail", status=2), fields=page.tlv(0x7FFF, b"later")) as callee:
        request = callee.request(SHORT)
        callee.send(callee.frame(0x81, b"later", opcode=0, call_id=0))
        callee.respond(request, ShortResponse(length=5))
        callee.error(callee.request(FAIL), 2, b"LATER", b"", tail=b"\x63\x00\x01x")
        callee.answered(0, length=5)
        callee.failed(1, reason="LATER")


@case("14.02")
def private_numbers(trial: Trial) -> None:
    """A server with an extension of its own, unknown here, is spoken with, and its reason is told as it is."""
    fields = page.tlv(0x8000, b"\x04mine") + page.tlv(0xFEFF, b"\x04mine!")
    with trial.client(SHORT_CALL, call("Fail", status=2), fields=fields) as callee:
        request = callee.request(SHORT)
        for kind in (0xC0, 0xEF):
            callee.send(callee.frame(kind, b"mine", opcode=0, call_id=0))
        callee.respond(request, ShortResponse(length=5))
        callee.error(callee.request(FAIL), 14, b"X_MINE", b"text", tail=b"\xc0\x00\x04mine\xef\x00\x00")
        callee.answered(0, length=5)
        callee.failed(1, status=14, reason="X_MINE", message="text")
