"""Section 5: the metadata of a REQUEST."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import AUTHORIZATION, INSPECT, InspectRequest
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

DEADLINE_MS, TRACEPARENT, AUTHORIZATION_KEY, IDEMPOTENCY_KEY, CREDIT, ENTRY = range(1, 7)
UNDERSTOOD = 0x80

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _seen(number: str, text: str, block: bytes, **due: Any) -> None:
    """A case in which the handler must see what the metadata say."""

    def run(bench: Bench) -> None:
        with bench.open() as caller:
            found = caller.call(INSPECT, InspectRequest(), block)
            for name, value in due.items():
                seen = getattr(found, name)
                if seen != value:
                    raise Deviation(f"the server understood {name} as {seen!r}; it was sent {value!r}")

    SERVER_CASES.add(number, text, run, needs=Needs.SERVICE)


def _refused(number: str, reason: str, text: str, block: bytes) -> None:
    """A case in which the metadata fail the call, and the connection lives."""

    def run(bench: Bench) -> None:
        with bench.open() as caller:
            caller.fail(ECHO, EchoRequest(payload=b"x"), reason, block)

    SERVER_CASES.add(number, text, run)


def _bad(number: str, text: str, block: bytes) -> None:
    _refused(number, "BAD_METADATA", text, block)


@case("5.01", needs=Needs.SERVICE)
def deadline(bench: Bench) -> None:
    """Key 1 is the deadline: of what was sent, nearly all is left when the handler looks."""
    with bench.open() as caller:
        found = caller.call(INSPECT, InspectRequest(), page.field(DEADLINE_MS, page.u32(60_000)))
        if found.remaining_ms is None or not 30_000 < found.remaining_ms <= 60_000:
            raise Deviation(f"of a deadline of 60000 ms the server sees {found.remaining_ms}")


_seen("5.02", "Key 2 is the traceparent.", page.field(TRACEPARENT, TRACE), traceparent=TRACE.decode())
_seen(
    "5.03",
    "Key 3 is the authorization.",
    page.field(AUTHORIZATION_KEY, AUTHORIZATION.encode()),
    authorization=AUTHORIZATION,
)
_seen(
    "5.04",
    "Key 4 is the idempotency key, of any 1 to 64 bytes.",
    page.field(IDEMPOTENCY_KEY, bytes(range(192, 256))),
    idempotency_key=bytes(range(192, 256)),
)
_seen(
    "5.05",
    "Key 6 is an entry of the caller's, once for each name, its value UTF-8 that may be empty.",
    page.entry(b"region", b"eu") + page.entry(b"user.name", "Zoë".encode()) + page.entry(b"a_b-c.9", b""),
    entries={"region": "eu", "user.name": "Zoë", "a_b-c.9": ""},
)
_seen(
    "5.06",
    "The fields come in any order.",
    page.entry(b"z", b"1")
    + page.field(TRACEPARENT, TRACE)
    + page.entry(b"a", b"2")
    + page.field(IDEMPOTENCY_KEY, b"k"),
    entries={"z": "1", "a": "2"},
    traceparent=TRACE.decode(),
    idempotency_key=b"k",
)
_seen(
    "5.07",
    "A known key with the top bit, which says that it must be understood, is the same key.",
    page.field(UNDERSTOOD | TRACEPARENT, TRACE)
    + page.field(UNDERSTOOD | IDEMPOTENCY_KEY, b"k")
    + page.field(UNDERSTOOD | ENTRY, b"\x01av"),
    traceparent=TRACE.decode(),
    idempotency_key=b"k",
    entries={"a": "v"},
)
_seen(
    "5.08",
    "An unknown key without the top bit is read over, wherever it stands and however often.",
    page.field(0x5E, b"?")
    + page.entry(b"a", b"1")
    + page.field(127, bytes(300))
    + page.field(0x5E, b"")
    + page.field(0, b"x"),
    entries={"a": "1"},
)
_seen("5.09", "An entry's name of 64 characters is accepted.", page.entry(b"n" * 64, b"v"), entries={"n" * 64: "v"})
_seen("5.10", "A call without metadata has none.", b"", remaining_ms=None, traceparent="", entries={})

_refused(
    "5.11",
    "UNKNOWN_METADATA",
    "An unknown key with the top bit is UNKNOWN_METADATA.",
    page.field(UNDERSTOOD | 0x5F, b"?"),
)
_refused(
    "5.12",
    "UNKNOWN_METADATA",
    "Key 127 with the top bit is UNKNOWN_METADATA behind fields that are known, too.",
    page.field(TRACEPARENT, TRACE) + page.field(0xFF, b""),
)
_bad("5.13", "A deadline of 3 bytes is BAD_METADATA.", page.field(DEADLINE_MS, bytes(3)))
_bad("5.14", "A deadline of 5 bytes is BAD_METADATA.", page.field(DEADLINE_MS, bytes(5)))
_bad("5.15", "A credit of 4 bytes is BAD_METADATA.", page.field(CREDIT, bytes(4)))
_bad("5.16", "An empty traceparent is BAD_METADATA.", page.field(TRACEPARENT, b""))
_bad("5.17", "A traceparent with a control character is BAD_METADATA.", page.field(TRACEPARENT, b"00-\n"))
_bad("5.18", "An empty authorization is BAD_METADATA.", page.field(AUTHORIZATION_KEY, b""))
_bad("5.19", "An authorization that is not ASCII is BAD_METADATA.", page.field(AUTHORIZATION_KEY, "Bearer é".encode()))
_bad("5.20", "An authorization with DEL is BAD_METADATA.", page.field(AUTHORIZATION_KEY, b"Bearer \x7f"))
_bad("5.21", "An empty idempotency key is BAD_METADATA.", page.field(IDEMPOTENCY_KEY, b""))
_bad("5.22", "An idempotency key of 65 bytes is BAD_METADATA.", page.field(IDEMPOTENCY_KEY, bytes(65)))
_bad("5.23", "An entry with a capital in its name is BAD_METADATA.", page.entry(b"Region", b"eu"))
_bad("5.24", "An entry with an empty name is BAD_METADATA.", page.entry(b"", b"eu"))
_bad("5.25", "An entry with a name of 65 characters is BAD_METADATA.", page.entry(b"n" * 65, b"eu"))
_bad("5.26", "An entry with a space in its name is BAD_METADATA.", page.entry(b"a b", b"eu"))
_bad("5.27", "An entry whose value is not UTF-8 is BAD_METADATA.", page.entry(b"a", b"\xff"))
_bad("5.28", "An entry whose name ends behind it is BAD_METADATA.", page.field(ENTRY, b"\x05abc"))
_bad("5.29", "An entry without a name's length is BAD_METADATA.", page.field(ENTRY, b""))
_bad("5.30", "An entry's name twice is BAD_METADATA.", page.entry(b"a", b"1") + page.entry(b"a", b"2"))
for _number, _key, _value, _name in (
    ("5.31", DEADLINE_MS, page.u32(1_000_000), "deadline"),
    ("5.32", TRACEPARENT, TRACE, "traceparent"),
    ("5.33", AUTHORIZATION_KEY, b"x", "authorization"),
    ("5.34", IDEMPOTENCY_KEY, b"x", "idempotency key"),
    ("5.35", CREDIT, page.credit_body(1, 1), "credit"),
):
    _bad(
        _number,
        f"The {_name} twice is BAD_METADATA, also when one of them has the top bit.",
        page.field(_key, _value) + page.field(UNDERSTOOD | _key, _value),
    )
_bad("5.36", "Metadata that end within a key's length are BAD_METADATA.", page.entry(b"a", b"1") + b"\x01\x00")
_bad("5.37", "Metadata whose last field is longer than what is left are BAD_METADATA.", b"\x06\x00\x09\x01ab")


@case("5.38", over=Over.CODECS)
def too_large(bench: Bench) -> None:
    """Metadata over the server's limit are METADATA_TOO_LARGE, and the connection lives; 65535 bytes are the most."""
    block = b"".join(page.field(9, bytes(1021)) for _ in range(63)) + page.field(9, bytes(1020))
    with bench.open() as caller:
        assert caller.welcome is not None
        call_id, data = caller.request_frame(ECHO, EchoRequest(payload=b"x"), block)
        if len(data) - 4 > caller.welcome.max_frame:
            return
        caller.send(data)
        found = caller.read()
        if found.kind == page.ERROR:
            error = page.read_error(found.payload)
            if (found.call_id, error.reason, error.status) != (call_id, "METADATA_TOO_LARGE", page.RESOURCE_EXHAUSTED):
                raise Deviation(f"{len(block)} bytes of metadata were answered {page.shown(found)}")
        caller.alive()


@case("5.39", needs=Needs.SERVICE)
def per_call(bench: Bench) -> None:
    """Metadata belong to their call: the next one has none of them."""
    with bench.open() as caller:
        caller.call(INSPECT, InspectRequest(), page.entry(b"a", b"1") + page.field(AUTHORIZATION_KEY, b"Bearer x"))
        found = caller.call(INSPECT, InspectRequest())
        if found.entries or found.authorization:
            raise Deviation(f"a call without metadata has {found}")
