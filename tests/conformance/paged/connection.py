"""Sections 1, 3, 4, 7 and 8: one connection, on a thread of its own."""

import heapq
import itertools
import re
import select
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from tests.conformance.paged import msgpack, pipe
from tests.conformance.paged.declared import CONTROL, SERVICES, Method, digest
from tests.conformance.paged.frames import (
    Body,
    Header,
    Metadata,
    error_body,
    field,
    metadata_of,
    packed,
    read_error,
    text8,
)
from tests.conformance.paged.methods import NAME, Later, Sum, answer, items, left_out, note, reflected, said
from tests.conformance.paged.numbers import (
    ANSWERS,
    CANCEL,
    CANCELLED,
    CHATTER_PER_FRAME,
    CHATTER_PER_SECOND,
    CODECS,
    CREDIT,
    DEADLINE_EXCEEDED,
    END,
    ERROR,
    FAILED_PRECONDITION,
    FIRST_CREDIT,
    FLAGS,
    FRAME_TIMEOUT,
    FROM_EITHER,
    FURTHEST,
    GOAWAY,
    GRACE,
    HELLO,
    HELLO_MAX_FRAME,
    HELLO_TIMEOUT,
    INVALID_ARGUMENT,
    ITEM,
    ITEMS_FOLLOW,
    LAST_NUMBER,
    LINGER,
    MAX_ANSWER,
    MAX_CALLS,
    MAX_CHATTER,
    MAX_CROSSED,
    MAX_DETAILS,
    MAX_FRAME,
    MAX_STRAYS,
    MAYBE_PROCESSED,
    NOT_FOUND,
    NOT_PROCESSED,
    OF_CALLS,
    OF_MESSAGES,
    ONE_WAY,
    ONE_WAY_CALLS,
    PACKED,
    PING,
    PONG,
    PREAMBLE,
    REFILL,
    REQUEST,
    RESOURCE_EXHAUSTED,
    RESPONSE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    WELCOME,
    ZLIB,
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

    def __init__(self, method: Method, credit: tuple[int, int], deadline: float | None) -> None:
        self.method, self.deadline = method, deadline
        self.items_left, self.bytes_left = credit
        self.items: Iterator[dict[str, Any]] | None = None
        self.dropped = 0  # items that were left out ahead of the next one
        self.said = b""  # the metadata of what ends it
        # The request half: its credit, what is owed of it, what has come and was not taken, and whether that was all.
        self.items_to_come, self.bytes_to_come = FIRST_CREDIT
        self.items_owed = self.bytes_owed = 0
        self.waiting: deque[bytes] = deque()
        self.complete = not method.follow
        self.held_until = 0.0
        self.sum = Sum()


class Zipped(bytes):
    """A packed payload, whose length is that of what it stands for."""

    def __new__(cls, body: bytes, most: int) -> Self:
        if super().__len__(body) < 5 or not any(body[:4]):
            raise Final("BAD_BODY", "a packed payload")
        if int.from_bytes(body[:4]) > most:
            raise Final("FRAME_TOO_LARGE", f"it stands for more than {most} bytes")
        return super().__new__(cls, body)

    def __len__(self) -> int:
        return int.from_bytes(self[:4])


def unzipped(payload: bytes) -> bytes:
    """A payload of the message, however it came."""
    if not isinstance(payload, Zipped):
        return payload
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload[4:], len(payload) + 1)
    except zlib.error:
        data = b""
    if len(data) != len(payload) or not reader.eof or reader.unused_data:
        raise Failure(INVALID_ARGUMENT, "BAD_PAYLOAD", "the packed payload")
    return data


def only_requests(data: bytes) -> bytes:
    """What came with HELLO, if it is what may come with it."""
    at = 0
    while at < len(data):
        size = 4 + int.from_bytes(data[at : at + 4])
        if size < 16 or at + size > len(data):
            raise Final("EARLY_FRAME", "a part of a frame")
        if data[at + 4] != REQUEST or data[at + 5] & (ONE_WAY | 0x02):
            raise Final("EARLY_FRAME", "no REQUEST, or a one-way one")
        at += size
    return data


