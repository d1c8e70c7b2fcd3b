"""Sections 1 and 3: a client's first bytes, its HELLO, and what it makes of the answers to it."""

from collections.abc import Callable
from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Trial, call
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import CONFORMANCE, SHORT, MirrorRequest, ShortResponse
from wireproto.conformance.sizes import letters, longest

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


@case("1.01", over=Over.CODECS)
def at_once(trial: Trial) -> None:
    """The client sends its preamble and HELLO at once, before the server has said anything."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("1.02", over=Over.ONCE)
def byte_by_byte(trial: Trial) -> None:
    """The server's preamble and WELCOME may come one byte at a time."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        data = callee.welcome()
        callee.send(*(data[n : n + 1] for n in range(len(data))))
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("1.03", over=Over.ONCE)
def before_hello(trial: Trial) -> None:
    """A final ERROR may come before HELLO was read, and is what the caller is told."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.send(page.PREAMBLE)
        callee.final(8, b"TOO_MANY_CALLS", b"the server is full", retry=page.NOT_PROCESSED)
        callee.refused(status=8, reason="TOO_MANY_CALLS")


def _stranger(number: str, text: str, first: bytes) -> None:
    def run(trial: Trial) -> None:
        with trial.client(SHORT_CALL, greet=False) as callee:
            callee.read_hello()
            callee.send(first)
            callee.peer.end_output()
            found = callee.first()
            if not isinstance(found, Ending):
                raise Deviation(f"the client must send nothing more, and {page.shown(found)} came")
            if found is Ending.SILENCE:
                raise Deviation("the client did not close")
            callee.refused()

    CLIENT_CASES.add(number, text, run, over=Over.ONCE)


_stranger("1.04", "A client that reads another major version ends the connection and sends nothing.", b"\xf5WP\x02")
_stranger(
    "1.05", "A client that reads HTTP ends the connection and sends nothing.", b"HTTP/1.1 400 Bad Request\r\n\r\n"
)
_stranger(
    "1.06", "A client that reads an SSH banner ends the connection and sends nothing.", b"SSH-2.0-OpenSSH_9.2\r\n"
)


@case("1.07", over=Over.ONCE)
def closed_at_once(trial: Trial) -> None:
    """A server that closes without a word is no server: the caller is told."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        callee.peer.close()
        callee.refused()


@case("3.01")
def hello(trial: Trial) -> None:
    """HELLO offers the codec, the versions and the service that the caller wants, in the layout of the document."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        found = callee.read_hello()
        if trial.codec not in found.codecs:
            raise Deviation(f"the codecs are {found.codecs}; {trial.codec} must be among them")
        if found.service != CONFORMANCE.full_name or found.versions != (1, trial.version):
            raise Deviation(f"HELLO asks for {found.service!r} in versions {found.versions}")
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))


@case("3.02", over=Over.CODECS)
def nothing_in_between(trial: Trial) -> None:
    """The client sends nothing between HELLO and WELCOME, though it has calls to make."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        found = callee.first(0.15)
        if found is not Ending.SILENCE:
            raise Deviation(f"before WELCOME there was {found}")
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.03")
def digests(trial: Trial) -> None:
    """The digests that HELLO lists, if it lists any, are those of its newest version."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        listed = callee.read_hello().digests
        due = CONFORMANCE.digests(trial.version)
        wrong = {opcode: found for opcode, found in listed.items() if due.get(opcode) != found}
        if wrong:
            raise Deviation(f"the digests of opcodes {[hex(opcode) for opcode in wrong]} are wrong")
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))


@case("3.07", over=Over.ONCE)
def takes_no_calls(trial: Trial) -> None:
    """A client that takes no calls of the server's says so: max calls 0, no first credit, no one-way credit."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        found = callee.read_hello()
        if found.max_calls or found.first_credit != page.NOTHING or found.one_way_credit:
            raise Deviation(
                f"HELLO takes {found.max_calls} calls and {found.one_way_credit} one-way calls of the server's, and no "
                "step of an instruction says how to answer one"
            )
        callee.send(callee.welcome())
        callee.respond(callee.request(SHORT), ShortResponse(length=5))


@case("3.08", over=Over.ONCE)
def credit_of_welcome(trial: Trial) -> None:
    """The first credit and the one-way credit of WELCOME, up to the greatest there is, are read."""
    most = page.credit_fields(page.CreditBody(0xFFFF_FFFF, 0xFFFF_FFFF), 0xFFFF_FFFF)
    with trial.client(SHORT_CALL, fields=most) as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.48")
def their_digests(trial: Trial) -> None:
    """Digests in WELCOME that are the client's own are in order, and so is an opcode that one side lacks."""
    listed = {**CONFORMANCE.digests(trial.version), 0x0BAD: 1}
    for digests in (listed, {0x0BAD: 1}):
        with trial.client(SHORT_CALL, fields=page.digest_field(digests)) as callee:
            callee.respond(callee.request(SHORT), ShortResponse(length=5))
            callee.answered(length=5)


