"""Section 2: the header, its checks, and their order."""

import functools
from collections.abc import Callable
from typing import Any

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.sizes import longest, noise
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

LARGEST_JUDGED = 32 * 1024 * 1024
"""Bytes: a server that accepts longer frames is not sent its longest one."""


@case("2.01")
def right_header(bench: Bench) -> None:
    """A RESPONSE has the codec and version of WELCOME, the opcode and call id of its REQUEST, no flags, no metadata."""
    with bench.open() as caller:
        for text in (b"", b"x", b"three"):
            answer = caller.call(ECHO, EchoRequest(payload=text))
            if answer.payload != text:
                raise Deviation(f"Echo of {text!r} answered {answer.payload!r}")


@case("2.02")
def many_in_a_segment(bench: Bench) -> None:
    """Frames that come in one segment are all read."""
    with bench.open() as caller:
        frames = [caller.request_frame(ECHO, EchoRequest(payload=bytes([n]))) for n in range(20)]
        caller.send(b"".join(data for _, data in frames))
        seen = {}
        for _ in frames:
            found = caller.read()
            seen[found.call_id] = caller.decode(ECHO, found.payload).payload
        if seen != {call_id: bytes([n]) for n, (call_id, _) in enumerate(frames)}:
            raise Deviation(f"the answers of 20 calls in one segment are {seen}")


@case("2.03")
def byte_by_byte(bench: Bench) -> None:
    """A frame that comes one byte at a time is read."""
    with bench.open() as caller:
        call_id, data = caller.request_frame(ECHO, EchoRequest(payload=b"slowly"), page.entry(b"a", b"b"))
        caller.send(*(data[n : n + 1] for n in range(len(data))))
        if caller.response(ECHO, call_id).payload != b"slowly":
            raise Deviation("Echo answered something else")


@case("2.04")
def cut_anywhere(bench: Bench) -> None:
    """A frame that comes in two parts, cut anywhere, is read, also when the next one begins in the second part."""
    with bench.open() as caller:
        call_id, data = caller.request_frame(ECHO, EchoRequest(payload=b"cut"))
        for cut in range(1, len(data)):
            next_id, next_data = caller.request_frame(ECHO, EchoRequest(payload=b"cut"))
            caller.send(data[:cut], data[cut:] + next_data[:1])
            caller.response(ECHO, call_id)
            call_id, data = next_id, next_data
            # What is left of `data` has lost its first byte to the segment before.
            caller.send(data[1:])
            caller.response(ECHO, call_id)
            call_id, data = caller.request_frame(ECHO, EchoRequest(payload=b"cut"))


Wrong = Callable[[Caller], bytes]


def _ends(number: str, reason: str, text: str, wrong: Wrong, *, over: Over = Over.ALL) -> None:
    """A case in which one frame, right but for what is said, ends the connection with ``reason``."""

    def run(bench: Bench) -> None:
        with bench.open() as caller:
            caller.send(wrong(caller))
            caller.ends(reason)

    SERVER_CASES.add(number, text, run, over=over)


def _max_frame(caller: Caller) -> int:
    assert caller.welcome is not None
    return caller.welcome.max_frame


def _kind(kind: int, payload: bytes = b"", **changes: Any) -> Wrong:
    return lambda caller: caller.frame(kind, payload, **changes)


def _above_limit(caller: Caller) -> bytes:
    if _max_frame(caller) == 0xFFFF_FFFF:
        raise NotJudged("the server accepts frames of any length")
    return page.u32(_max_frame(caller) + 1)


_ends(
    "2.05",
    "FRAME_TOO_LARGE",
    "A length of one more than WELCOME's max frame is FRAME_TOO_LARGE as soon as its four bytes are there.",
    _above_limit,
)
_ends(
    "2.06",
    "FRAME_TOO_LARGE",
    "The greatest length there is is FRAME_TOO_LARGE, and no memory is kept for it.",
    lambda caller: page.u32(0xFFFF_FFFF) if _max_frame(caller) < 0xFFFF_FFFF else _above_limit(caller),
)


