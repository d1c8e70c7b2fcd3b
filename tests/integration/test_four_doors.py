"""One service behind four doors: TCP with each codec, and gRPC. Whatever is called, all four answer the same.

The same calls, drawn at random, are made through each door against handlers and state of its own, made fresh for each
example; what comes back is compared: responses, statuses, reasons, retry advice, and the order of streams.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.peer import until
from tests.server.service import (
    ADMIN,
    COUNT,
    ECHO,
    FAIL,
    STALL,
    WHO,
    AdminRequest,
    CountRequest,
    EchoRequest,
    FailRequest,
    Stage,
    StallRequest,
    WhoRequest,
)
from wireproto.client import connect
from wireproto.client.grpc import connect as connect_grpc
from wireproto.codecs import get
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import BothFull, CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.limits import Limits
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
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status
from wireproto.testing.generators import messages
from wireproto.wire.metadata import Metadata

DOORS = ["pipe", "msgpack", "protobuf", "grpc"]
PATIENCE = 60.0
PATIENT = Limits(hello_timeout=PATIENCE, frame_timeout=PATIENCE, write_timeout=PATIENCE)
"""For a machine that has other work: what one door loses to the clock is no difference between doors."""


@contextlib.contextmanager
def opened(
    door: str, handlers: Handlers, authenticate: Authenticate | None, service: Service | None = None
) -> Iterator[Any]:
    """A client of fresh handlers through one door, which may declare their service in its own way.

    Any: the two kinds of client have one face and no common class.
    """
    service = service or handlers.service
    if door == "grpc":
        with (
            GrpcGateway(handlers, port=0, workers=4, authenticate=authenticate, limits=PATIENT) as gateway,
            connect_grpc(gateway.address, service, timeout=PATIENCE) as client,
        ):
            yield client
    else:
        with (
            Server(handlers, codecs=[door], workers=4, authenticate=authenticate, limits=PATIENT) as server,
            connect(server.address, service, codec=door, timeout=PATIENCE) as client,
        ):
            yield client


def told(error: CallError) -> tuple[object, ...]:
    """What of an error must be the same behind every door. An incident has a number of its own."""
    message = "" if error.status is Status.INTERNAL else error.message
    return error.status, error.reason, message, error.retry, error.retry_after_ms


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except CallError as error:
        return told(error)


def answer(client: Any, method: Any, request: Message, metadata: Metadata) -> object:
    """A response as the bytes of one codec, for a NaN equals nothing; a stream's items and how it ended; an error."""
    shown = get("msgpack").plan(method.response, client.version, Limits(), request=False).encode
    if not method.items_come_back:
        return outcome(lambda: shown(client.call(method, request, metadata=metadata, timeout=PATIENCE)))
    items: list[bytes] = []

    def drain() -> object:
        with client.stream(method, request, metadata=metadata, timeout=PATIENCE, credit=5, batch=2) as stream:
            for item in stream:
                items.append(shown(item))
        return "end"

    return items, outcome(drain)


# A service with state, every way to answer, and values of every kind


class Everything(Message):
    flag: bool
    number: int
    real: float
    text: str
    blob: bytes
    maybe: str | None = None
    names: list[str] = []
    counts: dict[str, int] = {}


class PutRequest(Message):
    key: str
    value: Everything


class PutResponse(Message):
    size: int
    caller: str
    entries: dict[str, str]


class TakeRequest(Message):
    key: str


class TakeResponse(Message):
    value: Everything


class ListRequest(Message):
    step: int
    how: int


class ListResponse(Message):
    key: str
    value: Everything


PUT = Method(opcode=1, name="Put", request=PutRequest, response=PutResponse, requires="write", reasons=["FULL"])
TAKE = Method(opcode=2, name="Take", request=TakeRequest, response=TakeResponse, reasons=["GONE"])
LIST = StreamMethod(opcode=3, name="List", request=ListRequest, response=ListResponse, reasons=["BROKEN"])
SHELF = Service("test.shelf.v1.ShelfService", version=1, methods=[PUT, TAKE, LIST])