def _contract(number: str, text: str, version: Callable[[Trial], int]) -> None:
    """A WELCOME in whose version one method is declared otherwise."""

    def run(trial: Trial) -> None:
        chosen = version(trial)
        digests = CONFORMANCE.digests(chosen)
        digests[SHORT.opcode] ^= 1
        with trial.client(SHORT_CALL, greet=False) as callee:
            if not callee.read_hello().digests:
                raise NotJudged("the client lists no methods, so it has none to compare")
            callee.send(callee.welcome(version=chosen, fields=page.digest_field(digests)))
            error = callee.ends("CONTRACT_MISMATCH")
            if f"{SHORT.opcode:#06x}" not in error.message:
                raise Deviation(f"the text must list opcode {SHORT.opcode:#06x}: {error.message!r}")
            callee.refused(status=page.FAILED_PRECONDITION, reason="CONTRACT_MISMATCH")

    CLIENT_CASES.add(number, text, run)


_contract(
    "3.49",
    "A digest in WELCOME that is not the client's own is CONTRACT_MISMATCH, whose text lists the opcode.",
    lambda trial: trial.version,
)
_contract(
    "3.50",
    "The client compares the digests of the version chosen, also where that is older than its newest.",
    lambda trial: 1,
)


@case("3.04", over=Over.CODECS)
def unknown_fields(trial: Trial) -> None:
    """Fields at the end of WELCOME whose type is unknown are read over."""
    with trial.client(SHORT_CALL, fields=page.tlv(99, b"later") + page.tlv(page.DIGESTS_FIELD, b"")) as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.05", over=Over.CODECS)
def an_older_version(trial: Trial) -> None:
    """A server may choose an older version, in which the connection is then spoken."""
    with trial.client(SHORT_CALL, version=1) as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


@case("3.06", over=Over.ONCE)
def names(trial: Trial) -> None:
    """The server's name is for logs: 255 bytes of any characters are accepted."""
    with trial.client(SHORT_CALL, server_name="é|\n" * 63 + "abc") as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.answered(length=5)


def _bad(number: str, text: str, body: Callable[[Trial], bytes], reason: str = "BAD_BODY", **header: Any) -> None:
    """A WELCOME that ends the connection."""

    def run(trial: Trial) -> None:
        with trial.client(SHORT_CALL, greet=False) as callee:
            callee.read_hello()
            callee.send(page.PREAMBLE + page.frame(page.WELCOME, body(trial), **header))
            callee.ends(reason)
            callee.refused()

    CLIENT_CASES.add(number, text, run, over=Over.ONCE)


def _welcome(**changes: Any) -> Callable[[Trial], bytes]:
    return lambda trial: page.pack_welcome(**{"codec": trial.codec[0], "version": trial.version, **changes})


def _with(field: int, value: bytes, times: int = 1) -> Callable[[Trial], bytes]:
    """A WELCOME that has a field."""
    return _welcome(fields=page.tlv(field, value) * times)


