"""What must not become slow again, as ratios of CPU time within one run: never a number of microseconds.

Both sides of a ratio do their work in turns, by the CPU clock, and the least of several turns counts: whatever else the
machine does only ever adds. The limits are far above what is measured on a machine at rest (in
``docs/performance.md``) and far below what a mistake in the hot path costs.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from wireproto import codecs
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Scalar, Service, fields
from wireproto.server import Server
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import HelloReceived, RequestReceived, WelcomeReceived
from wireproto.wire.frame import HEADER
from wireproto.wire.handshake import Hello, Welcome

pytestmark = pytest.mark.slow

TURNS = 9


class AskRequest(Message):
    recipient: str
    text: str
    nonce: int


class AskResponse(Message):
    id: int
    stamp: float


ASK = Method(opcode=1, name="Ask", request=AskRequest, response=AskResponse)
SERVICE = Service("test.v1.SpeedService", version=1, methods=[ASK])
QUESTION = AskRequest(recipient="bob", text="x" * 60, nonce=1_000_000)
ANSWER = AskResponse(id=1_000_000, stamp=1.5)


def least(*works: Callable[[], object]) -> list[float]:
    """The least CPU time of each of ``works``, which take turns."""
    found = [float("inf")] * len(works)
    for _ in range(TURNS):
        for index, work in enumerate(works):
            began = time.thread_time()
            work()
            found[index] = min(found[index], time.thread_time() - began)
    return found


def repeated(function: Callable[[Any], object], argument: object, times: int = 2000) -> Callable[[], None]:
    def work() -> None:
        for _ in range(times):
            function(argument)

    return work


def _split(message_type: type[Message]) -> Callable[[bytes], Message]:
    """A plain reader of pipe text: no escapes, no grammar, no limits, and no generated code."""
    kinds = {Scalar.STR: str, Scalar.INT: int, Scalar.FLOAT: float}
    readers = [(field.name, kinds[field.type.scalar]) for field in fields(message_type)]

    def read(payload: bytes) -> Message:
        tokens = payload.decode().split("|")
        return message_type(**{name: kind(token) for (name, kind), token in zip(readers, tokens, strict=True)})

    return read


@pytest.mark.parametrize(("codec", "most"), [("msgpack", 3.5), ("pipe", 8.0), ("protobuf", 10.0)])
def test_a_codec_is_near_the_library_below_it(codec: str, most: float) -> None:
    """Encoding and decoding with all checks is within a multiple of what msgspec takes for the same message."""
    plan = codecs.get(codec).plan(AskRequest, 1, Limits())
    pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(AskRequest).decode
    ours, bare = least(
        lambda: (repeated(plan.encode, QUESTION)(), repeated(plan.decode, plan.encode(QUESTION))()),
        lambda: (repeated(pack, QUESTION)(), repeated(unpack, pack(QUESTION))()),
    )
    assert ours < most * bare


def test_pipe_is_near_a_bare_split() -> None:
    """Reading pipe text with all checks costs no more than a loop that splits it and converts its tokens."""
    plan = codecs.get("pipe").plan(AskRequest, 1, Limits())
    payload = plan.encode(QUESTION)
    ours, bare = least(repeated(plan.decode, payload), repeated(_split(AskRequest), payload))
    assert ours < 1.2 * bare


def opened(client: Connection, server: Connection) -> None:
    """Do the handshake of two connections."""
    client.send_hello(
        Hello(min_version=1, max_version=1, codecs=((2, "msgpack"),), max_frame=1 << 20, service="a.v1.B")
    )
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), HelloReceived)
    server.send_welcome(Welcome(version=1, codec=2, max_frame=1 << 20, max_calls=256))
    client.receive_data(server.data_to_send())
    assert isinstance(client.next_event(), WelcomeReceived)


def test_a_frame_is_near_its_header() -> None:
    """A request read and answered by the connection takes a small multiple of unpacking and packing two headers."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    opened(client, server)
    payload = bytes(70)
    turns = []
    for _ in range(TURNS):
        for _ in range(64):
            client.send_request(1, payload)
        turns.append(client.data_to_send())
        client._ours.lose()
    waiting = iter(turns)

    def exchange() -> None:
        server.receive_data(next(waiting))
        for event in server.next_events(64):
            assert isinstance(event, RequestReceived)
            server.send_response(event.call_id, payload)
        assert len(server.data_to_send()) == 64 * 86

    wire = turns[0]

    def headers() -> None:
        out = []
        for number in range(64):
            at = number * 86
            HEADER.unpack_from(wire, at)
            out += [HEADER.pack(82, 4, 0, 2, 1, 1, 0, number), wire[at + 16 : at + 86]]
        b"".join(out)

    ours, bare = least(exchange, headers)
    assert ours < 5 * bare


