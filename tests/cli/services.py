"""Two small services that the command tests serve and call."""

import enum
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from wireproto import (
    Context,
    DuplexMethod,
    Handlers,
    Identity,
    Message,
    Metadata,
    Method,
    OneWayMethod,
    Retry,
    Service,
    Status,
    StreamMethod,
    UploadMethod,
)


class Colour(enum.IntEnum):
    """A colour of paint."""

    RED = 1
    BLUE = 2


class PaintRequest(Message):
    name: str
    colours: list[Colour] = []
    coats: int = 1


class PaintResponse(Message):
    text: str
    digest: bytes
    at: datetime


class CountRequest(Message):
    to: int
    then: str = ""


class CountResponse(Message):
    number: int


class FailRequest(Message):
    status: int
    retry_after_ms: int = 0


class FailResponse(Message):
    pass


class WaitRequest(Message):
    seconds: float


class WaitResponse(Message):
    pass


PAINT = Method(opcode=1, name="Paint", request=PaintRequest, response=PaintResponse)
COUNT = StreamMethod(opcode=2, name="Count", request=CountRequest, response=CountResponse, reasons=("STOPPED",))
FAIL = Method(opcode=3, name="Fail", request=FailRequest, response=FailResponse, reasons=("TOLD_TO",))
WAIT = Method(opcode=4, name="Wait", request=WaitRequest, response=WaitResponse, blocking=True)
SHOP = Service("example.v1.ShopService", version=1, methods=[PAINT, COUNT, FAIL, WAIT])
shop = Handlers(SHOP)


@shop.register(PAINT)
def paint(request: PaintRequest, context: Context) -> PaintResponse:
    colours = "+".join(colour.name for colour in request.colours)
    who = context.metadata.entries.get("who", "")
    return PaintResponse(
        text=f"{request.name}:{colours}x{request.coats}{who}",
        digest=request.name.encode(),
        at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    )


@shop.register(COUNT)
def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
    for number in range(1, request.to + 1):
        yield CountResponse(number=number)
    if request.then == "fail":
        context.abort(Status.ABORTED, "STOPPED", "that was all")
    while request.then == "wait" and not context.cancelled:
        threading.Event().wait(0.01)  # a handler that has nothing to say until its caller has gone


@shop.register(FAIL)
def fail(request: FailRequest, context: Context) -> FailResponse:
    retry = Retry.NOT_PROCESSED if request.retry_after_ms else Retry.NEVER
    context.abort(
        Status(request.status), "TOLD_TO", "you asked for it", retry=retry, retry_after_ms=request.retry_after_ms
    )


@shop.register(WAIT)
def wait(request: WaitRequest, context: Context) -> WaitResponse:
    until = time.monotonic() + request.seconds
    while time.monotonic() < until and not context.cancelled:
        threading.Event().wait(0.01)
    return WaitResponse()


class OtherRequest(Message):
    pass


class OtherResponse(Message):
    pass


class PaintingRequest(Message):
    name: str


class PaintingResponse(Message):
    pass


OTHER = Service(
    "example.v1.OtherService",
    version=1,
    methods=[
        Method(opcode=1, name="Other", request=OtherRequest, response=OtherResponse),
        Method(opcode=2, name="Paint", request=PaintingRequest, response=PaintingResponse),
    ],
)
other = Handlers(OTHER)


class SecretRequest(Message):
    pass


class SecretResponse(Message):
    caller: str


SECRET = Method(opcode=1, name="Secret", request=SecretRequest, response=SecretResponse, requires="secrets")
VAULT = Service("example.v1.VaultService", version=1, methods=[SECRET])
vault = Handlers(VAULT)


@vault.register(SECRET)
def secret(request: SecretRequest, context: Context) -> SecretResponse:
    assert context.identity is not None
    return SecretResponse(caller=context.identity.subject)


def doorman(metadata: Metadata, peer: str) -> Identity | None:
    """Knows one credential."""
    return Identity("ann", {"secrets"}) if metadata.authorization == "Bearer open" else None


class SameRequest(Message):
    word: str = ""


class SameResponse(Message):
    word: str


OWN_ECHO = Method(opcode=1, name="Echo", request=SameRequest, response=SameResponse)
OWN_CHECK = Method(opcode=2, name="Check", request=SameRequest, response=SameResponse)
OWN_DESCRIBE = Method(opcode=3, name="Describe", request=SameRequest, response=SameResponse)
NAMESAKES = Service("example.v1.NamesakeService", version=1, methods=[OWN_ECHO, OWN_CHECK, OWN_DESCRIBE])
namesakes = Handlers(NAMESAKES)
"""Its methods are called like the framework's own."""


@namesakes.register(OWN_ECHO)
@namesakes.register(OWN_CHECK)
@namesakes.register(OWN_DESCRIBE)
def same(request: SameRequest, context: Context) -> SameResponse:
    return SameResponse(word=f"our own, {request.word}")


class ReadingRequest(Message):
    number: int
    unit: str = "m"


class TallyResponse(Message):
    count: int
    total: int
    units: str = ""


TALLY = UploadMethod(opcode=1, name="Tally", request=ReadingRequest, response=TallyResponse)
RUNNING = DuplexMethod(opcode=2, name="Running", request=ReadingRequest, response=TallyResponse)
REMARK = OneWayMethod(opcode=3, name="Remark", request=ReadingRequest)
TALLIES = Service("example.v1.TallyService", version=1, methods=[TALLY, RUNNING, REMARK])
tallies = Handlers(TALLIES)
remarks: list[int] = []


@tallies.register(TALLY)
def tally(items: Iterator[ReadingRequest], context: Context) -> TallyResponse:
    readings = list(items)
    units = "".join(sorted({each.unit for each in readings}))
    return TallyResponse(count=len(readings), total=sum(each.number for each in readings), units=units)


@tallies.register(RUNNING)
def running(items: Iterator[ReadingRequest], context: Context) -> Iterator[TallyResponse]:
    total = 0
    for count, item in enumerate(items, 1):
        total += item.number
        yield TallyResponse(count=count, total=total)


@tallies.register(REMARK)
def remark(request: ReadingRequest, context: Context) -> None:
    remarks.append(request.number)
