"""``wireconformance.v1``: what a server serves, and a client calls, to be judged; and our own handlers of it.

It is small on purpose, since whoever wants to be judged implements it: docs/conformance.md has its table. Serve it with
``wireproto conformance --serve``.
"""

import enum
import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime
from typing import Annotated

from wireproto.conformance.asking import ASK, ASKED, ask
from wireproto.conformance.saying import SAYING, register_saying
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Service,
    Since,
    StreamMethod,
    UInt64,
    UploadMethod,
)
from wireproto.status import Retry, Status
from wireproto.topic import Topic
from wireproto.wire.metadata import Metadata

__all__ = [
    "AUTHORIZATION",
    "BLOB",
    "CAPABILITY",
    "CONFORMANCE",
    "COUNT",
    "CRASH",
    "MIRROR",
    "FAIL",
    "INSPECT",
    "LONGEST_SHORT",
    "NOTE",
    "NOTED",
    "OTHER_AUTHORIZATION",
    "PRIVATE",
    "RECENT",
    "REFLECT",
    "RETIRED",
    "SECRET",
    "SHAPED",
    "SHORT",
    "SLEEP",
    "SUM",
    "UNSERVED",
    "BlobRequest",
    "BlobResponse",
    "Color",
    "CountRequest",
    "CountResponse",
    "MirrorRequest",
    "MirrorResponse",
    "FailRequest",
    "FailResponse",
    "Inner",
    "InspectRequest",
    "InspectResponse",
    "NoteRequest",
    "NotedRequest",
    "NotedResponse",
    "PrivateRequest",
    "PrivateResponse",
    "ReflectRequest",
    "ReflectResponse",
    "ShortRequest",
    "ShortResponse",
    "SleepRequest",
    "SleepResponse",
    "SumRequest",
    "SumResponse",
    "authenticate",
    "handlers",
    "make_handlers",
]

CAPABILITY = "conformance"
AUTHORIZATION = "Bearer conformance"
"""Who sends it is signed in, as ``tester``, and may call Private."""
OTHER_AUTHORIZATION = "Bearer other"
"""Who sends it is signed in, as ``other``, and may not."""
SECRET = "a text that must not leave the server"
"""What the handler of Crash fails with."""
LONGEST_SHORT = 64
"""Bytes of the encoded request that Short takes."""
SHAPED = 3
"""The version that the methods of the shapes upload, duplex and one-way came with."""
MOST_NOTES = 1000
"""Keys of Note that are remembered; the oldest is forgotten."""


class Color(enum.IntEnum):
    """Numbers with a gap between them."""

    RED = 1
    GREEN = 2
    BLUE = 5


class Inner(Message):
    """A message inside others."""

    name: str = ""
    count: int = 0


class MirrorRequest(Message):
    """A field of every type there is."""

    flag: bool = False
    number: int = 0
    large: UInt64 = UInt64(0)
    real: float = 0.0
    text: str = ""
    data: bytes = b""
    moment: datetime | None = None
    color: Color | None = None
    inner: Inner | None = None
    maybe: int | None = None
    seven: int = 7
    small: Annotated[int, Bounds(ge=0, le=255)] = 0
    numbers: list[int] = []
    texts: list[str] = []
    inners: list[Inner] = []
    by_text: dict[str, int] = {}
    by_number: dict[int, str] = {}
    recent: Annotated[str, Since(2)] = ""


class MirrorResponse(Message):
    """The same fields with the same values."""

    flag: bool = False
    number: int = 0
    large: UInt64 = UInt64(0)
    real: float = 0.0
    text: str = ""
    data: bytes = b""
    moment: datetime | None = None
    color: Color | None = None
    inner: Inner | None = None
    maybe: int | None = None
    seven: int = 7
    small: Annotated[int, Bounds(ge=0, le=255)] = 0
    numbers: list[int] = []
    texts: list[str] = []
    inners: list[Inner] = []
    by_text: dict[str, int] = {}
    by_number: dict[int, str] = {}
    recent: Annotated[str, Since(2)] = ""


