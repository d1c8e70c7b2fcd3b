"""Sections 4 and 9: a client's calls, what they come to, and what it does when the server goes."""

import time

from wireproto.conformance import page
from wireproto.conformance.callee import (
    CLIENT_CASES,
    UNKNOWN_OPCODE,
    Callee,
    Request,
    Trial,
    call,
    cancel,
    start,
    wait,
)
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import FAIL, SHORT, SLEEP, ShortResponse, SleepResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")
SLEEPING = start("a", "Sleep", milliseconds=30_000)
CHATTER_FOUND = 1.2
"""Seconds after which it must have been found out that there was too much of it."""


def _short(callee: Callee) -> None:
    """One more call, which shows that the connection goes on."""
    callee.respond(callee.request(SHORT), ShortResponse(length=5))


@case("4.01")
def ids(trial: Trial) -> None:
    """Ids lie ahead of each other, and each REQUEST has one of its own."""
    with trial.client(*[SHORT_CALL] * 4) as callee:
        for _ in range(4):
            _short(callee)
        for step in range(4):
            callee.answered(step, length=5)


@case("4.02")
def no_order(trial: Trial) -> None:
    """Calls in flight together may be answered in any order."""
    steps = [start(name, "Short", text=name) for name in ("a", "bb", "ccc")]
    with trial.client(*steps, wait("a"), wait("bb"), wait("ccc")) as callee:
        requests = [callee.request(SHORT) for _ in steps]
        for request in reversed(requests):
            callee.respond(request, ShortResponse(length=len(request.message.text)))
        for number, length in ((3, 1), (4, 2), (5, 3)):
            callee.answered(number, length=length)


@case("4.03")
def cancelled(trial: Trial) -> None:
    """A call that is cancelled is sent CANCEL, once, and its ERROR is dropped; the connection goes on."""
    with trial.client(SLEEPING, cancel("a"), SHORT_CALL) as callee:
        sleeping = callee.request(SLEEP)
        callee.expect(page.CANCEL, sleeping.call_id)
        callee.error(sleeping, 1, b"CANCELLED")
        _short(callee)
        callee.answered(2, length=5)


@case("4.04")
def cancel_crossed(trial: Trial) -> None:
    """An answer that crossed CANCEL is dropped, and is the call's terminal frame."""
    with trial.client(SLEEPING, cancel("a"), SHORT_CALL) as callee:
        sleeping = callee.request(SLEEP)
        callee.expect(page.CANCEL, sleeping.call_id)
        callee.respond(sleeping, SleepResponse())
        _short(callee)
        callee.answered(2, length=5)


@case("4.05")
def strays(trial: Trial) -> None:
    """16 frames of the client's calls that are not in flight are dropped."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        first = callee.request(SHORT)
        callee.respond(first, ShortResponse(length=5))
        second = callee.request(SHORT)
        stray = callee.response(first, ShortResponse(length=6))
        callee.send(stray * 8, callee.frame(page.ERROR, page.error_body(), to=first) * 4)
        callee.send(callee.frame(page.ITEM, to=first), callee.frame(page.END, to=first))
        callee.send(callee.frame(page.CREDIT, page.credit_body(1, 1), to=first), callee.frame(page.CANCEL, to=first))
        callee.respond(second, ShortResponse(length=7))
        callee.answered(0, length=5)
        callee.answered(1, length=7)


@case("4.06")
def too_many_strays(trial: Trial) -> None:
    """The 17th frame of a call of the client's that is not in flight ends the connection as STRAY_ANSWERS."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        first = callee.request(SHORT)
        callee.respond(first, ShortResponse(length=5))
        callee.request(SHORT)
        callee.send(callee.response(first, ShortResponse(length=6)) * 17)
        callee.ends("STRAY_ANSWERS")
        callee.failed(1)


@case("4.07")
def item_for_unary(trial: Trial) -> None:
    """A unary call that is answered with ITEM is WRONG_HALF."""
    with trial.client(SHORT_CALL) as callee:
        callee.item(callee.request(SHORT), ShortResponse(length=5))
        callee.ends("WRONG_HALF")
        callee.failed()


