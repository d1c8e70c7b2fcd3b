"""HELLO, WELCOME, what they agree on, and who is on the line when the first bytes are nobody's HELLO.

The layouts are frozen for ever and use no codec; both end in tag-length-value, which is how they grow.
Layout and rules: ``docs/wire.md``.
"""

import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec

from wireproto.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, MIN_HEARTBEAT, Limits
from wireproto.status import Status
from wireproto.wire.frame import HEADER_AFTER_LENGTH, MAJOR, NO_CREDIT, PREAMBLE, Credit, Kind, bad_body

__all__ = [
    "KNOWN_FIELDS",
    "LONGEST_PREFIX",
    "Hello",
    "Offer",
    "Stranger",
    "Welcome",
    "choose_version",
    "compare_digests",
    "encode_fitting",
    "find_offer",
    "http_refusal",
    "negotiate",
    "recognise",
]

_HELLO = struct.Struct(">BBIIIQB")
_WELCOME = struct.Struct(">BBIIIQ")
_TLV = struct.Struct(">HH")
_DIGEST = struct.Struct(">HI")
_CREDIT = struct.Struct(">II")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_MIN_HEARTBEAT_MS = round(MIN_HEARTBEAT * 1000)
_CODEC_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a client offers.

    Attributes:
        min_version: oldest version of the service the client speaks, 1 to 255.
        max_version: newest, at least ``min_version``.
        codecs: (id 1 to 255, name) in order of preference; at least one, none twice.
        max_frame: largest length field the client accepts, at least 4096 bytes.
        max_calls: calls of the server that the client accepts in flight; 0 for none.
        heartbeat_ms: silence after which the client means to send a PING, 1000 or more; 0 leaves it to the server.
        features: a bit for each extension the client understands; none is defined.
        client_name: for logs, at most 255 bytes of UTF-8.
        service: full name of the service wanted; "" for the only one there is.
        digests: opcode -> digest of each method at ``max_version``; may be empty.
        control: the newest version of the framework's own methods that the client reads, 1 to 255.
        first_credit: what the request half of each of the server's calls begins with.
        one_way_credit: one-way calls that the server may begin before it is granted more, 0 to 2**32 - 1.
        packing: numbers of the algorithms with which payloads may be packed, each 1 to 255, in order of preference;
            none twice.
        early: bytes of REQUESTs that follow at once, written for ``max_version`` and the first of ``codecs``; with
            HELLO itself 4096 at most.
    """

    min_version: int
    max_version: int
    codecs: tuple[tuple[int, str], ...]
    max_frame: int
    max_calls: int = 0
    heartbeat_ms: int = 0
    features: int = 0
    client_name: str = ""
    service: str = ""
    digests: dict[int, int] = {}
    control: int = 1
    first_credit: Credit = NO_CREDIT
    one_way_credit: int = 0
    packing: tuple[int, ...] = ()
    early: int = 0

    def is_met(self, welcome: "Welcome") -> bool:
        """Whether ``welcome`` chose what the early REQUESTs are written for."""
        return (welcome.version, welcome.codec) == (self.max_version, self.codecs[0][0])

    def encode(self) -> bytes:
        """The payload of HELLO.

        Raises:
            LocalProtocolError: a value is out of its range.
        """
        if problem := self._problem():
            raise LocalProtocolError(f"HELLO cannot be sent: {problem}")
        head = (self.min_version, self.max_version, self.max_frame, self.max_calls, self.heartbeat_ms, self.features)
        try:
            parts = [_HELLO.pack(*head, len(self.codecs))]
            for number, name in self.codecs:
                parts.append(bytes([number]) + _pack_text(name))
            parts.append(_pack_text(self.client_name))
            parts.append(_pack_text(self.service))
            parts.append(_pack_fields(self, _OF_HELLO))
        except (struct.error, ValueError) as error:
            raise LocalProtocolError(f"HELLO cannot be sent: {error}") from None
        return b"".join(parts)

    @classmethod
    def decode(cls, body: bytes) -> "Hello":
        """Read the payload of HELLO; fields for later versions are read over.

        Raises:
            RemoteProtocolError: BAD_BODY.
        """
        try:
            min_version, max_version, max_frame, max_calls, heartbeat_ms, features, count = _HELLO.unpack_from(body)
            at = _HELLO.size
            codecs = []
            for _ in range(count):
                name, after = _unpack_text(body, at + 1)
                codecs.append((body[at], name))
                at = after
            client_name, at = _unpack_text(body, at)
            service, at = _unpack_text(body, at)
            hello = cls(
                min_version=min_version,
                max_version=max_version,
                codecs=tuple(codecs),
                max_frame=max_frame,
                max_calls=max_calls,
                heartbeat_ms=heartbeat_ms,
                features=features,
                client_name=client_name,
                service=service,
                **_read_fields(_OF_HELLO, body, at),
            )
        except (struct.error, ValueError, IndexError) as error:
            raise bad_body(Kind.HELLO, str(error)) from None
        if problem := hello._problem():
            raise bad_body(Kind.HELLO, problem)
        return hello

    def _problem(self) -> str:
        """What the layout can say and the rules forbid; one check for both directions."""
        if not 1 <= self.min_version <= self.max_version <= 255:
            return f"versions {self.min_version} to {self.max_version} are no range within 1 to 255"
        if self.max_frame < HELLO_MAX_FRAME:
            return f"max_frame is {self.max_frame}; the least is {HELLO_MAX_FRAME}"
        problem = _heartbeat_problem(self.heartbeat_ms) or _control_problem(self.control)
        if problem := problem or _packing_problem(self.packing):
            return problem
        if not self.codecs:
            return "no codec is offered"
        if len({number for number, _ in self.codecs}) < len(self.codecs):
            return "a codec is offered twice"
        for number, name in self.codecs:
            if not number or not _CODEC_NAME.fullmatch(name):
                return f"codec {number} {name!r} is none: ids are 1 to 255, names 1 to 32 characters of a-z 0-9 _ . -"
        return ""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answers: the version and the codec of the connection, and the server's own limits.

    Attributes:
        version: of the service, 1 to 255, within what was offered.
        codec: id, one of those offered.
        max_frame: largest length field the server accepts, at least 4096 bytes.
        max_calls: calls in flight the server accepts, at least 1.
        heartbeat_ms: the agreed silence after which either side sends a PING, 1000 or more; 0 for none.
        features: those of the client's that hold for the connection.
        server_name: for logs, at most 255 bytes of UTF-8.
        digests: opcode -> digest of each method that the server has at ``version``; may be empty.
        control: the version of the framework's own methods that both read, 1 to 255.
        first_credit: what the request half of each of the client's calls begins with.
        one_way_credit: one-way calls that the client may begin before it is granted more, 0 to 2**32 - 1.
        packing: the number of the one algorithm with which either side may pack payloads; () for none.
    """

    version: int
    codec: int
    max_frame: int
    max_calls: int
    heartbeat_ms: int = 0
    features: int = 0
    server_name: str = ""
    digests: dict[int, int] = {}
    control: int = 1
    first_credit: Credit = NO_CREDIT
    one_way_credit: int = 0
    packing: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The payload of WELCOME.

        Raises:
            LocalProtocolError: a value is out of its range.
        """
        if problem := self._problem():
            raise LocalProtocolError(f"WELCOME cannot be sent: {problem}")
        head = (self.version, self.codec, self.max_frame, self.max_calls, self.heartbeat_ms, self.features)
        try:
            return _WELCOME.pack(*head) + _pack_text(self.server_name) + _pack_fields(self, _OF_WELCOME)
        except (struct.error, ValueError) as error:
            raise LocalProtocolError(f"WELCOME cannot be sent: {error}") from None

    @classmethod
    def decode(cls, body: bytes) -> "Welcome":
        """Read the payload of WELCOME; fields for later versions are read over.

        Raises:
            RemoteProtocolError: BAD_BODY.
        """
        try:
            version, codec, max_frame, max_calls, heartbeat_ms, features = _WELCOME.unpack_from(body)
            server_name, at = _unpack_text(body, _WELCOME.size)
            welcome = cls(
                version=version,
                codec=codec,
                max_frame=max_frame,
                max_calls=max_calls,
                heartbeat_ms=heartbeat_ms,
                features=features,
                server_name=server_name,
                **_read_fields(_OF_WELCOME, body, at),
            )
        except (struct.error, ValueError, IndexError) as error:
            raise bad_body(Kind.WELCOME, str(error)) from None
        if problem := welcome._problem():
            raise bad_body(Kind.WELCOME, problem)
        return welcome

    def _problem(self) -> str:
        if not (1 <= self.version <= 255 and 1 <= self.codec <= 255):
            return f"version {self.version} and codec {self.codec} are not both 1 to 255"
        if self.max_frame < HELLO_MAX_FRAME or self.max_calls < 1:
            return f"max_frame is {self.max_frame} and max_calls {self.max_calls}; the least is {HELLO_MAX_FRAME} and 1"
        if len(self.packing) > 1:
            return f"{len(self.packing)} algorithms were chosen; there is one, or no field"
        problem = _heartbeat_problem(self.heartbeat_ms) or _control_problem(self.control)
        return problem or _packing_problem(self.packing)

    @property
    def algorithm(self) -> int:
        """The one of ``packing``; 0 for none."""
        return self.packing[0] if self.packing else 0

    def mismatch(self, hello: Hello) -> str:
        """What this answer grants that ``hello`` did not offer; "" when they agree."""
        if not hello.min_version <= self.version <= hello.max_version:
            return f"version {self.version} was chosen and {hello.min_version} to {hello.max_version} offered"
        if self.codec not in {number for number, _ in hello.codecs}:
            return f"codec {self.codec} was chosen and {_codecs_text(hello.codecs)} offered"
        if self.features & ~hello.features:
            return f"features {self.features:#x} were granted and {hello.features:#x} offered"
        if self.control > hello.control:
            return f"control version {self.control} was chosen and the client reads {hello.control} at most"
        if self.packing and self.packing[0] not in hello.packing:
            return f"algorithm {self.packing[0]} was chosen and {list(hello.packing)} offered"
        return ""


def encode_fitting(greeting: Hello | Welcome) -> bytes:
    """The payload of HELLO or WELCOME, without the digests where its frame would be too long with them.

    Raises:
        LocalProtocolError: a value is out of its range.
    """
    body = greeting.encode()
    if HEADER_AFTER_LENGTH + len(body) > HELLO_MAX_FRAME:
        body = msgspec.structs.replace(greeting, digests={}).encode()
    return body


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server offers of one service it hosts.

    Attributes:
        service: its full name.
        version: the newest version.
        codecs: id -> name of those allowed.
        digests: version -> (opcode -> digest) of the methods of that version.
        oldest: the oldest version; all from it to the newest are spoken.
    """

    service: str
    version: int
    codecs: Mapping[int, str]
    digests: Callable[[int], Mapping[int, int]]
    oldest: int = 1


