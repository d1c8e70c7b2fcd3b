"""Section 4: ids, unary calls, cancelling, deadlines, too many calls, signs of life."""

import time

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import COUNT, SLEEP, CountRequest, SleepRequest
from wireproto.control import CHECK, ECHO, CheckRequest, EchoRequest

case = SERVER_CASES.case

LONG = 30_000
"""Milliseconds: a call that is still in flight when the case is over."""

CHATTER_FOUND = 1.2
"""Seconds after which it must have been found out that there was too much of it."""

MOST_CALLS = 2048
"""A server that accepts more calls in flight is not made to run that many."""


def _echo(caller: Caller, call_id: int) -> None:
    caller.call(ECHO, EchoRequest(payload=b"x"), call_id=call_id)


def _refused_id(caller: Caller, call_id: int) -> None:
    caller.send(caller.frame(page.REQUEST, caller.payload(EchoRequest(payload=b"x")), call_id=call_id))
    caller.ends("CALL_ID")


@case("4.01")
def ids_in_order(bench: Bench) -> None:
    """Ids 1, 2, 3 and so on are accepted."""
    with bench.open() as caller:
        for call_id in range(1, 6):
            _echo(caller, call_id)


@case("4.02")
def ids_with_gaps(bench: Bench) -> None:
    """An id may lie ahead of the previous one by any number up to 1073741823."""
    with bench.open() as caller:
        for call_id in (7, 100, 65536, 65536 + page.FURTHEST):
            _echo(caller, call_id)


@case("4.03")
def first_id(bench: Bench) -> None:
    """Before the first REQUEST the previous id counts as 0: the first may be 1073741823."""
    with bench.open() as caller:
        _echo(caller, page.FURTHEST)


@case("4.04")
def first_id_too_far(bench: Bench) -> None:
    """A first id of 1073741824 is CALL_ID."""
    with bench.open() as caller:
        _refused_id(caller, page.FURTHEST + 1)


@case("4.05")
def id_too_far(bench: Bench) -> None:
    """An id that lies ahead by 1073741824 is CALL_ID."""
    with bench.open() as caller:
        _echo(caller, 5)
        _refused_id(caller, 5 + page.FURTHEST + 1)


@case("4.06")
def id_again(bench: Bench) -> None:
    """The id of the previous REQUEST, whose call is over, is CALL_ID."""
    with bench.open() as caller:
        _echo(caller, 1)
        _refused_id(caller, 1)


@case("4.07")
def id_behind(bench: Bench) -> None:
    """An id behind the previous one is CALL_ID."""
    with bench.open() as caller:
        _echo(caller, 9)
        _refused_id(caller, 8)


@case("4.08")
def ids_wrap(bench: Bench) -> None:
    """Behind 2147483647 ids go on with 1, and those of calls that are over are free again."""
    with bench.open() as caller:
        for call_id in (1, 1 + page.FURTHEST, page.LAST_NUMBER, 1, 2):
            _echo(caller, call_id)


@case("4.32")
def ids_across_the_end(bench: Bench) -> None:
    """Across 2147483647 an id may lie ahead by as much as elsewhere, and not by more."""
    with bench.open() as caller:
        for call_id in (page.FURTHEST, page.LAST_NUMBER - 5, page.FURTHEST - 6):
            _echo(caller, call_id)
    with bench.open() as caller:
        for call_id in (page.FURTHEST, page.LAST_NUMBER - 5):
            _echo(caller, call_id)
        _refused_id(caller, page.FURTHEST - 5)


@case("4.33")
def id_of_the_server(bench: Bench) -> None:
    """A REQUEST of a client whose id has the top bit, which the server's have, is CALL_ID."""
    with bench.open() as caller:
        _refused_id(caller, page.TOP_BIT | 1)


@case("4.34")
def top_bit_alone(bench: Bench) -> None:
    """The top bit alone is no id: CALL_ID."""
    with bench.open() as caller:
        _refused_id(caller, page.TOP_BIT)