@case("4.08")
def end_for_unary(trial: Trial) -> None:
    """A unary call that is answered with END is WRONG_HALF."""
    with trial.client(SHORT_CALL) as callee:
        callee.end(callee.request(SHORT))
        callee.ends("WRONG_HALF")
        callee.failed()


@case("4.09")
def ping(trial: Trial) -> None:
    """PING is answered with PONG and the same 8 bytes, while a call is in flight."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        for data in (bytes(8), b"\xff" * 8):
            callee.ping(data)
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.10")
def pong_unasked(trial: Trial) -> None:
    """A PONG that nobody asked for is ignored."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        callee.send(page.frame(page.PONG, b"unasked!"))
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.11", over=Over.ONCE, slow=True)
def heartbeat(trial: Trial) -> None:
    """After the heartbeat agreed on, a client that has heard nothing sends a PING, again and again."""
    with trial.client(SHORT_CALL, heartbeat_ms=1000) as callee:
        request = callee.request(SHORT)
        for _ in range(2):
            # Past the kit's own reading, which answers PINGs and does not show them.
            found = callee.peer.receive(trial.slow_patience)
            if isinstance(found, Ending) or found.kind != page.PING or len(found.payload) != 8:
                raise Deviation(f"a PING was due, and there was {found}")
            callee.send(page.frame(page.PONG, found.payload))
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.89", over=Over.ONCE, slow=True)
def silence(trial: Trial) -> None:
    """A server that answers no PING is given up after three heartbeats of silence, and not before."""
    began = time.monotonic()  # before WELCOME, which is what the client hears last
    with trial.client(SHORT_CALL, heartbeat_ms=1000) as callee:
        callee.request(SHORT)
        while not isinstance(found := callee.peer.receive(trial.slow_patience), Ending):
            if found.kind != page.PING and found.kind < 128:
                raise Deviation(f"PINGs and then the end were due, and {page.shown(found)} came")
        waited = time.monotonic() - began
        if found is Ending.SILENCE or waited < 2.9:
            raise Deviation(f"the end was due after 3 s of silence; after {waited:.1f} s there was {found}")
        callee.failed(retry=page.MAYBE_PROCESSED)


def _first(callee: Callee) -> Request:
    return callee.request(SHORT)


@case("4.12")
def goaway(trial: Trial) -> None:
    """Behind GOAWAY calls in flight are answered as before, and the client sends no more REQUESTs on the connection."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        request = _first(callee)
        callee.goaway(request.call_id)
        callee.ping()
        callee.gone()
        callee.respond(request, ShortResponse(length=5))
        callee.closes("the last answer")
        callee.answered(0, length=5)
        callee.failed(1)


@case("4.13")
def goaway_excludes(trial: Trial) -> None:
    """A call behind the one that GOAWAY names was not processed, also when the connection is then lost."""
    with trial.client(start("a", "Short", text="a"), start("b", "Short", text="b"), wait("a"), wait("b")) as callee:
        first = callee.request(SHORT)
        callee.request(SHORT)
        callee.goaway(first.call_id)
        callee.gone()
        callee.peer.end_output()
        callee.failed(2, retry=page.MAYBE_PROCESSED)
        callee.failed(3, retry=page.NOT_PROCESSED)


@case("4.14")
def goaway_twice(trial: Trial) -> None:
    """A second GOAWAY is UNEXPECTED_KIND."""
    with trial.client(SHORT_CALL) as callee:
        request = _first(callee)
        callee.goaway(request.call_id)
        callee.goaway(request.call_id)
        callee.gone()
        callee.ends("UNEXPECTED_KIND")
        callee.failed()


@case("4.15")
def lost(trial: Trial) -> None:
    """A connection that is lost leaves its calls in flight MAYBE_PROCESSED."""
    with trial.client(SHORT_CALL) as callee:
        _first(callee)
        callee.peer.reset()
        callee.failed(retry=page.MAYBE_PROCESSED)


@case("4.16")
def ended(trial: Trial) -> None:
    """An orderly end of the server's output leaves the calls in flight MAYBE_PROCESSED, too."""
    with trial.client(SHORT_CALL) as callee:
        _first(callee)
        callee.peer.end_output()
        callee.closes("an end of input")
        callee.failed(retry=page.MAYBE_PROCESSED)


