"""Section 3: HELLO, WELCOME, what is chosen, and what is refused."""

import struct
from collections.abc import Callable
from typing import Any

from wireproto.conformance import page
from wireproto.conformance.asking import ASKED
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import CONFORMANCE
from wireproto.conformance.sizes import longest, noise
from wireproto.control import CONTROL, ECHO, EchoRequest

case = SERVER_CASES.case

NONSENSE = "nonsense"
"""The name of a codec that nobody has."""


def _equal(what: str, found: object, due: object) -> None:
    if found != due:
        raise Deviation(f"{what} is {found!r}; it must be {due!r}")


@case("3.01")
def welcome(bench: Bench) -> None:
    """WELCOME chooses a version and a codec that were offered, and its limits are in their ranges."""
    with bench.open() as caller:
        assert caller.welcome is not None
        _equal("the version", caller.welcome.version, bench.version)
        _equal("the codec", caller.welcome.codec, bench.codec[0])


@case("3.02", over=Over.CODECS)
def preference(bench: Bench) -> None:
    """The codec is the first of the client's list that the server has, also behind those that it lacks."""
    others = [each for each in ((1, "pipe"), (2, "msgpack"), (3, "protobuf")) if each != bench.codec]
    with bench.open(codecs=[(bench.free_id, NONSENSE), bench.codec, *others]) as caller:
        assert caller.welcome is not None
        _equal("the codec", caller.welcome.codec, bench.codec[0])
        caller.alive()


@case("3.03", over=Over.CODECS)
def wrong_name(bench: Bench) -> None:
    """A codec's id under another name is another codec: UNSUPPORTED_CODEC."""
    bench.refused("UNSUPPORTED_CODEC", codecs=[(bench.codec[0], NONSENSE)])


@case("3.04", over=Over.CODECS)
def wrong_id(bench: Bench) -> None:
    """A codec's name under another id is another codec: UNSUPPORTED_CODEC."""
    bench.refused("UNSUPPORTED_CODEC", codecs=[(bench.free_id, bench.codec[1])])


@case("3.05", over=Over.CODECS)
def codecs_listed(bench: Bench) -> None:
    """The text of UNSUPPORTED_CODEC lists the server's codecs."""
    error = bench.refused("UNSUPPORTED_CODEC", codecs=[(bench.free_id, NONSENSE)])
    if bench.codec[1] not in error.message:
        raise Deviation(f"{bench.codec[1]} is not in {error.message!r}")


@case("3.06", over=Over.ONCE)
def newest(bench: Bench) -> None:
    """The version is the newest that both sides speak."""
    hello = {"versions": (1, 255)}
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(**hello)))
        _equal("the version", caller.expect_welcome().version, bench.newest)


@case("3.07")
def every_version(bench: Bench) -> None:
    """A server speaks every version from 1 to its newest, and the frames of the connection carry the one chosen."""
    with bench.open(versions=(1, bench.version)) as caller:
        assert caller.welcome is not None
        _equal("the version", caller.welcome.version, bench.version)
        caller.alive()


@case("3.08", over=Over.ONCE)
def too_new(bench: Bench) -> None:
    """No version in common is UNSUPPORTED_VERSION, whose text lists the server's."""
    error = bench.refused("UNSUPPORTED_VERSION", versions=(bench.newest + 1, 255))
    if str(bench.newest) not in error.message:
        raise Deviation(f"{bench.newest} is not in {error.message!r}")


@case("3.09", over=Over.ONCE)
def unknown_service(bench: Bench) -> None:
    """A service that is not there is UNKNOWN_SERVICE, whose text lists those that are."""
    error = bench.refused("UNKNOWN_SERVICE", service="nobody.v1.NobodyService")
    if bench.service != CONTROL.full_name and bench.service not in error.message:
        raise Deviation(f"{bench.service} is not in {error.message!r}")