@case("4.09", needs=Needs.SERVICE)
def id_in_flight(bench: Bench) -> None:
    """An id that lies ahead and is in flight is CALL_ID."""
    with bench.open() as caller:
        caller.request(SLEEP, SleepRequest(milliseconds=LONG), call_id=1)
        for call_id in (1 + page.FURTHEST, page.LAST_NUMBER):
            _echo(caller, call_id)
        _refused_id(caller, 1)


@case("4.10", needs=Needs.SERVICE)
def no_order(bench: Bench) -> None:
    """A call that takes its time does not hold up the ones behind it."""
    with bench.open() as caller:
        slow = caller.request(SLEEP, SleepRequest(milliseconds=LONG))
        for _ in range(3):
            caller.alive()
        caller.cancel(slow)
        caller.error(slow, "CANCELLED")


@case("4.11")
def pipelined(bench: Bench) -> None:
    """Calls in flight together are all answered, each with what is its own."""
    with bench.open() as caller:
        assert caller.welcome is not None
        many = min(64, caller.welcome.max_calls)
        due = {caller.request(ECHO, EchoRequest(payload=bytes([n]))): bytes([n]) for n in range(many)}
        seen = {}
        for _ in due:
            found = caller.read()
            if found.kind != page.RESPONSE:
                raise Deviation(f"one of {many} calls in flight together was answered {page.shown(found)}")
            seen[found.call_id] = caller.decode(ECHO, found.payload).payload
        if seen != due:
            raise Deviation("answers were exchanged between calls")


@case("4.12", needs=Needs.SERVICE)
def cancel_unary(bench: Bench) -> None:
    """A call in flight that is cancelled is answered ERROR, CANCELLED, long before its answer would be there."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=LONG))
        caller.cancel(call_id)
        caller.error(call_id, "CANCELLED")
        caller.alive()


@case("4.13")
def cancel_crossed(bench: Bench) -> None:
    """CANCEL of a call that is over has crossed its answer, and is dropped, whatever its opcode."""
    with bench.open() as caller:
        call_id = caller.request(CHECK, CheckRequest())
        caller.response(CHECK, call_id)
        caller.send(caller.frame(page.CANCEL, opcode=CHECK.opcode, call_id=call_id))
        caller.send(caller.frame(page.CANCEL, opcode=0x1234, call_id=call_id))
        caller.alive()


@case("4.14")
def cancel_unknown(bench: Bench) -> None:
    """CANCEL of a call that never was is dropped, also of one that lies far ahead."""
    with bench.open() as caller:
        for call_id in (4711, page.FURTHEST + 4711, page.LAST_NUMBER):
            caller.send(caller.frame(page.CANCEL, call_id=call_id))
        caller.alive()


@case("4.15", needs=Needs.SERVICE)
def cancel_wrong_opcode(bench: Bench) -> None:
    """CANCEL of a call in flight with another opcode is WRONG_OPCODE."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=LONG))
        caller.send(caller.frame(page.CANCEL, opcode=SLEEP.opcode + 1, call_id=call_id))
        caller.ends("WRONG_OPCODE")


@case("4.16")
def cancel_with_payload(bench: Bench) -> None:
    """CANCEL with a payload is BAD_BODY, also when its call is not in flight."""
    with bench.open() as caller:
        caller.send(caller.frame(page.CANCEL, b"\0"))
        caller.ends("BAD_BODY")


@case("4.17", needs=Needs.SERVICE)
def cancel_is_final(bench: Bench) -> None:
    """A cancelled call has exactly one terminal frame, also when it would have been answered soon after."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=20))
        caller.cancel(call_id)
        found = caller.read()
        if found.call_id != call_id:
            raise Deviation(f"{page.shown(found)} came")
        # Longer than the call would have taken; a second answer would come to a call that is not in flight.
        after = caller.request(SLEEP, SleepRequest(milliseconds=60))
        caller.response(SLEEP, after)
        caller.alive()


@case("4.35", needs=Needs.SERVICE)
def behind_cancel(bench: Bench) -> None:
    """Behind CANCEL nothing more is sent: another CANCEL is WRONG_HALF, or dropped where the call is over by then."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=LONG))
        caller.send(caller.frame(page.CANCEL, opcode=SLEEP.opcode, call_id=call_id) * 2)
        _over_or_wrong_half(caller, call_id)