class Connection:
    """One client's.

    Args:
        sock: accepted.
        hosted: the full name of the service.
        leaving: set when the server goes.
    """

    def __init__(self, sock: socket.socket, hosted: str, leaving: threading.Event) -> None:
        self.sock, self.hosted, self.leaving = sock, hosted, leaving
        self.codec = self.version = self.last_id = self.heartbeat = self.packing = 0
        self.service = ""
        self.their_max = HELLO_MAX_FRAME
        self.calls: dict[int, Call] = {}
        self.later: list[tuple[float, int, int, Call, bytes]] = []
        self.numbers = itertools.count()
        self.early = b""  # REQUESTs that came with HELLO and are to be read before what comes by itself
        self.half_closed = self.draining = self.goaway_read = False
        self.grace = 0.0  # until when the streams go on behind GOAWAY
        self.strays = self.one_way = 0
        self.bucket = MAX_CROSSED
        self.items_allowed = self.bytes_allowed = 0  # of calls that are over
        self.one_way_left, self.one_way_owed = ONE_WAY_CALLS, 0
        self.notes: list[tuple[float, int, dict[str, Any]]] = []
        self.heard = self.pinged = self.counted = time.monotonic()
        self.chatter, self.asked = float(MAX_CHATTER), 0

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
            self.send(ERROR, error_body(final.status, final.reason, final.text, final.retry))
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
            self.grace = time.monotonic() + GRACE
            self.send(GOAWAY, self.last_id.to_bytes(4) + error_body(UNAVAILABLE, "SHUTTING_DOWN", "it goes"))
        if self.draining and time.monotonic() > self.grace:
            self.end_streams(Failure(UNAVAILABLE, "SHUTTING_DOWN", "it goes", MAYBE_PROCESSED))
        if (self.half_closed or self.draining) and not self.calls:
            return False
        if self.half_closed:
            time.sleep(TICK)
            return True
        if self.early or select.select([self.sock], [], [], TICK)[0]:
            if self.early or self.sock.recv(1, socket.MSG_PEEK):
                self.heard = self.pinged = time.monotonic()
                self.take()
            else:
                self.half_closed = True
                self.end_streams(Failure(CANCELLED, "CANCELLED", "the client left", MAYBE_PROCESSED), asked=True)
        elif self.heartbeat:
            self.beat(time.monotonic())
        return True

    def beat(self, now: float) -> None:
        if now - self.heard > 3 * self.heartbeat / 1000:
            raise Gone
        if now - self.pinged >= self.heartbeat / 1000:
            self.pinged = now
            self.send(PING, b"a beat..")
            self.asked += 1

    def end_streams(self, failure: Failure, *, asked: bool = False) -> None:
        """End them all; with ``asked`` those that have nothing more to give end as they would have."""
        for call_id, call in list(self.calls.items()):
            if asked and not call.complete:
                self.fail(call_id, call.method.opcode, failure)
                continue
            if not call.method.stream:
                continue
            try:
                if asked and call.items is not None and next(call.items, None) is None:
                    self.send(END, b"", call_id, call.method.opcode)
                else:
                    self.fail(call_id, call.method.opcode, failure)
            except Failure as own:
                self.fail(call_id, call.method.opcode, own)

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
        data = bytearray(self.early[:size])
        self.early = self.early[size:]
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Final(reason, "it did not come in time", DEADLINE_EXCEEDED)
            if not self.version and self.leaving.is_set():
                raise Final("SHUTTING_DOWN", "it goes", UNAVAILABLE, NOT_PROCESSED)
            self.sock.settimeout(left if self.version else min(left, TICK))
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
        shape = found.flags & ~PACKED
        zipped = bool(found.flags & PACKED)
        if (shape and (found.kind != REQUEST or shape not in FLAGS)) or (
            zipped and not (self.packing and found.kind in OF_MESSAGES)
        ):
            raise Final("RESERVED_FLAGS", f"{found.flags:#04x}")
        codec, version = (self.codec, self.version) if found.kind in OF_MESSAGES else (0, 0)
        if found.codec != codec:
            raise Final("WRONG_CODEC", f"codec {found.codec}")
        if found.version != version:
            raise Final("WRONG_VERSION", f"version {found.version}")
        if (found.kind in OF_CALLS) != (found.call_id > 0) and (found.call_id or found.kind not in (ERROR, CREDIT)):
            raise Final("CALL_ID", f"call id {found.call_id}")
        if not found.call_id and found.opcode:
            raise Final("WRONG_OPCODE", f"opcode {found.opcode:#06x}")
        if found.metadata and found.kind != REQUEST and not (found.kind in ANSWERS and found.call_id & 1 << 31):
            raise Final("UNEXPECTED_METADATA", f"{found.metadata} bytes")

    def send(self, kind: int, payload: bytes = b"", call_id: int = 0, opcode: int = 0, dropped: int = 0) -> None:
        block = field(8, dropped.to_bytes(4)) if dropped else b""
        if kind in (RESPONSE, END, ERROR) and call_id in self.calls:
            block = self.calls[call_id].said
        if kind in (RESPONSE, ITEM):
            if 12 + len(block) + len(payload) > self.their_max:
                self.fail(call_id, opcode, Failure(RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE", "", MAYBE_PROCESSED))
                return
            method = self.method(opcode)
            zipped = payload
            if self.packing and method is not None and method.compress and len(payload) >= 512:
                zipped = len(payload).to_bytes(4) + zlib.compress(payload)
            flags = PACKED if len(zipped) < len(payload) else 0
            data = packed(kind, zipped if flags else payload, self.codec, self.version, opcode, call_id, flags, block)
        else:
            data = packed(kind, payload, 0, 0, opcode, call_id, block=block)
        self.sock.settimeout(10)
        self.sock.sendall(data)
        if call_id and kind in (RESPONSE, END, ERROR):
            call = self.calls.pop(call_id, None)
            if call is not None and not call.complete:
                self.allow(call.items_to_come, call.bytes_to_come)
            self.bucket = min(MAX_CROSSED, self.bucket + REFILL)

    def allow(self, items: int, size: int) -> None:
        """What was left of the credit of a request half that was open when its call ended."""
        self.items_allowed += items
        if items >= 1 and size >= 1:
            self.bytes_allowed += size + MAX_FRAME

    def fail(self, call_id: int, opcode: int, failure: Failure) -> None:
        body = error_body(failure.status, failure.reason, failure.text, failure.retry, failure.after)
        self.send(ERROR, body + self.details(call_id, len(body), failure), call_id, opcode)

    def details(self, call_id: int, size: int, failure: Failure) -> bytes:
        """The field of an ERROR with so long a body; b"" where it has no room."""
        if failure.details is None:
            return b""
        name, message = failure.details
        codec = pipe if self.codec == 1 else msgpack
        value = text8(f"{self.service.rpartition('.')[0]}.{name}") + codec.encode(name, message, self.version)
        if len(value) > MAX_DETAILS:
            return b""
        made = field(1, value)
        block = len(self.calls[call_id].said) if call_id in self.calls else 0
        fits = len(made) + block <= MAX_ANSWER and 12 + block + size + len(made) <= self.their_max
        return made if fits else b""

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
        fields: dict[int, bytes] = {}
        for number, value in body.fields(2):
            if number in (1, 2, 3, 4, 5, 6) and number in fields:
                raise Final("BAD_BODY", f"field {number} twice")
            fields[number] = value
        listed = digests_in(fields.get(1, b""))
        if len(fields.get(4, b"1")) != 1 or fields.get(4) == b"\0":
            raise Final("BAD_BODY", "the control version")
        if len(fields.get(5, bytes(8))) != 8:
            raise Final("BAD_BODY", "the first credit")
        offered = fields.get(2, b"\1")
        if not offered or 0 in offered or len(set(offered)) != len(offered):
            raise Final("BAD_BODY", "the algorithms")
        if len(fields.get(3, bytes(2))) != 2:
            raise Final("BAD_BODY", "the number of early bytes")
        early = int.from_bytes(fields.get(3, bytes(2)))
        if found.length + early > HELLO_MAX_FRAME:
            raise Final("BAD_BODY", "HELLO and its early bytes are too long together")
        one_way = fields.get(6, bytes(4))
        if len(one_way) != 4:
            raise Final("BAD_BODY", "the one-way credit")
        self.one_way = int.from_bytes(one_way)
        if not 1 <= low <= high or their_max < HELLO_MAX_FRAME or 0 < heartbeat < 1000 or not codecs:
            raise Final("BAD_BODY", "the versions, the max frame, the heartbeat or the codecs")
        ids = [number for number, _ in codecs]
        if 0 in ids or len(set(ids)) != len(ids):
            raise Final("BAD_BODY", "the id of a codec")
        if not all(re.fullmatch("[a-z][a-z0-9_.-]{0,31}", name) for _, name in codecs):
            raise Final("BAD_BODY", "the name of a codec")
        follow = self.rest(early, deadline, "HELLO_TIMEOUT") if early else b""
        if select.select([self.sock], [], [], 0)[0] and self.sock.recv(1, socket.MSG_PEEK):
            raise Final("EARLY_FRAME", "wait for WELCOME")
        self.choose(service, low, high, codecs, listed)
        if (self.version, self.codec) == (high, codecs[0][0]):
            self.early = only_requests(follow)
        self.their_max, self.heartbeat = their_max, heartbeat
        welcome = struct.pack(">BBIIIQ", self.version, self.codec, MAX_FRAME, MAX_CALLS, heartbeat, 0)
        credit = struct.pack(">HHIIHHI", 5, 8, *FIRST_CREDIT, 6, 4, ONE_WAY_CALLS)
        algorithm = b""
        if ZLIB in fields.get(2, b""):
            self.packing = ZLIB
            algorithm = struct.pack(">HHB", 2, 1, ZLIB)
        self.send(WELCOME, welcome + text8(NAME) + self.digests() + credit + algorithm)

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

    def digests(self) -> bytes:
        """Field 1 of WELCOME; the control version is 1, as it is without its field."""
        has = [each for each in SERVICES[self.service][1] if self.method(each.opcode) is each]
        value = b"".join(struct.pack(">HI", each.opcode, digest(each, self.version)) for each in has)
        return struct.pack(">HH", 1, len(value)) + value

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
            if found.kind not in FROM_EITHER or (found.kind == GOAWAY and self.goaway_read):
                raise Final("UNEXPECTED_KIND", f"kind {found.kind}")
            self.check(found)
        data = self.rest(found.length - 12, deadline, "FRAME_TIMEOUT")
        metadata, payload = data[: found.metadata], data[found.metadata :]
        if found.kind < 128 and found.flags & PACKED:
            payload = Zipped(payload, MAX_FRAME - 12 - found.metadata)
        if found.kind in (PING, PONG) and len(payload) != 8:
            raise Final("BAD_BODY", f"{len(payload)} bytes")
        self.count(found.kind)
        if found.kind == PING:
            self.send(PONG, payload)
        elif found.kind == GOAWAY:
            Body(payload).number(4)
            read_error(payload[4:])
            self.goaway_read = True
        elif found.kind == REQUEST:
            self.begin(found, metadata, payload)
        elif found.kind < 128:
            self.steer(found, payload)

    def count(self, kind: int) -> None:
        """A frame that is chatter, or one that lets more of it come."""
        empty = kind >= 128 or (kind == PONG and not self.asked)
        self.asked -= kind == PONG and not empty
        now = time.monotonic()
        more = CHATTER_PER_SECOND * (now - self.counted) + (0 if empty else CHATTER_PER_FRAME)
        self.chatter = min(MAX_CHATTER, self.chatter + more) - empty
        self.counted = now
        if self.chatter < 0:
            raise Final("TOO_MANY_FRAMES", "that mean nothing", RESOURCE_EXHAUSTED)

    def steer(self, found: Header, payload: bytes) -> None:
        """What is of a call and begins none."""
        items = size = 0
        if found.kind == CREDIT:
            body = Body(payload)
            items, size = body.number(4), body.number(4)
            if body.at < len(payload) or not items + size or (size and not found.call_id):
                raise Final("BAD_BODY", "CREDIT")
        elif found.kind == ERROR:
            read_error(payload)
        elif found.kind in (END, CANCEL) and payload:
            raise Final("BAD_BODY", "END or CANCEL")
        if not found.call_id:
            if found.kind == ERROR:
                raise Gone
            self.one_way += items
            if self.one_way > 0xFFFF_FFFF:
                raise Final("CREDIT_OVERFLOW", "one-way calls")
            return
        call = self.calls.get(found.call_id)
        if call is None:
            self.crossed(found, payload)
            return
        if call.method.opcode != found.opcode:
            raise Final("WRONG_OPCODE", f"call {found.call_id} has another opcode")
        if found.kind == CANCEL:
            call.complete = True
            self.fail(found.call_id, found.opcode, Failure(CANCELLED, "CANCELLED", "cancelled", MAYBE_PROCESSED))
        elif found.kind == CREDIT and call.method.stream:
            call.items_left += items
            call.bytes_left += size
            if max(call.items_left, call.bytes_left) > 0xFFFF_FFFF:
                raise Final("CREDIT_OVERFLOW", f"call {found.call_id}")
            self.pump(found.call_id, call)
            self.feed(found.call_id, call)
        elif found.kind in (ITEM, END) and not call.complete:
            if found.kind == END:
                call.complete = True
            elif min(call.items_to_come, call.bytes_to_come) < 1:
                raise Final("CREDIT_EXCEEDED", f"call {found.call_id}")
            else:
                call.items_to_come -= 1
                call.bytes_to_come -= len(payload)
                call.waiting.append(payload)
            self.feed(found.call_id, call)
        else:
            raise Final("WRONG_HALF", f"kind {found.kind} of call {found.call_id}")

    def crossed(self, found: Header, payload: bytes) -> None:
        """A frame of a call that is not in flight."""
        if found.call_id > LAST_NUMBER:
            self.strays += 1
            if self.strays > MAX_STRAYS:
                raise Final("STRAY_ANSWERS", "this server begins no calls")
        elif found.kind == ITEM:
            self.items_allowed -= 1
            self.bytes_allowed -= len(payload)
            if min(self.items_allowed, self.bytes_allowed) < 0:
                raise Final("CREDIT_EXCEEDED", "an item that nobody has let come")
        elif found.kind in (RESPONSE, ERROR):
            raise Final("WRONG_HALF", f"call {found.call_id} is answered here")
        else:
            self.bucket -= 1
            if self.bucket < 0:
                raise Final("TOO_MANY_FRAMES", "of calls that are over", RESOURCE_EXHAUSTED)

    def begin(self, found: Header, block: bytes, payload: bytes) -> None:
        call_id, opcode, flags = found.call_id, found.opcode, found.flags & ~PACKED
        if flags & ITEMS_FOLLOW and payload:
            raise Final("BAD_BODY", "a payload where items follow")
        ahead = 0 < (call_id - self.last_id) % (LAST_NUMBER + 1) <= FURTHEST
        if not 1 <= call_id <= LAST_NUMBER or not ahead or call_id in self.calls:
            raise Final("CALL_ID", f"{call_id} behind {self.last_id}")
        self.last_id = call_id
        if flags & ONE_WAY:
            if not self.draining:
                self.begin_one_way(opcode, block, payload)
            return
        try:
            if self.draining:
                raise Failure(UNAVAILABLE, "SHUTTING_DOWN", "it goes", NOT_PROCESSED)
            if len(self.calls) >= MAX_CALLS:
                raise Failure(RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", f"at most {MAX_CALLS}", NOT_PROCESSED)
            method = self.method(opcode)
            if method is None:
                raise self.unknown(opcode)
            if flags != method.flags:
                raise Failure(UNIMPLEMENTED, "WRONG_SHAPE", f"flags {flags:#04x}", NOT_PROCESSED)
            metadata = metadata_of(block)
            if metadata.deadline_ms == 0:
                raise Failure(DEADLINE_EXCEEDED, "DEADLINE", "no time is left", NOT_PROCESSED)
            self.run(call_id, method, metadata, payload)
        except Failure as failure:
            if flags & ITEMS_FOLLOW and call_id not in self.calls:
                self.allow(*FIRST_CREDIT)
            self.fail(call_id, opcode, failure)

    def begin_one_way(self, opcode: int, block: bytes, payload: bytes) -> None:
        """A call that nothing is said of, whatever becomes of it."""
        self.one_way_left -= 1
        if self.one_way_left < 0:
            raise Final("CREDIT_EXCEEDED", "one-way calls")
        self.bucket = min(MAX_CROSSED, self.bucket + REFILL)
        method = self.method(opcode)
        try:
            if method is None or method.flags != ONE_WAY or metadata_of(block).deadline_ms == 0:
                self.return_one_way()
                return
            request = self.decoded(method, payload)
        except Failure:
            self.return_one_way()
            return
        due = time.monotonic() + request["milliseconds"] / 1000
        heapq.heappush(self.notes, (due, next(self.numbers), request))

    def return_one_way(self) -> None:
        """The credit of a call that is done; it goes back when half of the window is owed."""
        self.one_way_owed += 1
        if self.one_way_owed * 2 >= ONE_WAY_CALLS and not self.half_closed:
            self.one_way_left += self.one_way_owed
            self.send(CREDIT, struct.pack(">II", self.one_way_owed, 0))
            self.one_way_owed = 0

    def decoded(self, method: Method, payload: bytes) -> dict[str, Any]:
        codec = pipe if self.codec == 1 else msgpack
        found: dict[str, Any] = codec.decode(method.request, unzipped(payload), self.version)
        return found

    def feed(self, call_id: int, call: Call) -> None:
        """Take what has come of a request half, as far as it may be taken, and answer when that was all."""
        method = call.method
        if not method.follow:
            return
        try:
            while call_id in self.calls and call.held_until <= time.monotonic():
                if method.stream and call.waiting and min(call.items_left, call.bytes_left) < 1:
                    return
                if not call.waiting:
                    if call.complete:
                        self.answer_items(call_id, call)
                    return
                payload = call.waiting.popleft()
                self.take_item(call_id, call, self.decoded(method, payload))
                self.give_back(call_id, call, len(payload))
        except Failure as failure:
            self.fail(call_id, method.opcode, failure)

    def take_item(self, call_id: int, call: Call, item: dict[str, Any]) -> None:
        if not call.method.stream:
            if call.sum.take(item):
                self.answer_items(call_id, call)
            call.held_until = time.monotonic() + item["milliseconds"] / 1000
            return
        back = reflected(item)
        if back is None:
            self.answer_items(call_id, call)
        else:
            self.send_item(call_id, call, back)

    def answer_items(self, call_id: int, call: Call) -> None:
        """The terminal frame of a call whose items followed."""
        if call.method.stream:
            self.send(END, b"", call_id, call.method.opcode)
            return
        codec = pipe if self.codec == 1 else msgpack
        response = codec.encode(call.method.response, call.sum.response(), self.version)
        self.send(RESPONSE, response, call_id, call.method.opcode)

    def give_back(self, call_id: int, call: Call, size: int) -> None:
        """Owe the credit of an item that was taken; it goes back when half of the window is owed."""
        call.items_owed += 1
        call.bytes_owed += size
        if call_id not in self.calls or call.complete or self.half_closed:
            return
        items, most = FIRST_CREDIT
        if call.items_owed * 2 >= items or call.bytes_owed * 2 >= most:
            call.items_to_come += call.items_owed
            call.bytes_to_come += call.bytes_owed
            self.send(CREDIT, struct.pack(">II", call.items_owed, call.bytes_owed), call_id, call.method.opcode)
            call.items_owed = call.bytes_owed = 0

    def run(self, call_id: int, method: Method, metadata: Metadata, payload: bytes) -> None:
        if method.follow:
            late = None if metadata.deadline_ms is None else time.monotonic() + metadata.deadline_ms / 1000
            self.calls[call_id] = Call(method, metadata.credit, late)
            return
        if method.max_request is not None and len(payload) > method.max_request:
            raise Failure(RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", f"at most {method.max_request} bytes")
        # The framework's methods are in version 1, whatever the connection's.
        version = 1 if method.opcode >= 0xF000 else self.version
        codec = pipe if self.codec == 1 else msgpack
        request = codec.decode(method.request, unzipped(payload), version)
        deadline = None if metadata.deadline_ms is None else time.monotonic() + metadata.deadline_ms / 1000
        call = self.calls[call_id] = Call(method, metadata.credit, deadline)
        call.said = said(method, request)
        if method.stream:
            call.items = items(method, request, metadata.resume_after)
            call.dropped = left_out(method, request)
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
        while min(call.items_left, call.bytes_left) > 0 and call.items is not None and call_id in self.calls:
            try:
                item = next(call.items, None)
            except Failure as failure:
                self.fail(call_id, call.method.opcode, failure)
                return
            if item is None:
                self.send(END, b"", call_id, call.method.opcode)
                return
            self.send_item(call_id, call, item)

    def send_item(self, call_id: int, call: Call, item: dict[str, Any]) -> None:
        codec = pipe if self.codec == 1 else msgpack
        payload = codec.encode(call.method.response, item, self.version)
        call.items_left -= 1
        call.bytes_left -= len(payload)
        dropped, call.dropped = call.dropped, 0
        self.send(ITEM, payload, call_id, call.method.opcode, dropped)

    def expire(self) -> None:
        """Answers whose time has come, and calls whose time is over."""
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            _, _, call_id, call, response = heapq.heappop(self.later)
            if self.calls.get(call_id) is call:
                self.send(RESPONSE, response, call_id, call.method.opcode)
        while self.notes and self.notes[0][0] <= now:
            note(heapq.heappop(self.notes)[2])
            self.return_one_way()
        for call_id, call in list(self.calls.items()):
            self.feed(call_id, call)
            if call_id not in self.calls:
                continue
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