@case("2.07", over=Over.CODECS)
def longest_frame(bench: Bench) -> None:
    """A REQUEST whose length is exactly WELCOME's max frame is read and answered."""
    with bench.open(max_frame=0xFFFF_FFFF) as caller:
        size = _max_frame(caller)
        if size > LARGEST_JUDGED:
            raise NotJudged(f"the server accepts frames of {size} bytes")
        # A payload a little too short; metadata that need not be understood fill what is missing.
        room = size - 12 - len(page.field(99, b""))

        def payload(size: int) -> bytes:
            return caller.payload(EchoRequest(payload=noise(size)))

        long = payload(longest(lambda size: len(payload(size)), room, room))
        filler = page.field(99, bytes(room - len(long)))
        call_id, data = caller.request_frame(ECHO, long, filler)
        caller.send(data)
        found = caller.read()
        if found.call_id != call_id:
            raise Deviation(f"a REQUEST of the greatest length was answered {page.shown(found)}")
        if found.kind == page.ERROR and page.read_error(found.payload).reason != "RESPONSE_TOO_LARGE":
            raise Deviation(f"a REQUEST of the greatest length was answered {page.shown(found)}")
        caller.alive()


_ends("2.08", "FRAME_TOO_SHORT", "A length of 11 is FRAME_TOO_SHORT.", _kind(page.REQUEST, length=11))
_ends("2.09", "FRAME_TOO_SHORT", "A length of 0 is FRAME_TOO_SHORT.", _kind(page.REQUEST, length=0))
_ends(
    "2.10",
    "METADATA_OVERRUN",
    "Metadata that end one byte behind the frame are METADATA_OVERRUN.",
    _kind(page.REQUEST, b"abc", metadata_length=4),
)
_ends(
    "2.11",
    "METADATA_OVERRUN",
    "Metadata of 65535 bytes in a frame without room for them are METADATA_OVERRUN.",
    _kind(page.REQUEST, metadata_length=0xFFFF),
)
_ends("2.12", "UNKNOWN_KIND", "Kind 0 is UNKNOWN_KIND.", _kind(0))
_ends("2.13", "UNKNOWN_KIND", "Kind 13 is UNKNOWN_KIND.", _kind(13))
_ends("2.14", "UNKNOWN_KIND", "Kind 127 is UNKNOWN_KIND.", _kind(127))


@case("2.15")
def ignorable(bench: Bench) -> None:
    """Frames of kinds 128 to 255 are skipped, whatever else their headers say."""
    with bench.open() as caller:
        for kind in (128, 129, 200, 255):
            caller.send(
                page.frame(kind),
                page.frame(
                    kind, b"payload", metadata=b"metadata", codec=99, version=77, opcode=5, call_id=6, flags=255
                ),
            )
        caller.alive()


_ends(
    "2.16",
    "METADATA_OVERRUN",
    "A frame of a kind that would be skipped is METADATA_OVERRUN all the same.",
    _kind(200, metadata_length=1),
)
_ends(
    "2.17",
    "FRAME_TOO_LARGE",
    "A frame of a kind that would be skipped is FRAME_TOO_LARGE all the same.",
    lambda caller: _above_limit(caller) + b"\xc8",
)


@case("2.18", over=Over.CODECS)
def flags(bench: Bench) -> None:
    """A flag of a REQUEST that says nothing of its shape is RESERVED_FLAGS, alone and with one that does."""
    for bit in (0x02, 0x10, 0x20, 0x40, 0x80):
        for flags in (bit, bit | page.ITEMS_COME_BACK):
            with bench.open() as caller:
                caller.send(caller.frame(page.REQUEST, flags=flags))
                caller.ends("RESERVED_FLAGS")


