"""Sections 6, 7, 8 and 10: a client's final ERROR, kinds that it may not send, and how connections end."""

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import COUNT, SLEEP, CountRequest, SleepRequest
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case


@case("6.01")
def final_error(bench: Bench) -> None:
    """A client's final ERROR ends the connection: nothing is answered to it, nor to what stands behind it."""
    with bench.open() as caller:
        error = caller.frame(page.ERROR, page.error_body(14, b"GOING", b"bye"), call_id=0, opcode=0)
        caller.send(error + caller.frame(page.PING, bytes(8)))
        caller.closes("a client's final ERROR")


@case("6.02")
def error_with_fields(bench: Bench) -> None:
    """Fields at the end of an ERROR are read over."""
    with bench.open() as caller:
        tail = b"\x01\x00\x03abc\xff\x00\x00"
        caller.send(caller.frame(page.ERROR, page.error_body(2, b"", b"", tail=tail), call_id=0, opcode=0))
        caller.closes("a client's final ERROR")


for _number, _text, _body in (
    ("6.04", "A client's final ERROR with status 17 is read.", page.error_body(17)),
    ("6.05", "A client's final ERROR with retry 3 is read.", page.error_body(14, retry=3)),
    ("6.06", "A client's final ERROR whose reason is not UPPER_SNAKE is read.", page.error_body(14, b"lower")),
    ("6.07", "A client's final ERROR whose reason has 65 characters is read.", page.error_body(14, b"R" * 65)),
):

    def _read_all_the_same(bench: Bench, body: bytes = _body) -> None:
        with bench.open() as caller:
            caller.send(caller.frame(page.ERROR, body, call_id=0, opcode=0))
            caller.closes("a client's final ERROR")

    SERVER_CASES.add(_number, _text, _read_all_the_same)

for _number, _text, _body in (
    ("6.03", "An ERROR with status 0 is BAD_BODY.", page.error_body(0)),
    ("6.08", "An ERROR whose message is not UTF-8 is BAD_BODY.", page.error_body(14, b"R", b"\xff")),
    ("6.09", "An ERROR that ends within its message is BAD_BODY.", page.error_body(14, b"R", b"text")[:-1]),
    (
        "6.10",
        "An ERROR that ends within a field is BAD_BODY.",
        page.error_body(14, b"R", b"text", tail=b"\x01\x00\x05a"),
    ),
    ("6.11", "An empty ERROR is BAD_BODY.", b""),
):

    def _bad_body(bench: Bench, body: bytes = _body) -> None:
        with bench.open() as caller:
            caller.send(caller.frame(page.ERROR, body, call_id=0, opcode=0))
            caller.ends("BAD_BODY")

    SERVER_CASES.add(_number, _text, _bad_body)

for _number, _text, _body in (
    ("6.12", "A GOAWAY of 3 bytes is BAD_BODY.", bytes(3)),
    ("6.13", "A GOAWAY whose error breaks its layout is BAD_BODY.", page.goaway_body(0, page.error_body(0))),
):

    def _bad_goaway(bench: Bench, body: bytes = _body) -> None:
        with bench.open() as caller:
            caller.send(caller.frame(page.GOAWAY, body))
            caller.ends("BAD_BODY")

    SERVER_CASES.add(_number, _text, _bad_goaway)


@case("7.01")
def welcome(bench: Bench) -> None:
    """WELCOME from a client is UNEXPECTED_KIND."""
    with bench.open() as caller:
        caller.send(caller.frame(page.WELCOME, bytes(23)))
        caller.ends("UNEXPECTED_KIND")


GOAWAY = page.goaway_body(0, page.error_body(14, b"SHUTTING_DOWN"))


@case("7.02")
def goaway(bench: Bench) -> None:
    """GOAWAY from a client is about calls of the server's: its own go on, and it may begin more."""
    with bench.open() as caller:
        caller.send(caller.frame(page.GOAWAY, GOAWAY))
        caller.ping()
        for _ in range(3):
            caller.alive()