@case("4.17")
def final_error(trial: Trial) -> None:
    """A final ERROR fails the calls in flight, and the caller is told why; the client answers nothing to it."""
    with trial.client(SHORT_CALL) as callee:
        _first(callee)
        callee.final(14, b"SHUTTING_DOWN", b"the time to drain is over")
        callee.closes("the final ERROR")
        if "SHUTTING_DOWN" not in str(callee.failed()) and "time to drain" not in str(callee.failed()):
            raise Deviation(f"neither reason nor text of the final ERROR is in {callee.failed()}")


# Calls of the server's. A client that takes none says so in HELLO.


def _takes_none(callee: Callee) -> None:
    hello = callee.hello
    assert hello is not None
    if hello.max_calls or hello.one_way_credit or hello.first_credit != page.NOTHING:
        raise NotJudged("the client takes calls of the server's")


FIRST = page.TOP_BIT | 1
"""The id of the first of them."""


@case("4.18")
def a_call_of_the_servers(trial: Trial) -> None:
    """A call of the server's beyond HELLO's max calls is answered TOO_MANY_CALLS, not processed; the others go on."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        request = callee.request(SHORT)
        for flags in (0, page.ITEMS_FOLLOW, page.ITEMS_COME_BACK, page.ITEMS_FOLLOW | page.ITEMS_COME_BACK):
            callee.begin(FIRST + flags, flags)
            callee.refuses(FIRST + flags, "TOO_MANY_CALLS")
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


for _number, _text, _ids in (
    ("4.19", "A REQUEST of the server's whose id has not the top bit is CALL_ID.", [1000]),
    ("4.20", "A REQUEST of the server's whose id is the top bit alone is CALL_ID.", [page.TOP_BIT]),
    (
        "4.21",
        "A REQUEST of the server's whose id lies ahead by 1073741824 is CALL_ID.",
        [FIRST, FIRST + page.FURTHEST + 1],
    ),
    ("4.22", "A REQUEST of the server's whose id is behind the previous one is CALL_ID.", [FIRST + 1, FIRST]),
):

    def _wrong_id(trial: Trial, ids: list[int] = _ids) -> None:
        with trial.client(SHORT_CALL) as callee:
            _takes_none(callee)
            callee.request(SHORT)
            for call_id in ids[:-1]:
                callee.begin(call_id)
                callee.refuses(call_id, "TOO_MANY_CALLS")
            callee.begin(ids[-1])
            callee.ends("CALL_ID")
            callee.failed()

    CLIENT_CASES.add(_number, _text, _wrong_id)


@case("4.23")
def ids_of_the_server(trial: Trial) -> None:
    """Ids of the server's go from 2147483647, with the top bit, on to 1, and lie ahead by 1073741823 at most."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        request = callee.request(SHORT)
        for number in (page.FURTHEST, 2 * page.FURTHEST, page.LAST_NUMBER, 1):
            callee.begin(page.TOP_BIT | number)
            callee.refuses(page.TOP_BIT | number, "TOO_MANY_CALLS")
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.24")
def one_way_of_the_servers(trial: Trial) -> None:
    """A one-way call of the server's beyond HELLO's one-way credit ends the connection as CREDIT_EXCEEDED."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        callee.request(SHORT)
        callee.begin(FIRST, page.ONE_WAY)
        callee.ends("CREDIT_EXCEEDED")
        callee.failed()


@case("4.25")
def calls_behind_goaway(trial: Trial) -> None:
    """A server that has said GOAWAY may begin calls of its own: they are answered as before."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        request = callee.request(SHORT)
        callee.goaway(request.call_id)
        callee.gone()
        callee.begin(FIRST)
        callee.refuses(FIRST, "TOO_MANY_CALLS")
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