def floor(listener: socket.socket) -> None:
    """The bare server: a length, and so many bytes back."""
    answer = bytes(24)
    sock, _ = listener.accept()
    buffer = b""
    with sock:
        while data := sock.recv(65_536):
            buffer += data
            while len(buffer) >= 4:
                end = 4 + int.from_bytes(buffer[:4], "big")
                if len(buffer) < end:
                    break
                buffer = buffer[end:]
                sock.sendall(answer)


def welcomed(sock: socket.socket) -> Connection:
    """A client's connection after its handshake on a blocking socket."""
    connection = Connection(Role.CLIENT)
    codec = codecs.get("msgpack")
    connection.send_hello(
        Hello(
            min_version=1,
            max_version=1,
            codecs=((codec.id, codec.name),),
            max_frame=1 << 20,
            service=SERVICE.full_name,
        )
    )
    sock.sendall(connection.data_to_send())
    while not isinstance(connection.next_event(), WelcomeReceived):
        connection.receive_data(sock.recv(4096))
    return connection


@pytest.mark.parametrize(("batch", "times", "most"), [(1, 100, 5.0), (32, 4, 1.0)])
def test_a_call_is_near_a_bare_socket(batch: int, times: int, most: float) -> None:
    """Calls over a real connection cost a small multiple of the CPU time of a bare server that parses a length."""
    handlers = Handlers(SERVICE)

    @handlers.register(ASK)
    def ask(request: AskRequest, context: Context) -> AskResponse:
        return ANSWER

    payload = codecs.get("msgpack").plan(AskRequest, 1, Limits()).encode(QUESTION)
    with (
        Server(handlers, port=0) as server,
        socket.create_connection(server.address) as ours,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as bare,
    ):
        threading.Thread(target=floor, args=(listener,), daemon=True).start()
        connection = welcomed(ours)
        turns = [[requests(connection, payload, batch) for _ in range(times)] for _ in range(TURNS)]
        plain = ((len(payload) + 12).to_bytes(4, "big") + bytes(len(payload) + 12)) * batch

        def exchange(sock: socket.socket, wires: list[bytes], size: int) -> float:
            """CPU time of the process, with all threads of the server, for batches of calls, one after the other."""
            began = time.process_time()
            for wire in wires:
                sock.sendall(wire)
                missing = size
                while missing > 0:
                    missing -= len(sock.recv(65_536))
            return time.process_time() - began

        size = 16 + len(codecs.get("msgpack").plan(AskResponse, 1, Limits(), request=False).encode(ANSWER))
        spent = [(exchange(ours, turn, batch * size), exchange(bare, [plain] * times, batch * 24)) for turn in turns]
    assert min(each[0] for each in spent) < most * min(each[1] for each in spent)


def requests(connection: Connection, payload: bytes, count: int) -> bytes:
    """So many REQUESTs of Ask, whose answers this side never reads."""
    for _ in range(count):
        connection.send_request(ASK.opcode, payload)
    connection._ours.lose()
    return connection.data_to_send()