@case("7.03")
def goaway_twice(bench: Bench) -> None:
    """A second GOAWAY from a client is UNEXPECTED_KIND."""
    with bench.open() as caller:
        caller.send(caller.frame(page.GOAWAY, GOAWAY) * 2)
        caller.ends("UNEXPECTED_KIND")


@case("8.01")
def orderly_end(bench: Bench) -> None:
    """An end of input between frames is an orderly end: the server closes and says nothing."""
    with bench.open() as caller:
        caller.alive()
        caller.peer.end_output()
        caller.closes("the client's end of input")


@case("8.02")
def end_within_a_frame(bench: Bench) -> None:
    """An end of input within a frame is TRUNCATED_FRAME."""
    with bench.open() as caller:
        caller.send(caller.frame(page.REQUEST, b"payload")[:-1])
        caller.peer.end_output()
        caller.ends("TRUNCATED_FRAME")


@case("8.03")
def end_within_a_header(bench: Bench) -> None:
    """An end of input within a frame's length is TRUNCATED_FRAME."""
    with bench.open() as caller:
        caller.send(b"\x00\x00")
        caller.peer.end_output()
        caller.ends("TRUNCATED_FRAME")


@case("8.04", needs=Needs.SERVICE)
def half_close_is_answered(bench: Bench) -> None:
    """Behind a client's end of input the unary calls in flight are answered, and then the server closes."""
    with bench.open() as caller:
        slow = caller.request(SLEEP, SleepRequest(milliseconds=100))
        quick = caller.request(ECHO, EchoRequest(payload=b"x"))
        caller.peer.end_output()
        caller.response(ECHO, quick)
        caller.response(SLEEP, slow)
        caller.closes("the last answer")


def _items_behind_the_end(bench: Bench, items: int, credit: int) -> tuple[Caller, int]:
    """A stream whose client has ended its output, and all the items that it has credit for."""
    caller = bench.open()
    try:
        call_id = caller.request(COUNT, CountRequest(items=items), credit=credit)
        caller.peer.end_output()
        for number in range(credit):
            if caller.item(COUNT, call_id).number != number:
                raise Deviation(f"item {number} was due")
    except BaseException:
        caller.__exit__()
        raise
    return caller, call_id


@case("8.05", needs=Needs.SERVICE)
def half_close_without_credit(bench: Bench) -> None:
    """Behind a client's end of input a stream goes on while it has credit; with more to send it is then CANCELLED."""
    for credit in (0, 1, 20):
        caller, call_id = _items_behind_the_end(bench, 1 << 40, credit)
        with caller:
            caller.error(call_id, "CANCELLED")
            caller.closes("the last answer")


@case("8.11", needs=Needs.SERVICE)
def half_close_at_the_end(bench: Bench) -> None:
    """Behind a client's end of input a stream that is at its end when its credit is used up ends with END."""
    for items in (0, 1, 20):
        caller, call_id = _items_behind_the_end(bench, items, items)
        with caller:
            caller.expect(page.END, call_id)
            caller.closes("the last answer")


@case("8.12", over=Over.ONCE, needs=Needs.SERVICE)
def half_close_says_nothing_else(bench: Bench) -> None:
    """Behind a client's end of input the server sends what is answered, and no PING, whatever the heartbeat."""
    try:
        _no_ping_behind_the_end(bench, 100)
    except Deviation:
        # On a slow machine the end may have come later than the first PING was due.
        _no_ping_behind_the_end(bench, 1500)


def _no_ping_behind_the_end(bench: Bench, heartbeat: int) -> None:
    with bench.open(heartbeat_ms=heartbeat) as caller:
        slow = caller.request(SLEEP, SleepRequest(milliseconds=3 * heartbeat))
        caller.peer.end_output()
        # Past the kit's own reading, which answers PINGs and does not show them.
        found = caller.peer.receive(3 * heartbeat / 1000 + bench.patience)
        if not isinstance(found, page.RawFrame) or (found.kind, found.call_id) != (page.RESPONSE, slow):
            raise Deviation(f"RESPONSE of call {slow} was due, and there was {found}")


