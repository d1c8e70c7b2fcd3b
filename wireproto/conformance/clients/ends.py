"""Sections 6, 8 and 14: bodies, how connections end, and what may be added."""

from wireproto.conformance import page
from wireproto.conformance.case import Deviation, Over
from wireproto.conformance.host import CLIENT_CASES, Trial, call, close
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
        with trial.client(call("Fail", status=2)) as host:
            request = host.request(FAIL)
            host.send(host.frame(page.ERROR, body, to=request))
            host.ends("BAD_BODY")
            host.failed()

    CLIENT_CASES.add(_number, _text, _bad_body)


@case("6.10")
def error_with_fields(trial: Trial) -> None:
    """Fields at the end of an ERROR are read over."""
    with trial.client(call("Fail", status=2)) as host:
        host.error(host.request(FAIL), 2, b"AS_ASKED", b"text", tail=b"\x01\x00\x03abc\xff\x00\x00")
        host.failed(status=2, reason="AS_ASKED", message="text")


@case("8.01")
def orderly_end(trial: Trial) -> None:
    """A client that closes ends its output between two frames, without an ERROR."""
    with trial.client(SHORT_CALL, close()) as host:
        host.respond(host.request(SHORT), ShortResponse(length=5))
        host.closes("the last answer")
        host.answered(length=5)


@case("8.02")
def end_within_a_frame(trial: Trial) -> None:
    """An end of input within a frame is TRUNCATED_FRAME, and fails the calls in flight."""
    with trial.client(SHORT_CALL) as host:
        data = host.response(host.request(SHORT), ShortResponse(length=5))
        host.send(data[:-1])
        host.peer.end_output()
        host.ends("TRUNCATED_FRAME")
        host.failed()


@case("8.03")
def bad_payload(trial: Trial) -> None:
    """An answer that is no message of its method fails its call, and the connection goes on."""
    with trial.client(SHORT_CALL, SHORT_CALL) as host:
        host.respond(host.request(SHORT), b"\xff\xff\xff")
        host.respond(host.request(SHORT), ShortResponse(length=5))
        host.failed(0)
        host.answered(1, length=5)


@case("8.04", over=Over.CODECS)
def nothing_after_the_end(trial: Trial) -> None:
    """Nothing is answered behind the client's final ERROR, and what still comes is dropped."""
    with trial.client(SHORT_CALL) as host:
        request = host.request(SHORT)
        wrong = host.frame(page.PING, bytes(7))
        host.send(wrong + host.response(request, ShortResponse(length=5)) + host.frame(page.PING, bytes(8)))
        host.ends("BAD_BODY")
        host.failed()


@case("8.05", over=Over.CODECS)
def reason_is_read(trial: Trial) -> None:
    """A client whose connection is closed behind a final ERROR has read it, although it was about to send."""
    with trial.client(SHORT_CALL, SHORT_CALL) as host:
        request = host.request(SHORT)
        host.send(host.response(request, ShortResponse(length=5)) + host.frame(page.ERROR, page.error_body(8, b"FULL")))
        host.peer.end_output()
        while not isinstance(found := host.first(), Ending):
            if found.kind != page.REQUEST:
                raise Deviation(f"{page.shown(found)} came behind a final ERROR")
        host.answered(0, length=5)
        host.failed(1)


@case("14.01")
def grease(trial: Trial) -> None:
    """A server of a later day, with fields and kinds unknown here, is spoken with."""
    with trial.client(SHORT_CALL, call("Fail", status=2), fields=page.tlv(0x8001, b"later")) as host:
        request = host.request(SHORT)
        host.send(host.frame(0xC1, b"later", opcode=0, call_id=0))
        host.respond(request, ShortResponse(length=5))
        host.error(host.request(FAIL), 2, b"LATER", b"", tail=b"\x63\x00\x01x")
        host.answered(0, length=5)
        host.failed(1, reason="LATER")
