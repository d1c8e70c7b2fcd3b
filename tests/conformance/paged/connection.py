"""Sections 1, 3, 4, 7 and 8: one connection, on a thread of its own."""

import heapq
import itertools
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.conformance.paged import msgpack, pipe
from tests.conformance.paged.declared import CONTROL, SERVICES, Method, digest
from tests.conformance.paged.frames import Body, Header, Metadata, error_body, metadata_of, packed, read_error, text8
from tests.conformance.paged.methods import NAME, Later, answer, items
from tests.conformance.paged.numbers import (
    CANCEL,
    CANCELLED,
    CODECS,
    CREDIT,
    DEADLINE_EXCEEDED,
    END,
    ERROR,
    FAILED_PRECONDITION,
    FRAME_TIMEOUT,
    FROM_CLIENTS,
    GOAWAY,
    HELLO,
    HELLO_MAX_FRAME,
    HELLO_TIMEOUT,
    IDLE_TIMEOUT,
    ITEM,
    LINGER,
    MAX_CALLS,
    MAX_FRAME,
    MAYBE_PROCESSED,
    NOT_FOUND,
    NOT_PROCESSED,
    OF_CALLS,
    PING,
    PONG,
    PREAMBLE,
    REQUEST,
    RESOURCE_EXHAUSTED,
    RESPONSE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    WELCOME,
    Failure,
    Final,
    Gone,
)

__all__ = ["Connection"]

TICK = 0.02
"""Seconds between two looks at the clock."""
HTTP = re.compile(rb"(GET|POST|PUT|HEAD|OPTIONS|DELETE|CONNECT|TRACE|PATCH|PRI) ")
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 30\r\n\r\nThis port speaks wireproto 1.\n"


class Call:
    """One that is in flight."""

    def __init__(self, method: Method, credit: int, deadline: float | None) -> None:
        self.method, self.credit, self.deadline = method, credit, deadline
        self.items: Iterator[dict[str, Any]] | None = None


