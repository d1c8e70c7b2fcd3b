"""Section 3, early requests: for clients that send REQUESTs together with HELLO when they are told that they may."""

from collections.abc import Iterator

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Trial, call
from wireproto.conformance.case import Deviation, NotJudged
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import SHORT, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


def _early(callee: Callee) -> bytes:
    """The client's HELLO, and the bytes that it announces, which it must send without being asked."""
    hello = callee.read_hello()
    if not hello.early:
        raise NotJudged("the client sends nothing together with HELLO")
    found = callee.peer.take(hello.early, callee.trial.patience)
    if isinstance(found, Ending):
        raise Deviation(f"HELLO announces {hello.early} early bytes; there was {found.value} before they had come")
    return found


def _frames(data: bytes) -> Iterator[tuple[page.RawHeader, bytes]]:
    """The frames among early bytes, with their metadata."""
    at = 0
    while at < len(data):
        if len(data) - at < page.HEADER.size:
            raise Deviation(f"the last {len(data) - at} early bytes are no frame")
        header = page.read_header(data, at)
        end = at + 4 + header.length
        if end > len(data) or header.length < page.HEADER.size - 4:
            raise Deviation(f"the early bytes end within a frame of length {header.length}")
        yield header, data[at + page.HEADER.size : at + page.HEADER.size + header.metadata_length]
        at = end


@case("3.90")
def written(trial: Trial) -> None:
    """Early bytes are whole REQUESTs in the newest version and first codec of HELLO, none of them one-way, none with a
    credential, and 4096 at most together with HELLO."""
    with trial.client(SHORT_CALL, greet=False, early=True) as callee:
        data = _early(callee)
        hello = callee.hello
        assert hello is not None
        if callee.hello_length + len(data) > page.HELLO_MAX_FRAME:
            raise Deviation(f"HELLO is {callee.hello_length} long and {len(data)} bytes follow; 4096 are allowed")
        for header, metadata in _frames(data):
            if header.kind != page.REQUEST or header.flags & page.ONE_WAY:
                raise Deviation(f"a frame of kind {header.kind} with flags {header.flags:#04x} may not be early")
            if (header.codec, header.version) != (hello.codecs[0][0], hello.versions[1]):
                raise Deviation(f"an early REQUEST has codec {header.codec} and version {header.version}")
            if page.AUTHORIZATION_KEY in page.read_metadata(metadata):
                raise Deviation("an early REQUEST has a credential, for a server that nobody has heard yet")
        callee.peer.received[:0] = data
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.91")
def skipped(trial: Trial) -> None:
    """A client whose version was not chosen sends what was skipped again, in the version that was."""
    if trial.version < 2:
        raise NotJudged("version 1 is the oldest there is")
    with trial.client(SHORT_CALL, greet=False, early=True) as callee:
        _early(callee)
        callee.send(callee.welcome(version=trial.version - 1))
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.92")
def lost(trial: Trial) -> None:
    """A client that loses the connection before WELCOME tells its caller that an early call may have been processed."""
    with trial.client(SHORT_CALL, greet=False, early=True) as callee:
        _early(callee)
        callee.peer.end_output()
        error = callee.failed_anyhow()
        if error.get("retry") != page.MAYBE_PROCESSED:
            raise Deviation(f"the caller is told {error}; the early call may have been processed")


@case("3.93")
def leaving(trial: Trial) -> None:
    """A final ERROR in place of WELCOME, SHUTTING_DOWN, says that an early call was not processed."""
    with trial.client(SHORT_CALL, greet=False, early=True) as callee:
        _early(callee)
        callee.send(page.PREAMBLE)
        callee.final(14, b"SHUTTING_DOWN", b"another one takes over", retry=page.NOT_PROCESSED)
        callee.closes("the final ERROR")
        error = callee.failed_anyhow()
        if error.get("retry") != page.NOT_PROCESSED:
            raise Deviation(f"the caller is told {error}; the early call was not processed")
