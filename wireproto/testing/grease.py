"""A connection that says what nobody knows, wherever a peer must read over it: so that peers do.

What may be extended and never is grows stiff: somebody's peer refuses the first extension there ever is. A connection
that greases offers versions, codecs and features that do not exist, adds fields and metadata of no meaning, and puts
frames of unknown kinds in between, on every connection. Nothing of that may change an answer. The values are those that
``docs/wire.md``, section 14, keeps for it.

For tests: of peers that somebody wrote, and of ours. ``connect(connections=greasing(seed))`` turns it on, as does
``Server(connections=greasing(seed))``.
"""

import struct
from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Final

import msgspec

from wireproto.errors import CallError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.wire.connection import Connection, ConnectionMaker, PayloadTooLarge, Role, State
from wireproto.wire.early import EarlyRequest
from wireproto.wire.events import Event, WelcomeReceived
from wireproto.wire.frame import HEADER, HEADER_AFTER_LENGTH, Credit, Frame, Kind, bad_body
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.packing import Payload

__all__ = [
    "ALGORITHMS",
    "CODEC_NAME",
    "ERROR_FIELDS",
    "FEATURES",
    "FIELDS",
    "KINDS",
    "METADATA_KEYS",
    "GreasingConnection",
    "greasing",
]

FEATURES: Final = range(56, 64)
"""Bits of HELLO and WELCOME."""

KINDS: Final = range(0xF0, 0x100)
"""Of frames; ignorable, as their top bit is set."""

METADATA_KEYS: Final = range(0x78, 0x80)
"""Without the bit that says they must be understood."""

FIELDS: Final = range(0xFF00, 0x10000)
"""Types of the fields at the end of HELLO and WELCOME."""

ERROR_FIELDS: Final = range(0xF0, 0x100)
"""... and at the end of ERROR and GOAWAY."""

ALGORITHMS: Final = range(0xF0, 0x100)
"""By which payloads would be packed: of those that HELLO lists."""

CODEC_NAME: Final = "grease"
"""Names of codecs that begin like this are nobody's."""

_MOST_METADATA: Final = 1024
"""Bytes of a block beyond which it is left alone: a server's limit is not told to clients."""

_SELDOM: Final = 0.25
"""How likely a frame gets company, after the first."""

_LARGEST: Final = 64

_SHORT_FIELD = struct.Struct(">BH")
_FIELD = struct.Struct(">HH")


def greasing(seed: int | str, *, versions: bool = True) -> ConnectionMaker:
    """What makes connections that grease, for ``connect`` and ``Server``: each with a seed of its own.

    Args:
        seed: the same one says the same things, connection by connection.
        versions: as a client, offer versions above the newest, too; see ``GreasingConnection``.
    """
    numbers = count(1)

    def make(role: Role, limits: Limits | None = None, *, hint: str = "") -> Connection:
        return GreasingConnection(role, limits, hint=hint, seed=f"{seed}/{next(numbers)}", versions=versions)

    return make


class _GreasedHello(Hello, frozen=True, kw_only=True):
    """HELLO with fields that nobody knows behind those that are known."""

    more: bytes = b""

    def encode(self) -> bytes:
        return super().encode() + self.more


class _GreasedWelcome(Welcome, frozen=True, kw_only=True):
    more: bytes = b""

    def encode(self) -> bytes:
        return super().encode() + self.more


