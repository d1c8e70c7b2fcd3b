"""Every byte boundary of every golden frame: cut there, dripped, merged or ended there, it is the same."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.test_protocol_document import ADD, CALCULATOR, AddRequest, AddResponse
from tests.test_vectors import CONVERSATIONS, Vector, each, event_of, send
from tests.wire.peers import drain, plain, started
from wireproto import Context, Handlers, Server
from wireproto.conformance.raw import Ending, RawFrame, RawPeer
from wireproto.errors import RemoteProtocolError
from wireproto.wire.connection import Connection, State
from wireproto.wire.events import ConnectionEnded, Event
from wireproto.wire.frame import PREAMBLE, unpack_error


def before(vector: Vector, number: int) -> Connection:
    """The side that is to receive a step, as it is before."""
    pair = started()
    for step in vector["steps"][:number]:
        sender = pair.client if step["from"] == "client" else pair.server
        send(sender, step["means"])
        pair.deliver(sender)
    return pair.server if vector["steps"][number]["from"] == "client" else pair.client


def reported(receiver: Connection, *pieces: bytes) -> list[object]:
    """What is reported of bytes that come in these pieces, each looked at before the next is there."""
    events: list[Event] = []
    for piece in pieces:
        receiver.receive_data(piece)
        events += drain(receiver)
    return [plain(event) for event in events]


def expectation(step: Vector, number: int) -> list[object]:
    return [plain(event_of(step["means"], handshaking=number == 1))]


def steps(vector: Vector) -> Iterator[tuple[int, Vector, bytes]]:
    for number, step in enumerate(vector["steps"]):
        yield number, step, bytes.fromhex(step["hex"])


@each(CONVERSATIONS)
def test_cut_at_every_offset_it_is_the_same(vector: Vector) -> None:
    """In two pieces, wherever the cut is, each frame is the event it is whole; and so it is byte by byte."""
    for number, step, wire in steps(vector):
        expected = expectation(step, number)
        for cut in range(len(wire) + 1):
            receiver = before(vector, number)
            assert reported(receiver, wire[:cut], wire[cut:]) == expected, f"step {number}, cut at {cut}"
        receiver = before(vector, number)
        assert reported(receiver, *(wire[at : at + 1] for at in range(len(wire)))) == expected, f"step {number}"


@each(CONVERSATIONS)
def test_ended_at_every_offset_it_is_truncated(vector: Vector) -> None:
    """Where the input ends inside a frame, the reason is that; between two frames the end is orderly."""
    for number, _, wire in steps(vector):
        for cut in range(len(wire)):
            receiver = before(vector, number)
            if receiver.state in (State.CLOSED, State.HALF_CLOSED):
                continue
            receiver.receive_data(wire[:cut])
            receiver.receive_eof()
            *early, last = drain(receiver)
            assert not early, f"step {number}, cut at {cut}"
            assert isinstance(last, ConnectionEnded)
            # The preamble in front of a side's first frame is read by itself, so behind it nothing is begun.
            boundary = cut == 0 or (wire.startswith(PREAMBLE) and cut == len(PREAMBLE))
            reason = last.error.reason if isinstance(last.error, RemoteProtocolError) else None
            assert reason == (None if boundary else "TRUNCATED_FRAME"), f"step {number}, cut at {cut}"


@each(CONVERSATIONS)
def test_merged_they_are_the_same_events(vector: Vector) -> None:
    """Frames that follow one another from one side are the same events when they come in one piece, cut anywhere."""
    number = 0
    every = vector["steps"]
    while number < len(every):
        until = number + 1
        while until < len(every) and every[until]["from"] == every[number]["from"]:
            until += 1
        wire = b"".join(bytes.fromhex(step["hex"]) for step in every[number:until])
        expected = [event for at in range(number, until) for event in expectation(every[at], at)]
        for cut in range(len(wire) + 1):
            receiver = before(vector, number)
            assert reported(receiver, wire[:cut], wire[cut:]) == expected, f"steps {number} to {until}, cut at {cut}"
        number = until


def test_the_corpus_is_all_of_it() -> None:
    """The three tests above cut at every offset of every frame there is: this many."""
    sizes = [len(wire) for vector in CONVERSATIONS for _, _, wire in steps(vector)]
    assert (len(sizes), sum(sizes)) == (118, 5532)


# The same over a socket, against the server.


class Golden(NamedTuple):
    """What a client says and what it is answered, in the bytes of the vectors."""

    hello: bytes
    request: bytes
    response: bytes


def golden() -> Golden:
    unary, metadata = CONVERSATIONS[0]["steps"], CONVERSATIONS[1]["steps"]
    # Of the first the digests are made up; the second has none.
    return Golden(*(bytes.fromhex(step["hex"]) for step in (metadata[0], unary[2], unary[3])))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    handlers = Handlers(CALCULATOR)

    @handlers.register(ADD)
    def add(request: AddRequest, context: Context) -> AddResponse:
        return AddResponse(total=request.left + request.right)

    with Server(handlers, codecs=["pipe", "msgpack"], workers=2) as running:
        yield running


def shaken(server: Server, *pieces: bytes) -> RawPeer:
    """A peer that said HELLO in these pieces and was welcomed."""
    peer = RawPeer.connect((server.address.host, server.address.port))
    assert peer.send(*pieces) is None
    assert peer.take(len(PREAMBLE)) == PREAMBLE
    answer = peer.receive()
    assert isinstance(answer, RawFrame)
    assert (answer.kind, answer.payload[:2]) == (2, b"\x01\x02")
    return peer


def test_a_server_is_told_the_same_in_any_pieces(server: Server) -> None:
    """HELLO and REQUEST cut at every offset, or dripped, are answered with the golden bytes."""
    said = golden()
    for cut in range(1, len(said.hello)):
        shaken(server, said.hello[:cut], said.hello[cut:]).close()
    with shaken(server, *(said.hello[at : at + 1] for at in range(len(said.hello)))) as peer:
        for at in range(1, len(said.request)):
            # The last four bytes are the call's id, but for three of payload.
            request = said.request[:12] + at.to_bytes(4) + said.request[16:]
            assert peer.send(request[:at], request[at:]) is None
            assert peer.take(len(said.response)) == said.response[:12] + at.to_bytes(4) + said.response[16:]


def test_a_server_says_where_the_input_ended(server: Server) -> None:
    """A client that ends its output at any offset of HELLO or REQUEST is told that a frame is cut, where one is."""
    said = golden()
    for cut in range(len(said.hello)):
        with RawPeer.connect((server.address.host, server.address.port)) as peer:
            peer.send(said.hello[:cut])
            peer.end_output()
            told, ending = peer.drain()
            assert ending is Ending.EOF
            inside = cut not in (0, len(PREAMBLE))
            assert told == b"" if not inside else final(told.removeprefix(PREAMBLE)) == "TRUNCATED_FRAME", cut
    for cut in range(len(said.request)):
        with shaken(server, said.hello) as peer:
            peer.send(said.request[:cut])
            peer.end_output()
            told, ending = peer.drain()
            assert ending is Ending.EOF
            assert told == b"" if not cut else final(told) == "TRUNCATED_FRAME", cut


def final(data: bytes) -> str:
    """The reason in a final ERROR, the only frame there is."""
    assert (data[4], data[12:16]) == (7, bytes(4))
    assert int.from_bytes(data[:4]) == len(data) - 4
    return unpack_error(data[16:]).reason