class CountRequest(Message):
    """How many items, how long each, and whether an error follows them instead of the end."""

    items: Annotated[int, Bounds(ge=0)] = 0
    padding: Annotated[int, Bounds(ge=0, le=1 << 20)] = 0
    fail: bool = False


class CountResponse(Message):
    """One item: its number, from 0, and as many zero bytes as were asked for."""

    number: int = 0
    padding: bytes = b""


class FailRequest(Message):
    """The error to answer with; its reason is AS_ASKED."""

    status: Annotated[int, Bounds(ge=1, le=16)] = 2
    retry: Annotated[int, Bounds(ge=0, le=2)] = 0
    retry_after_ms: Annotated[int, Bounds(ge=0, le=2**32 - 1)] = 0
    message: str = ""


class FailResponse(Message):
    """Never sent."""


class SleepRequest(Message):
    """How long the answer takes."""

    milliseconds: Annotated[int, Bounds(ge=0, le=60_000)] = 0


class SleepResponse(Message):
    """The time is over."""


class BlobRequest(Message):
    """How long the answer is."""

    size: Annotated[int, Bounds(ge=0, le=1 << 24)] = 0


class BlobResponse(Message):
    """That many zero bytes."""

    data: bytes = b""


class InspectRequest(Message):
    """Asks what the server has read beside the payload."""


class InspectResponse(Message):
    """The metadata of the call, as the server understood them."""

    remaining_ms: int | None = None
    """Of the deadline; None without one."""
    traceparent: str = ""
    authorization: str = ""
    idempotency_key: bytes = b""
    entries: dict[str, str] = {}


class PrivateRequest(Message):
    """Asks who calls; only ``tester`` may."""


class PrivateResponse(Message):
    """The name of the caller."""

    subject: str = ""


class ShortRequest(Message):
    """At most 64 bytes of payload."""

    text: str = ""


class ShortResponse(Message):
    """The length of the text in Unicode scalar values."""

    length: int = 0


class CrashRequest(Message):
    """Makes the handler fail in a way that no method declares."""


class CrashResponse(Message):
    """Never sent."""


class RetiredRequest(Message):
    """Empty."""


class RetiredResponse(Message):
    """Empty."""


class RecentRequest(Message):
    """Empty."""


class RecentResponse(Message):
    """Empty."""


class UnservedRequest(Message):
    """Empty."""


class UnservedResponse(Message):
    """Never sent."""


class SumRequest(Message):
    """One item of an upload, and what it makes of the call."""

    number: int = 0
    data: bytes = b""
    fail: bool = False
    """The call fails here."""
    answer: bool = False
    """The call is answered here, whatever follows."""
    milliseconds: Annotated[int, Bounds(ge=0, le=60_000)] = 0
    """For so long the next item is not taken."""


class SumResponse(Message):
    """What the items come to: the sum of their numbers, the bytes of their data, and how many there were."""

    total: int = 0
    size: int = 0
    items: int = 0


class ReflectRequest(Message):
    """One item of the caller's half."""

    number: int = 0
    data: bytes = b""
    fail: bool = False
    """The call fails here."""
    end: bool = False
    """The other half ends here, whatever follows, and with it the call."""


class ReflectResponse(Message):
    """The same number and data, back."""

    number: int = 0
    data: bytes = b""


class NoteRequest(Message):
    """Something to remember under a key."""

    key: str = ""
    number: int = 0
    milliseconds: Annotated[int, Bounds(ge=0, le=10_000)] = 0
    """For so long the handler runs."""


class NotedRequest(Message):
    """Asks what was noted under a key."""

    key: str = ""


class NotedResponse(Message):
    """How many notes the key has, and the sum of their numbers."""

    count: int = 0
    total: int = 0


