"""The part of ``wireconformance.v1`` that the server calls, and Ask, by which a client has it do so."""

import enum
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Annotated, Any

from wireproto.connected import ConnectedClient
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Sink
from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    StreamMethod,
    UploadMethod,
)
from wireproto.status import Status

__all__ = [
    "ASK",
    "ASKED",
    "EXCHANGE",
    "GATHER",
    "LIST",
    "NOTICE",
    "TELL",
    "AskRequest",
    "AskResponse",
    "AskedCall",
    "ExchangeRequest",
    "ExchangeResponse",
    "GatherRequest",
    "GatherResponse",
    "ListRequest",
    "ListResponse",
    "NoticeRequest",
    "TellRequest",
    "TellResponse",
    "ask",
    "client_handlers",
]

_SINCE = 3  # as all methods that are not unary: service.SHAPED


class AskedCall(enum.IntEnum):
    """What Ask has the server call."""

    TELL = 1
    LIST = 2
    GATHER = 3
    EXCHANGE = 4
    NOTICE = 5


class AskRequest(Message):
    """Has the server call the one who asks."""

    what: AskedCall
    count: Annotated[int, Bounds(ge=0, le=10_000)] = 1
    """Calls, or for LIST, GATHER and EXCHANGE the items of the one call: their numbers are 0 and up."""
    milliseconds: Annotated[int, Bounds(ge=1, le=60_000)] = 20_000
    """The time for each call."""


class AskResponse(Message):
    """What came of it; of several calls that failed, what the first one failed with."""

    total: int = 0
    """The sum of the numbers that came back."""
    done: int = 0
    """Items that came back, or calls that were answered, or sent if they are one-way."""
    status: int = 0
    reason: str = ""
    retry: int = 0


class TellRequest(Message):
    """A number, to be sent back."""

    number: int = 0
    milliseconds: Annotated[int, Bounds(ge=0, le=60_000)] = 0
    """To wait before that."""
    fail: bool = False
    """Fail with ABORTED, AS_ASKED instead."""


class TellResponse(Message):
    """The number."""

    number: int = 0


class ListRequest(Message):
    """Asks for numbers from 0 on."""

    count: Annotated[int, Bounds(ge=0)] = 0


class ListResponse(Message):
    """One of them."""

    number: int = 0


class GatherRequest(Message):
    """A number to be added."""

    number: int = 0


class GatherResponse(Message):
    """The sum, and of how many."""

    total: int = 0
    items: int = 0


class ExchangeRequest(Message):
    """A number, to be sent back."""

    number: int = 0


class ExchangeResponse(Message):
    """The number."""

    number: int = 0


class NoticeRequest(Message):
    """A number that is not answered."""

    number: int = 0


ASK = Method(
    opcode=0x20,
    name="Ask",
    request=AskRequest,
    response=AskResponse,
    since=_SINCE,
    doc="Has the server call the methods that are called by the server, and tells what came of it.",
)
TELL = Method(
    opcode=0x21,
    name="Tell",
    request=TellRequest,
    response=TellResponse,
    since=_SINCE,
    by="server",
    reasons=["AS_ASKED"],
    doc="Called by the server: the number, sent back.",
)
LIST = StreamMethod(
    opcode=0x22,
    name="List",
    request=ListRequest,
    response=ListResponse,
    since=_SINCE,
    by="server",
    doc="Called by the server: so many numbers.",
)
GATHER = UploadMethod(
    opcode=0x23,
    name="Gather",
    request=GatherRequest,
    response=GatherResponse,
    since=_SINCE,
    by="server",
    doc="Called by the server: the sum of the numbers.",
)
EXCHANGE = DuplexMethod(
    opcode=0x24,
    name="Exchange",
    request=ExchangeRequest,
    response=ExchangeResponse,
    since=_SINCE,
    by="server",
    doc="Called by the server: each number comes back.",
)
NOTICE = OneWayMethod(
    opcode=0x25, name="Notice", request=NoticeRequest, since=_SINCE, by="server", doc="Called by the server."
)