_bad("3.10", "A WELCOME with a version that was not offered is BAD_BODY.", _welcome(version=99))
_bad("3.11", "A WELCOME with a codec that was not offered is BAD_BODY.", _welcome(codec=99))
_bad("3.12", "A WELCOME with a feature that was not offered is BAD_BODY.", _welcome(features=1 << 40))
_bad("3.13", "A WELCOME with version 0 is BAD_BODY.", _welcome(version=0))
_bad("3.14", "A WELCOME whose max frame is 4095 is BAD_BODY.", _welcome(max_frame=4095))
_bad("3.15", "A WELCOME whose max calls is 0 is BAD_BODY.", _welcome(max_calls=0))
_bad("3.38", "A WELCOME whose heartbeat is 1 ms is BAD_BODY.", _welcome(heartbeat_ms=1))
_bad("3.39", "A WELCOME whose heartbeat is 999 ms is BAD_BODY.", _welcome(heartbeat_ms=999))
_bad("3.40", "A WELCOME with control version 0 is BAD_BODY.", _with(page.CONTROL_FIELD, b"\0"))
_bad("3.41", "A WELCOME whose control version has no byte is BAD_BODY.", _with(page.CONTROL_FIELD, b""))
_bad("3.42", "A WELCOME whose control version has two bytes is BAD_BODY.", _with(page.CONTROL_FIELD, b"\0\1"))
_bad("3.43", "A WELCOME with the control version twice is BAD_BODY.", _with(page.CONTROL_FIELD, b"\1", times=2))
_bad("3.44", "A control version that the client did not offer is BAD_BODY.", _with(page.CONTROL_FIELD, b"\xff"))
_bad("3.45", "A WELCOME with an opcode listed twice is BAD_BODY.", _with(page.DIGESTS_FIELD, bytes(12)))
_bad("3.46", "A WELCOME whose list of methods ends within a pair is BAD_BODY.", _with(page.DIGESTS_FIELD, bytes(7)))
_bad("3.47", "A WELCOME with two lists of methods is BAD_BODY.", _with(page.DIGESTS_FIELD, b"", times=2))
_bad("3.16", "A WELCOME whose server name is not UTF-8 is BAD_BODY.", _welcome(server_name=b"\xff"))
_bad("3.17", "A WELCOME that ends within a field is BAD_BODY.", _welcome(fields=b"\x00\x63\x00\x05abc"))
_bad("3.26", "A WELCOME with a first credit of 4 bytes is BAD_BODY.", _with(page.FIRST_CREDIT_FIELD, bytes(4)))
_bad("3.27", "A WELCOME with a one-way credit of 8 bytes is BAD_BODY.", _with(page.ONE_WAY_CREDIT_FIELD, bytes(8)))
_bad("3.18", "A WELCOME that ends within its numbers is BAD_BODY.", lambda trial: _welcome()(trial)[:17])
_bad("3.19", "An empty WELCOME is BAD_BODY.", lambda trial: b"")
_bad("3.20", "A WELCOME with a flag is RESERVED_FLAGS.", _welcome(), "RESERVED_FLAGS", flags=1)
_bad("3.21", "A WELCOME with a codec in its header is WRONG_CODEC.", _welcome(), "WRONG_CODEC", codec=2)
_bad("3.22", "A WELCOME with a version in its header is WRONG_VERSION.", _welcome(), "WRONG_VERSION", version=1)
_bad("3.23", "A WELCOME with a call id is CALL_ID.", _welcome(), "CALL_ID", call_id=1)
_bad("3.24", "A WELCOME with an opcode is WRONG_OPCODE.", _welcome(), "WRONG_OPCODE", opcode=1)
_bad(
    "3.25",
    "A WELCOME longer than 4096 is FRAME_TOO_LARGE.",
    _welcome(fields=page.tlv(99, bytes(4100))),
    "FRAME_TOO_LARGE",
)

for _number, _status, _reason in (
    ("3.30", 5, "UNKNOWN_SERVICE"),
    ("3.31", 9, "UNSUPPORTED_VERSION"),
    ("3.32", 9, "UNSUPPORTED_CODEC"),
    ("3.33", 9, "CONTRACT_MISMATCH"),
):

    def _refusal(trial: Trial, status: int = _status, reason: str = _reason) -> None:
        with trial.client(SHORT_CALL, greet=False) as callee:
            callee.read_hello()
            callee.send(page.PREAMBLE)
            callee.final(status, reason.encode(), b"what there is instead")
            callee.closes("the refusal")
            callee.refused(status=status, reason=reason)

    CLIENT_CASES.add(_number, f"A handshake refused as {_reason} is told to the caller.", _refusal, over=Over.ONCE)


@case("3.34", over=Over.ONCE)
def not_welcome(trial: Trial) -> None:
    """Another frame than WELCOME or a final ERROR, before them, is UNEXPECTED_KIND."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        callee.send(page.PREAMBLE + page.frame(page.PING, bytes(8)))
        callee.ends("UNEXPECTED_KIND")
        callee.refused()


@case("3.37", over=Over.ONCE)
def ignorable_first(trial: Trial) -> None:
    """A frame of a kind from 128 on, skipped once the connection is open, is UNEXPECTED_KIND before WELCOME."""
    with trial.client(SHORT_CALL, greet=False) as callee:
        callee.read_hello()
        callee.send(page.PREAMBLE + page.frame(200))
        callee.ends("UNEXPECTED_KIND")
        callee.refused()


@case("3.35", over=Over.CODECS)
def welcome_again(trial: Trial) -> None:
    """A second WELCOME is UNEXPECTED_KIND."""
    with trial.client(SHORT_CALL) as callee:
        callee.request(SHORT)
        callee.send(page.frame(page.WELCOME, _welcome()(trial)))
        callee.ends("UNEXPECTED_KIND")


@case("3.36", over=Over.CODECS)
def their_limit(trial: Trial) -> None:
    """A request longer than the server's max frame is refused before it is sent, and the connection goes on."""
    room = page.HELLO_MAX_FRAME - 12
    fits = longest(lambda size: len(trial.written(MirrorRequest(text=letters(size)))), room, 2 * room)
    # By far, as a client need not write the canonical form.
    with trial.client(call("Mirror", text=letters(fits + 1000)), SHORT_CALL, max_frame=4096) as callee:
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.failed(0)
        callee.answered(1, length=5)