class TailRequest(Message):
    """Asks for numbered items, of which the first ones may be forgotten."""

    items: Annotated[int, Bounds(ge=0)] = 0
    """How many there are; the stream ends behind the last one."""
    forgotten: Annotated[int, Bounds(ge=0)] = 0
    """So many of them are not there any more."""


class TailResponse(Message):
    """One item: the first one has the number 0."""

    number: int = 0
    position: int = 0
    """Two less than the number."""


MIRROR = Method(
    opcode=0x01,
    name="Mirror",
    request=MirrorRequest,
    response=MirrorResponse,
    compress=True,
    doc="The values, sent back.",
)
COUNT = StreamMethod(
    opcode=0x02,
    name="Count",
    compress=True,
    request=CountRequest,
    response=CountResponse,
    reasons=["AS_ASKED"],
    doc="A stream of numbered items. The error that may follow them is ABORTED, AS_ASKED.",
)
FAIL = Method(
    opcode=0x03,
    name="Fail",
    request=FailRequest,
    response=FailResponse,
    reasons=["AS_ASKED"],
    doc="The error that is asked for.",
)
SLEEP = Method(
    opcode=0x04,
    name="Sleep",
    request=SleepRequest,
    response=SleepResponse,
    doc="An answer that takes its time. As many may sleep at once as the connection may have calls in flight.",
)
BLOB = Method(opcode=0x05, name="Blob", request=BlobRequest, response=BlobResponse, compress=True, doc="A long answer.")
INSPECT = Method(
    opcode=0x06, name="Inspect", request=InspectRequest, response=InspectResponse, doc="The call's own metadata."
)
PRIVATE = Method(
    opcode=0x07,
    name="Private",
    request=PrivateRequest,
    response=PrivateResponse,
    requires=CAPABILITY,
    doc="For the caller whose authorization is `Bearer conformance`; `Bearer other` is known and has no permission.",
)
SHORT = Method(
    opcode=0x08,
    name="Short",
    request=ShortRequest,
    response=ShortResponse,
    max_request=LONGEST_SHORT,
    doc="Takes at most 64 bytes of payload.",
)
CRASH = Method(opcode=0x09, name="Crash", request=CrashRequest, response=CrashResponse, doc="A handler that fails.")
RETIRED = Method(
    opcode=0x0A, name="Retired", request=RetiredRequest, response=RetiredResponse, until=1, doc="In version 1 only."
)
RECENT = Method(
    opcode=0x0B, name="Recent", request=RecentRequest, response=RecentResponse, since=2, doc="From version 2 on."
)
UNSERVED = Method(
    opcode=0x0C, name="Unserved", request=UnservedRequest, response=UnservedResponse, doc="Declared, without a handler."
)

SUM = UploadMethod(
    opcode=0x0D,
    name="Sum",
    compress=True,
    request=SumRequest,
    response=SumResponse,
    since=SHAPED,
    reasons=["AS_ASKED"],
    doc="An upload. An item may fail the call (ABORTED, AS_ASKED), answer it, or hold up the next one.",
)
REFLECT = DuplexMethod(
    opcode=0x0E,
    name="Reflect",
    compress=True,
    request=ReflectRequest,
    response=ReflectResponse,
    since=SHAPED,
    reasons=["AS_ASKED"],
    drains=True,
    doc="Each item comes back, and behind the last one the END. One may fail the call (ABORTED, AS_ASKED), or end it.",
)
NOTE = OneWayMethod(
    opcode=0x0F,
    name="Note",
    compress=True,
    request=NoteRequest,
    since=SHAPED,
    blocking=True,
    doc="Remembers a number under a key; Noted tells.",
)
NOTED = Method(
    opcode=0x10,
    name="Noted",
    request=NotedRequest,
    response=NotedResponse,
    since=SHAPED,
    doc="What was noted under a key by calls whose handlers have returned.",
)


class FloodRequest(Message):
    """Asks for items that have all happened before the first one can be sent."""

    items: Annotated[int, Bounds(ge=0, le=10_000)] = 0
    keep: Annotated[int, Bounds(ge=1, le=10_000)] = 1
    """So many of them are kept, the last ones."""