@case("4.36", needs=Needs.SERVICE)
def credit_behind_cancel(bench: Bench) -> None:
    """Behind CANCEL nothing more is sent: CREDIT is WRONG_HALF, or dropped where the call is over by then."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=1))
        cancel = caller.frame(page.CANCEL, opcode=COUNT.opcode, call_id=call_id)
        caller.send(cancel + caller.frame(page.CREDIT, page.credit_body(1, 1), opcode=COUNT.opcode, call_id=call_id))
        _over_or_wrong_half(caller, call_id)


def _over_or_wrong_half(caller: Caller, call_id: int) -> None:
    """What came behind CANCEL found the call in flight still, or over: which of them is the server's affair."""
    found = caller.read()
    if not found.call_id:
        caller.judge_end(found, "WRONG_HALF")
        return
    error = page.read_error(found.payload)
    if (found.kind, found.call_id, error.reason) != (page.ERROR, call_id, "CANCELLED"):
        raise Deviation(f"ERROR with CANCELLED was due, and {page.shown(found)} came")
    caller.alive()


@case("4.18", needs=Needs.SERVICE)
def deadline_passes(bench: Bench) -> None:
    """A call whose deadline passes is answered ERROR, DEADLINE."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=LONG), page.field(1, page.u32(30)))
        caller.error(call_id, "DEADLINE")
        caller.alive()


@case("4.19")
def deadline_passed(bench: Bench) -> None:
    """A call with a deadline of 0 ms is answered ERROR, DEADLINE, not processed."""
    with bench.open() as caller:
        caller.fail(ECHO, EchoRequest(payload=b"x"), "DEADLINE", page.field(1, page.u32(0)), retry=page.NOT_PROCESSED)


@case("4.20")
def deadline_far(bench: Bench) -> None:
    """A deadline that has not passed changes nothing, up to the greatest there is."""
    with bench.open() as caller:
        for milliseconds in (60_000, 0xFFFF_FFFF):
            caller.call(ECHO, EchoRequest(payload=b"x"), page.field(1, page.u32(milliseconds)))


def _fill(caller: Caller) -> list[int]:
    """As many sleeping calls as the server accepts."""
    assert caller.welcome is not None
    most = caller.welcome.max_calls
    if most > MOST_CALLS:
        raise NotJudged(f"the server accepts {most} calls in flight")
    frames = [caller.request_frame(SLEEP, SleepRequest(milliseconds=LONG)) for _ in range(most)]
    caller.send(b"".join(data for _, data in frames))
    return [call_id for call_id, _ in frames]


@case("4.21", over=Over.CODECS, needs=Needs.SERVICE)
def too_many(bench: Bench) -> None:
    """A REQUEST beyond WELCOME's max calls is answered TOO_MANY_CALLS, not processed; the others go on."""
    with bench.open() as caller:
        running = _fill(caller)
        for _ in range(3):
            call_id = caller.request(ECHO, EchoRequest(payload=b"x"))
            caller.error(call_id, "TOO_MANY_CALLS", retry=page.NOT_PROCESSED)
        for call_id in running[:2]:
            caller.cancel(call_id)
            caller.error(call_id, "CANCELLED")
        caller.alive()


@case("4.22", over=Over.CODECS, needs=Needs.SERVICE)
def control_at_the_cap(bench: Bench) -> None:
    """With as many calls in flight as there may be PING is answered at once."""
    with bench.open() as caller:
        _fill(caller)
        caller.ping()


