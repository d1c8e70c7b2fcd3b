"""A small server over the sans-IO connection that is right, but for one fault."""

import contextlib
import random
import socket
import threading
from types import TracebackType
from typing import Final, Self

from tests.cli.services import SHOP
from wireproto import codecs
from wireproto.conformance.fuzzing.messages import random_message
from wireproto.conformance.raw import frame
from wireproto.control import CONTROL
from wireproto.errors import CallError, DecodeError, HandshakeError
from wireproto.limits import Limits
from wireproto.schema import Method
from wireproto.status import Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    Event,
    HelloReceived,
    NeedData,
    RequestReceived,
)
from wireproto.wire.frame import Kind, pack_error
from wireproto.wire.handshake import Offer, negotiate

__all__ = ["FAULTS", "FaultyServer"]

FAULTS: Final = {
    "drops the connection": "was not answered",
    "stops listening": "cannot be connected to",
    "answers another call": "came for a call that was never begun",
    "answers twice": "came for a call that was over",
    "hangs": "neither answered nor closed in time",
    "tells its insides": "a text out of the server's insides",
    "swallows bad payloads": "accepted a payload that is no message of it",
    "refuses good payloads": "refused a payload that is a message of it",
    "fails": "failed with INTERNAL",
    "invents reasons": "which it does not declare",
    "ends without a reason": "ended without a final ERROR",
    "answers nonsense": "that cannot be read",
}
"""What is wrong, and what must be said of it."""

_LIMITS: Final = Limits()
_CODECS: Final = {1: "pipe", 2: "msgpack", 3: "protobuf"}


class FaultyServer:
    """Serves the shop on a port of loopback, one connection at a time.

    Args:
        fault: one of ``FAULTS``, which it shows whenever ``Paint`` is called or a connection fails; "" for none.
    """

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="faulty server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                try:
                    self._converse(peer)
                except ConnectionError:
                    pass  # the fuzzer drops some connections on purpose
                except _Gone:
                    continue

    def _converse(self, peer: socket.socket) -> None:
        connection = Connection(Role.SERVER, _LIMITS)
        while connection.state is not State.CLOSED:
            data = peer.recv(65536)
            if data:
                connection.receive_data(data)
            else:
                connection.receive_eof()
            self._answer_all(peer, connection)
            if self.fault != "ends without a reason" or connection.error is None:
                peer.sendall(connection.data_to_send())
            if not data:
                return
        # So that what was said last is not lost to a reset.
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass

    def _answer_all(self, peer: socket.socket, connection: Connection) -> None:
        while True:
            event: Event | NeedData = connection.next_event()
            if event is NEED_DATA or isinstance(event, ConnectionEnded):
                return
            if isinstance(event, HelloReceived):
                self._greet(connection, event)
            elif isinstance(event, RequestReceived):
                self._answer(peer, connection, event)
            elif isinstance(event, CancelReceived):
                connection.send_error(event.call_id, CallError(Status.CANCELLED, "CANCELLED"))

    @staticmethod
    def _greet(connection: Connection, event: HelloReceived) -> None:
        offers = {each.full_name: Offer(each.full_name, 1, _CODECS, each.digests) for each in (SHOP, CONTROL)}
        try:
            connection.send_welcome(negotiate(event.hello, offers, _LIMITS, "faulty"))
        except HandshakeError as error:
            connection.refuse(error)

    def _answer(self, peer: socket.socket, connection: Connection, event: RequestReceived) -> None:
        call_id = event.call_id
        method = SHOP.by_opcode.get(event.opcode) or CONTROL.by_opcode.get(event.opcode)
        if method is None:
            connection.send_error(call_id, CallError(Status.UNIMPLEMENTED, "UNKNOWN_OPCODE"))
            return
        if isinstance(event.metadata, CallError):
            connection.send_error(call_id, event.metadata)
            return
        faulty = method.name == "Paint" and self.fault
        if faulty and self._misbehave(peer, connection, event):
            return
        name = _CODECS[connection.codec]
        plan = codecs.get(name).plan(method.request, 1, _LIMITS)
        try:
            plan.decode(event.payload)
        except DecodeError as error:
            if faulty != "swallows bad payloads":
                connection.send_error(call_id, CallError(Status.INVALID_ARGUMENT, "BAD_PAYLOAD", str(error)))
                return
        if not isinstance(method, Method):
            connection.send_end(call_id)
            return
        answer = random_message(random.Random(call_id), method.response)
        payload = codecs.get(name).plan(method.response, 1, _LIMITS, request=False).encode(answer)
        connection.send_response(call_id, b"\xc1" if faulty == "answers nonsense" else payload)
        if faulty == "answers twice":
            again = frame(
                Kind.RESPONSE, payload, codec=connection.codec, version=1, opcode=event.opcode, call_id=call_id
            )
            connection._queue(again)

    def _misbehave(self, peer: socket.socket, connection: Connection, event: RequestReceived) -> bool:
        """Show the fault instead of an answer; False when the fault shows elsewhere."""
        failures = {
            "tells its insides": CallError(Status.INTERNAL, "INTERNAL", "ValueError: no such colour"),
            "fails": CallError(Status.INTERNAL, "INTERNAL", "incident 1"),
            "invents reasons": CallError(Status.NOT_FOUND, "NO_PAINT"),
            "refuses good payloads": CallError(Status.INVALID_ARGUMENT, "BAD_PAYLOAD"),
        }
        if self.fault in failures:
            connection.send_error(event.call_id, failures[self.fault])
            return True
        if self.fault == "answers another call":
            other = pack_error(CallError(Status.NOT_FOUND))
            connection._queue(frame(Kind.ERROR, other, opcode=event.opcode, call_id=event.call_id + 1000))
            return False
        if self.fault == "hangs":
            self._stopped.wait(2)
            raise _Gone
        if self.fault in ("drops the connection", "stops listening"):
            if self.fault == "stops listening":
                self._listener.close()
            raise _Gone
        return False


class _Gone(Exception):
    """The connection is over at once, without a word."""