class FloodResponse(Message):
    """One item: the first one has the number 0."""

    number: int = 0


FLOOD = StreamMethod(
    opcode=0x15,
    name="Flood",
    request=FloodRequest,
    response=FloodResponse,
    since=SHAPED,
    slow="drop_oldest",
    doc="Numbered items that nobody waits to send: those that are not kept are left out, and their number is told.",
)
BURST = StreamMethod(
    opcode=0x16,
    name="Burst",
    request=FloodRequest,
    response=FloodResponse,
    since=SHAPED,
    slow="end",
    doc="The same, but for the end: if one is not kept, the stream fails with SLOW_CONSUMER.",
)
TAIL = StreamMethod(
    opcode=0x14,
    name="Tail",
    request=TailRequest,
    response=TailResponse,
    since=SHAPED,
    resumable="position",
    doc="Numbered items that can be gone on with, behind the position of one that is there or was forgotten last.",
)

CONFORMANCE = Service(
    "wireconformance.v1.ConformanceService",
    version=SHAPED,
    methods=[
        MIRROR, COUNT, FAIL, SLEEP, BLOB, INSPECT, PRIVATE, SHORT, CRASH, RETIRED, RECENT, UNSERVED, SUM, REFLECT, NOTE,
        NOTED, TAIL, FLOOD, BURST, *SAYING, *ASKED,
    ],
    doc="What an implementation serves or calls to be judged by `wireproto conformance`.",
)  # fmt: skip


def authenticate(metadata: Metadata, peer: str) -> Identity | None:
    """The two callers that the service knows."""
    if metadata.authorization == AUTHORIZATION:
        return Identity("tester", [CAPABILITY])
    return Identity("other") if metadata.authorization == OTHER_AUTHORIZATION else None


class _Alarms:
    """One thread that completes futures at their time, however many wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Future[SleepResponse]]] = []
        self._number = 0
        self._running = False

    def after(self, seconds: float) -> "Future[SleepResponse]":
        future: Future[SleepResponse] = Future()
        with self._changed:
            self._number += 1
            heapq.heappush(self._waiting, (time.monotonic() + seconds, self._number, future))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="wireproto-conformance-alarms", daemon=True).start()
            self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._running = False
                    return
                due = self._waiting[0][0]
                if (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                future = heapq.heappop(self._waiting)[2]
            if future.set_running_or_notify_cancel():
                future.set_result(SleepResponse())


class _Adder(Sink[SumRequest, SumResponse]):
    """Takes the items of one Sum."""

    def __init__(self, alarms: _Alarms) -> None:
        self._alarms = alarms
        self._total = self._size = self._items = 0

    def receive(self, item: SumRequest) -> "Future[SleepResponse] | None":
        self._total += item.number
        self._size += len(item.data)
        self._items += 1
        if item.fail:
            raise CallError(Status.ABORTED, "AS_ASKED", f"item {self._items} asked for an error")
        if item.answer:
            self.answer(self.finished())
        return self._alarms.after(item.milliseconds / 1000) if item.milliseconds else None

    def finished(self) -> SumResponse:
        return SumResponse(total=self._total, size=self._size, items=self._items)


class _Notes:
    """What the handlers of Note have been told, of the keys named last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, NotedResponse] = OrderedDict()

    def add(self, key: str, number: int) -> None:
        with self._lock:
            known = self._found.pop(key, NotedResponse())
            self._found[key] = NotedResponse(count=known.count + 1, total=known.total + number)
            while len(self._found) > MOST_NOTES:
                self._found.popitem(last=False)

    def of(self, key: str) -> NotedResponse:
        with self._lock:
            return self._found.get(key, NotedResponse())