@case("3.10", over=Over.ONCE)
def empty_service(bench: Bench) -> None:
    """The empty service name is the only service, or UNKNOWN_SERVICE where there are several."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(service="", versions=(1, 255))))
        first = caller.read()
        if first.kind == page.ERROR:
            _equal("the reason", page.read_error(first.payload).reason, "UNKNOWN_SERVICE")
        else:
            _equal("the answer's kind", first.kind, int(page.WELCOME))


@case("3.11", over=Over.ONCE)
def smallest_heartbeat(bench: Bench) -> None:
    """The heartbeat is the smaller of both that is not 0: a client's of 1 s holds, and its 0 leaves the server's."""
    with bench.open(heartbeat_ms=1000) as quick, bench.open(heartbeat_ms=0) as silent:
        assert quick.welcome is not None
        assert silent.welcome is not None
        _equal("the heartbeat", quick.welcome.heartbeat_ms, 1000)
        own = silent.welcome.heartbeat_ms
    with bench.open(heartbeat_ms=0xFFFF_FFFF) as slow:
        assert slow.welcome is not None
        _equal("the heartbeat", slow.welcome.heartbeat_ms, own or 0xFFFF_FFFF)


@case("3.12", over=Over.ONCE)
def features(bench: Bench) -> None:
    """WELCOME grants no feature that does not exist, whatever the client offers."""
    with bench.open(features=0xFFFF_FFFF_FFFF_FFFF) as caller:
        assert caller.welcome is not None
        _equal("the features", caller.welcome.features, 0)
        caller.alive()


@case("3.13", over=Over.ONCE)
def unknown_fields(bench: Bench) -> None:
    """Fields at the end of HELLO whose type is unknown are read over."""
    fields = page.tlv(99, b"whatever") + page.tlv(0xFFFF, b"") + page.tlv(0, bytes(200))
    with bench.open(fields=fields) as caller:
        caller.alive()


@case("3.14", over=Over.ONCE)
def longest_hello(bench: Bench) -> None:
    """A HELLO whose length is exactly 4096 is read."""
    padding = 4096 - 12 - len(bench.hello()) - 4
    with bench.open(fields=page.tlv(99, bytes(padding))) as caller:
        caller.alive()


@case("3.15", over=Over.ONCE)
def too_long(bench: Bench) -> None:
    """A HELLO whose length is 4097 is FRAME_TOO_LARGE."""
    padding = 4096 - 12 - len(bench.hello()) - 3
    bench.refused("FRAME_TOO_LARGE", fields=page.tlv(99, bytes(padding)))


def _accepted(number: str, text: str, **changes: Any) -> None:
    def run(bench: Bench) -> None:
        with bench.open(**changes) as caller:
            caller.alive()

    SERVER_CASES.add(number, text, run, over=Over.ONCE)


_accepted("3.16", "A max frame of 4096 is the least, and is accepted.", max_frame=4096)
_accepted("3.17", "A max frame of 4294967295 is accepted.", max_frame=0xFFFF_FFFF)
_accepted(
    "3.18", "The client's max calls say what it takes of the server's: any number will do.", max_calls=0xFFFF_FFFF
)
_accepted(
    "3.60",
    "The client's first credit and one-way credit say what it takes of the server's calls: any numbers will do.",
    fields=page.credit_fields(page.CreditBody(0xFFFF_FFFF, 0xFFFF_FFFF), 0xFFFF_FFFF),
)
_accepted("3.19", "A client name of 255 bytes, of any characters, is accepted.", client_name="é|\n" * 63 + "abc")
_accepted("3.20", "An empty client name is accepted.", client_name="")


@case("3.21", over=Over.ONCE)
def many_codecs(bench: Bench) -> None:
    """A list of 254 unknown codecs before the common one is no obstacle."""
    unknown = [(number, f"x{number}") for number in range(1, 256) if number != bench.codec[0]]
    with bench.open(codecs=[*unknown, bench.codec]) as caller:
        caller.alive()


def _bad(number: str, text: str, **changes: Any) -> None:
    def run(bench: Bench) -> None:
        bench.refused("BAD_BODY", **changes)

    SERVER_CASES.add(number, text, run, over=Over.ONCE)


_bad("3.22", "A HELLO whose oldest version is 0 is BAD_BODY.", versions=(0, 1))
_bad("3.23", "A HELLO whose newest version is below its oldest is BAD_BODY.", versions=(2, 1))
_bad("3.24", "A HELLO whose max frame is 4095 is BAD_BODY.", max_frame=4095)
_bad("3.69", "A HELLO whose heartbeat is 1 ms is BAD_BODY.", heartbeat_ms=1)
_bad("3.70", "A HELLO whose heartbeat is 999 ms is BAD_BODY.", heartbeat_ms=999)
_bad("3.25", "A HELLO without a codec is BAD_BODY.", codecs=[])
_bad("3.26", "A HELLO with codec id 0 is BAD_BODY.", codecs=[(0, "msgpack")])
_bad("3.27", "A HELLO with a codec id twice is BAD_BODY.", codecs=[(2, "msgpack"), (2, "msgpack")])
_bad("3.28", "A HELLO with an empty codec name is BAD_BODY.", codecs=[(2, "")])
_bad("3.29", "A HELLO with a codec name of 33 characters is BAD_BODY.", codecs=[(2, "m" * 33)])
_bad("3.30", "A HELLO with a capital in a codec name is BAD_BODY.", codecs=[(2, "Msgpack")])
_bad("3.31", "A HELLO with a codec name that begins with a digit is BAD_BODY.", codecs=[(2, "2msgpack")])
_bad("3.32", "A HELLO whose client name is not UTF-8 is BAD_BODY.", client_name=b"\xff")
_bad("3.33", "A HELLO whose service name is not UTF-8 is BAD_BODY.", service=b"\xc3")
_bad("3.34", "A HELLO that ends within a field's type and length is BAD_BODY.", fields=b"\x00\x63\x00")
_bad("3.35", "A HELLO whose last field is longer than what is left is BAD_BODY.", fields=b"\x00\x63\x00\x05abcd")
_bad(
    "3.36",
    "A HELLO with an opcode listed twice is BAD_BODY.",
    fields=page.tlv(page.DIGESTS_FIELD, struct.pack(">HIHI", 1, 2, 1, 2)),
)
_bad("3.61", "A HELLO with a first credit of 4 bytes is BAD_BODY.", fields=page.tlv(page.FIRST_CREDIT_FIELD, bytes(4)))
_bad(
    "3.62",
    "A HELLO with a one-way credit of 8 bytes is BAD_BODY.",
    fields=page.tlv(page.ONE_WAY_CREDIT_FIELD, bytes(8)),
)
_bad(
    "3.37",
    "A HELLO whose list of methods ends within a pair is BAD_BODY.",
    fields=page.tlv(page.DIGESTS_FIELD, bytes(7)),
)
_bad("3.124", "A HELLO whose number of early bytes has one byte is BAD_BODY.", fields=page.tlv(page.EARLY_FIELD, b"\0"))


@case("3.38", over=Over.ONCE)
def cut_anywhere(bench: Bench) -> None:
    """A HELLO whose body is cut short, anywhere before its fields, is BAD_BODY."""
    whole = page.pack_hello(codecs=[bench.codec], service=bench.service, client_name="kit")
    for cut in range(len(whole)):
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            caller.send(page.PREAMBLE + page.frame(page.HELLO, whole[:cut]))
            caller.ends("BAD_BODY")


def _wrong_hello(number: str, reason: str, text: str, **changes: Any) -> None:
    def run(bench: Bench) -> None:
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(), **changes))
            caller.ends(reason)

    SERVER_CASES.add(number, text, run, over=Over.ONCE)


_wrong_hello("3.39", "RESERVED_FLAGS", "A HELLO with a flag is RESERVED_FLAGS.", flags=1)
_wrong_hello("3.40", "WRONG_CODEC", "A HELLO with a codec other than 0 in its header is WRONG_CODEC.", codec=2)
_wrong_hello("3.41", "WRONG_VERSION", "A HELLO with a version other than 0 in its header is WRONG_VERSION.", version=1)
_wrong_hello("3.42", "CALL_ID", "A HELLO with a call id is CALL_ID.", call_id=1)
_wrong_hello("3.43", "WRONG_OPCODE", "A HELLO with an opcode is WRONG_OPCODE.", opcode=1)
_wrong_hello("3.44", "UNEXPECTED_METADATA", "A HELLO with metadata is UNEXPECTED_METADATA.", metadata=b"\x01\x00\x00")


@case("3.45", over=Over.ONCE)
def early(bench: Bench) -> None:
    """More bytes behind HELLO before the server has answered end the connection as EARLY_FRAME."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello()) + page.frame(page.PING, bytes(8)))
        caller.ends("EARLY_FRAME")


