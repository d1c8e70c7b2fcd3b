"""Section 3, early requests: REQUESTs that come together with HELLO."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.servers.handshake import NONSENSE
from wireproto.conformance.service import COUNT, SUM, CountRequest, SumRequest
from wireproto.conformance.sizes import longest, noise
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case


def _greet(caller: Caller, bench: Bench, early: bytes, announced: int | None = None, **changes: Any) -> None:
    """Preamble, HELLO and what follows it, in one piece. ``announced`` is what HELLO says of it, if that is wrong."""
    field = page.tlv(page.EARLY_FIELD, page.u16(len(early) if announced is None else announced))
    caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(fields=field, **changes)) + early)


def _echo(caller: Caller, text: bytes, **changes: Any) -> tuple[int, bytes]:
    return caller.request_frame(ECHO, EchoRequest(payload=text), **changes)


def _answered(caller: Caller, call_id: int, text: bytes) -> None:
    if (found := caller.response(ECHO, call_id).payload) != text:
        raise Deviation(f"Echo of {text!r} answers {found!r}")


@case("3.110", over=Over.ALL)
def answered(bench: Bench) -> None:
    """A REQUEST that comes with HELLO is answered, and WELCOME comes first."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        call_id, data = _echo(caller, b"early")
        _greet(caller, bench, data)
        caller.expect_welcome()
        _answered(caller, call_id, b"early")
        caller.alive()


@case("3.111")
def several(bench: Bench) -> None:
    """Several REQUESTs may come with HELLO, with ids that lie apart; all are answered."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        texts = {3: b"one", 4: b"two", 1000: b"three"}
        _greet(caller, bench, b"".join(_echo(caller, text, call_id=number)[1] for number, text in texts.items()))
        caller.expect_welcome()
        left = dict(texts)
        while left:
            found = caller.read()
            if found.kind != page.RESPONSE or found.call_id not in left:
                raise Deviation(f"a RESPONSE of one of {sorted(left)} was due, and {page.shown(found)} came")
            if caller.decode(ECHO, found.payload).payload != left.pop(found.call_id):
                raise Deviation(f"call {found.call_id} is answered with the text of another")
        caller.alive()


@case("3.112", needs=Needs.SERVICE)
def stream(bench: Bench) -> None:
    """A stream that comes with HELLO has the credit of its REQUEST."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        call_id, data = caller.request_frame(COUNT, CountRequest(items=3), credit=10)
        _greet(caller, bench, data)
        caller.expect_welcome()
        for _ in range(3):
            caller.item(COUNT, call_id)
        caller.expect(page.END, call_id)


@case("3.113", needs=Needs.SHAPES)
def upload(bench: Bench) -> None:
    """Of an upload that comes with HELLO the items follow WELCOME, with the first credit that it grants."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        call_id, data = caller.request_frame(SUM, b"")
        _greet(caller, bench, data)
        caller.expect_welcome()
        caller.give(SUM, call_id, SumRequest(number=2), SumRequest(number=3))
        caller.complete(SUM, call_id)
        if (total := caller.response(SUM, call_id).total) != 5:
            raise Deviation(f"the sum of 2 and 3 is answered with {total}")


@case("3.114")
def another_codec(bench: Bench) -> None:
    """A server that does not choose the first codec offered skips exactly the bytes announced, whatever they are."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        _greet(caller, bench, b"\0" * 33, codecs=[(bench.free_id, NONSENSE), bench.codec])
        caller.expect_welcome()
        caller.alive()