def make_handlers() -> Handlers:
    """Handlers of every method but Unserved."""
    made = Handlers(CONFORMANCE)
    register = made.register
    alarms = _Alarms()
    notes = _Notes()

    @register(MIRROR)
    def mirror(request: MirrorRequest, context: Context) -> MirrorResponse:
        return MirrorResponse(*(getattr(request, name) for name in request.__struct_fields__))

    @register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        for number in range(request.items):
            yield CountResponse(number=number, padding=bytes(request.padding))
        if request.fail:
            context.abort(Status.ABORTED, "AS_ASKED", "the items are over, and an error was asked for")

    @register(FAIL)
    def fail(request: FailRequest, context: Context) -> FailResponse:
        context.abort(
            Status(request.status),
            "AS_ASKED",
            request.message,
            retry=Retry(request.retry),
            retry_after_ms=request.retry_after_ms,
        )

    @register(SLEEP)
    def sleep(request: SleepRequest, context: Context) -> "Future[SleepResponse]":
        return alarms.after(request.milliseconds / 1000)

    @register(BLOB)
    def blob(request: BlobRequest, context: Context) -> BlobResponse:
        return BlobResponse(data=bytes(request.size))

    @register(INSPECT)
    def inspect(request: InspectRequest, context: Context) -> InspectResponse:
        metadata = context.metadata
        remaining = context.remaining()
        return InspectResponse(
            remaining_ms=None if remaining is None else round(remaining * 1000),
            traceparent=metadata.traceparent,
            authorization=metadata.authorization,
            idempotency_key=metadata.idempotency_key,
            entries=metadata.entries,
        )

    @register(PRIVATE)
    def private(request: PrivateRequest, context: Context) -> PrivateResponse:
        return PrivateResponse(subject="" if context.identity is None else context.identity.subject)

    @register(SHORT)
    def short(request: ShortRequest, context: Context) -> ShortResponse:
        return ShortResponse(length=len(request.text))

    @register(CRASH)
    def crash(request: CrashRequest, context: Context) -> CrashResponse:
        raise RuntimeError(SECRET)

    @register(RETIRED)
    def retired(request: RetiredRequest, context: Context) -> RetiredResponse:
        return RetiredResponse()

    @register(RECENT)
    def recent(request: RecentRequest, context: Context) -> RecentResponse:
        return RecentResponse()

    @made.sink(SUM)
    def add_up(context: Context) -> _Adder:
        return _Adder(alarms)

    @register(REFLECT)
    def reflect(items: Iterator[ReflectRequest], context: Context) -> Iterator[ReflectResponse]:
        for item in items:
            if item.fail:
                context.abort(Status.ABORTED, "AS_ASKED", "an item asked for an error")
            if item.end:
                return
            yield ReflectResponse(number=item.number, data=item.data)

    @register(NOTE)
    def note(request: NoteRequest, context: Context) -> None:
        if request.milliseconds:
            time.sleep(request.milliseconds / 1000)
        notes.add(request.key, request.number)

    def flood(method: StreamMethod[FloodRequest, FloodResponse]) -> None:
        @register(method)
        def flooded(request: FloodRequest, context: Context) -> Subscription[FloodResponse]:
            topic = Topic(method, keep=request.keep)
            stream = topic.subscribe(context)
            for number in range(request.items):
                topic.publish(FloodResponse(number=number))
            topic.close()
            return stream

    flood(FLOOD)
    flood(BURST)

    @register(TAIL)
    def tail(request: TailRequest, context: Context) -> Iterator[TailResponse]:
        first = request.forgotten
        after = context.resume_after
        if after is not None:
            number = after + 2
            if not max(0, first - 1) <= number < request.items:
                context.position_lost()
            first = number + 1
        return (TailResponse(number=number, position=number - 2) for number in range(first, request.items))

    register(ASK)(ask)
    register_saying(made)

    @register(NOTED)
    def noted(request: NotedRequest, context: Context) -> NotedResponse:
        return notes.of(request.key)

    return made


handlers = make_handlers()
"""For ``wireproto serve wireproto.conformance.service:handlers``."""
