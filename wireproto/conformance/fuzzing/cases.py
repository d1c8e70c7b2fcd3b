"""What one connection sends: generated from a seed and a number, so that the same two make the same case again."""

import random
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from wireproto.conformance import page
from wireproto.conformance.edges import PIECES
from wireproto.conformance.fuzzing.judge import MethodPlans, Methods
from wireproto.conformance.fuzzing.messages import random_bytes, random_message, random_text
from wireproto.errors import EncodeError

__all__ = ["KINDS", "Input", "Generator", "mutated"]


class Input(msgspec.Struct, frozen=True):
    """One connection's input.

    Attributes:
        kind: what it is about, one of ``KINDS``.
        opening: sent first.
        rest: sent once WELCOME has come; None when the opening is all there is.
        cuts: how many bytes of ``rest`` each system call sends, the last one what is left.
        reset: drop the connection at the end and look at nothing, instead of ending the output and reading.
        calls: how many REQUESTs it is made of, for kinds that are about calls.
    """

    kind: str
    opening: bytes
    rest: bytes | None
    cuts: list[int] = []
    reset: bool = False
    calls: int = 0


_STRANGERS: Final = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-OpenSSH_9.2\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", b"EHLO x\r\n", b"\x00\x00\x00\x0c\x01" + bytes(11), b"\xf5WP", b"\xf5",
    b"\xf5WP\x02", b"\xf5WP\x00", b"\xf5WP\xff" + bytes(30), b"*1\r\n$4\r\nPING\r\n", b"",
]  # fmt: skip


_FIELDS: Final = [
    b"", b"\0\1\0\0", b"\0\1\0\6\0\0\0\0\0\0", b"\x77\x77\0\1x", b"\0", b"\0\1\xff\xff",
    page.credit_fields(page.CreditBody(1, 0), 2**32 - 1), b"\0\5\0\4\0\0\0\1", b"\0\6\0\0",
    b"\0\2\0\1\1", b"\0\2\0\0", b"\0\2\0\2\1\1", b"\0\2\0\3\xf0\1\0",
]  # fmt: skip
"""Ends of a HELLO, right and wrong."""

_SHAPES: Final = [flags for flags in page.FLAGS_OF_REQUEST if not flags & page.ONE_WAY]

_GOING: Final = b"\x0e\x00\x00\x00\x00\x00\x03BYE\x00\x02so"
"""The body of an ERROR that is in order."""


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Bytes a few steps away from some: bits flipped, pieces lost, put in, doubled, cut off, or made anew."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randint(0, len(made))
        until = min(len(made), at + rng.randint(0, 8))
        match rng.randrange(6):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at:until]
            case 2:
                del made[at:]
            case 3:
                made[at:at] = rng.choice(PIECES)
            case 4:
                made[at:at] = made[at:until]
            case _:
                made[at:until] = random_bytes(rng, rng.randint(0, 4))
    return bytes(made)


