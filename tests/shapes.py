"""A service with a method of each shape, and of what comes with some of them."""

from datetime import UTC, datetime
from typing import Annotated

from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Service,
    Since,
    StreamMethod,
    UploadMethod,
)


class ProbeRequest(Message):
    """Asks for a probe."""

    name: str = ""


class ProbeResponse(Message):
    """What a probe is."""

    name: str
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class FollowRequest(Message):
    """Opens a stream of samples."""

    count: Annotated[int, Bounds(ge=0)] = 0


class FollowResponse(Message):
    """What a probe measured."""

    value: int


class StoreRequest(Message):
    """A sample to keep."""

    value: int
    label: Annotated[str, Since(2)] = ""


class StoreResponse(Message):
    """How many samples there were, and what they come to."""

    count: int
    total: int = 0


class AverageRequest(Message):
    """One of the few."""

    value: int


class AverageResponse(Message):
    """The average of them."""

    value: float


class ConvertRequest(Message):
    """A number."""

    value: int


class ConvertResponse(Message):
    """The same number in words."""

    words: str


class BeepRequest(Message):
    """Which sound."""

    tone: int = 440


class ResetRequest(Message):
    """Forgets all."""


PROBE = Method(opcode=0x10, name="Probe", request=ProbeRequest, response=ProbeResponse)
FOLLOW = StreamMethod(opcode=0x11, name="Follow", request=FollowRequest, response=FollowResponse)
STORE = UploadMethod(
    opcode=0x12,
    name="Store",
    request=StoreRequest,
    response=StoreResponse,
    reasons=("FULL",),
    max_request=64,
    doc="Stores samples, one after the other.",
)
AVERAGE = UploadMethod(opcode=0x13, name="Average", request=AverageRequest, response=AverageResponse, collect=3)
CONVERT = DuplexMethod(
    opcode=0x14, name="Convert", request=ConvertRequest, response=ConvertResponse, reasons=("STUCK",), idempotent=True
)
BEEP = OneWayMethod(
    opcode=0x15, name="Beep", request=BeepRequest, requires="beeper", reasons=("MUTE",), doc="Makes a sound."
)
RESET = OneWayMethod(opcode=0x16, name="Reset", request=ResetRequest, since=2)

SHAPES = Service(
    "example.shapes.v1.ShapesService",
    version=2,
    methods=[PROBE, FOLLOW, STORE, AVERAGE, CONVERT, BEEP, RESET],
    doc="Has every shape.",
)