def find_offer(hello: Hello, offers: Mapping[str, Offer]) -> Offer:
    """The hosted service that ``hello`` asks for; "" asks for the only one.

    Raises:
        HandshakeError: NOT_FOUND, UNKNOWN_SERVICE.
    """
    if hello.service in offers:
        return offers[hello.service]
    if not hello.service and len(offers) == 1:
        return next(iter(offers.values()))
    asked = f"there is no service {hello.service!r} here" if hello.service else "name the service wanted"
    hosted = ", ".join(sorted(offers)) or "none"
    raise HandshakeError(Status.NOT_FOUND, "UNKNOWN_SERVICE", f"{asked}; this server hosts: {hosted}")


def choose_version(service: str, served: range, spoken: range) -> int:
    """The newest version that a server serves and a client speaks.

    Args:
        service: its full name, for the text.
        served, spoken: the versions of either side, ascending.

    Raises:
        HandshakeError: FAILED_PRECONDITION, UNSUPPORTED_VERSION: there is none; the text has both ranges.
    """
    version = min(served[-1], spoken[-1])
    if version < max(served[0], spoken[0]):
        raise HandshakeError(
            Status.FAILED_PRECONDITION,
            "UNSUPPORTED_VERSION",
            f"{service} is served in versions {served[0]} to {served[-1]}; "
            f"the client speaks {spoken[0]} to {spoken[-1]}",
        )
    return version


