"""A service whose second version adds a field of a type that did not exist before."""

from typing import Annotated

from wireproto.schema import Message, Method, Service, Since


class Leaf(Message):
    """New in version 2, and larger since version 3."""

    number: int
    name: Annotated[str, Since(3)] = ""


class GrowRequest(Message):
    """Grows."""

    size: int
    leaf: Annotated[Leaf | None, Since(2)] = None
    color: Annotated[int, Since(2, ignorable=True)] = 5


class GrowResponse(Message):
    """Grown."""

    size: int
    leaf: Annotated[Leaf | None, Since(2)] = None


GROW = Method(opcode=0, name="Grow", request=GrowRequest, response=GrowResponse)
GROWING = Service("example.growing.v1.GrowingService", version=3, methods=[GROW])