class Generator:
    """Makes the cases for one service, codec and version.

    Args:
        table: the methods.
        codec: the codec's name, for HELLO.
        seed: of all choices.
        kinds: which kinds to make, all equally often.
        most: elements of a list, characters of a text.
    """

    def __init__(self, table: Methods, codec: str, seed: int, kinds: list[str], *, most: int = 6) -> None:
        self.table = table
        self._codec = codec
        self._seed = seed
        self._kinds = kinds
        self._most = most
        self._methods = list(table.entries.items())
        self._classes = _classes(table)
        hello = page.pack_hello(
            codecs=[(table.codec, codec)],
            service=table.service.full_name,
            versions=(table.version, table.version),
            client_name="wireproto fuzz",
            fields=page.tlv(page.PACKING_FIELD, bytes([page.ZLIB])),
        )
        self.hello_body = hello
        self.opening = page.PREAMBLE + page.frame(page.HELLO, hello)

    def case(self, number: int) -> Input:
        """The case of that number; the same for the same seed, whatever was made before."""
        rng = random.Random(f"{self._seed}/{number}")
        kind = rng.choice(self._kinds)
        return self.KINDS[kind](self, rng)

    def probe(self) -> Input:
        """A call that any server answers, whatever it was sent on other connections."""
        return Input("probe", self.opening, self._request(1, 0xF000, self._valid(random.Random(0), 0xF000)))

    # The kinds.

    def _first_bytes(self, rng: random.Random) -> Input:
        way = rng.randrange(4)
        if way == 0:
            opening = rng.choice(_STRANGERS)
        elif way == 1:
            opening = mutated(rng, rng.choice(_STRANGERS))
        elif way == 2:
            opening = random_bytes(rng, rng.randint(0, 40))
        else:
            opening = page.PREAMBLE + random_bytes(rng, rng.randint(0, 40))
        return Input("first-bytes", opening, None)

    def _hello(self, rng: random.Random) -> Input:
        way = rng.randrange(5)
        if way == 0:
            opening = mutated(rng, self.opening)
        elif way == 1:
            opening = page.PREAMBLE + page.frame(page.HELLO, mutated(rng, self.hello_body))
        elif way == 2:
            opening = page.PREAMBLE + self._changed(rng, page.HELLO, self.hello_body, {})
        elif way == 3:
            opening = page.PREAMBLE + page.frame(page.HELLO, self._other_hello(rng))
        else:
            opening = self.opening + random_bytes(rng, rng.randint(1, 40))
        return Input("hello", opening, None)

    def _early(self, rng: random.Random) -> Input:
        """HELLO and what it announces, or nearly."""
        calls = [self._request(number, 0xF000, self._valid(rng, 0xF000)) for number in range(1, rng.randint(2, 4))]
        early = b"".join(calls)
        if rng.random() < 0.5:
            early = rng.choice((mutated(rng, early), early[:-1], early + self._frame(rng, []), random_bytes(rng, 20)))
        size = len(early) if rng.random() < 0.7 else rng.choice((0, 1, len(early) + 1, max(0, len(early) - 1), 0xFFFF))
        field = page.tlv(page.EARLY_FIELD, size.to_bytes(2, "big"))
        return Input("early", page.PREAMBLE + page.frame(page.HELLO, self.hello_body + field) + early, None)

    def _other_hello(self, rng: random.Random) -> bytes:
        low = rng.randint(0, 4)
        codec: tuple[int, str | bytes] = (self.table.codec, self._codec)
        others: list[tuple[int, str | bytes]] = [(0, "x"), (200, "own"), (9, b"\xff"), (1, "msgpack"), codec, (5, "X")]
        return page.pack_hello(
            versions=(low, rng.choice((low, 255, rng.randint(0, 4)))),
            codecs=rng.sample(others, rng.randint(0, 3)),
            service=rng.choice(("", self.table.service.full_name, "no.v1.Such", b"\xff\xfe")),
            max_frame=rng.choice((0, 4095, 4096, 2**32 - 1)),
            max_calls=rng.choice((0, 1, 2**32 - 1)),
            heartbeat_ms=rng.choice((0, 1, 999, 1000, 2**32 - 1)),
            features=rng.choice((0, 1, 2**64 - 1)),
            client_name=rng.choice(("", "n" * 255, b"\xc3")),
            fields=rng.choice(_FIELDS),
        )

    def _frames(self, rng: random.Random) -> Input:
        parts = []
        begun: list[tuple[int, int]] = []
        for _ in range(rng.randint(1, 6)):
            parts.append(self._frame(rng, begun))
        if rng.random() < 0.1:
            parts.append(self._flood(rng))
        rest = b"".join(parts)
        if rng.random() < 0.3:
            rest = mutated(rng, rest)
        if rng.random() < 0.15:
            rest = rest[: rng.randint(0, len(rest))]
        cuts = [rng.randint(1, 24) for _ in range(rng.choice((0, 0, 1, 2)))]
        return Input("frames", self.opening, rest, cuts, reset=rng.random() < 0.05)

    def _frame(self, rng: random.Random, begun: list[tuple[int, int]]) -> bytes:
        """One frame, of a call or of none, half of them with a mistake; ``begun`` are ids and opcodes."""
        way = rng.random()
        if way < 0.35:
            return self._begin(rng, begun)
        if way < 0.65:
            return self._of_a_call(rng, begun)
        kind = rng.choice((page.PING, page.PONG, page.GOAWAY, page.ERROR, page.CREDIT, rng.randrange(256)))
        payload = b""
        if kind in (page.PING, page.PONG):
            payload = random_bytes(rng, 8)
        elif kind == page.ERROR:
            payload = _GOING
        elif kind == page.GOAWAY:
            payload = page.goaway_body(page.TOP_BIT, _GOING)
        elif kind == page.CREDIT:
            payload = page.credit_body(rng.choice((1, 5, 2**32 - 1)), rng.choice((0, 0, 0, 1)))
        return self._perhaps_changed(rng, kind, payload, {})

    def _begin(self, rng: random.Random, begun: list[tuple[int, int]]) -> bytes:
        last = begun[-1][0] if begun else 0
        call_id = (last + rng.choice((1, 1, 1, 1, 2, 0, 1000, page.FURTHEST, page.FURTHEST + 1))) & page.LAST_NUMBER
        opcode, entry = rng.choice(self._methods)
        flags = entry.flags if rng.random() < 0.7 else rng.choice(page.FLAGS_OF_REQUEST)
        payload = b"" if flags & page.ITEMS_FOLLOW else mutated(rng, self._valid(rng, opcode))
        begun.append((call_id, opcode))
        payload, flags = self._perhaps_packed(rng, payload, flags)
        fields = {"codec": self.table.codec, "version": self.table.version, "opcode": opcode, "call_id": call_id}
        return self._perhaps_changed(
            rng, page.REQUEST, payload, {**fields, "flags": flags}, self._metadata(rng, entry, flags)
        )

    def _of_a_call(self, rng: random.Random, begun: list[tuple[int, int]]) -> bytes:
        """A frame of a call that was begun, mostly, and that may have no place in its state."""
        kind = rng.choice((page.CANCEL, page.CREDIT, page.END, page.ITEM, page.RESPONSE, page.ERROR))
        call_id, opcode = rng.choice(begun or [(1, self._methods[0][0])])
        if rng.random() < 0.2:
            call_id = rng.choice((call_id + 1, page.TOP_BIT | 1, page.LAST_NUMBER))
        fields = {"opcode": opcode, "call_id": call_id}
        payload = b""
        if kind in page.OF_MESSAGES:
            fields |= {"codec": self.table.codec, "version": self.table.version}
            payload = random_bytes(rng, rng.randint(0, 9))
        elif kind == page.CREDIT:
            payload = page.credit_body(rng.choice((0, 1, 2, 2**32 - 1)), rng.choice((0, 1, 100, 2**32 - 1)))
        elif kind == page.ERROR:
            payload = _GOING
        return self._perhaps_changed(rng, kind, payload, fields)

    def _perhaps_packed(self, rng: random.Random, payload: bytes, flags: int) -> tuple[bytes, int]:
        """A payload, and the flags beside it: now and then packed, rightly or not, or only said to be."""
        way = rng.random()
        if way < 0.8:
            return payload, flags
        if way < 0.9 and payload:
            return page.packed_body(payload), flags | page.PACKED
        length = rng.choice((None, 0, 1, len(payload) + 1, 100_000, page.U32_MOST))
        packed = page.packed_body(payload, length=length, cut=rng.choice((0, 1)), tail=rng.choice((b"", b"x")))
        return rng.choice((packed, packed[:4], payload, mutated(rng, packed))), flags | page.PACKED

    def _flood(self, rng: random.Random) -> bytes:
        """Frames of calls that are not in flight, as many as are dropped, or more: what crosses the end of calls takes
        from a bucket, and what answers none is counted. Or chatter, which takes from another one.
        """
        kind, payload = rng.choice(((page.CANCEL, b""), (page.END, b""), (page.CREDIT, page.credit_body(1, 1))))
        way = rng.random()
        if way < 0.3:
            return page.frame(kind, payload, call_id=page.TOP_BIT | 1) * rng.choice((1, 16, 17))
        if way < 0.37:
            return rng.choice((page.frame(page.PONG, bytes(8)), page.frame(0xF0))) * rng.choice((1000, 1001, 3000))
        return page.frame(kind, payload, call_id=page.LAST_NUMBER) * rng.choice((1000, 1001, 1100))

    def _perhaps_changed(
        self, rng: random.Random, kind: int, payload: bytes, fields: dict[str, int], metadata: bytes = b""
    ) -> bytes:
        if rng.random() < 0.7:
            return page.frame(kind, payload, metadata, **fields)
        return self._changed(rng, kind, payload, fields, metadata)

    def _changed(
        self, rng: random.Random, kind: int, payload: bytes, fields: dict[str, int], metadata: bytes = b""
    ) -> bytes:
        """A frame with one field of its header, or its body, other than it should be."""
        name = rng.choice(
            ("flags", "codec", "version", "opcode", "call_id", "length", "metadata_length", "metadata", "payload")
        )
        if name == "payload":
            payload = mutated(rng, payload)
        elif name == "metadata":
            metadata = mutated(rng, metadata)
        else:
            most = {"length": 2**32, "metadata_length": 2**16, "opcode": 2**16, "call_id": 2**32}.get(name, 256)
            near = len(payload) + len(metadata) + 12
            value = rng.choice((0, 1, most - 1, near, near - 1, near + 1, rng.randrange(most), 11, 4096))
            fields = {**fields, name: min(value, most - 1)}
        return page.frame(kind, payload, metadata, **fields)

    def _payload(self, rng: random.Random) -> Input:
        return self._calls("payload", rng, lambda opcode, entry: (b"", mutated(rng, self._valid(rng, opcode))))

    def _bad_metadata(self, rng: random.Random) -> Input:
        return self._calls(
            "metadata",
            rng,
            # Behind it a payload that is none: what is about the metadata must not run anything.
            lambda opcode, entry: (mutated(rng, self._metadata(rng, entry)), random_bytes(rng, rng.randint(1, 9))),
        )

    def _valid_calls(self, rng: random.Random) -> Input:
        return self._calls(
            "valid", rng, lambda opcode, entry: (self._metadata(rng, entry), self._valid(rng, opcode)), most=3
        )

    def _any_shape(self, rng: random.Random) -> Input:
        return self._calls(
            "shapes",
            rng,
            lambda opcode, entry: (self._metadata(rng, entry, page.ITEMS_COME_BACK), self._valid(rng, opcode)),
            any_shape=True,
        )

    def _calls(
        self,
        kind: str,
        rng: random.Random,
        make: Callable[[int, MethodPlans], tuple[bytes, bytes]],
        most: int = 4,
        any_shape: bool = False,
    ) -> Input:
        """Some calls, and a PING behind them that tells whether the connection lives."""
        parts = []
        count = rng.randint(1, most)
        for call_id in range(1, count + 1):
            opcode, entry = rng.choice(self._methods)
            if rng.random() < 0.05:
                opcode = rng.randrange(0x10000)
                entry = self.table.entries.get(opcode, entry)
            metadata, payload = make(opcode, entry)
            flags = rng.choice(_SHAPES) if any_shape else entry.flags
            follow = bool(flags & page.ITEMS_FOLLOW)
            sent, packed = (b"", flags) if follow else self._perhaps_packed(rng, payload, flags)
            parts.append(self._request(call_id, opcode, sent, metadata, packed))
            if follow and flags == entry.flags:
                parts.append(self._items(rng, opcode, call_id, payload))
            if rng.random() < 0.1:
                parts.append(page.frame(page.CANCEL, opcode=opcode, call_id=call_id))
        parts.append(page.frame(page.PING, random_bytes(rng, 8)))
        return Input(kind, self.opening, b"".join(parts), calls=count)

    # Parts.

    def _items(self, rng: random.Random, opcode: int, call_id: int, first: bytes) -> bytes:
        """A request half of a few items, no more than any server grants at first that grants some; mostly with END."""
        table = self.table
        payloads = [first, self._valid(rng, opcode)][: rng.randrange(3)]
        items = b"".join(
            page.frame(page.ITEM, payload, codec=table.codec, version=table.version, opcode=opcode, call_id=call_id)
            for payload in payloads
        )
        return items + (page.frame(page.END, opcode=opcode, call_id=call_id) if rng.random() < 0.8 else b"")

    def _request(self, call_id: int, opcode: int, payload: bytes, metadata: bytes = b"", flags: int = 0) -> bytes:
        table = self.table
        return page.frame(
            page.REQUEST,
            payload,
            metadata,
            codec=table.codec,
            version=table.version,
            opcode=opcode,
            call_id=call_id,
            flags=flags,
        )

    def _valid(self, rng: random.Random, opcode: int) -> bytes:
        """A payload that is a message of the method; of some other one if there is no such method."""
        if opcode not in self._classes:
            opcode = self._methods[0][0]
        request, version, encode = self._classes[opcode]
        try:
            payload: bytes = encode(random_message(rng, request, version, most=self._most))
        except EncodeError:
            # Bounds of a map's keys, say, that only the codec's check knows.
            return b""
        return payload

    def _metadata(self, rng: random.Random, entry: MethodPlans, flags: int | None = None) -> bytes:
        deadline = rng.choice((None, None, 0, 1, 60_000, 2**32 - 1))
        given = [(page.DEADLINE_KEY, b"" if deadline is None else page.u32(deadline))]
        traceparent = rng.choice(("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x"))
        given.append((page.TRACEPARENT_KEY, traceparent.encode()))
        given.append((page.AUTHORIZATION_KEY, rng.choice((b"", b"", b"Bearer x", b"~" * 40))))
        given.append((page.IDEMPOTENCY_KEY, random_bytes(rng, rng.choice((0, 0, 16, 64)))))
        if (entry.flags if flags is None else flags) & page.ITEMS_COME_BACK:
            size = rng.choice((0, 1, 20, 2**20))
            given.append((page.CREDIT_KEY, page.credit_body(rng.choice((0, 1, 2, 100)), size)))
            position = rng.choice((b"", b"", b"", b"1", b"-7", b"~" * 64, random_bytes(rng, 9)))
            given.append((page.RESUME_KEY, position))
        own = [(f"k{index}", random_text(rng, 4)) for index in range(rng.choice((0, 0, 1, 3)))]
        fields = [page.field(key, value) for key, value in given if value]
        return b"".join((*fields, *(page.entry(name.encode(), value.encode()) for name, value in own)))

    KINDS: ClassVar[dict[str, Callable[["Generator", random.Random], Input]]] = {
        "first-bytes": _first_bytes,
        "hello": _hello,
        "early": _early,
        "frames": _frames,
        "metadata": _bad_metadata,
        "payload": _payload,
        "shapes": _any_shape,
        "valid": _valid_calls,
    }


def _classes(table: Methods) -> dict[int, tuple[Any, int, Callable[[Any], bytes]]]:
    """opcode -> request class, the version it is written in, and what writes it."""
    from wireproto.control import CONTROL

    found = {}
    for owner, version in ((CONTROL, CONTROL.version), (table.service, table.version)):
        for opcode, method in owner.called_by("client", version).items():
            found[opcode] = (method.request, version, table.entries[opcode].request.encode)
    return found


KINDS: Final = Generator.KINDS
"""name -> what makes such an input. ``valid`` calls the service's methods as a client would."""