class Shelf:
    """The handlers over a dict. What they answer depends on all the calls before."""

    def __init__(self) -> None:
        self.values: dict[str, Everything] = {}
        self.handlers = Handlers(SHELF)
        self.handlers.register(PUT)(self.put)
        self.handlers.register(TAKE)(self.take)
        self.handlers.register(LIST)(self.list)

    def put(self, request: PutRequest, context: Context) -> "PutResponse | Future[PutResponse]":
        if len(self.values) >= 5:
            context.abort(Status.RESOURCE_EXHAUSTED, "FULL", "no room", retry=Retry.NOT_PROCESSED, retry_after_ms=9)
        self.values[request.key] = request.value
        assert context.identity is not None
        made = PutResponse(
            size=len(self.values), caller=context.identity.subject, entries=dict(context.metadata.entries)
        )
        if request.value.flag:
            deferred: Future[PutResponse] = Future()
            deferred.set_result(made)
            return deferred
        return made

    def take(self, request: TakeRequest, context: Context) -> TakeResponse:
        if request.key not in self.values:
            context.abort(Status.NOT_FOUND, "GONE", f"no {request.key!r} here \u2615")
        if len(request.key) == 3:
            raise ValueError("secret")
        return TakeResponse(value=self.values.pop(request.key))

    def list(self, request: ListRequest, context: Context) -> "Iterator[ListResponse] | Subscription[ListResponse]":
        items = [ListResponse(key=key, value=value) for key, value in self.values.items()] * 3
        if request.how == 0:
            return iter(items)
        return Listing(items, request)


class Listing(Subscription[ListResponse]):
    """The same by a subscription, which may fail at its end."""

    def __init__(self, items: Sequence[ListResponse], request: ListRequest) -> None:
        self.items = list(items)
        self.request = request

    def take(self, n: int) -> Sequence[ListResponse]:
        if not self.items:
            if self.request.how == 2:
                raise CallError(Status.DATA_LOSS, "BROKEN", "the end is missing")
            if self.request.how == 3:
                raise ValueError("secret")
            raise StopIteration
        n = min(n, max(1, self.request.step))
        taken, self.items = self.items[:n], self.items[n:]
        self.wake()  # there is more, if only the end
        return taken