@case("4.23")
def ping(bench: Bench) -> None:
    """PING is answered with PONG and the same 8 bytes."""
    with bench.open() as caller:
        for data in (bytes(8), b"\xff" * 8, b"12345678"):
            caller.ping(data)
        caller.alive()


@case("4.24", needs=Needs.SERVICE)
def ping_while_busy(bench: Bench) -> None:
    """PING is answered at once, also while calls are in flight."""
    with bench.open() as caller:
        caller.request(SLEEP, SleepRequest(milliseconds=LONG))
        caller.ping()


@case("4.25")
def pong_unasked(bench: Bench) -> None:
    """A PONG that nobody asked for is ignored."""
    with bench.open() as caller:
        caller.send(caller.frame(page.PONG, b"unasked!"))
        caller.alive()


for _number, _kind, _size in (
    ("4.26", page.PING, 7),
    ("4.27", page.PING, 9),
    ("4.28", page.PING, 0),
    ("4.29", page.PONG, 7),
):

    def _run(bench: Bench, kind: int = _kind, size: int = _size) -> None:
        with bench.open() as caller:
            caller.send(caller.frame(kind, bytes(size)))
            caller.ends("BAD_BODY")

    SERVER_CASES.add(_number, f"A {page.KIND_NAMES[_kind]} of {_size} bytes is BAD_BODY.", _run)


@case("4.30", over=Over.ONCE, slow=True)
def heartbeat(bench: Bench) -> None:
    """After the heartbeat agreed on, a server that has heard nothing sends a PING, again and again."""
    with bench.open(heartbeat_ms=1000) as caller:
        for _ in range(2):
            # Past the kit's own reading, which answers PINGs and does not show them.
            found = caller.peer.receive(bench.slow_patience)
            if isinstance(found, Ending) or found.kind != page.PING or len(found.payload) != 8:
                raise Deviation(f"a PING was due, and there was {found}")


@case("4.135", over=Over.ONCE, slow=True)
def silence(bench: Bench) -> None:
    """A client that answers no PING is given up after three heartbeats of silence, and not before."""
    began = time.monotonic()  # before HELLO, which is what the server hears last
    with bench.open(heartbeat_ms=1000) as caller:
        while not isinstance(found := caller.peer.receive(bench.slow_patience), Ending):
            if found.kind != page.PING and found.kind < 128:
                raise Deviation(f"PINGs and then the end were due, and {page.shown(found)} came")
        waited = time.monotonic() - began
        if found is Ending.SILENCE or waited < 2.9:
            raise Deviation(f"the end was due after 3 s of silence; after {waited:.1f} s there was {found}")


def _chatter(caller: Caller, count: int) -> bytes:
    """Frames of an unknown kind, and PONGs that nobody asked for."""
    each = caller.frame(200, b"later"), caller.frame(page.PONG, b"unasked!")
    return b"".join(each[number % 2] for number in range(count))


@case("4.136", over=Over.ONCE, slow=True)
def chatter(bench: Bench) -> None:
    """1000 frames that mean nothing are read over, and 4 more for each other frame that came since."""
    with bench.open() as caller:
        caller.send(_chatter(caller, page.MOST_CHATTER))
        for _ in range(3):
            caller.alive()
            caller.send(_chatter(caller, page.CHATTER_PER_FRAME))
        if (found := caller.first(CHATTER_FOUND)) is not Ending.SILENCE:
            raise Deviation(f"chatter within its limit was answered by {found}")
        caller.alive()


@case("4.137", over=Over.CODECS)
def too_much_chatter(bench: Bench) -> None:
    """2000 frames at once that mean nothing end the connection as TOO_MANY_FRAMES."""
    with bench.open() as caller:
        caller.send(_chatter(caller, 2 * page.MOST_CHATTER))
        caller.ends("TOO_MANY_FRAMES")


@case("4.31", needs=Needs.SERVICE)
def short_sleep(bench: Bench) -> None:
    """An answer that comes late comes once, with the id and opcode of its call."""
    with bench.open() as caller:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=30))
        caller.response(SLEEP, call_id)
        caller.alive()
