"""A client that costs next to nothing: one socket, requests packed and answers cut by hand.

For load generators, which share a machine with the server that they measure, and for tests that say what ``Client``
never would. It keeps no deadlines of calls, repeats nothing, and leaves it to its user to read: a server that is not
read from pauses the connection.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

from wireproto import codecs
from wireproto.address import Address
from wireproto.client.opening import open_connection
from wireproto.codecs import Codec
from wireproto.errors import CallError, ConnectionLost
from wireproto.limits import Limits
from wireproto.schema import Message, Operation, Service
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import NEED_DATA
from wireproto.wire.frame import HEADER, TOP_BIT, Flag, Kind, pack, pack_credit, unpack_error
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata

__all__ = ["Answer", "BareClient"]

Resp = TypeVar("Resp", bound=Message)

_CHUNK = 262_144


class Answer(NamedTuple):
    """One answer, or a part of one.

    Attributes:
        call_id: what ``send`` gave.
        payload: the encoded response, or item; empty at the end of a stream.
        last: nothing more comes of the call. A response is, an item is not.
        error: why the call failed; None when it did not.
    """

    call_id: int
    payload: bytes
    last: bool
    error: CallError | None


class BareClient:
    """One connection, agreed with the server. Not thread-safe, but one thread may send while another one takes.

    Args:
        address: of the server.
        service: the service wanted.
        codec: name of a codec, or the codec itself.
        version: of the service, the one that is offered; None for the newest.
        timeout: seconds for connecting and the handshake together, above 0.
        max_frame: bytes of the longest frame that the server may send.
        silence: seconds that reading waits for the server to send something, and sending for it to take something,
            above 0. The kernel keeps them, so they cost nothing. ``socket.setblocking`` and ``settimeout`` have their
            usual meaning and put them out of force.

    Attributes:
        socket: for pollers, and to set its options.
        call_id: of the latest request; 0 before the first.

    Raises:
        HandshakeError: the server refuses, or is no wireproto server.
        ConnectionLost: there is nobody at the address, or no answer in time.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | Address,
        service: Service,
        *,
        codec: str | Codec = "msgpack",
        version: int | None = None,
        timeout: float = 10.0,
        max_frame: int = 1024 * 1024,
        silence: float = 60.0,
    ) -> None:
        self._codec = codecs.get(codec)
        self._version = service.version if version is None else version
        self._limits = Limits(max_frame=max_frame)
        self.call_id = 0
        self._opcodes: dict[int, int] = {}
        self._buffer = bytearray()
        self._silence = silence
        self.socket = self._connected(Address.parse(address), service, time.monotonic() + timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what is in flight is lost."""
        self.socket.close()

    def _connected(self, address: Address, service: Service, deadline: float) -> socket.socket:
        connection = Connection(Role.CLIENT, self._limits)
        hello = Hello(
            min_version=self._version,
            max_version=self._version,
            codecs=((self._codec.id, self._codec.name),),
            max_frame=self._limits.max_frame,
            client_name="bare",
            service=service.full_name,
            digests=service.digests(self._version),
        )
        sock = open_connection(address, connection, hello, service, self._limits, deadline)
        try:
            while connection.bytes_waiting:  # a server that pinged right behind its WELCOME
                if connection.next_event() is NEED_DATA:
                    sock.settimeout(max(deadline - time.monotonic(), 0.001))
                    connection.receive_data(sock.recv(_CHUNK))
            sock.setblocking(True)
            patience = _timeval(self._silence)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            sock.sendall(connection.data_to_send())
        except TimeoutError:
            sock.close()
            raise ConnectionLost(f"{address}: a frame behind WELCOME did not come whole in time") from None
        except BaseException:
            sock.close()
            raise
        return sock

    # Sending.

    def encode(self, method: Operation[Any, Any], request: Message) -> bytes:
        """A request as bytes, which may be sent as often as one likes.

        Raises:
            EncodeError: it breaks a rule of its message.
        """
        return self._codec.plan(method.request, self._version, self._limits).encode(request)

    def send(self, method: Operation[Any, Any], payload: bytes, metadata: Metadata = EMPTY) -> int:
        """Send a request, with the flags of its method's shape; its call id. A stream needs ``credit`` in its metadata.

        Raises:
            TimeoutError: the server takes nothing; the connection is of no use any more.
        """
        self.call_id = self.call_id % (TOP_BIT - 1) + 1
        self._opcodes[self.call_id] = method.opcode
        block = b"" if metadata is EMPTY else pack_metadata(metadata)
        flags = Flag.ITEMS_COME_BACK if method.items_come_back else Flag.NONE
        codec, version = self._codec.id, self._version
        self._send(pack(Kind.REQUEST, codec, version, method.opcode, self.call_id, block, payload, flags))
        return self.call_id

    def grant(self, call_id: int, items: int, size: int) -> None:
        """Let a stream send more: so many items, and so many bytes of them, 0 to 2**32 - 1 each and one of them not 0.

        A stream sends an item when it has credit for 1 item and 1 byte, and takes all its bytes.
        """
        self._send(pack(Kind.CREDIT, 0, 0, self._opcodes[call_id], call_id, b"", pack_credit(items, size)))

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except BlockingIOError:
            if self.socket.gettimeout() is not None:
                raise  # its user wants it so
            raise TimeoutError(f"the server has taken nothing for {self._silence:g} s") from None

    # Receiving.

    def decoder(self, method: Operation[Any, Resp]) -> Callable[[bytes], Resp]:
        """What makes a response, or an item, of its bytes; see ``wireproto.codecs.Plan.decode``."""
        return self._codec.plan(method.response, self._version, self._limits, request=False).decode

    def take(self) -> list[Answer]:
        """Read once, blocking if nothing has come, and give what is whole now; that may be nothing.

        Raises:
            ConnectionLost: the connection is over; a server that said why is quoted.
            TimeoutError: the server was silent for too long; what it sends later can still be taken.
        """
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            if self.socket.gettimeout() is not None:
                raise  # its user wants it so
            raise TimeoutError(f"nothing has come from the server for {self._silence:g} s") from None
        if not data:
            raise ConnectionLost("the server has closed the connection")
        buffer = self._buffer
        buffer += data
        answers: list[Answer] = []
        at = 0
        while len(buffer) - at >= HEADER.size:
            length, kind, _, _, _, _, metadata_length, call_id = HEADER.unpack_from(buffer, at)
            end = at + 4 + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[at + HEADER.size + metadata_length : end])
            at = end
            if kind in (Kind.RESPONSE, Kind.ITEM):
                answers.append(Answer(call_id, payload, kind == Kind.RESPONSE, None))
            else:
                self._take_other(kind, call_id, payload, answers)
        del buffer[:at]
        for answer in answers:
            if answer.last:
                self._opcodes.pop(answer.call_id, None)
        return answers

    def _take_other(self, kind: int, call_id: int, payload: bytes, answers: list[Answer]) -> None:
        if kind == Kind.END:
            answers.append(Answer(call_id, b"", True, None))
        elif kind == Kind.ERROR and call_id:
            answers.append(Answer(call_id, b"", True, unpack_error(payload)))
        elif kind == Kind.ERROR:
            raise ConnectionLost(f"the server ended the connection: {unpack_error(payload)}")
        elif kind == Kind.PING:
            self._send(pack(Kind.PONG, 0, 0, 0, 0, b"", payload))

    def call(self, method: Operation[Any, Any], payload: bytes, metadata: Metadata = EMPTY) -> bytes:
        """The response's bytes, with nothing else in flight.

        Raises:
            CallError: the call failed; ``ConnectionLost`` and ``TimeoutError`` as ``take``.
        """
        call_id = self.send(method, payload, metadata)
        while True:
            for answer in self.take():
                if answer.call_id == call_id:
                    if answer.error is not None:
                        raise answer.error
                    return answer.payload


def _timeval(seconds: float) -> bytes:
    """A time as SO_RCVTIMEO takes it; one of 0 would be no time at all."""
    whole, micros = divmod(max(round(seconds * 1e6), 1), 1_000_000)
    return struct.pack("@ll", whole, micros)
