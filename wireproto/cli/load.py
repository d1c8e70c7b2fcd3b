"""The load behind ``wireproto bench``: many connections, some calls in flight on each, in one thread on one epoll.

It speaks through the sans-IO connection and skips the client, whose threads would be measured along with the server.
``load_grpc`` is the one for the other door.
"""

import math
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from wireproto.address import Address
from wireproto.binding import Dialect
from wireproto.client.face import as_metadata
from wireproto.client.opening import open_connection
from wireproto.codecs import Codec
from wireproto.errors import ConfigError, ConnectionLost
from wireproto.limits import MAX_FRAME_CEILING, Limits
from wireproto.schema import Message, Operation, Service, StreamMethod
from wireproto.status import Retry
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import (
    AnswerUnreadable,
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    ItemReceived,
    ResponseReceived,
    bare,
)
from wireproto.wire.frame import HEADER_AFTER_LENGTH, U32_MAX, Credit, Flag
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import pack_metadata
from wireproto.wire.packing import plain

__all__ = ["Asked", "Load", "Sample"]

PATIENCE = 10.0
"""Seconds without any answer after which the server is given up."""

CONNECT_TIMEOUT = 10.0
"""Seconds for each connection and its handshake."""

FULL = Credit(U32_MAX, U32_MAX)
"""What each stream begins with: every item comes at once, for how a reader grants credit is not the server's to be
measured by."""

REFILL_AFTER = 1 << 30
"""Bytes read from a connection after which the credit of its streams is filled up again, long before it is used up."""

_EVENTS = 256
_CHUNK = 65_536  # what malloc keeps at hand: above 128 KiB each read would map its memory, and fault it in


@dataclass(frozen=True)
class Asked:
    """What each call of a load is.

    Attributes:
        service: whom the connections are made for.
        method: of it, or one of the framework's own.
        request: the same one each time.
        metadata: entries of each call.
    """

    service: Service
    method: Operation[Any, Any]
    request: Message
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What one run measured. Times are in seconds.

    Attributes:
        calls: answered.
        elapsed: from the first request to the last answer.
        waits: the time of each answer, in ascending order.
        bytes_sent, bytes_received: of whole frames, headers included; None where nobody counts them.
        own_cpu: CPU time of this process.
    """

    calls: int
    elapsed: float
    waits: "array[float]"
    bytes_sent: int | None
    bytes_received: int | None
    own_cpu: float

    def percentile(self, share: float) -> float:
        """The time within which ``share`` (0 to 1) of the calls were answered."""
        return self.waits[min(len(self.waits) - 1, math.ceil(share * len(self.waits)) - 1)]


class _Peer:
    """One connection and when each of its calls in flight was sent."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock = sock
        self.connection = connection
        self.sent: dict[int, float] = {}
        self.output = bytearray()
        self.unfilled = 0  # bytes read since the credit of its streams was filled up