ASKED: tuple[Operation[Any, Any], ...] = (ASK, TELL, LIST, GATHER, EXCHANGE, NOTICE)
"""In the order of the service."""


class _Asking(Sink[Any, None]):
    """The calls of one Ask: adds up what comes back, and answers when the last one is over."""

    def __init__(self, request: AskRequest, client: ConnectedClient) -> None:
        self.outcome: Future[AskResponse] = Future()
        self.outcome.set_running_or_notify_cancel()
        self._lock = threading.Lock()
        self._total = 0
        self._done = 0
        self._error: CallError | None = None
        calls = list(self._begin(request, client))
        self._left = len(calls)
        if not calls:
            self._tell()
        for call in calls:
            call.add_done_callback(self._ended)

    def _begin(self, request: AskRequest, client: ConnectedClient) -> Iterator[Future[Any]]:
        timeout = request.milliseconds / 1000
        if request.what is AskedCall.TELL:
            for number in range(request.count):
                yield client.start(TELL, TellRequest(number=number), timeout=timeout)
        elif request.what is AskedCall.LIST:
            yield client.stream(LIST, ListRequest(count=request.count), self, timeout=timeout)
        elif request.what is AskedCall.GATHER:
            given = (GatherRequest(number=number) for number in range(request.count))
            yield client.upload(GATHER, given, timeout=timeout)
        elif request.what is AskedCall.EXCHANGE:
            sent = (ExchangeRequest(number=number) for number in range(request.count))
            yield client.duplex(EXCHANGE, sent, self, timeout=timeout)
        else:
            for number in range(request.count):
                try:
                    client.post(NOTICE, NoticeRequest(number=number))
                except CallError as error:
                    self._error = self._error or error
                else:
                    self._done += 1

    def receive(self, item: Any) -> None:
        self._total += item.number
        self._done += 1

    def finished(self) -> None:
        """The future says so."""

    def _ended(self, call: Future[Any]) -> None:
        error = call.exception()
        with self._lock:
            if isinstance(error, CallError):
                self._error = self._error or error
            elif error is None and isinstance(result := call.result(), TellResponse):
                self._total += result.number
                self._done += 1
            elif error is None and isinstance(result := call.result(), GatherResponse):
                self._total += result.total
                self._done += result.items
            self._left -= 1
            if self._left:
                return
        self._tell()

    def _tell(self) -> None:
        error = self._error
        failed = {} if error is None else {"status": int(error.status), "retry": int(error.retry)}
        reason = "" if error is None else error.reason
        self.outcome.set_result(AskResponse(total=self._total, done=self._done, reason=reason, **failed))


def ask(request: AskRequest, context: Context) -> Future[AskResponse]:
    """The handler of Ask. It waits for nobody."""
    return _Asking(request, context.client).outcome


def client_handlers(service: Service) -> Handlers:
    """Ours of the methods that the server calls, for a client that is judged."""
    made = Handlers(service)

    @made.register(TELL)
    def tell(request: TellRequest, context: Context) -> TellResponse:
        if request.milliseconds:
            time.sleep(request.milliseconds / 1000)
        if request.fail:
            context.abort(Status.ABORTED, "AS_ASKED", "the server asked for an error")
        return TellResponse(number=request.number)

    @made.register(LIST)
    def numbered(request: ListRequest, context: Context) -> Iterator[ListResponse]:
        return (ListResponse(number=number) for number in range(request.count))

    @made.register(GATHER)
    def gather(items: Iterator[GatherRequest], context: Context) -> GatherResponse:
        numbers = [item.number for item in items]
        return GatherResponse(total=sum(numbers), items=len(numbers))

    @made.register(EXCHANGE)
    def exchange(items: Iterator[ExchangeRequest], context: Context) -> Iterator[ExchangeResponse]:
        for item in items:
            yield ExchangeResponse(number=item.number)

    @made.register(NOTICE)
    def notice(request: NoticeRequest, context: Context) -> None:
        """Nobody is told."""

    return made
