"""Peers that say what nobody knows: nothing of it changes an answer, and all of it is what section 14 keeps for it."""

import re
import struct
from collections.abc import Iterator

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.pages import section
from tests.wire.peers import GOODBYE, HELLO, NOT_FOUND, OFFERS, begin_stream, drain, plain
from wireproto.errors import RemoteProtocolError
from wireproto.limits import Limits
from wireproto.testing import grease
from wireproto.testing.grease import GreasingConnection
from wireproto.wire import private
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import ConnectionEnded, Event, HelloReceived, RequestReceived, WelcomeReceived
from wireproto.wire.frame import (
    KINDS,
    PREAMBLE,
    Credit,
    Flag,
    Frame,
    Kind,
    pack_error,
    total_length,
    unpack,
    unpack_error,
)
from wireproto.wire.handshake import Hello, Offer, Welcome, negotiate
from wireproto.wire.metadata import Metadata, pack_metadata

ACCEPTED = {"max_calls": 100, "first_credit": Credit(2, 100), "one_way_credit": 1}
"""What each side accepts of the calls of the other."""


OURS = (2, 1)
"""The algorithms that the client offers."""


class Wire:
    """A client and a server connection, and all that went between them."""

    def __init__(self, client: Connection, server: Connection) -> None:
        self.client, self.server = client, server
        self.sent: dict[Role, bytes] = {Role.CLIENT: b"", Role.SERVER: b""}
        client.send_hello(msgspec.structs.replace(HELLO, packing=OURS, **ACCEPTED))
        (greeting,) = self.to_server()
        assert isinstance(greeting, HelloReceived)
        self.hello = greeting.hello
        welcome = negotiate(self.hello, OFFERS, Limits(), "test/1")
        server.send_welcome(msgspec.structs.replace(welcome, **ACCEPTED))
        self.answers = self.to_client()

    def to_server(self) -> list[Event]:
        return self._deliver(self.client, self.server)

    def to_client(self) -> list[Event]:
        return self._deliver(self.server, self.client)

    def _deliver(self, sender: Connection, receiver: Connection) -> list[Event]:
        data = sender.data_to_send()
        self.sent[sender.role] += data
        receiver.receive_data(data)
        return drain(receiver)

    def converse(self) -> list[object]:
        """One of each thing that peers say, and all that either reports of it."""
        found: list[Event] = []
        for number in range(20):
            block = pack_metadata(Metadata(deadline_ms=number, authorization="x"))
            call = self.client.send_request(0x10, bytes(number), block)
            found += self.to_server()
            self.server.send_response(call, b"answer")
            found += self.to_client()
        refused = self.client.send_request(0x11, b"")
        stream = begin_stream(self.client, 0x12)
        self.client.send_ping(bytes(8))
        found += self.to_server()
        self.server.send_error(refused, NOT_FOUND)
        self.server.send_item(stream, b"item")
        found += self.to_client()
        self.client.send_credit(stream, 3, 100)
        self.client.send_cancel(self.client.send_request(0x13, b""))
        found += self.to_server()
        self.server.send_end(stream)
        found += self.to_client()
        for side, answering in ((self.client, self.server), (self.server, self.client)):
            upload = side.send_flagged_request(Flag.ITEMS_FOLLOW, 0x14, b"")
            side.send_item(upload, b"item")
            side.send_end(upload)
            side.send_flagged_request(Flag.ONE_WAY, 0x15, b"told", pack_metadata(Metadata(deadline_ms=5)))
            unary = side.send_request(0x16, b"asked")
            found += self.to_server() + self.to_client()
            answering.send_response(upload, b"answer")
            answering.send_one_way_credit(1)
            found += self.to_client() + self.to_server()
            answering.send_error(unary, NOT_FOUND)
            answering.send_goaway(GOODBYE)
            found += self.to_client() + self.to_server()
        self.server.refuse(GOODBYE)
        found += self.to_client()
        return [plain(event) for event in found]


def frames(data: bytes) -> list[Frame]:
    """The frames behind the preamble."""
    assert data.startswith(PREAMBLE)
    found, at = [], len(PREAMBLE)
    while at < len(data):
        found.append(unpack(data, at))
        at += total_length(data, at, 1 << 20)
    return found


def greased(role: Role, seed: int) -> GreasingConnection:
    return GreasingConnection(role, seed=seed)