class Connection:
    """One client's.

    Args:
        sock: accepted.
        hosted: the full name of the service.
        leaving: set when the server goes.
    """

    def __init__(self, sock: socket.socket, hosted: str, leaving: threading.Event) -> None:
        self.sock, self.hosted, self.leaving = sock, hosted, leaving
        self.codec = self.version = self.last_id = self.heartbeat = 0
        self.service = ""
        self.their_max = HELLO_MAX_FRAME
        self.calls: dict[int, Call] = {}
        self.later: list[tuple[float, int, int, Call, bytes]] = []
        self.numbers = itertools.count()
        self.half_closed = self.draining = False
        self.heard = self.pinged = time.monotonic()

    # Section 8 -----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        greeted = False
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            deadline = time.monotonic() + HELLO_TIMEOUT
            first = self.first_bytes(deadline)
            if first == BAD_REQUEST:
                self.sock.sendall(first)
                self.linger()
                return
            self.sock.sendall(PREAMBLE)
            greeted = True
            if first != PREAMBLE:
                if first[:3] == PREAMBLE[:3]:
                    raise Final("UNSUPPORTED_MAJOR", "spoken here: 1", FAILED_PRECONDITION)
                raise Final("FOREIGN_PROTOCOL", "this port speaks wireproto")
            self.greet(deadline)
            while self.turn():
                pass
            self.linger()
        except Final as final:
            if not greeted:
                self.sock.sendall(PREAMBLE)
            self.send(ERROR, error_body(final.status, final.reason, final.text))
            self.linger()
        except Gone:
            self.linger()
        except OSError:
            pass  # the client has dropped the connection
        finally:
            self.sock.close()

    def linger(self) -> None:
        """Read and drop what still comes, so that what was said is not lost to a reset."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + LINGER
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(65536):
                    return
        except OSError:
            pass  # nothing came, or the client has dropped the connection

    def turn(self) -> bool:
        """What is due, and a frame if there is one; whether the connection goes on."""
        self.expire()
        if self.leaving.is_set() and not self.draining:
            self.draining = True
            self.send(GOAWAY, self.last_id.to_bytes(4) + error_body(UNAVAILABLE, "SHUTTING_DOWN", "it goes"))
            self.end_streams(Failure(UNAVAILABLE, "SHUTTING_DOWN", "it goes", MAYBE_PROCESSED))
        if (self.half_closed or self.draining) and not self.calls:
            return False
        if self.half_closed:
            time.sleep(TICK)
            return True
        if select.select([self.sock], [], [], TICK)[0]:
            if self.sock.recv(1, socket.MSG_PEEK):
                self.heard = self.pinged = time.monotonic()
                self.take()
            else:
                self.half_closed = True
                self.end_streams(Failure(CANCELLED, "CANCELLED", "the client left", MAYBE_PROCESSED))
        elif self.heartbeat:
            self.beat(time.monotonic())
        return True

    def beat(self, now: float) -> None:
        if now - self.heard > IDLE_TIMEOUT:
            raise Gone
        if now - self.pinged >= self.heartbeat / 1000:
            self.pinged = now
            self.send(PING, b"a beat..")

    def end_streams(self, failure: Failure) -> None:
        for call_id, call in list(self.calls.items()):
            if call.method.stream:
                self.fail(call_id, call.method.opcode, failure)

    # Section 1 -----------------------------------------------------------------------------------------------------

    def first_bytes(self, deadline: float) -> bytes:
        """The first four bytes, or as many as tell that they will never be the preamble; or what to answer instead."""
        data = b""
        while len(data) < 4 and PREAMBLE.startswith(data):
            try:
                data += self.read(1, deadline, "HELLO_TIMEOUT")
            except Gone:
                if not data:
                    raise
                raise Final("TRUNCATED_FRAME", "the input ended") from None
        if HTTP.match(data + self.peek()):
            return BAD_REQUEST
        return data

    def peek(self) -> bytes:
        if not select.select([self.sock], [], [], 0.2)[0]:
            return b""
        return self.sock.recv(16, socket.MSG_PEEK)

    # Section 2 -----------------------------------------------------------------------------------------------------

    def read(self, size: int, deadline: float, reason: str) -> bytes:
        """Exactly so many bytes; ``Gone`` when the input ends before the first one."""
        data = bytearray()
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Final(reason, "it did not come in time", DEADLINE_EXCEEDED)
            self.sock.settimeout(left)
            try:
                piece = self.sock.recv(size - len(data))
            except TimeoutError:
                continue
            if not piece:
                raise Final("TRUNCATED_FRAME", "the input ended") if data else Gone
            data += piece
        return bytes(data)

    def rest(self, size: int, deadline: float, reason: str) -> bytes:
        """Bytes of a frame that has begun."""
        try:
            return self.read(size, deadline, reason)
        except Gone:
            raise Final("TRUNCATED_FRAME", "the input ended") from None

    def header(self, most: int, deadline: float, reason: str) -> Header:
        """The header of a frame, held to the checks up to the kind."""
        length = int.from_bytes(self.read(4, deadline, reason))
        if length > most:
            raise Final("FRAME_TOO_LARGE", f"{length} bytes; {most} are accepted")
        if length < 12:
            raise Final("FRAME_TOO_SHORT", f"{length} bytes")
        found = Header(length, *struct.unpack(">BBBBHHI", self.rest(12, deadline, reason)))
        if 12 + found.metadata > length:
            raise Final("METADATA_OVERRUN", f"{found.metadata} bytes of metadata")
        if found.kind < 128 and not HELLO <= found.kind <= GOAWAY:
            raise Final("UNKNOWN_KIND", f"kind {found.kind}")
        return found

    def check(self, found: Header) -> None:
        """The checks behind that of the kind."""
        if found.flags:
            raise Final("RESERVED_FLAGS", f"{found.flags:#04x}")
        codec, version = (self.codec, self.version) if found.kind == REQUEST else (0, 0)
        if found.codec != codec:
            raise Final("WRONG_CODEC", f"codec {found.codec}")
        if found.version != version:
            raise Final("WRONG_VERSION", f"version {found.version}")
        if (found.kind in OF_CALLS) != (found.call_id > 0):
            raise Final("CALL_ID", f"call id {found.call_id}")
        if not found.call_id and found.opcode:
            raise Final("WRONG_OPCODE", f"opcode {found.opcode:#06x}")
        if found.metadata and found.kind != REQUEST:
            raise Final("UNEXPECTED_METADATA", f"{found.metadata} bytes")

    def send(self, kind: int, payload: bytes = b"", call_id: int = 0, opcode: int = 0) -> None:
        if kind in (RESPONSE, ITEM):
            if 12 + len(payload) > self.their_max:
                self.fail(call_id, opcode, Failure(RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE", "", MAYBE_PROCESSED))
                return
            data = packed(kind, payload, self.codec, self.version, opcode, call_id)
        else:
            data = packed(kind, payload, 0, 0, opcode, call_id)
        self.sock.settimeout(10)
        self.sock.sendall(data)
        if call_id and kind in (RESPONSE, END, ERROR):
            self.calls.pop(call_id, None)

    def fail(self, call_id: int, opcode: int, failure: Failure) -> None:
        body = error_body(failure.status, failure.reason, failure.text, failure.retry, failure.after)
        self.send(ERROR, body, call_id, opcode)

    # Section 3 -----------------------------------------------------------------------------------------------------

    def greet(self, deadline: float) -> None:
        found = self.header(HELLO_MAX_FRAME, deadline, "HELLO_TIMEOUT")
        if found.kind != HELLO:
            raise Final("UNEXPECTED_KIND", f"kind {found.kind} before HELLO")
        self.check(found)
        body = Body(self.rest(found.length - 12, deadline, "HELLO_TIMEOUT"))
        low, high = body.number(1), body.number(1)
        their_max, _, heartbeat, _ = (body.number(size) for size in (4, 4, 4, 8))
        codecs = [(body.number(1), body.text()) for _ in range(body.number(1))]
        body.text()  # the client's name
        service = body.text()
        listed: dict[int, int] = {}
        for number, value in body.fields(2):
            if number == 1:
                listed = digests_in(value)
        if not 1 <= low <= high or their_max < HELLO_MAX_FRAME or not codecs:
            raise Final("BAD_BODY", "the versions, the max frame or the codecs")
        ids = [number for number, _ in codecs]
        if 0 in ids or len(set(ids)) != len(ids):
            raise Final("BAD_BODY", "the id of a codec")
        if not all(re.fullmatch("[a-z][a-z0-9_.-]{0,31}", name) for _, name in codecs):
            raise Final("BAD_BODY", "the name of a codec")
        if select.select([self.sock], [], [], 0)[0] and self.sock.recv(1, socket.MSG_PEEK):
            raise Final("EARLY_FRAME", "wait for WELCOME")
        self.choose(service, low, high, codecs, listed)
        self.their_max, self.heartbeat = their_max, heartbeat
        welcome = struct.pack(">BBIIIQ", self.version, self.codec, MAX_FRAME, MAX_CALLS, heartbeat, 0)
        self.send(WELCOME, welcome + text8(NAME))

    def choose(self, service: str, low: int, high: int, codecs: list[tuple[int, str]], listed: dict[int, int]) -> None:
        self.service = service or self.hosted
        if self.service not in (self.hosted, CONTROL):
            raise Final("UNKNOWN_SERVICE", f"hosted here: {self.hosted}, {CONTROL}", NOT_FOUND)
        newest, _ = SERVICES[self.service]
        if low > newest:
            raise Final("UNSUPPORTED_VERSION", f"spoken here: 1 to {newest}", FAILED_PRECONDITION)
        self.version = min(newest, high)
        common = [number for number, name in codecs if CODECS.get(number) == name]
        if not common:
            raise Final("UNSUPPORTED_CODEC", f"spoken here: {CODECS}", FAILED_PRECONDITION)
        self.codec = common[0]
        if self.version == high:
            differ = [opcode for opcode, said in listed.items() if self.digest(opcode) not in (None, said)]
            if differ:
                shown = ", ".join(f"{opcode:#06x}" for opcode in differ)
                raise Final("CONTRACT_MISMATCH", f"opcodes {shown}", FAILED_PRECONDITION)

    def digest(self, opcode: int) -> int | None:
        method = self.method(opcode)
        return None if method is None else digest(method, self.version)

    # Section 4 -----------------------------------------------------------------------------------------------------

    def method(self, opcode: int) -> Method | None:
        """A method of the connection in its version, to which the framework's always belong."""
        every = SERVICES[self.service][1] + SERVICES[CONTROL][1]
        found = next((method for method in every if method.opcode == opcode), None)
        if found is None or opcode >= 0xF000 or found.since <= self.version <= (found.until or self.version):
            return found
        return None

    def unknown(self, opcode: int) -> Failure:
        other = [method for method in SERVICES[self.service][1] if method.opcode == opcode]
        has = f"; versions {other[0].since} to {other[0].until or 'now'} have it" if other else ""
        return Failure(UNIMPLEMENTED, "UNKNOWN_OPCODE", f"there is no {opcode:#06x} in version {self.version}{has}")

    def take(self) -> None:
        """One frame."""
        deadline = time.monotonic() + FRAME_TIMEOUT
        found = self.header(MAX_FRAME, deadline, "FRAME_TIMEOUT")
        if found.kind < 128:
            if found.kind not in FROM_CLIENTS or (found.kind == ERROR and found.call_id):
                raise Final("UNEXPECTED_KIND", f"kind {found.kind}")
            self.check(found)
        data = self.rest(found.length - 12, deadline, "FRAME_TIMEOUT")
        metadata, payload = data[: found.metadata], data[found.metadata :]
        if found.kind in (PING, PONG) and len(payload) != 8:
            raise Final("BAD_BODY", f"{len(payload)} bytes")
        if found.kind == PING:
            self.send(PONG, payload)
        elif found.kind == ERROR:
            read_error(payload)
            raise Gone
        elif found.kind in (CANCEL, CREDIT):
            self.steer(found, payload)
        elif found.kind == REQUEST:
            self.begin(found.call_id, found.opcode, metadata, payload)

    def steer(self, found: Header, payload: bytes) -> None:
        if len(payload) != (4 if found.kind == CREDIT else 0) or (found.kind == CREDIT and not any(payload)):
            raise Final("BAD_BODY", "CANCEL or CREDIT")
        call = self.calls.get(found.call_id)
        if call is None:
            return
        if call.method.opcode != found.opcode:
            raise Final("WRONG_OPCODE", f"call {found.call_id} has another opcode")
        if found.kind == CANCEL:
            self.fail(found.call_id, found.opcode, Failure(CANCELLED, "CANCELLED", "cancelled", MAYBE_PROCESSED))
        elif call.method.stream:
            call.credit += int.from_bytes(payload)
            if call.credit > 0xFFFF_FFFF:
                raise Final("CREDIT_OVERFLOW", f"{call.credit}")
            self.pump(found.call_id, call)

    def begin(self, call_id: int, opcode: int, block: bytes, payload: bytes) -> None:
        if not 0 < (call_id - self.last_id) % 2**32 < 2**31 or call_id in self.calls:
            raise Final("CALL_ID", f"{call_id} behind {self.last_id}")
        self.last_id = call_id
        try:
            if self.draining:
                raise Failure(UNAVAILABLE, "SHUTTING_DOWN", "it goes", NOT_PROCESSED)
            if len(self.calls) >= MAX_CALLS:
                raise Failure(RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", f"at most {MAX_CALLS}", NOT_PROCESSED)
            metadata = metadata_of(block)
            method = self.method(opcode)
            if method is None:
                raise self.unknown(opcode)
            if metadata.deadline_ms == 0:
                raise Failure(DEADLINE_EXCEEDED, "DEADLINE", "no time is left", NOT_PROCESSED)
            self.run(call_id, method, metadata, payload)
        except Failure as failure:
            self.fail(call_id, opcode, failure)

    def run(self, call_id: int, method: Method, metadata: Metadata, payload: bytes) -> None:
        if method.max_request is not None and len(payload) > method.max_request:
            raise Failure(RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", f"at most {method.max_request} bytes")
        # The framework's methods are in version 1, whatever the connection's.
        version = 1 if method.opcode >= 0xF000 else self.version
        codec = pipe if self.codec == 1 else msgpack
        request = codec.decode(method.request, payload, version)
        deadline = None if metadata.deadline_ms is None else time.monotonic() + metadata.deadline_ms / 1000
        call = self.calls[call_id] = Call(method, metadata.credit, deadline)
        if method.stream:
            call.items = items(method, request)
            self.pump(call_id, call)
            return
        found = answer(self.hosted, method, request, metadata, deadline)
        if isinstance(found, Later):
            response = codec.encode(method.response, found.response, version)
            due = time.monotonic() + found.seconds
            heapq.heappush(self.later, (due, next(self.numbers), call_id, call, response))
        else:
            self.send(RESPONSE, codec.encode(method.response, found, version), call_id, method.opcode)

    def pump(self, call_id: int, call: Call) -> None:
        """Send items while there is credit for them."""
        codec = pipe if self.codec == 1 else msgpack
        while call.credit and call.items is not None and call_id in self.calls:
            try:
                item = next(call.items, None)
            except Failure as failure:
                self.fail(call_id, call.method.opcode, failure)
                return
            if item is None:
                self.send(END, b"", call_id, call.method.opcode)
                return
            call.credit -= 1
            self.send(ITEM, codec.encode(call.method.response, item, self.version), call_id, call.method.opcode)

    def expire(self) -> None:
        """Answers whose time has come, and calls whose time is over."""
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            _, _, call_id, call, response = heapq.heappop(self.later)
            if self.calls.get(call_id) is call:
                self.send(RESPONSE, response, call_id, call.method.opcode)
        for call_id, call in list(self.calls.items()):
            if call.deadline is not None and now > call.deadline:
                late = Failure(DEADLINE_EXCEEDED, "DEADLINE", "the time is over", MAYBE_PROCESSED)
                self.fail(call_id, call.method.opcode, late)


def digests_in(value: bytes) -> dict[int, int]:
    """The methods that HELLO lists."""
    if len(value) % 6:
        raise Final("BAD_BODY", "the methods are no pairs")
    pairs = [struct.unpack_from(">HI", value, at) for at in range(0, len(value), 6)]
    if len(dict(pairs)) != len(pairs):
        raise Final("BAD_BODY", "an opcode is listed twice")
    return dict(pairs)