def compare_digests(service: str, version: int, ours: Mapping[int, int], theirs: Mapping[int, int]) -> None:
    """Hold what the other side lists against what this side declares, for either role.

    An opcode that one side lacks is no obstacle: it is refused when it is called, and may never be.

    Args:
        service: its full name, for the text.
        version: the one that both lists are of.
        ours, theirs: opcode -> digest; nothing listed is nothing to compare.

    Raises:
        HandshakeError: FAILED_PRECONDITION, CONTRACT_MISMATCH: the text lists the opcodes.
    """
    differing = sorted(opcode for opcode, digest in theirs.items() if ours.get(opcode, digest) != digest)
    if differing:
        raise HandshakeError(
            Status.FAILED_PRECONDITION,
            "CONTRACT_MISMATCH",
            f"{service} version {version} is declared differently on the two sides; opcodes that differ: "
            + ", ".join(f"{opcode:#06x}" for opcode in differing),
        )


def negotiate(
    hello: Hello,
    offers: Mapping[str, Offer],
    limits: Limits,
    server_name: str,
    *,
    control: int = 1,
    packing: Collection[int] = (),
) -> Welcome:
    """Choose version and codec for a connection: the newest common version, the client's favourite common codec.

    Args:
        hello: what the client offers.
        offers: the hosted services by full name.
        limits: what this server accepts; sent to the client.
        server_name: for the client's logs.
        control: the newest version of the framework's own methods that this server speaks.
        packing: the algorithms with which payloads may be packed here; the client's favourite of them is chosen.

    Raises:
        HandshakeError: NOT_FOUND, UNKNOWN_SERVICE; or FAILED_PRECONDITION with UNSUPPORTED_VERSION, UNSUPPORTED_CODEC
            or CONTRACT_MISMATCH. The text lists what is supported.
    """
    offer = find_offer(hello, offers)
    version = choose_version(
        offer.service, range(offer.oldest, offer.version + 1), range(hello.min_version, hello.max_version + 1)
    )
    # By id and name: two packages may have given one user id to different codecs.
    codec = next((number for number, name in hello.codecs if offer.codecs.get(number) == name), 0)
    if not codec:
        raise HandshakeError(
            Status.FAILED_PRECONDITION,
            "UNSUPPORTED_CODEC",
            f"{offer.service} is served over {_codecs_text(offer.codecs.items())}; "
            f"the client speaks {_codecs_text(hello.codecs)}",
        )
    digests = offer.digests(version)
    if version == hello.max_version:  # the client's list is of that version; with another one the client compares
        compare_digests(offer.service, version, digests, hello.digests)
    return Welcome(
        version=version,
        codec=codec,
        max_frame=limits.max_frame,
        max_calls=limits.max_calls,
        heartbeat_ms=_smaller_non_zero(hello.heartbeat_ms, round(limits.heartbeat * 1000)),
        server_name=server_name,
        digests=dict(digests),
        control=min(hello.control, control),
        first_credit=Credit(limits.first_items, limits.first_bytes),
        one_way_credit=limits.one_way_calls,
        packing=tuple(number for number in hello.packing if number in packing)[:1],
    )


