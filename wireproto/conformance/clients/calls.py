"""Sections 4 and 9: a client's calls, what they come to, and what it does when the server goes."""

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, cancel, start, wait
from wireproto.conformance.case import Deviation, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import FAIL, SHORT, SLEEP, ShortResponse, SleepResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")
SLEEPING = start("a", "Sleep", milliseconds=30_000)


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
    """16 answers to calls that are not in flight are dropped."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        first = callee.request(SHORT)
        callee.respond(first, ShortResponse(length=5))
        second = callee.request(SHORT)
        stray = callee.response(first, ShortResponse(length=6))
        callee.send(stray * 8, callee.frame(page.ERROR, page.error_body(), to=first) * 8)
        callee.respond(second, ShortResponse(length=7))
        callee.answered(0, length=5)
        callee.answered(1, length=7)


@case("4.06")
def too_many_strays(trial: Trial) -> None:
    """The 17th answer to a call that is not in flight ends the connection as STRAY_ANSWERS."""
    with trial.client(SHORT_CALL, SHORT_CALL) as callee:
        first = callee.request(SHORT)
        callee.respond(first, ShortResponse(length=5))
        callee.request(SHORT)
        callee.send(callee.response(first, ShortResponse(length=6)) * 17)
        callee.ends("STRAY_ANSWERS")
        callee.failed(1)


@case("4.07")
def item_for_unary(trial: Trial) -> None:
    """A unary call that is answered with ITEM is WRONG_ANSWER."""
    with trial.client(SHORT_CALL) as callee:
        callee.item(callee.request(SHORT), ShortResponse(length=5))
        callee.ends("WRONG_ANSWER")
        callee.failed()


@case("4.08")
def end_for_unary(trial: Trial) -> None:
    """A unary call that is answered with END is WRONG_ANSWER."""
    with trial.client(SHORT_CALL) as callee:
        callee.end(callee.request(SHORT))
        callee.ends("WRONG_ANSWER")
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
    with trial.client(SHORT_CALL, heartbeat_ms=200) as callee:
        request = callee.request(SHORT)
        for _ in range(2):
            # Past the kit's own reading, which answers PINGs and does not show them.
            found = callee.peer.receive(trial.slow_patience)
            if isinstance(found, Ending) or found.kind != page.PING or len(found.payload) != 8:
                raise Deviation(f"a PING was due, and there was {found}")
            callee.send(page.frame(page.PONG, found.payload))
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


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