@given(seed=st.integers(0, 2**32))
def test_nothing_changes_in_what_is_reported(seed: int) -> None:
    """Two peers, of which either or both grease, report what they report without."""
    expected = Wire(Connection(Role.CLIENT), Connection(Role.SERVER)).converse()
    assert Wire(greased(Role.CLIENT, seed), Connection(Role.SERVER)).converse() == expected
    assert Wire(Connection(Role.CLIENT), greased(Role.SERVER, seed)).converse() == expected
    assert Wire(greased(Role.CLIENT, seed), greased(Role.SERVER, seed + 1)).converse() == expected


def test_each_connection_says_all_of_it() -> None:
    """HELLO and WELCOME have unknown versions, codecs, features and fields; frames and metadata come with the calls."""
    wire = Wire(greased(Role.CLIENT, 1), greased(Role.SERVER, 2))
    assert wire.hello.max_version > HELLO.max_version
    assert set(HELLO.codecs) < set(wire.hello.codecs)
    assert [codec for codec in wire.hello.codecs if codec in HELLO.codecs] == list(HELLO.codecs)
    strangers = [codec for codec in wire.hello.codecs if codec not in HELLO.codecs]
    assert all(number >= 128 and name.startswith(grease.CODEC_NAME) for number, name in strangers)
    known = [number for number in wire.hello.packing if number in OURS]
    assert known == list(OURS)
    assert set(wire.hello.packing) - set(OURS)
    assert set(wire.hello.packing) - set(OURS) <= set(grease.ALGORITHMS)
    assert wire.hello.features
    assert not wire.hello.features & ~sum(1 << bit for bit in grease.FEATURES)
    (answer,) = wire.answers
    assert isinstance(answer, WelcomeReceived)
    assert answer.welcome.features
    assert not answer.welcome.features & ~wire.hello.features
    wire.converse()
    for role in Role:
        unknown = [frame for frame in frames(wire.sent[role]) if frame.kind not in KINDS]
        assert unknown
        assert {frame.kind for frame in unknown} <= set(grease.KINDS)
    assert len({frame.kind for frame in frames(wire.sent[Role.CLIENT])}) > 6


def test_a_seed_says_the_same_again() -> None:
    """The same seed gives the same bytes, another one others."""
    first, again, other = (Wire(greased(Role.CLIENT, seed), greased(Role.SERVER, seed)) for seed in (1, 1, 2))
    for wire in (first, again, other):
        wire.converse()
    assert first.sent == again.sent
    assert first.sent != other.sent


def test_it_needs_room() -> None:
    """Where a frame or a block is as long as it may be, nothing is added to it."""
    long = Hello(
        min_version=1,
        max_version=1,
        codecs=HELLO.codecs,
        max_frame=65_536,
        service=HELLO.service,
        digests=dict.fromkeys(range(660), 7),
    )
    client = GreasingConnection(Role.CLIENT, seed=1)
    client.send_hello(long)
    server = Connection(Role.SERVER)
    server.receive_data(client.data_to_send())
    (event,) = drain(server)
    assert isinstance(event, HelloReceived)
    assert event.hello == long

    wire = Wire(greased(Role.CLIENT, 1), greased(Role.SERVER, 2))
    whole = wire.client.their_max_frame - 12
    call = wire.client.send_request(0x10, bytes(whole))
    (request,) = wire.to_server()
    assert isinstance(request, RequestReceived)
    assert request.payload == bytes(whole)
    block = pack_metadata(Metadata(authorization="x" * 1100))
    wire.client.send_request(0x10, b"", block)
    assert block in wire.client.data_to_send()
    assert call == 1


def test_a_server_that_is_newer_ends_it() -> None:
    """A version that was offered as grease and is chosen is one the client does not speak: it says so and ends."""
    client = GreasingConnection(Role.CLIENT, seed=3)
    server = Connection(Role.SERVER)
    client.send_hello(HELLO)
    server.receive_data(client.data_to_send())
    (event,) = drain(server)
    assert isinstance(event, HelloReceived)
    newer = {HELLO.service: Offer(HELLO.service, 2, {1: "pipe", 2: "msgpack"}, lambda version: {})}
    server.send_welcome(negotiate(event.hello, newer, Limits(), "test/2"))
    client.receive_data(server.data_to_send())
    (end,) = drain(client)
    assert isinstance(end, ConnectionEnded)
    assert isinstance(end.error, RemoteProtocolError)
    assert "offered as grease" in end.error.problem

    careful = GreasingConnection(Role.CLIENT, seed=3, versions=False)
    careful.send_hello(HELLO)
    server = Connection(Role.SERVER)
    server.receive_data(careful.data_to_send())
    (event,) = drain(server)
    assert isinstance(event, HelloReceived)
    assert event.hello.max_version == HELLO.max_version