KEYS = st.sampled_from(["", "a", "b", "abc", "\u00e4\n|"])
METADATA = st.builds(
    Metadata,
    authorization=st.sampled_from(["", "write:ann", "read:ann", "nonsense"]),
    idempotency_key=st.binary(max_size=64),
    entries=st.dictionaries(
        st.from_regex(r"[a-z0-9._]{1,20}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=2,
    ),
)
CALLS = st.lists(
    st.tuples(
        st.one_of(
            st.builds(PutRequest, key=KEYS, value=messages(Everything, 1)).map(lambda request: (PUT, request)),
            st.builds(TakeRequest, key=KEYS).map(lambda request: (TAKE, request)),
            st.builds(ListRequest, step=st.integers(-1, 7), how=st.integers(0, 3)).map(lambda request: (LIST, request)),
        ),
        METADATA,
    ),
    min_size=1,
    max_size=8,
)


def authenticate(metadata: Metadata, peer: str) -> Identity | None:
    """Knows ``write:NAME`` and ``read:NAME``."""
    kind, _, name = metadata.authorization.partition(":")
    return Identity(name, {kind}) if kind in ("write", "read") else None


@settings(max_examples=max(25, settings().max_examples // 8))  # each starts four servers
@given(CALLS)
def test_the_same_calls_have_the_same_answers(calls: Any) -> None:
    """Random calls, one after another, are answered alike behind all four doors, streams item by item."""
    answers: dict[str, list[object]] = {door: [] for door in DOORS}
    for door in DOORS:
        try:
            with opened(door, Shelf().handlers, authenticate) as client:
                for (method, request), metadata in calls:
                    answers[door].append(answer(client, method, request, metadata))
        except BaseException as error:
            error.add_note(f"at the door {door}, after {len(answers[door])} of {len(calls)} calls: {calls!r}")
            raise
    for number, ((method, request), metadata) in enumerate(calls):
        each = {door: answers[door][number] for door in DOORS}
        shown = "".join(f"\n  {door:8} {answer!r}" for door, answer in each.items())
        what = f"call {number + 1} of {len(calls)}, {method.name}({request!r}) with {metadata!r}"
        assert all(answer == each["pipe"] for answer in each.values()), f"{what}:{shown}\n  of {calls!r}"


STAGED: list[tuple[Any, Message]] = [
    (ECHO, EchoRequest(text="a", size=3)),
    (ECHO, EchoRequest(size=2_000_000)),
    (STALL, StallRequest(name="")),
    (COUNT, CountRequest(upto=200)),
    (COUNT, CountRequest(upto=3, fail=True)),
    *((FAIL, FailRequest(how=how)) for how in ("declared", "undeclared", "exit", "type", "x", "x" * 1100)),
    (WHO, WhoRequest()),
    (ADMIN, AdminRequest()),
]


@pytest.mark.parametrize(("method", "request_"), STAGED, ids=[f"{m.name}-{i}" for i, (m, _) in enumerate(STAGED)])
def test_each_way_to_end_is_the_same(method: Any, request_: Message) -> None:
    """Every way a handler can end a call, and every refusal before it, is told alike."""
    answers = {}
    for door in DOORS:
        with opened(door, Stage().handlers, Stage.authenticate) as client:
            answers[door] = answer(client, method, request_, Metadata(authorization="user:ann"))
    # A request or response that is too large has different sizes in different codecs.
    shown = {door: repr(each) for door, each in answers.items()}
    if "TOO_LARGE" in shown["pipe"]:
        shown = {door: each.partition("_TOO_LARGE'")[0] for door, each in shown.items()}
    assert len(set(shown.values())) == 1, shown


# Uploads, duplex and one-way calls


class Stone(Message):
    """What is sent, and what comes back of a duplex call. A number beyond the bounds is no number to the handlers."""

    number: Annotated[int, Bounds(ge=-1, le=10_000)]
    data: bytes = b""


class Rock(Message):
    """A ``Stone`` as those declare it who know of no bounds."""

    number: int
    data: bytes = b""


class Heap(Message):
    total: int
    size: int


def quarry(piece: type[Message]) -> Service:
    """The service, with ``piece`` for what is sent."""
    return Service(
        "test.quarry.v1.QuarryService",
        version=1,
        methods=[
            UploadMethod(opcode=1, name="Pile", request=piece, response=Heap, reasons=["BAD_STONE"]),
            UploadMethod(opcode=2, name="Count", request=piece, response=Heap, reasons=["BAD_STONE"]),
            UploadMethod(opcode=3, name="Gather", request=piece, response=Heap, reasons=["BAD_STONE"], collect=4),
            DuplexMethod(opcode=4, name="Throw", request=piece, response=piece, reasons=["BAD_STONE"]),
            DuplexMethod(opcode=5, name="Roll", request=piece, response=piece, reasons=["BAD_STONE"]),
            OneWayMethod(opcode=6, name="Drop", request=piece),
        ],
    )


SERVED, SENT = quarry(Stone), quarry(Rock)
BAD, BROKEN, ENOUGH, NONE = -1, 666, 1_000, 20_000
"""Numbers of stones at which a handler aborts, fails, has enough, and one that it cannot read."""


def look_at(stone: Stone) -> None:
    if stone.number == BAD:
        raise CallError(Status.ABORTED, "BAD_STONE", "that stone is bad", retry=Retry.NOT_PROCESSED, retry_after_ms=7)
    if stone.number == BROKEN:
        raise ValueError("secret")


class Piling(Sink[Stone, Heap]):
    def __init__(self, quarry: "Quarry") -> None:
        self.quarry = quarry
        self.total = self.size = 0

    def receive(self, item: Stone) -> "Future[None] | None":
        look_at(item)
        self.total += item.number
        self.size += len(item.data)
        if item.number == ENOUGH:
            self.answer(Heap(total=self.total, size=self.size))
        if item.number % 3 == 0:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return None

    def finished(self) -> Heap:
        return Heap(total=self.total, size=self.size)

    def failed(self, error: CallError) -> None:
        self.quarry.failures.append(error.reason)


class Throwing(Sink[Stone, None], Subscription[Stone]):
    def __init__(self, quarry: "Quarry") -> None:
        self.quarry = quarry
        self.stones: list[Stone] = []
        self.complete = False

    def receive(self, item: Stone) -> None:
        look_at(item)
        self.stones.append(item)
        self.wake()

    def finished(self) -> None:
        self.complete = True
        self.wake()

    def failed(self, error: CallError) -> None:
        self.quarry.failures.append(error.reason)

    def take(self, n: int) -> Sequence[Stone]:
        taken, self.stones = self.stones[:n], self.stones[n:]
        if not taken and self.complete:
            raise StopIteration
        return taken


class Quarry:
    """The handlers, in each form that there is, and what the sinks were told of failures."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.handlers = Handlers(SERVED)
        pile, count, gather, throw, roll, drop = SERVED.methods
        self.handlers.sink(pile)(lambda context: Piling(self))  # type: ignore[arg-type]
        self.handlers.sink(throw)(lambda context: Throwing(self))  # type: ignore[arg-type]
        register: Any = self.handlers.register
        register(count)(self.count)
        register(gather)(self.count)
        register(roll)(self.roll)
        register(drop)(self.drop)

    def count(self, items: "Iterator[Stone] | list[Stone]", context: Context) -> "Heap | Future[Heap]":
        total = size = 0
        try:
            for item in items:
                look_at(item)
                total += item.number
                size += len(item.data)
                if item.number == ENOUGH:
                    break
        except CallError as error:
            self.failures.append(error.reason)
            raise
        if total % 2:
            deferred: Future[Heap] = Future()
            deferred.set_result(Heap(total=total, size=size))
            return deferred
        return Heap(total=total, size=size)

    def roll(self, items: Iterator[Stone], context: Context) -> Iterator[Stone]:
        for item in items:
            look_at(item)
            yield item
            if item.number == ENOUGH:
                return

    def drop(self, request: Stone, context: Context) -> None:
        look_at(request)


NUMBERS = st.one_of(st.integers(0, 9), st.sampled_from([BAD, BROKEN, ENOUGH, NONE]))
ROCKS = st.lists(st.builds(Rock, number=NUMBERS, data=st.binary(max_size=40)), max_size=6)
SENDING = st.lists(
    st.tuples(st.sampled_from(SENT.methods), ROCKS, st.sampled_from([list, tuple, iter])), min_size=1, max_size=8
)


def sent(client: Any, method: Operation[Any, Any], rocks: list[Rock], kind: Callable[[list[Rock]], Any]) -> object:
    """What becomes of a call: the response, how a duplex call ended, or the error."""
    if isinstance(method, OneWayMethod):
        return outcome(lambda: [client.post(method, rock, timeout=PATIENCE) for rock in rocks])
    if isinstance(method, UploadMethod):
        answer = outcome(lambda: client.upload(method, kind(rocks), timeout=PATIENCE))
        return (answer.total, answer.size) if isinstance(answer, Heap) else answer
    back: list[Rock] = []

    def drain() -> object:
        with client.duplex(method, kind(rocks), timeout=PATIENCE) as both:
            back.extend(both)
        return "end"

    ended = outcome(drain)
    # How many come back before an error does is up to how fast they were taken.
    assert back == rocks[: len(back)]
    return (ended, len(back)) if ended == "end" else ended


@settings(max_examples=max(25, settings().max_examples // 8))  # each starts four servers
@given(SENDING)
def test_what_is_sent_has_the_same_outcome(calls: Any) -> None:
    """Random uploads, duplex and one-way calls: answered, early or late, refused in the middle, not to be read."""
    outcomes: dict[str, list[object]] = {}
    for door in DOORS:
        with opened(door, Quarry().handlers, None, SENT) as client:
            outcomes[door] = [sent(client, *call) for call in calls]
    for number, (method, rocks, _) in enumerate(calls):
        each = {door: outcomes[door][number] for door in DOORS}
        assert all(one == each["pipe"] for one in each.values()), f"{method.name} of {rocks!r}: {each!r}"


def test_full_halves_are_told_alike() -> None:
    """Whoever sends and does not read is told so at every door, and loses nothing of what went both ways."""
    for door in DOORS:
        with opened(door, Quarry().handlers, None, SENT) as client:
            sent: list[int] = []
            with client.duplex(SENT.methods[4], timeout=PATIENCE, credit=4) as both:

                def send_for_ever(both: Any = both, sent: list[int] = sent) -> None:
                    while True:
                        both.send(Rock(number=len(sent) % 7, data=bytes(50_000)))
                        sent.append(len(sent) % 7)

                with pytest.raises(BothFull, match="unread: read some before you send more"):
                    send_for_ever()
                back = [next(both).number for _ in range(3)]
                both.finish()
                assert [*back, *(rock.number for rock in both)] == sent


class Gone(Exception):
    """What the caller's own iterable raises."""


@pytest.mark.parametrize("how", ["cancelled", "late"])
@pytest.mark.parametrize("method", SENT.methods[:2], ids=["sink", "iterator"])
def test_an_upload_that_is_not_finished_is_none(method: Any, how: str) -> None:
    """Cancelled, or out of time: the caller is told the same, and no handler takes a part for the whole."""
    told_of: dict[str, object] = {}
    for door in DOORS:
        quarry = Quarry()
        late = time.monotonic() + 1.0

        def rocks(late: float = late) -> Iterator[Rock]:
            yield Rock(number=1)
            if how == "cancelled":
                raise Gone
            until(lambda: time.monotonic() > late, "the time is up", PATIENCE)
            yield Rock(number=2)

        with opened(door, quarry.handlers, None, SENT) as client:
            try:
                client.upload(method, rocks(), timeout=0.5 if how == "late" else PATIENCE)
            except CallError as error:
                told_of[door] = (error.status, error.reason, error.retry)
            except Gone:
                told_of[door] = "gone"
            assert client.upload(method, [Rock(number=5)], timeout=PATIENCE).total == 5
            if how == "late":
                # Each side has a clock: the caller's CANCEL may be there before the server's own is up.
                assert set(quarry.failures) <= {"DEADLINE", "CANCELLED"}
            else:
                assert set(quarry.failures) <= {"CANCELLED"}
    assert len(told_of) == len(DOORS)
    assert len(set(told_of.values())) == 1, told_of
