"""A service of three versions with everything a table can declare: methods and fields that came and went."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Self

from wireproto.dispatch import Handlers
from wireproto.handling import Context, Sink
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
from wireproto.status import Retry, Status


class Label(Message):
    """New in version 2, and larger since version 3."""

    text: Annotated[str, Bounds(max_length=20)]
    weight: Annotated[float, Since(3)] = 1.0


class PutRequest(Message):
    key: Annotated[str, Bounds(min_length=1, max_length=8)]
    value: bytes
    label: Annotated[Label | None, Since(2)] = None
    hint: Annotated[int, Since(3, ignorable=True)] = 0


class PutResponse(Message):
    size: int
    label: Annotated[Label | None, Since(2)] = None
    by: Annotated[str, Since(3)] = ""


class CountRequest(Message):
    pass


class CountResponse(Message):
    count: int


class ListRequest(Message):
    prefix: str = ""


class ListResponse(Message):
    key: str
    value: bytes
    labels: Annotated[list[Label], Since(3)] = []


class FillResponse(Message):
    count: int


class TakeRequest(Message):
    key: str


class TakeResponse(Message):
    value: bytes


class MergeRequest(Message):
    numbers: dict[str, int]


class MergeResponse(Message):
    total: float


class Gone(Message):
    """The details of an error."""

    key: str


PUT = Method(opcode=1, name="Put", request=PutRequest, response=PutResponse, requires="write", max_request=100)
COUNT = Method(opcode=2, name="Count", request=CountRequest, response=CountResponse, until=1)
LIST = StreamMethod(opcode=3, name="List", request=ListRequest, response=ListResponse, timeout=60.0)
TAKE = Method(
    opcode=4, name="Take", request=TakeRequest, response=TakeResponse, since=2, until=2, reasons=["GONE"], timeout=60.0
)
MERGE = Method(
    opcode=5, name="Merge", request=MergeRequest, response=MergeResponse, since=3, requires="read", errors=[Gone]
)
FILL = UploadMethod(opcode=6, name="Fill", request=PutRequest, response=FillResponse, requires="write", max_request=100)
SUM_UP = UploadMethod(opcode=7, name="SumUp", request=MergeRequest, response=MergeResponse, since=3, collect=3)
SWAP = DuplexMethod(
    opcode=8, name="Swap", request=TakeRequest, response=TakeResponse, since=2, reasons=["GONE"], errors=[Gone]
)
FORGET = OneWayMethod(opcode=9, name="Forget", request=TakeRequest, requires="write")
SHELF = Service(
    "test.shelf.v1.ShelfService", version=3, methods=[PUT, COUNT, LIST, TAKE, MERGE, FILL, SUM_UP, SWAP, FORGET]
)


class Filling(Sink[PutRequest, FillResponse]):
    """Puts one thing after the other on the shelf."""

    def __init__(self, shelf: "Shelf") -> None:
        self._shelf = shelf
        self._count = 0

    def receive(self, item: PutRequest) -> None:
        self._shelf.values[item.key] = item
        self._count += 1

    def finished(self) -> FillResponse:
        return FillResponse(count=self._count)


class Shelf:
    """The handlers over a dict, which is the state."""

    def __init__(self) -> None:
        self.handlers = Handlers(SHELF)
        self.values: dict[str, PutRequest] = {}
        self.handlers.register(PUT)(self.put)
        self.handlers.register(COUNT)(self.count)
        self.handlers.register(LIST)(self.list)
        self.handlers.register(TAKE)(self.take)
        self.handlers.register(MERGE)(self.merge)
        self.handlers.sink(FILL)(lambda context: Filling(self))
        self.handlers.register(SUM_UP)(self.sum_up)
        self.handlers.register(SWAP)(self.swap)
        self.handlers.register(FORGET)(self.forget)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.values.clear()

    def put(self, request: PutRequest, context: Context) -> PutResponse:
        self.values[request.key] = request
        assert context.identity is not None
        return PutResponse(size=len(self.values), label=request.label, by=context.identity.subject)

    def count(self, request: CountRequest, context: Context) -> CountResponse:
        return CountResponse(count=len(self.values))

    def list(self, request: ListRequest, context: Context) -> Iterator[ListResponse]:
        for key, put in list(self.values.items()):
            if key.startswith(request.prefix):
                yield ListResponse(key=key, value=put.value, labels=[] if put.label is None else [put.label])

    def take(self, request: TakeRequest, context: Context) -> TakeResponse:
        put = self.values.pop(request.key, None)
        if put is None:
            context.abort(Status.NOT_FOUND, "GONE", f"there is no {request.key!r}", retry=Retry.NEVER)
        return TakeResponse(value=put.value)

    def merge(self, request: MergeRequest, context: Context) -> MergeResponse:
        return MergeResponse(total=float(sum(request.numbers.values())))

    def sum_up(self, items: Sequence[MergeRequest], context: Context) -> MergeResponse:
        return MergeResponse(total=float(sum(number for item in items for number in item.numbers.values())))

    def swap(self, items: Iterator[TakeRequest], context: Context) -> Iterator[TakeResponse]:
        for item in items:
            yield self.take(item, context)

    def forget(self, request: TakeRequest, context: Context) -> None:
        self.values.pop(request.key, None)