def _heartbeat_problem(heartbeat_ms: int) -> str:
    """What is wrong with the heartbeat that either side says; the same rule for both."""
    if 0 < heartbeat_ms < _MIN_HEARTBEAT_MS:
        return f"the heartbeat is {heartbeat_ms} ms; the least is {_MIN_HEARTBEAT_MS}, or 0"
    return ""


def _control_problem(control: int) -> str:
    return "" if 1 <= control <= 255 else f"control version {control} is not 1 to 255"


def _packing_problem(packing: tuple[int, ...]) -> str:
    if 0 in packing or (len(packing) > 1 and len(set(packing)) < len(packing)):
        return f"the algorithms {list(packing)} are not each 1 to 255 and there once"
    return ""


def _smaller_non_zero(first: int, second: int) -> int:
    return min(first, second) if first and second else first or second


def _codecs_text(codecs: Iterable[tuple[int, str]]) -> str:
    return ", ".join(f"{name} ({number})" for number, name in codecs) or "no codec"


def _pack_text(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _unpack_text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + body[at]
    if end > len(body):
        raise ValueError("it ends inside a text")
    return body[at + 1 : end].decode(), end


# Fields at the end of HELLO and WELCOME. ------------------------------------------------------------------------


def _pack_digests(digests: dict[int, int]) -> bytes:
    return b"".join(_DIGEST.pack(*pair) for pair in digests.items())


def _read_digests(value: bytes) -> dict[int, int]:
    listed = list(_DIGEST.iter_unpack(value))
    digests = dict(listed)
    if len(digests) < len(listed):
        raise ValueError("an opcode is listed twice")
    return digests


def _pack_u8(number: int) -> bytes:
    return bytes([number])


def _read_u8(value: bytes) -> int:
    if len(value) != 1:
        raise ValueError(f"a field of one byte has {len(value)}")
    return value[0]


def _read_packing(value: bytes) -> tuple[int, ...]:
    if not value:
        raise ValueError("no algorithm is listed where there is a field for them")
    return tuple(value)


def _read_u32(value: bytes) -> int:
    number: int = _U32.unpack(value)[0]
    return number


def _read_u16(value: bytes) -> int:
    number: int = _U16.unpack(value)[0]
    return number


def _pack_credit(credit: Credit) -> bytes:
    return _CREDIT.pack(*credit)


def _read_credit(value: bytes) -> Credit:
    return Credit._make(_CREDIT.unpack(value))


class _Known(NamedTuple):
    """A field that is known here.

    Attributes:
        name: the attribute of ``Hello`` and ``Welcome`` that holds it.
        absent: what that is where the field is absent, and for which none is written.
        pack, read: its value as bytes, and back; ValueError or struct.error where the bytes are no value.
        of: the greetings that have it; to the other one it is unknown.
    """

    name: str
    absent: object
    pack: Callable[[Any], bytes]
    read: Callable[[bytes], object]
    of: tuple[type, ...] = (Hello, Welcome)


KNOWN_FIELDS: Final[Mapping[int, _Known]] = {
    1: _Known("digests", {}, _pack_digests, _read_digests),
    2: _Known("packing", (), bytes, _read_packing),
    3: _Known("early", 0, _U16.pack, _read_u16, of=(Hello,)),
    4: _Known("control", 1, _pack_u8, _read_u8),
    5: _Known("first_credit", NO_CREDIT, _pack_credit, _read_credit),
    6: _Known("one_way_credit", 0, _U32.pack, _read_u32),
}
"""By the type on the wire, in the order in which they are written."""


_OF_HELLO: Final = {tag: known for tag, known in KNOWN_FIELDS.items() if Hello in known.of}
_OF_WELCOME: Final = {tag: known for tag, known in KNOWN_FIELDS.items() if Welcome in known.of}


def _pack_fields(greeting: Hello | Welcome, fields: Mapping[int, _Known]) -> bytes:
    parts = []
    for tag, known in fields.items():
        value = getattr(greeting, known.name)
        if value != known.absent:
            packed = known.pack(value)
            parts.append(_TLV.pack(tag, len(packed)) + packed)
    return b"".join(parts)


def _read_fields(fields: Mapping[int, _Known], body: bytes, at: int) -> dict[str, Any]:
    """The known fields, by attribute; unknown ones are read over, whatever they hold and however often they come."""
    found: dict[str, Any] = {}
    for tag, value in _fields(body, at):
        known = fields.get(tag)
        if known is not None:
            if known.name in found:
                raise ValueError(f"field {tag} is there twice")
            found[known.name] = known.read(value)
    return found


def _fields(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(body):
        tag, length = _TLV.unpack_from(body, at)
        at += _TLV.size + length
        if at > len(body):
            raise ValueError("it ends inside a field")
        yield tag, body[at - length : at]


class Stranger(NamedTuple):
    """A peer whose first bytes are not our preamble.

    Attributes:
        error: says who it is, as far as that can be told.
        http: it would understand an HTTP answer.
    """

    error: RemoteProtocolError
    http: bool = False


_HTTP, _HTTP_2 = "an HTTP client", "an HTTP/2 client, as gRPC's are"
_BALANCER = "a load balancer that sends a PROXY header"

_HTTP_2_SERVER, _TLS_SERVER = "an HTTP/2 server, as gRPC's are", "a TLS server"

# What who has the wrong server can do about it, if there is more to say than that it is the wrong one.
_CURES = {
    _HTTP_2_SERVER: "a gRPC port is for gRPC clients (wireproto.client.grpc.connect); give the server's TCP port",
    _TLS_SERVER: "nothing is encrypted in this release; give a port that speaks plain TCP",
}

# What a server may hear from the wrong client ...
_CLIENTS: tuple[tuple[bytes, str], ...] = (
    (b"PRI * HTTP/2", _HTTP_2),
    *((verb + b" ", _HTTP) for verb in (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"TRACE")),
    *((verb + b" ", _HTTP) for verb in (b"OPTIONS", b"CONNECT")),
    (b"\x16\x03", "a TLS client"),
    (b"SSH-", "an SSH client"),
    (b"PROXY ", _BALANCER),
    (b"\r\n\r\n\x00\r\nQUIT\n", _BALANCER),
    (b"\x00\x00", "a client that sends a frame and no preamble before it"),
)
# ... and a client from the wrong server.
_SERVERS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "an HTTP server"),
    # The SETTINGS frame an HTTP/2 server begins with: its length, six bytes a setting, then its kind.
    *((bytes([0, 0, length, 4]), _HTTP_2_SERVER) for length in range(0, 256, 6)),
    (b"\x15\x03", _TLS_SERVER),
    (b"SSH-", "an SSH server"),
    (b"220", "a mail or FTP server"),
    (b"-ERR", "a Redis server"),
)