@case("3.115")
def another_version(bench: Bench) -> None:
    """... nor one that does not choose the newest version offered; what it skipped was not processed."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        _, data = _echo(caller, b"for another version", call_id=7)
        _greet(caller, bench, data, versions=(bench.version, bench.newest + 1))
        welcome = caller.expect_welcome()
        if welcome.version != bench.version:
            raise NotJudged(f"the server speaks version {welcome.version}, too")
        call_id, data = _echo(caller, b"again", call_id=2)
        caller.send(data)
        _answered(caller, call_id, b"again")


@case("3.116", over=Over.ONCE)
def in_pieces(bench: Bench) -> None:
    """The early bytes may come later than HELLO, byte by byte: the server waits for them, and answers."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        call_id, data = _echo(caller, b"in pieces")
        _greet(caller, bench, b"", announced=len(data))
        for at in range(len(data)):
            caller.send(data[at : at + 1])
        caller.expect_welcome()
        _answered(caller, call_id, b"in pieces")


def _refused(
    number: str, text: str, frames: Any, reason: str = "EARLY_FRAME", more: int = 0, *, anywhere: bool = False
) -> None:
    """Early bytes that must end the connection, in place of WELCOME or, with ``anywhere``, behind it.

    Args:
        more: how many more they are than HELLO announces.
    """

    def run(bench: Bench) -> None:
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            data = frames(caller)
            _greet(caller, bench, data, announced=len(data) - more)
            if anywhere:
                caller.welcomed_or_ends(reason)
            else:
                caller.ends(reason)

    SERVER_CASES.add(number, text, run, over=Over.ONCE)


_refused(
    "3.117",
    "A byte beyond those that HELLO announces ends the connection as EARLY_FRAME.",
    lambda caller: _echo(caller, b"x")[1] + b"\0",
    more=1,
)
_refused(
    "3.118",
    "A part of a REQUEST behind HELLO ends the connection as EARLY_FRAME.",
    lambda caller: _echo(caller, b"whole")[1] + _echo(caller, b"cut")[1][:-1],
    anywhere=True,
)
_refused(
    "3.119",
    "A one-way REQUEST behind HELLO ends the connection as EARLY_FRAME.",
    lambda caller: _echo(caller, b"x", flags=page.ONE_WAY)[1],
    anywhere=True,
)
_refused(
    "3.120",
    "A frame of another kind behind HELLO ends the connection as EARLY_FRAME, though it was announced.",
    lambda caller: page.frame(page.PING, bytes(8)),
    anywhere=True,
)
_refused(
    "3.125",
    "A packed REQUEST behind HELLO ends the connection as EARLY_FRAME: no algorithm was chosen yet.",
    lambda caller: _echo(caller, b"x", flags=0x02)[1],
    anywhere=True,
)
_refused(
    "3.121",
    "HELLO and what follows it together longer than 4096 are BAD_BODY.",
    lambda caller: _echo(caller, noise(4096))[1],  # which no codec makes shorter
    reason="BAD_BODY",
)


@case("3.122")
def as_long_as_may_be(bench: Bench) -> None:
    """HELLO and what follows it may be 4096 together, by HELLO's length field and the bytes behind it."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        hello = len(bench.hello(fields=page.tlv(page.EARLY_FIELD, page.u16(1))))
        room = page.HELLO_MAX_FRAME - 12 - hello - 16
        size = longest(lambda size: len(caller.payload(EchoRequest(payload=noise(size)))), room, room)
        call_id, data = _echo(caller, noise(size))
        _greet(caller, bench, data)
        caller.expect_welcome()
        _answered(caller, call_id, noise(size))


@case("3.123", over=Over.ONCE, needs=Needs.PROCESS)
def leaving(bench: Bench) -> None:
    """A server that goes before it has answered HELLO says so in a final ERROR: nothing that came was processed."""
    if bench.start is None:
        raise NotJudged("the kit did not start the server, so it cannot ask it to go")
    with bench.start() as subject, bench.at(subject.address).raw() as peer:
        caller = Caller(peer, bench)
        _, data = _echo(caller, b"never")
        _greet(caller, bench, data[:-1], announced=len(data))
        with bench.at(subject.address).open() as other:
            other.alive()  # by now the server has met the first connection as well
        subject.terminate()
        error = caller.ends("SHUTTING_DOWN")
        if error.retry != page.NOT_PROCESSED:
            raise Deviation(f"the retry of a server that goes while it greets is {error.retry}; nothing was processed")