def test_it_is_silent_where_frames_are_not_allowed() -> None:
    """Nothing is put in before WELCOME, and nothing behind the final ERROR."""
    server = GreasingConnection(Role.SERVER, seed=1)
    server.refuse(GOODBYE)
    (frame,) = frames(server.data_to_send())
    assert frame.call_id == 0
    assert server.state is State.CLOSED


def test_it_says_nothing_that_is_private() -> None:
    """What is kept for extensions of somebody's own is never said, by any connection."""
    said: dict[str, set[int]] = {each: set() for each in ("kinds", "keys", "fields", "error fields", "features")}
    for seed in range(200):
        wire = Wire(greased(Role.CLIENT, seed), greased(Role.SERVER, seed + 1000))
        wire.converse()
        for frame in frames(wire.sent[Role.CLIENT]) + frames(wire.sent[Role.SERVER]):
            said["kinds"].add(frame.kind)
            if frame.kind in (Kind.HELLO, Kind.WELCOME):
                greeting = (Hello if frame.kind == Kind.HELLO else Welcome).decode(frame.payload)
                said["features"] |= {bit for bit in range(64) if greeting.features >> bit & 1}
                said["fields"] |= set(tags(">HH", frame.payload[len(greeting.encode()) :]))
            elif frame.kind in (Kind.ERROR, Kind.GOAWAY):
                body = frame.payload[4 if frame.kind == Kind.GOAWAY else 0 :]
                said["error fields"] |= set(tags(">BH", body[len(pack_error(unpack_error(body))) :]))
            elif frame.kind == Kind.REQUEST:
                said["keys"] |= set(tags(">BH", frame.metadata))
    assert said["kinds"] - KINDS <= set(grease.KINDS)
    assert said["keys"] - set(range(1, 7)) <= set(grease.METADATA_KEYS)
    assert said["fields"] <= set(grease.FIELDS)
    assert said["error fields"] <= set(grease.ERROR_FIELDS)
    assert said["features"] <= set(grease.FEATURES)
    assert all(len(found) > 5 for found in said.values())
    for ours, theirs in (
        (grease.KINDS, private.KINDS),
        (grease.METADATA_KEYS, private.METADATA_KEYS),
        (grease.FIELDS, private.GREETING_FIELDS),
        (grease.ERROR_FIELDS, private.ERROR_FIELDS),
        (grease.FEATURES, private.FEATURES),
        (grease.ALGORITHMS, private.ALGORITHMS),
    ):
        assert not set(ours) & set(theirs)


def tags(head: str, block: bytes) -> Iterator[int]:
    """The types of a block of fields."""
    at = 0
    while at < len(block):
        tag, length = struct.unpack_from(head, block, at)
        at += struct.calcsize(head) + length
        yield tag


def test_the_values_are_those_of_the_text() -> None:
    """docs/wire.md keeps exactly these values free."""
    rows = dict(re.findall(r"^\| ([a-zA-Z ]+) \| ([^|]+) \|", section(14), re.MULTILINE))

    def hexadecimal(values: range) -> str:
        return " to ".join(f"0x{value:X}" for value in (values[0], values[-1]))

    assert rows["features"] == f"bits {grease.FEATURES[0]} to {grease.FEATURES[-1]}"
    assert rows["kinds"] == hexadecimal(grease.KINDS)
    assert rows["metadata keys"] == hexadecimal(grease.METADATA_KEYS)
    assert rows["algorithms"] == hexadecimal(grease.ALGORITHMS)
    assert rows["fields of HELLO and WELCOME"] == hexadecimal(grease.FIELDS)
    assert rows["fields of ERROR and GOAWAY"] == hexadecimal(grease.ERROR_FIELDS)
    assert f"`{grease.CODEC_NAME}`" in rows["codecs"]