LONGEST_PREFIX = max(len(prefix) for prefix, _ in _CLIENTS + _SERVERS)
"""Bytes after which ``recognise`` always knows."""


def recognise(first: bytes, *, by_client: bool) -> Stranger | Literal["ours", "undecided"]:
    """Say who sent the first bytes of a connection.

    Args:
        first: what came so far; bytes beyond ``LONGEST_PREFIX`` change nothing.
        by_client: whether a client listens to what should be a server; else the other way round.

    Returns:
        "ours" when ``first`` begins with our preamble; "undecided" while it is too short to tell.
    """
    if first.startswith(PREAMBLE):
        return "ours"
    if PREAMBLE.startswith(first):
        return "undecided"
    peer = "server" if by_client else "client"
    if first.startswith(PREAMBLE[:-1]):
        text = f"the {peer} speaks major version {first[len(PREAMBLE) - 1]} of the wire; spoken here: {MAJOR}"
        return Stranger(RemoteProtocolError("UNSUPPORTED_MAJOR", text, Status.FAILED_PRECONDITION))
    who = ""
    for prefix, known in _SERVERS if by_client else _CLIENTS:
        if first.startswith(prefix):
            who = known
        elif prefix.startswith(first):
            return "undecided"
    who = who or f"somebody who begins with {first[:8].hex(' ')}"
    text = f"the peer is {who}; a wireproto {peer} begins with {PREAMBLE.hex(' ')}"
    if by_client:
        text += f"; {_CURES.get(who, 'see whether the address and the port are right')}"
    return Stranger(RemoteProtocolError("FOREIGN_PROTOCOL", text), http=who in (_HTTP, _HTTP_2))


def http_refusal(hint: str = "") -> bytes:
    """A whole HTTP/1.1 answer for whoever takes this port for a web server's; HTTP/2 clients show it, too."""
    text = f"This port speaks wireproto {MAJOR}, whose first bytes are {PREAMBLE.hex(' ')}, and not HTTP.\n"
    if hint:
        text += f"{hint}\n"
    body = text.encode()
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