@case("2.53")
def one_way_with_items(bench: Bench) -> None:
    """A one-way REQUEST whose items follow, or come back, is RESERVED_FLAGS."""
    for items in (page.ITEMS_FOLLOW, page.ITEMS_COME_BACK, page.ITEMS_FOLLOW | page.ITEMS_COME_BACK):
        with bench.open() as caller:
            caller.send(caller.frame(page.REQUEST, flags=page.ONE_WAY | items))
            caller.ends("RESERVED_FLAGS")


@case("2.54", over=Over.CODECS)
def flags_of_others(bench: Bench) -> None:
    """The flags of a REQUEST are RESERVED_FLAGS on every other kind of a call."""
    for kind in page.OF_CALLS[1:]:
        for flags in (page.ONE_WAY, page.ITEMS_FOLLOW, page.ITEMS_COME_BACK):
            with bench.open() as caller:
                caller.send(caller.frame(kind, flags=flags))
                caller.ends("RESERVED_FLAGS")


_ends(
    "2.19",
    "RESERVED_FLAGS",
    "A flag on a frame of the connection is RESERVED_FLAGS.",
    _kind(page.PING, bytes(8), flags=1),
)
_ends("2.20", "WRONG_CODEC", "A REQUEST with codec 0 is WRONG_CODEC.", _kind(page.REQUEST, codec=0))
_ends(
    "2.21",
    "WRONG_CODEC",
    "A REQUEST with another codec than the connection's is WRONG_CODEC.",
    lambda caller: caller.frame(page.REQUEST, codec=caller.bench.codec[0] % 3 + 1),
)
for number, kind, payload in (
    ("2.22", page.CANCEL, b""),
    ("2.23", page.CREDIT, page.credit_body(1, 1)),
    ("2.24", page.PING, bytes(8)),
    ("2.25", page.PONG, bytes(8)),
):
    _ends(
        number,
        "WRONG_CODEC",
        f"A {page.KIND_NAMES[kind]} with a codec other than 0 is WRONG_CODEC.",
        lambda caller, kind=kind, payload=payload: caller.frame(kind, payload, codec=caller.bench.codec[0]),  # type: ignore[misc]
    )
_ends("2.26", "WRONG_VERSION", "A REQUEST with version 0 is WRONG_VERSION.", _kind(page.REQUEST, version=0))
_ends(
    "2.27",
    "WRONG_VERSION",
    "A REQUEST with another version than the connection's is WRONG_VERSION.",
    lambda caller: caller.frame(page.REQUEST, version=caller.bench.version + 1),
)
_ends("2.28", "WRONG_VERSION", "A CANCEL with a version other than 0 is WRONG_VERSION.", _kind(page.CANCEL, version=1))
_ends(
    "2.29",
    "WRONG_VERSION",
    "A PING with a version other than 0 is WRONG_VERSION.",
    _kind(page.PING, bytes(8), version=1),
)
for number, kind in (
    ("2.30", page.REQUEST),
    ("2.31", page.CANCEL),
    ("2.55", page.RESPONSE),
    ("2.56", page.ITEM),
    ("2.57", page.END),
):
    _ends(number, "CALL_ID", f"A {page.KIND_NAMES[kind]} with call id 0 is CALL_ID.", _kind(kind, call_id=0))
_GOAWAY = page.goaway_body(0, page.error_body())
for number, kind, payload in (
    ("2.33", page.PING, bytes(8)),
    ("2.34", page.PONG, bytes(8)),
    ("2.58", page.GOAWAY, _GOAWAY),
):
    _ends(number, "CALL_ID", f"A {page.KIND_NAMES[kind]} with a call id is CALL_ID.", _kind(kind, payload, call_id=1))
for number, kind, payload in (
    ("2.35", page.PING, bytes(8)),
    ("2.36", page.PONG, bytes(8)),
    ("2.59", page.GOAWAY, _GOAWAY),
):
    _ends(
        number,
        "WRONG_OPCODE",
        f"A {page.KIND_NAMES[kind]} with an opcode is WRONG_OPCODE.",
        _kind(kind, payload, opcode=1),
    )
