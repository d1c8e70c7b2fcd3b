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
from wireproto.conformance.page import packed_body
from wireproto.conformance.raw import frame
from wireproto.control import CONTROL
from wireproto.errors import CallError, DecodeError, HandshakeError, PackedDetails
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.schema import Method
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    Event,
    FlaggedRequestReceived,
    HelloReceived,
    NeedData,
    RequestReceived,
)
from wireproto.wire.frame import Flag, Kind, pack_credit, pack_error
from wireproto.wire.handshake import Offer, negotiate
from wireproto.wire.packing import Packed, plain

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
    "advises wrongly": "says retry 2, not 0",
    "takes any shape": "which are not its shape, and accepted",
    "refuses its own shape": "said to have another one",
    "begins anew": "which is no position of it, and began",
    "loses what nobody asked for": "was not asked to go on behind a position",
    "overdraws bytes": "sent an item and had no credit left",
    "grants items that nobody takes": "CREDIT came for what is no call whose items follow",
    "says a credential beside its answer": "which means nothing beside an answer",
    "says a name in capitals beside its answer": "has the name b'A'",
    "gives details without a name": "must have a name",
    "keeps no bucket": "it must be TOO_MANY_FRAMES",
    "takes what is packed wrongly": "no message of it: it is packed wrongly",
    "packs wrongly": "bytes follow it",
    "packs without asking": "has flags or metadata",
}
"""What is wrong, and what must be said of it."""

_BESIDE: Final = {
    "says a credential beside its answer": b"\x03\x00\x01x",
    "says a name in capitals beside its answer": b"\x06\x00\x02\x01A",
}
"""The metadata of an answer, where they are the fault."""

_LIMITS: Final = Limits()
_CODECS: Final = {1: "pipe", 2: "msgpack", 3: "protobuf"}


class FaultyServer:
    """Serves the shop on a port of loopback, one connection at a time.

    Args:
        fault: one of ``FAULTS``, which it shows when ``Paint`` or a stream is called or a connection fails; "" for
            none.
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
        connection = (
            _Endless(Role.SERVER, _LIMITS) if self.fault == "keeps no bucket" else Connection(Role.SERVER, _LIMITS)
        )
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
            elif isinstance(event, RequestReceived | FlaggedRequestReceived):
                self._answer(peer, connection, event)
            elif isinstance(event, CancelReceived):
                connection.send_error(event.call_id, failure("CANCELLED", "the client has cancelled it"))

    def _greet(self, connection: Connection, event: HelloReceived) -> None:
        packing = () if self.fault == "packs without asking" else (1,)
        offers = {each.full_name: Offer(each.full_name, 1, _CODECS, each.digests) for each in (SHOP, CONTROL)}
        try:
            connection.send_welcome(negotiate(event.hello, offers, _LIMITS, "faulty", packing=packing))
        except HandshakeError as error:
            connection.refuse(error)

    def _answer(
        self, peer: socket.socket, connection: Connection, event: RequestReceived | FlaggedRequestReceived
    ) -> None:
        call_id = event.call_id
        method = SHOP.by_opcode.get(event.opcode) or CONTROL.by_opcode.get(event.opcode)
        if method is None:
            connection.send_error(call_id, CallError(Status.UNIMPLEMENTED, "UNKNOWN_OPCODE"))
            return
        flags = event.flags if isinstance(event, FlaggedRequestReceived) else Flag.NONE
        shape = Flag.NONE if isinstance(method, Method) else Flag.ITEMS_COME_BACK
        if flags & Flag.ONE_WAY:
            return
        if flags != shape and not (self.fault == "takes any shape" and flags == Flag.ITEMS_COME_BACK):
            connection.send_error(call_id, failure("WRONG_SHAPE", "its flags are not the method's"))
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
            plan.decode(plain(event.payload))
        except DecodeError as error:
            wrongly_packed = "the packed payload" in str(error) and faulty == "takes what is packed wrongly"
            if faulty != "swallows bad payloads" and not wrongly_packed:
                connection.send_error(call_id, CallError(Status.INVALID_ARGUMENT, "BAD_PAYLOAD", str(error)))
                return
        if flags:
            lost = self.fault == "loses what nobody asked for" or event.metadata.resume_after
            if lost and self.fault != "begins anew":
                connection.send_error(call_id, failure("POSITION_LOST", "its items have no positions"))
                return
            if self.fault == "overdraws bytes" and connection.credit(call_id)[1] < 1:
                item = frame(Kind.ITEM, codec=connection.codec, version=1, opcode=event.opcode, call_id=call_id)
                connection._queue(item)
            connection.send_end(call_id)
            return
        answer = random_message(random.Random(call_id), method.response)
        payload = codecs.get(name).plan(method.response, 1, _LIMITS, request=False).encode(answer)
        if faulty in ("packs wrongly", "packs without asking"):
            connection.packing = 1
            tail = b"x" if faulty == "packs wrongly" else b""
            connection.send_packed_response(call_id, Packed(1, packed_body(payload, tail=tail)))
            return
        connection.send_response(call_id, b"\xc1" if faulty == "answers nonsense" else payload)
        if faulty == "answers twice":
            again = frame(
                Kind.RESPONSE, payload, codec=connection.codec, version=1, opcode=event.opcode, call_id=call_id
            )
            connection._queue(again)

    def _misbehave(
        self, peer: socket.socket, connection: Connection, event: RequestReceived | FlaggedRequestReceived
    ) -> bool:
        """Show the fault instead of an answer; False when the fault shows elsewhere."""
        failures = {
            "tells its insides": CallError(Status.INTERNAL, "INTERNAL", "ValueError: no such colour"),
            "fails": CallError(Status.INTERNAL, "INTERNAL", "incident 1"),
            "invents reasons": CallError(Status.NOT_FOUND, "NO_PAINT"),
            "refuses good payloads": CallError(Status.INVALID_ARGUMENT, "BAD_PAYLOAD"),
            "refuses its own shape": failure("WRONG_SHAPE", "another one"),
            "advises wrongly": failure("NO_HANDLER", "none", retry=Retry.MAYBE_PROCESSED),
        }
        if self.fault in _BESIDE:
            connection.set_metadata(event.call_id, _BESIDE[self.fault])
            return False
        nameless = failures["gives details without a name"] = CallError(Status.NOT_FOUND)
        nameless.packed_details = PackedDetails("", b"x")
        if self.fault in failures:
            connection.send_error(event.call_id, failures[self.fault])
            return True
        if self.fault == "answers another call":
            other = pack_error(CallError(Status.NOT_FOUND))
            connection._queue(frame(Kind.ERROR, other, opcode=event.opcode, call_id=event.call_id + 1000))
            return False
        if self.fault == "grants items that nobody takes":
            granted = frame(Kind.CREDIT, pack_credit(1, 1), opcode=event.opcode, call_id=event.call_id)
            connection._queue(granted)
            return False
        if self.fault == "hangs":
            self._stopped.wait(2)
            raise _Gone
        if self.fault in ("drops the connection", "stops listening"):
            if self.fault == "stops listening":
                self._listener.close()
            raise _Gone
        return False


class _Endless(Connection):
    """Drops as many frames that have crossed the end of a call as come."""

    _most_crossed = 1_000_000


class _Gone(Exception):
    """The connection is over at once, without a word."""