def _first(number: str, kind: int, payload: bytes, **changes: Any) -> None:
    def run(bench: Bench) -> None:
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            caller.send(page.PREAMBLE + caller.frame(kind, payload, **changes))
            caller.ends("UNEXPECTED_KIND")

    SERVER_CASES.add(number, f"{page.KIND_NAMES[kind]} before HELLO is UNEXPECTED_KIND.", run, over=Over.ONCE)


_first("3.46", page.PING, bytes(8))
_first("3.47", page.REQUEST, b"")
_first("3.48", page.WELCOME, bytes(23))


@case("3.59", over=Over.ONCE)
def ignorable_first(bench: Bench) -> None:
    """A frame of a kind from 128 on is skipped only once the connection is open: before HELLO it is UNEXPECTED_KIND."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(200))
        caller.ends("UNEXPECTED_KIND")


@case("3.49")
def hello_again(bench: Bench) -> None:
    """A second HELLO is UNEXPECTED_KIND."""
    with bench.open() as caller:
        caller.send(page.frame(page.HELLO, bench.hello()))
        caller.ends("UNEXPECTED_KIND")


@case("3.50", over=Over.ONCE)
def before_the_limit(bench: Bench) -> None:
    """The limits of both sides hold from the handshake on: a REQUEST of more than 4096 bytes is read."""
    with bench.open() as caller:
        assert caller.welcome is not None
        room = page.HELLO_MAX_FRAME - 12
        fits = longest(lambda size: len(caller.payload(EchoRequest(payload=noise(size)))), room, room)
        long = noise(fits + 1)
        if len(caller.payload(EchoRequest(payload=long))) > caller.welcome.max_frame - 12:
            raise NotJudged(f"the server accepts frames of {caller.welcome.max_frame} bytes")
        _equal("Echo", caller.call(ECHO, EchoRequest(payload=long)).payload, long)


Digests = Callable[[Bench], tuple[tuple[int, int], dict[int, int]]]


def _digests(number: str, text: str, made: Digests, refused: int | None = None) -> None:
    """A HELLO with versions and digests; ``refused`` is the opcode that the refusal must name."""

    def run(bench: Bench) -> None:
        versions, digests = made(bench)
        changes = {"versions": versions, "fields": page.digest_field(digests)}
        if refused is None:
            with bench.raw() as peer:
                caller = Caller(peer, bench)
                caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(**changes)))
                caller.expect_welcome()
            return
        error = bench.refused("CONTRACT_MISMATCH", **changes)
        if not any(form in error.message.lower() for form in (f"{refused:04x}", f"{refused:x}", str(refused))):
            raise Deviation(f"the text must list opcode {refused:#06x}: {error.message!r}")

    SERVER_CASES.add(number, text, run, needs=Needs.SERVICE)


def _own(bench: Bench) -> dict[int, int]:
    return CONFORMANCE.digests(bench.version)


_digests("3.51", "Digests that are the server's own are accepted.", lambda bench: ((1, bench.version), _own(bench)))
_digests(
    "3.52",
    "A digest that differs in the client's newest version is CONTRACT_MISMATCH, whose text lists the opcode.",
    lambda bench: ((1, bench.version), {**_own(bench), 0x03: _own(bench)[0x03] ^ 1}),
    refused=0x03,
)
_digests(
    "3.53",
    "An opcode that the server lacks is no obstacle, whatever its digest.",
    lambda bench: ((1, bench.version), {**_own(bench), 0x0BAD: 1}),
)
_digests("3.54", "An empty list of methods is accepted.", lambda bench: ((1, bench.version), {}))
_digests(
    "3.55",
    "Digests are not compared when the version chosen is not the client's newest.",
    lambda bench: ((1, bench.newest + 1), {0x01: 1, 0x02: 2}),
)
_digests(
    "3.56",
    "A list of some methods only is compared for these.",
    lambda bench: ((bench.version, bench.version), {0x01: _own(bench)[0x01]}),
)


@case("3.71", needs=Needs.SERVICE)
def digests_of_the_server(bench: Bench) -> None:
    """WELCOME lists the digests of all methods that the server has in the version chosen."""
    with bench.open() as caller:
        assert caller.welcome is not None
        found, due = caller.welcome.digests, _own(bench)
        asked = {method.opcode for method in ASKED}
        if not asked & set(found):  # a server may leave out that it calls
            due = {opcode: digest for opcode, digest in due.items() if opcode not in asked}
        wrong = sorted(opcode for opcode in {*found, *due} if found.get(opcode) != due.get(opcode))
        if wrong:
            raise Deviation(f"WELCOME's digests of opcodes {[hex(opcode) for opcode in wrong]} are wrong or missing")


@case("3.63", over=Over.ONCE)
def control_version(bench: Bench) -> None:
    """The control version is the lower of both: 1 for a client that says nothing or 1, and never above what it says."""
    for fields, most in (
        (b"", 1),
        (page.tlv(page.CONTROL_FIELD, b"\x01"), 1),
        (page.tlv(page.CONTROL_FIELD, b"\x02"), 2),
        (page.tlv(page.CONTROL_FIELD, b"\xff"), 255),
    ):
        with bench.open(fields=fields) as caller:
            assert caller.welcome is not None
            if caller.welcome.control > most:
                raise Deviation(f"the client reads control version {most}, and WELCOME has {caller.welcome.control}")
            caller.alive()


_bad("3.64", "A HELLO with control version 0 is BAD_BODY.", fields=page.tlv(page.CONTROL_FIELD, b"\0"))
_bad("3.65", "A HELLO whose control version has no byte is BAD_BODY.", fields=page.tlv(page.CONTROL_FIELD, b""))
_bad("3.66", "A HELLO whose control version has two bytes is BAD_BODY.", fields=page.tlv(page.CONTROL_FIELD, b"\0\1"))
_bad("3.67", "A HELLO with the control version twice is BAD_BODY.", fields=page.tlv(page.CONTROL_FIELD, b"\1") * 2)
_bad("3.68", "A HELLO with two lists of methods is BAD_BODY.", fields=page.tlv(page.DIGESTS_FIELD, b"") * 2)


@case("3.57", over=Over.ONCE, slow=True)
def hello_timeout(bench: Bench) -> None:
    """A client that sends no HELLO in time is told HELLO_TIMEOUT."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE)
        caller.ends("HELLO_TIMEOUT", bench.slow_patience)


@case("3.58", over=Over.ONCE)
def end_after_hello(bench: Bench) -> None:
    """A client that ends its output behind HELLO is closed in order, welcomed or not, and is told nothing wrong."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello()))
        peer.end_output()
        if isinstance(first := caller.first(), page.RawFrame):
            _equal("the answer's kind", first.kind, int(page.WELCOME))
            caller.closes("WELCOME")
        else:
            _equal("the ending", first, Ending.EOF)