class Load:
    """Connections to one server in one codec, calling one method. A stream is one call, over when it ends.

    Args:
        address: of the server.
        codec: to call in.
        asked: what each call is.
        connections: how many, at least 1.
        pipeline: calls in flight on each, at least 1.

    Raises:
        HandshakeError: the server does not take the codec, or has no such service.
        ConnectionLost: it cannot be reached.
        CallError: the version that is spoken there lacks the method.
        EncodeError: the request cannot be written.
        ConfigError: it does not take so many calls in flight, or messages so large.
    """

    def __init__(self, address: Address, codec: Codec, asked: Asked, *, connections: int, pipeline: int) -> None:
        limits = Limits(max_frame=MAX_FRAME_CEILING)
        self._asked = asked
        self._pipeline = pipeline
        self._address = address
        self._payload = self._metadata = b""
        self._credit = FULL if isinstance(asked.method, StreamMethod) else None
        self._epoll = select.epoll()
        self._peers: dict[int, _Peer] = {}
        hello = Hello(
            min_version=asked.service.oldest,
            max_version=asked.service.version,
            codecs=((codec.id, codec.name),),
            max_frame=limits.max_frame,
            client_name="wireproto bench",
            service=asked.service.full_name,
        )
        try:
            for _ in range(connections):
                connection = Connection(Role.CLIENT, limits)
                deadline = time.monotonic() + CONNECT_TIMEOUT
                sock = open_connection(address, connection, hello, asked.service, limits, deadline)
                self._peers[sock.fileno()] = _Peer(sock, connection)
                self._epoll.register(sock.fileno(), select.EPOLLIN)
                self._prepare(connection, codec, limits)
        except BaseException:
            self.close()
            raise

    def _prepare(self, connection: Connection, codec: Codec, limits: Limits) -> None:
        """Encode what is sent, once a version is agreed on, and see whether the server takes it."""
        dialect = Dialect(self._asked.service, codec, connection.version, limits)
        method: Any = self._asked.method  # of either kind
        self._payload = plain(dialect.bind(method).encode(self._asked.request))
        self._metadata = pack_metadata(structs.replace(as_metadata(self._asked.metadata), credit=self._credit))
        if self._pipeline > connection.their_max_calls:
            raise ConfigError(
                f"{self._pipeline} calls in flight are more than the server takes on one connection, "
                f"{connection.their_max_calls}; give a smaller -P, and more connections with -c"
            )
        length = HEADER_AFTER_LENGTH + len(self._metadata) + len(self._payload)
        if length > connection.their_max_frame:
            raise ConfigError(
                f"the request takes {length} bytes in {codec.name}; the server accepts frames of "
                f"{connection.their_max_frame}; give a smaller --size, or a smaller request"
            )

    def close(self) -> None:
        """Close every connection."""
        for peer in self._peers.values():
            peer.sock.close()
        self._peers.clear()
        self._epoll.close()

    def run(
        self, calls: int | None, seconds: float | None, progress: Callable[[float], None] = lambda share: None
    ) -> Sample:
        """Call until ``calls`` are answered or, without a number, until ``seconds`` have passed.

        Args:
            calls: in all, over all connections.
            seconds: counts when there is no number.
            progress: told now and then which share of the run is done, 0 to 1.

        Raises:
            CallError: a call failed; the first one ends the run.
            ConnectionLost: the server ended a connection or answers nothing.
        """
        clock = time.perf_counter
        own, began = time.process_time(), clock()
        until = began + seconds if calls is None and seconds is not None else math.inf
        left = math.inf if calls is None else calls
        waits = array("d")
        sent = received = 0
        told = began
        waiting = 0  # calls in flight
        for peer in self._peers.values():
            for _ in range(min(self._pipeline, int(min(left, self._pipeline)))):
                self._call(peer, clock())
                left -= 1
                waiting += 1
            sent += self._send(peer)
        while waiting:
            ready = self._epoll.poll(PATIENCE)
            if not ready:
                raise self._lost(f"answered nothing for {PATIENCE:g} s")
            for fd, mask in ready:
                peer = self._peers[fd]
                if mask & ~select.EPOLLOUT:
                    received += self._receive(peer)
                    now = clock()
                    for event in self._answers(peer):
                        waits.append(now - peer.sent.pop(event.call_id))
                        waiting -= 1
                        if left > 0 and now < until:
                            self._call(peer, now)
                            left -= 1
                            waiting += 1
                    if self._credit is not None and peer.unfilled >= REFILL_AFTER:
                        self._fill_up(peer)
                sent += self._send(peer)
            now = clock()
            if now > until + PATIENCE:
                raise self._lost(f"has calls that do not end, {PATIENCE:g} s after the last was begun")
            if now - told > 0.1:
                told = now
                progress((now - began) / seconds if calls is None and seconds else len(waits) / (calls or 1))
        elapsed, own = clock() - began, time.process_time() - own
        progress(1.0)
        return Sample(len(waits), elapsed, array("d", sorted(waits)), sent, received, own)

    def _call(self, peer: _Peer, now: float) -> None:
        connection, opcode = peer.connection, self._asked.method.opcode
        if self._credit is None:
            call_id = connection.send_request(opcode, self._payload, self._metadata)
        else:
            call_id = connection.send_flagged_request(
                Flag.ITEMS_COME_BACK, opcode, self._payload, self._metadata, credit=self._credit
            )
        peer.sent[call_id] = now

    def _fill_up(self, peer: _Peer) -> None:
        """Return the credit of all that has come of the streams."""
        for call_id in peer.sent:
            items, size = peer.connection.credit_out(call_id)
            used = Credit(FULL.items - items, FULL.bytes - size)
            if any(used):
                peer.connection.send_credit(call_id, *used)
        peer.unfilled = 0

    def _send(self, peer: _Peer) -> int:
        """Write what waits, as far as the kernel takes it; how many bytes were queued since the last time."""
        data = peer.connection.data_to_send()
        waited = len(peer.output)
        peer.output += data
        if peer.output:
            try:
                taken = peer.sock.send(peer.output)
            except BlockingIOError:
                taken = 0
            except OSError as error:
                raise self._lost(f"broke the connection: {error.strerror}") from None
            del peer.output[:taken]
        if bool(waited) != bool(peer.output):
            self._epoll.modify(peer.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if peer.output else 0))
        return len(data)

    def _receive(self, peer: _Peer) -> int:
        try:
            data = peer.sock.recv(_CHUNK)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(f"broke the connection: {error.strerror}") from None
        if data:
            peer.connection.receive_data(data)
        else:
            peer.connection.receive_eof()
        peer.unfilled += len(data)
        return len(data)

    def _answers(self, peer: _Peer) -> Iterator[ResponseReceived | EndReceived]:
        while events := peer.connection.next_events(_EVENTS):
            answers = []
            for event in map(bare, events):
                if isinstance(event, ResponseReceived | EndReceived):
                    answers.append(event)
                elif not isinstance(event, ItemReceived):
                    # At once: behind a GOAWAY no answer may be followed by another call.
                    self._react(event)
            yield from answers

    def _react(self, event: Event) -> None:
        if isinstance(event, ErrorReceived | AnswerUnreadable):
            raise event.error
        if isinstance(event, ConnectionEnded):
            raise self._lost(f"ended the connection: {event.error or 'no reason given'}")
        if isinstance(event, GoAwayReceived):
            raise self._lost(f"takes no more calls: {event.error}")

    def _lost(self, problem: str) -> ConnectionLost:
        return ConnectionLost(f"{self._address} {problem}", retry=Retry.MAYBE_PROCESSED)
