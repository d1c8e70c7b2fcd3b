"""A server that does what a test tells it, over real sockets: answer late, wrongly, by halves, or not at all."""

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from tests.client.service import ECHO, SERVICE, EchoRequest, EchoResponse
from wireproto import Address, CallError, Limits, Message, Status, codecs
from wireproto.schema import Operation
from wireproto.testing.grease import GreasingConnection
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import (
    NEED_DATA,
    ConnectionEnded,
    Event,
    FlaggedRequestReceived,
    HelloReceived,
    ItemReceived,
    PingReceived,
    PongReceived,
    RequestReceived,
)
from wireproto.wire.frame import NO_CREDIT, Credit, Flag, Kind, pack, pack_error
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.packing import plain

E = TypeVar("E")

PATIENCE = 20.0
"""Seconds that a test waits for what must happen."""

CODECS = codecs.names()
_SEEDS = count(1)

Script = Callable[["Peer"], None]


class Peer:
    """The server's side of one connection. One thread, the script's, uses it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.connection: Connection = GreasingConnection(Role.SERVER, seed=next(_SEEDS))
        self.hello: Hello | None = None
        self.answered_pings = True

    def greet(
        self,
        *,
        version: int | None = None,
        codec: str | None = None,
        max_frame: int = 1024 * 1024,
        max_calls: int = 256,
        heartbeat_ms: int = 0,
        first: Credit = NO_CREDIT,
        one_way: int = 0,
    ) -> "Peer":
        """Read HELLO and welcome the client."""
        event = self.event()
        if isinstance(event, ConnectionEnded):
            raise ConnectionAbortedError("the client left before its HELLO")
        assert isinstance(event, HelloReceived), event
        self.hello = event.hello
        offered = {name: number for number, name in event.hello.codecs}
        self.connection.send_welcome(
            Welcome(
                version=version or min(event.hello.max_version, SERVICE.version),
                codec=offered[codec] if codec else next(offered[name] for name in offered if name in CODECS),
                max_frame=max_frame,
                max_calls=max_calls,
                heartbeat_ms=heartbeat_ms,
                server_name="fake",
                first_credit=first,
                one_way_credit=one_way,
            )
        )
        self.flush()
        return self

    def event(self) -> Event:
        """The next event, whatever it is."""
        while (event := self.connection.next_event()) is NEED_DATA:
            try:
                data = self.sock.recv(65_536)
            except ConnectionError:
                data = b""
            if data:
                self.connection.receive_data(data)
            else:
                self.connection.receive_eof()
        return event

    def expect(self, kind: type[E]) -> E:
        """The next event, PINGs and PONGs aside, which must be of this kind."""
        while isinstance(event := self.event(), PingReceived | PongReceived):
            self.flush()
        assert isinstance(event, kind), event
        return event

    def request(self) -> RequestReceived:
        """The next event, which must be the REQUEST of a unary call."""
        return self.expect(RequestReceived)

    def stream_request(self) -> FlaggedRequestReceived:
        """The next event, which must be the REQUEST of a stream."""
        return self.flagged_request(Flag.ITEMS_COME_BACK)

    def flagged_request(self, flags: int) -> FlaggedRequestReceived:
        """The next event, which must be a REQUEST with these flags."""
        request = self.expect(FlaggedRequestReceived)
        assert request.flags == flags
        return request

    def item(self, request: FlaggedRequestReceived) -> Any:
        """The next event, which must be an ITEM of that call: what it says."""
        event = self.expect(ItemReceived)
        assert event.call_id == request.call_id
        return self.read(request, event.payload)

    def grant(self, request: FlaggedRequestReceived, items: int, size: int) -> None:
        """Let the client send so many more items and bytes."""
        assert self.connection.send_credit(request.call_id, items, size)
        self.flush()

    def serve(self) -> None:
        """Echo until the client is gone."""
        while not isinstance(event := self.event(), ConnectionEnded):
            if isinstance(event, RequestReceived):
                self.answer(event)
            self.flush()

    def until_gone(self) -> None:
        """Read and forget until the client is gone."""
        while not isinstance(self.event(), ConnectionEnded):
            self.flush()

    # What to say.

    def flush(self) -> None:
        if data := self.connection.data_to_send():
            self.sock.sendall(data)

    def message(self, request: RequestReceived | FlaggedRequestReceived) -> Any:
        """What a request says."""
        return self.read(request, plain(request.payload))

    def read(self, request: RequestReceived | FlaggedRequestReceived, payload: bytes) -> Any:
        method = SERVICE.by_opcode[request.opcode]
        return self._codec().plan(method.request, self.connection.version, Limits()).decode(payload)

    def payload(self, method: Operation[Any, Any], message: Message) -> bytes:
        plan = self._codec().plan(method.response, self.connection.version, Limits(), request=False)
        return plan.encode(message)

    def _codec(self) -> codecs.Codec:
        assert self.hello is not None
        return codecs.get(dict(self.hello.codecs)[self.connection.codec])

    def answer(self, request: RequestReceived, text: str | None = None) -> None:
        """Answer an ECHO; with what it says, if not told otherwise."""
        if text is None:
            message = self.message(request)
            assert isinstance(message, EchoRequest)
            text = message.text
        self.respond(request, ECHO, EchoResponse(text=text))

    def respond(
        self, request: RequestReceived | FlaggedRequestReceived, method: Operation[Any, Any], message: Message
    ) -> None:
        self.connection.send_response(request.call_id, self.payload(method, message))
        self.flush()

    def refuse(self, request: RequestReceived | FlaggedRequestReceived, error: CallError) -> None:
        self.connection.send_error(request.call_id, error)
        self.flush()

    def send_crossing_item(self, request: FlaggedRequestReceived, message: Message) -> None:
        """An ITEM as if it had been sent before CANCEL was read."""
        method = SERVICE.by_opcode[request.opcode]
        assert method.items_come_back
        codec, version = self.connection.codec, self.connection.version
        payload = self.payload(method, message)
        self.sock.sendall(pack(Kind.ITEM, codec, version, request.opcode, request.call_id, b"", payload))

    def go_away(self, last_call_id: int) -> None:
        """A GOAWAY as if only the calls up to that one had been accepted."""
        error = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "the server is going down", retry_after_ms=30)
        body = last_call_id.to_bytes(4, "big") + pack_error(error)
        self.sock.sendall(pack(Kind.GOAWAY, 0, 0, 0, 0, b"", body))

    def half(self, request: RequestReceived, text: str) -> tuple[bytes, bytes]:
        """An answer in two halves, to be sent by hand."""
        payload = self.payload(ECHO, EchoResponse(text=text))
        self.connection.send_response(request.call_id, payload)
        data = self.connection.data_to_send()
        at = 0  # grease may stand before it, and behind it
        while data[at + 4] != Kind.RESPONSE:
            at += 4 + int.from_bytes(data[at : at + 4], "big")
        middle = at + (4 + int.from_bytes(data[at : at + 4], "big")) // 2
        return data[:middle], data[middle:]


class FakeServer:
    """Listens on a port of its own; each connection runs the next script, the last one again and again."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.connections = 0
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname()[:2])
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept, name="fake-accept")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(sock)
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._run, args=(script, peer), name="fake-peer")
            self._peers.append(peer)
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except BaseException as error:  # noqa: BLE001 - it is the test's, and is raised by `stop`
            self.errors.put(error)
        finally:
            peer.sock.close()

    def stop_listening(self) -> None:
        """Refuse connections from now on."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        finally:
            self._listener.close()

    def stop(self) -> None:
        """Wait for the scripts, and raise what one of them raised."""
        if self._listener.fileno() >= 0:
            self.stop_listening()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script does not end"
        if not self.errors.empty():
            raise self.errors.get()


@contextmanager
def serving(*scripts: Script) -> Iterator[FakeServer]:
    """A fake server for the length of a test. The scripts end by themselves, at the latest when the client closes."""
    server = FakeServer(scripts)
    try:
        yield server
    finally:
        server.stop()


def echoing(peer: Peer) -> None:
    """The script of a server that is well."""
    peer.greet().serve()