def _chatter(callee: Callee, count: int) -> bytes:
    """Frames of an unknown kind, and PONGs that nobody asked for."""
    each = callee.frame(200, b"later"), callee.frame(page.PONG, b"unasked!")
    return b"".join(each[number % 2] for number in range(count))


@case("4.90", over=Over.ONCE, slow=True)
def chatter(trial: Trial) -> None:
    """1000 frames that mean nothing are read over, and 4 more for each other frame that came since."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        callee.send(_chatter(callee, page.MOST_CHATTER))
        for _ in range(3):
            callee.ping()
            callee.send(_chatter(callee, page.CHATTER_PER_FRAME))
        if (found := callee.first(CHATTER_FOUND)) is not Ending.SILENCE:
            raise Deviation(f"chatter within its limit was answered by {found}")
        callee.ping()
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.91", over=Over.CODECS)
def too_much_chatter(trial: Trial) -> None:
    """2000 frames at once that mean nothing end the connection as TOO_MANY_FRAMES."""
    with trial.client(SHORT_CALL) as callee:
        callee.request(SHORT)
        callee.send(_chatter(callee, 2 * page.MOST_CHATTER))
        callee.ends("TOO_MANY_FRAMES")
        callee.failed()


@case("10.03", over=Over.CODECS)
def ping_flood(trial: Trial) -> None:
    """PINGs beyond a client's limit end the connection as TOO_MANY_PINGS; those within it are answered."""
    with trial.client(SHORT_CALL) as callee:
        request = callee.request(SHORT)
        many = 1000
        callee.send(callee.frame(page.PING, bytes(8)) * many)
        for _ in range(many):
            found = callee.read()
            if found.kind != page.PONG:
                callee.judge_end(found, "TOO_MANY_PINGS")
                callee.failed()
                return
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


# What comes of a call of the server's that is not in flight.


def _crossing(callee: Callee, count: int) -> bytes:
    bodies = {page.END: b"", page.CREDIT: page.credit_body(1, 1), page.CANCEL: b""}
    kinds = list(bodies)
    chosen = [kinds[number % len(kinds)] for number in range(count)]
    return b"".join(callee.frame(kind, bodies[kind], call_id=FIRST, opcode=7) for kind in chosen)


@case("4.26", over=Over.CODECS)
def bucket(trial: Trial) -> None:
    """1000 END, CREDIT and CANCEL of the server's calls that are over are dropped, 8 more for each that has ended."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        request = callee.request(SHORT)
        callee.send(_crossing(callee, page.MOST_CROSSED))
        for number in (1, 2):
            callee.begin(FIRST + number)
            callee.refuses(FIRST + number, "TOO_MANY_CALLS")
            callee.send(_crossing(callee, page.REFILL))
        callee.ping()
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@case("4.27", over=Over.CODECS)
def empty_bucket(trial: Trial) -> None:
    """1001 END, CREDIT and CANCEL of the server's calls that are over, while none ends, are TOO_MANY_FRAMES."""
    with trial.client(SHORT_CALL) as callee:
        callee.request(SHORT)
        callee.send(_crossing(callee, page.MOST_CROSSED + 1))
        callee.ends("TOO_MANY_FRAMES")
        callee.failed()


@case("4.28")
def item_of_no_call(trial: Trial) -> None:
    """An ITEM of a call of the server's that is not in flight, and had no credit, ends the connection as
    CREDIT_EXCEEDED."""
    with trial.client(SHORT_CALL) as callee:
        _takes_none(callee)
        callee.request(SHORT)
        callee.begin(FIRST, page.ITEMS_FOLLOW)
        callee.refuses(FIRST, "TOO_MANY_CALLS")
        callee.send(callee.frame(page.ITEM, call_id=FIRST, opcode=UNKNOWN_OPCODE))
        callee.ends("CREDIT_EXCEEDED")
        callee.failed()


@case("4.29")
def answers_of_the_server(trial: Trial) -> None:
    """RESPONSE and ERROR of a call that only the server can begin end the connection as WRONG_HALF."""
    for kind, payload in ((page.RESPONSE, b""), (page.ERROR, page.error_body())):
        with trial.client(SHORT_CALL) as callee:
            callee.request(SHORT)
            callee.send(callee.frame(kind, payload, call_id=FIRST, opcode=7))
            callee.ends("WRONG_HALF")
            callee.failed()


