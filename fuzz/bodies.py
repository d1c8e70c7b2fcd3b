"""Targets for what is read without a connection: first bytes, HELLO, WELCOME, and a request's metadata."""

import json
from collections.abc import Iterator
from pathlib import Path

from wireproto.errors import CallError, HandshakeError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.status import Status
from wireproto.wire.frame import HEADER, PREAMBLE, Kind
from wireproto.wire.handshake import LONGEST_PREFIX, Hello, Offer, Stranger, Welcome, negotiate, recognise
from wireproto.wire.metadata import pack_metadata, unpack_metadata

__all__ = ["handshake", "handshake_seeds", "metadata", "metadata_seeds"]

_VECTORS = Path(__file__).parent.parent / "tests" / "vectors"

_SERVICE = "example.v1.CalculatorService"
_OFFERS = {_SERVICE: Offer(_SERVICE, 3, {1: "pipe", 2: "msgpack", 3: "protobuf"}, lambda version: {0x10: 0xDEADBEEF})}
_TWO_OFFERS = {**_OFFERS, "a.B": Offer("a.B", 200, {200: "own"}, lambda version: {})}
_LIMITS = Limits()
_OUR_HELLO = Hello(min_version=1, max_version=3, codecs=((2, "msgpack"), (1, "pipe")), max_frame=65_536, features=3)

# docs/wire.md, section 3.
_REFUSALS = {
    "UNKNOWN_SERVICE": Status.NOT_FOUND,
    "UNSUPPORTED_VERSION": Status.FAILED_PRECONDITION,
    "UNSUPPORTED_CODEC": Status.FAILED_PRECONDITION,
    "CONTRACT_MISMATCH": Status.FAILED_PRECONDITION,
}


def handshake(data: bytes) -> None:
    """Choose by the first byte what the rest is."""
    if not data:
        return
    choice, body = data[0] & 3, data[1:]
    if choice == 0:
        _read_hello(body, _TWO_OFFERS if data[0] & 4 else _OFFERS)
    elif choice == 1:
        _read_welcome(body)
    else:
        _recognise(body, data[0] >> 2, by_client=choice == 2)


def _read_hello(body: bytes, offers: dict[str, Offer]) -> None:
    try:
        hello = Hello.decode(body)
    except RemoteProtocolError as error:
        assert error.reason == "BAD_BODY", error
        return
    written = hello.encode()
    # Fields that this version does not know are read over, so only they may be missing.
    assert len(written) <= len(body)
    assert Hello.decode(written) == hello
    try:
        welcome = negotiate(hello, offers, _LIMITS, "fuzz")
    except HandshakeError as error:
        assert _REFUSALS[error.reason] == error.status, error
        return
    assert Welcome.decode(welcome.encode()) == welcome
    assert welcome.mismatch(hello) == ""


def _read_welcome(body: bytes) -> None:
    try:
        welcome = Welcome.decode(body)
    except RemoteProtocolError as error:
        assert error.reason == "BAD_BODY", error
        return
    assert Welcome.decode(welcome.encode()) == welcome
    if not welcome.mismatch(_OUR_HELLO):
        assert 1 <= welcome.version <= 3
        assert welcome.codec in (1, 2)
        assert not welcome.features & ~3


def _recognise(first: bytes, cut: int, *, by_client: bool) -> None:
    said = recognise(first, by_client=by_client)
    assert said != "undecided" or len(first) < LONGEST_PREFIX
    assert (said == "ours") == first.startswith(PREAMBLE)
    if isinstance(said, Stranger):
        reason = "UNSUPPORTED_MAJOR" if first.startswith(PREAMBLE[:3]) else "FOREIGN_PROTOCOL"
        assert said.error.reason == reason, said
    # Whoever is told apart by some bytes stays that when more come.
    earlier = recognise(first[: cut % (LONGEST_PREFIX + 1)], by_client=by_client)
    if isinstance(earlier, Stranger):
        assert isinstance(said, Stranger)
        assert (earlier.error.reason, earlier.http) == (said.error.reason, said.http)
    elif earlier == "ours":
        assert said == "ours"


def metadata(data: bytes) -> None:
    """The block itself."""
    try:
        found = unpack_metadata(data)
    except CallError as error:
        expected = {"BAD_METADATA": Status.INVALID_ARGUMENT, "UNKNOWN_METADATA": Status.UNIMPLEMENTED}
        assert expected[error.reason] == error.status, error
        return
    block = pack_metadata(found)
    assert len(block) <= len(data)
    assert unpack_metadata(block) == found
    assert pack_metadata(unpack_metadata(block)) == block


# Seeds --------------------------------------------------------------------------------------------------------------


def handshake_seeds() -> Iterator[bytes]:
    """The first bytes of every conversation, and the bodies of its HELLO and WELCOME."""
    for conversation in json.loads((_VECTORS / "conversations.json").read_text("utf-8")):
        for step in conversation["steps"]:
            sent = bytes.fromhex(step["hex"])
            yield bytes([3 if step["from"] == "client" else 2]) + sent[:32]
            if sent.startswith(PREAMBLE) and len(sent) > 4 + HEADER.size and sent[8] in (Kind.HELLO, Kind.WELCOME):
                yield bytes([0 if sent[8] == Kind.HELLO else 1]) + sent[4 + HEADER.size :]
    for vector in json.loads((_VECTORS / "invalid.json").read_text("utf-8")):
        sent = bytes.fromhex(vector["hex"])
        yield bytes([3 if vector["to"] == "server" else 2]) + sent[:32]
        if vector["after"] in ("start", "greeting") and sent.startswith(PREAMBLE) and len(sent) > 4 + HEADER.size:
            yield bytes([0 if vector["to"] == "server" else 1]) + sent[4 + HEADER.size :]
    for first in (
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01",
        b"SSH-2.0-x",
        b"PROXY TCP4",
        b"HTTP/1.1",
    ):
        yield b"\x02" + first
        yield b"\x03" + first


def metadata_seeds() -> Iterator[bytes]:
    """The vectors."""
    for vector in json.loads((_VECTORS / "metadata.json").read_text("utf-8")):
        yield bytes.fromhex(vector["hex"])