class GreasingConnection(Connection):
    """A ``Connection`` that greases; see there.

    Args:
        role, limits, hint: as of ``Connection``.
        seed: the same one says the same things, in the same order of calls.
        versions: as a client, offer versions above the newest. Only for a server that is known to have none of them: it
            would choose one that the client does not speak, and the connection would end. Digests are not compared.
    """

    __slots__ = ("_greased", "_newest", "_offered", "_random", "_versions")

    def __init__(
        self,
        role: Role,
        limits: Limits | None = None,
        *,
        hint: str = "",
        seed: int | str,
        versions: bool = True,
    ) -> None:
        self._random = Random(seed)
        self._versions = versions
        self._newest = 0
        self._offered = 0
        self._greased = False
        super().__init__(role, limits, hint=hint)

    def send_hello(self, hello: Hello, early: Sequence[EarlyRequest] = ()) -> list[int]:
        """Greet with more than there is, as long as HELLO has room for it; see ``Connection``. Early calls are for
        nobody to read where a version is offered that nobody speaks.
        """
        random = self._random
        self._newest = hello.max_version
        known = {number for number, _ in hello.codecs}
        codecs = list(hello.codecs)
        for number in random.sample([each for each in range(128, 256) if each not in known], random.randint(1, 3)):
            codecs.insert(random.randint(0, len(codecs)), (number, f"{CODEC_NAME}-{number}"))
        newest = hello.max_version
        if self._versions:
            newest = random.randint(min(newest + 1, 255), 255)
        given = msgspec.structs.asdict(hello)
        given |= {
            "max_version": newest,
            "codecs": tuple(codecs),
            "features": hello.features | self._bits(),
            "packing": self._algorithms(hello.packing),
            "more": self._fields(),
        }
        greased = _GreasedHello(**given)
        fits = HEADER_AFTER_LENGTH + len(greased.encode()) <= HELLO_MAX_FRAME
        if fits:
            try:
                return super().send_hello(greased, early)
            except PayloadTooLarge:
                pass  # with the early calls it is: they are worth more than grease
        return super().send_hello(hello, early)

    def send_welcome(self, welcome: Welcome) -> None:
        """Welcome, and grant features without a meaning that were offered; see ``Connection``."""
        given = msgspec.structs.asdict(welcome)
        given |= {"features": welcome.features | (self._bits() & self._offered), "more": self._fields()}
        super().send_welcome(_GreasedWelcome(**given))

    def send_request(self, opcode: int, payload: Payload, metadata: bytes = b"") -> int:
        """Begin a unary call, with metadata that nobody knows beside its own; see ``Connection``."""
        # A frame before the request: behind it, it would count as part of it where the end of that is remembered.
        if Kind.REQUEST in self._may_send:
            self._interject()
        return super().send_request(opcode, payload, self._more_metadata(payload, metadata))

    def send_flagged_request(
        self, flags: int, opcode: int, payload: Payload, metadata: bytes = b"", *, credit: Credit | None = None
    ) -> int:
        """Begin a call of another shape, likewise."""
        block = self._more_metadata(payload, metadata)
        return super().send_flagged_request(flags, opcode, payload, block, credit=credit)

    def _more_metadata(self, payload: Payload, metadata: bytes) -> bytes:
        more = self._metadata()
        length = HEADER_AFTER_LENGTH + len(metadata) + len(more) + len(payload)
        if length <= self.their_max_frame and len(metadata) + len(more) <= _MOST_METADATA:
            metadata = metadata + more if self._random.random() < 0.5 else more + metadata
        return metadata

    def send_response(self, call_id: int, payload: bytes) -> None:
        """Answer a call, with metadata that nobody knows beside its own; see ``Connection``."""
        if call_id in self._theirs.opcodes:
            self._interject()
        self._say_more(call_id, len(payload))
        super().send_response(call_id, payload)

    def answer(self, call_id: int, payload: bytes) -> bytes:
        """Answer a call at once; see ``Connection``."""
        self.send_response(call_id, payload)
        return self.data_to_send()

    def send_item(self, call_id: int, payload: Payload) -> None:
        """Send an item; one of an answer with metadata that nobody knows. See ``Connection``."""
        more = self._metadata()
        fits = HEADER_AFTER_LENGTH + len(more) + len(payload) <= self.their_max_frame
        if fits and call_id in self._theirs.halves and self.may_send_item(call_id):
            self._send_item_beside(call_id, payload, more)
        else:
            super().send_item(call_id, payload)

    def send_end(self, call_id: int, *, dropped: int = 0) -> None:
        """End a half of a call; likewise."""
        self._say_more(call_id, 0)
        super().send_end(call_id, dropped=dropped)

    def send_error(self, call_id: int, error: CallError) -> None:
        """Fail a call; likewise."""
        self._say_more(call_id, _MOST_METADATA * 3)
        super().send_error(call_id, error)

    def _say_more(self, call_id: int, size: int) -> None:
        """Add to the metadata of the answer of a call that the peer began, if there is room beside so many bytes."""
        if call_id not in self._theirs.opcodes:
            return
        block = self._metadata_of(call_id) + self._metadata()
        if len(block) <= _MOST_METADATA and HEADER_AFTER_LENGTH + len(block) + size <= self.their_max_frame:
            self.set_metadata(call_id, block)

    def _send(
        self, kind: int, opcode: int, call_id: int, body: bytes, *, flags: int = 0, metadata: bytes = b""
    ) -> None:
        if kind in (Kind.ERROR, Kind.GOAWAY):
            more = self._field(_SHORT_FIELD, ERROR_FIELDS)
            if HEADER_AFTER_LENGTH + len(body) + len(more) <= self.their_max_frame:
                body += more
        super()._send(kind, opcode, call_id, body, flags=flags, metadata=metadata)
        self._interject()

    def _read(self, frame: Frame) -> Event | None:
        event = super()._read(frame)
        if frame.kind == Kind.HELLO and self._hello is not None:
            self._offered = self._hello.features
        elif isinstance(event, WelcomeReceived) and event.welcome.version > self._newest:
            raise bad_body(
                Kind.WELCOME,
                f"it chose version {event.welcome.version}, which was offered as grease: the server is newer than the "
                "client; grease without versions",
            )
        return event

    def _interject(self) -> None:
        """Queue a frame of an unknown kind, where it is allowed: once for certain, and now and then."""
        if self.state is not State.OPEN or (self._greased and self._random.random() >= _SELDOM):
            return
        self._greased = True
        random = self._random
        rest = random.randbytes(random.randint(0, _LARGEST))
        header = HEADER.pack(
            HEADER_AFTER_LENGTH + len(rest),
            random.choice(KINDS),
            random.randrange(256),
            random.randrange(256),
            random.randrange(256),
            random.randrange(65_536),
            random.randint(0, len(rest)),
            random.randrange(2**32),
        )
        self._queue(header + rest)

    def _algorithms(self, known: tuple[int, ...]) -> tuple[int, ...]:
        offered = list(known)
        for number in self._random.sample(ALGORITHMS, self._random.randint(1, 3)):
            offered.insert(self._random.randint(0, len(offered)), number)
        return tuple(offered)

    def _bits(self) -> int:
        return sum(1 << bit for bit in self._random.sample(FEATURES, self._random.randint(1, len(FEATURES))))

    def _fields(self) -> bytes:
        return b"".join(self._field(_FIELD, FIELDS) for _ in range(self._random.randint(1, 3)))

    def _field(self, head: struct.Struct, types: range) -> bytes:
        value = self._random.randbytes(self._random.randint(0, _LARGEST))
        return head.pack(self._random.choice(types), len(value)) + value

    def _metadata(self) -> bytes:
        return b"".join(self._field(_SHORT_FIELD, METADATA_KEYS) for _ in range(self._random.randint(1, 2)))