_ends(
    "2.32",
    "WRONG_OPCODE",
    "A CREDIT of one-way calls, whose call id is 0, with an opcode is WRONG_OPCODE.",
    _kind(page.CREDIT, page.credit_body(1, 0), call_id=0, opcode=1),
)
_ends(
    "2.37",
    "WRONG_OPCODE",
    "A final ERROR with an opcode is WRONG_OPCODE.",
    _kind(page.ERROR, page.error_body(), call_id=0, opcode=1),
)
for number, kind, payload in (
    ("2.38", page.PING, bytes(8)),
    ("2.39", page.CANCEL, b""),
    ("2.40", page.CREDIT, page.credit_body(1, 1)),
):
    _ends(
        number,
        "UNEXPECTED_METADATA",
        f"A {page.KIND_NAMES[kind]} with metadata is UNEXPECTED_METADATA.",
        _kind(kind, payload, metadata=page.entry(b"a", b"b")),
    )

for number, kind in (("2.60", page.ITEM), ("2.61", page.END)):
    _ends(
        number,
        "UNEXPECTED_METADATA",
        f"A {page.KIND_NAMES[kind]} of the request half with metadata is UNEXPECTED_METADATA.",
        _kind(kind, metadata=page.field(page.DROPPED_KEY, page.u32(1))),
    )

# Each row breaks two rules that stand next to each other; the first one counts.
_ORDER: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("2.41", "FRAME_TOO_SHORT", "METADATA_OVERRUN", {"kind": page.PING, "length": 11, "metadata_length": 99}),
    ("2.42", "METADATA_OVERRUN", "UNKNOWN_KIND", {"kind": 13, "metadata_length": 99}),
    ("2.43", "UNKNOWN_KIND", "RESERVED_FLAGS", {"kind": 13, "flags": 1}),
    ("2.44", "UNEXPECTED_KIND", "RESERVED_FLAGS", {"kind": page.WELCOME, "flags": 1}),
    ("2.45", "RESERVED_FLAGS", "WRONG_CODEC", {"kind": page.PING, "flags": 1, "codec": 9}),
    ("2.46", "WRONG_CODEC", "WRONG_VERSION", {"kind": page.PING, "codec": 9, "version": 9}),
    ("2.47", "WRONG_VERSION", "CALL_ID", {"kind": page.PING, "version": 9, "call_id": 9}),
    ("2.48", "CALL_ID", "WRONG_OPCODE", {"kind": page.PING, "call_id": 9, "opcode": 9}),
    ("2.49", "WRONG_OPCODE", "UNEXPECTED_METADATA", {"kind": page.PING, "opcode": 9, "metadata": b"\x01\x00\x00"}),
    ("2.50", "UNEXPECTED_METADATA", "BAD_BODY", {"kind": page.PING, "metadata": b"\x01\x00\x00"}),
)
for number, first, second, wrong in _ORDER:
    _ends(
        number,
        first,
        f"A frame that is {first} and {second} ends the connection as {first}, which is checked first.",
        functools.partial(lambda wrong, caller: caller.frame(**wrong), wrong),
        over=Over.ONCE,
    )


@case("2.51")
def kinds_mixed(bench: Bench) -> None:
    """A frame of the connection, and a REQUEST, may come right behind each other, in any order."""
    with bench.open() as caller:
        _, data = caller.request_frame(ECHO, EchoRequest(payload=b"x"))
        caller.send(caller.frame(page.PING, b"before!!") + data + caller.frame(page.PONG, b"nobodys!"))
        kinds = sorted((caller.read().kind, caller.read().kind))
        if kinds != [page.RESPONSE, page.PONG]:
            raise Deviation(f"PING and REQUEST in one segment were answered by kinds {kinds}")


@case("2.52", over=Over.ONCE)
def limit_before_hello(bench: Bench) -> None:
    """Before HELLO a length above 4096 is FRAME_TOO_LARGE."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.u32(4097))
        caller.ends("FRAME_TOO_LARGE")