@case("8.06", over=Over.CODECS)
def reason_is_not_lost(bench: Bench) -> None:
    """The final ERROR reaches a client that goes on sending: what it still sends is read and dropped for a while."""
    with bench.open() as caller:
        caller.send(caller.frame(page.PING, bytes(8), flags=1), *(bytes(8192) for _ in range(12)))
        caller.ends("RESERVED_FLAGS")


@case("8.07")
def nothing_after_the_end(bench: Bench) -> None:
    """Nothing is answered behind the server's final ERROR."""
    with bench.open() as caller:
        _, request = caller.request_frame(ECHO, EchoRequest(payload=b"x"))
        caller.send(caller.frame(page.PING, bytes(7)) + request + caller.frame(page.PING, bytes(8)))
        caller.ends("BAD_BODY")


@case("8.08", needs=Needs.SERVICE)
def calls_are_dropped(bench: Bench) -> None:
    """A wrong header ends the connection with its reason also while calls are in flight."""
    with bench.open() as caller:
        caller.request(SLEEP, SleepRequest(milliseconds=30_000))
        caller.request(COUNT, CountRequest(items=1 << 40))
        caller.send(caller.frame(13))
        caller.ends("UNKNOWN_KIND")


@case("8.09")
def bad_payload_is_survived(bench: Bench) -> None:
    """A payload that is wrong fails its call, and the connection and its other calls go on."""
    with bench.open() as caller:
        for _ in range(3):
            caller.fail(ECHO, b"\xff\xff\xff", "BAD_PAYLOAD")


@case("8.10", over=Over.ONCE)
def others_live(bench: Bench) -> None:
    """The end of one connection is not the end of another, whether it was reset, closed or wrong."""
    with bench.open() as other:
        with bench.open() as wrong:
            wrong.send(wrong.frame(13))
            wrong.ends("UNKNOWN_KIND")
        reset = bench.open()
        reset.send(reset.frame(page.REQUEST, bytes(100), length=5000))
        reset.peer.reset()
        other.alive()


@case("10.01", over=Over.ONCE, slow=True)
def frame_timeout(bench: Bench) -> None:
    """A frame that was begun and is not whole in time is FRAME_TIMEOUT, however often a byte of it comes."""
    with bench.open() as caller:
        caller.send(caller.frame(page.REQUEST, length=2000))
        caller.ends("FRAME_TIMEOUT", bench.slow_patience, meanwhile=lambda: caller.send(b"x"))


@case("10.02", over=Over.ONCE, slow=True)
def dripped_hello(bench: Bench) -> None:
    """A HELLO that is not whole in time is HELLO_TIMEOUT, however often a byte of it comes."""
    data = page.PREAMBLE + page.frame(page.HELLO, bench.hello(fields=page.tlv(99, bytes(1000))))
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(data[:10])
        rest = iter(data[10:])
        caller.ends("HELLO_TIMEOUT", bench.slow_patience, meanwhile=lambda: caller.send(bytes([next(rest)])))


@case("10.03", over=Over.CODECS)
def ping_flood(bench: Bench) -> None:
    """PINGs beyond a server's limit end the connection as TOO_MANY_PINGS; those within it are answered."""
    with bench.open() as caller:
        many = 3000
        caller.send(caller.frame(page.PING, bytes(8)) * many)
        for _ in range(many):
            found = caller.read()
            if found.kind != page.PONG:
                error = page.read_error(found.payload)
                if found.call_id or (error.reason, error.status) != ("TOO_MANY_PINGS", page.RESOURCE_EXHAUSTED):
                    raise Deviation(f"a flood of PINGs was answered {page.shown(found)}")
                caller.closes("TOO_MANY_PINGS")
                return