# One-way calls of the client's, of which no method is any.


@case("4.30")
def one_way_credit(trial: Trial) -> None:
    """CREDIT with call id 0 and opcode 0 lets the client begin one-way calls: it is taken, and the calls go on."""
    with trial.client(SHORT_CALL, fields=page.credit_fields(page.CreditBody(16, 65_536), 1)) as callee:
        request = callee.request(SHORT)
        for number in (1, 0xFFFF_FFFD):
            callee.send(callee.frame(page.CREDIT, page.credit_body(number, 0)))
        callee.ping()
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


for _number, _reason, _text, _frames in (
    ("4.31", "BAD_BODY", "CREDIT of one-way calls that grants bytes is BAD_BODY.", [(1, 1)]),
    ("4.32", "CREDIT_OVERFLOW", "One-way credit above 4294967295 is CREDIT_OVERFLOW.", [(1, 0), (0xFFFF_FFFF, 0)]),
):

    def _wrong_credit(trial: Trial, reason: str = _reason, frames: list[tuple[int, int]] = _frames) -> None:
        with trial.client(SHORT_CALL) as callee:
            callee.request(SHORT)
            callee.send(*(callee.frame(page.CREDIT, page.credit_body(*each)) for each in frames))
            callee.ends(reason)
            callee.failed()

    CLIENT_CASES.add(_number, _text, _wrong_credit)


@case("9.01")
def error_of_a_call(trial: Trial) -> None:
    """What an ERROR says, all five fields of it, is what the caller is told; the connection goes on."""
    with trial.client(call("Fail", status=5), SHORT_CALL) as callee:
        callee.error(callee.request(FAIL), 5, b"AS_ASKED", "Zoë".encode(), retry=1, retry_after_ms=1500)
        _short(callee)
        callee.failed(0, status=5, reason="AS_ASKED", message="Zoë", retry=1, retry_after_ms=1500)
        callee.answered(1, length=5)


@case("9.02")
def every_status(trial: Trial) -> None:
    """Each of the sixteen statuses is told apart."""
    with trial.client(*[call("Fail", status=status) for status in range(1, 17)]) as callee:
        for status in range(1, 17):
            callee.error(callee.request(FAIL), status, b"AS_ASKED")
        for status in range(1, 17):
            callee.failed(status - 1, status=status, retry=0)


@case("9.03")
def unknown_reason(trial: Trial) -> None:
    """A reason that nobody has declared, and none at all, are told to the caller as they are."""
    with trial.client(call("Fail", status=2), call("Fail", status=2)) as callee:
        callee.error(callee.request(FAIL), 2, b"NEVER_HEARD_OF_1")
        callee.error(callee.request(FAIL), 2, b"")
        callee.failed(0, reason="NEVER_HEARD_OF_1")
        callee.failed(1, reason="")


@case("9.04")
def longest_message(trial: Trial) -> None:
    """The longest reason and text there are are read."""
    text = ("é" * 1024).encode()
    with trial.client(call("Fail", status=2)) as callee:
        callee.error(callee.request(FAIL), 2, b"R" * 64, text)
        callee.failed(0, reason="R" * 64, message=text.decode())


@case("9.05")
def not_processed(trial: Trial) -> None:
    """TOO_MANY_CALLS fails its call, or the client makes it again; the other calls go on."""
    with trial.client(start("a", "Short", text="a"), start("b", "Short", text="b"), wait("a"), wait("b")) as callee:
        first, second = callee.request(SHORT), callee.request(SHORT)
        callee.error(second, 8, b"TOO_MANY_CALLS", b"too many", retry=page.NOT_PROCESSED)
        callee.respond(first, ShortResponse(length=1))
        callee.answered(2, length=1)
        if "error" in callee.result(3):
            callee.failed(3, reason="TOO_MANY_CALLS", retry=page.NOT_PROCESSED)
