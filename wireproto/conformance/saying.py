"""The part of ``wireconformance.v1`` whose answers say something beside their payload, in errors with details."""

from collections.abc import Iterator
from typing import Annotated

from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.schema import Bounds, Message, Method, StreamMethod
from wireproto.status import Status

__all__ = ["RECITE", "SAY", "SAYING", "Refusal", "SayRequest", "SayResponse", "register_saying"]

_SINCE = 3  # as all methods that are not unary: service.SHAPED


class SayRequest(Message):
    """What to say beside the answer, and how to end."""

    entries: dict[str, str] = {}
    traceparent: str = ""
    """A trace to say beside it; none if it is empty."""
    items: Annotated[int, Bounds(ge=0, le=1000)] = 0
    """Of Recite, ahead of the end."""
    fail: bool = False
    """The call fails with a Refusal as the details of its error."""
    size: Annotated[int, Bounds(ge=0, le=1 << 16)] = 0
    """Bytes of the data in the Refusal."""


class SayResponse(Message):
    """The answer to Say, or one item of Recite: the first one has the number 0."""

    number: int = 0


class Refusal(Message):
    """The details of an error: so many zero bytes as were asked for."""

    data: bytes = b""


SAY = Method(
    opcode=0x17,
    name="Say",
    request=SayRequest,
    response=SayResponse,
    since=_SINCE,
    reasons=["AS_ASKED"],
    errors=[Refusal],
    doc="An answer, or the error ABORTED, AS_ASKED with details, that says beside itself what is asked for.",
)
RECITE = StreamMethod(
    opcode=0x18,
    name="Recite",
    request=SayRequest,
    response=SayResponse,
    since=_SINCE,
    reasons=["AS_ASKED"],
    errors=[Refusal],
    doc="Numbered items, and an end or an error that says beside itself what is asked for, as Say.",
)
SAYING = (SAY, RECITE)


def _end(request: SayRequest, context: Context) -> None:
    """Say what is asked for, and fail if that is."""
    if request.traceparent:
        context.set_metadata("traceparent", request.traceparent)
    for name, value in request.entries.items():
        context.set_metadata(name, value)
    if request.fail:
        context.abort(Status.ABORTED, "AS_ASKED", "an error was asked for", details=Refusal(data=bytes(request.size)))


def register_saying(handlers: Handlers) -> None:
    """Our own handlers of the two methods."""

    @handlers.register(SAY)
    def say(request: SayRequest, context: Context) -> SayResponse:
        _end(request, context)
        return SayResponse()

    @handlers.register(RECITE)
    def recite(request: SayRequest, context: Context) -> Iterator[SayResponse]:
        for number in range(request.items):
            yield SayResponse(number=number)
        _end(request, context)
