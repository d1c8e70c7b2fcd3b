"""One-way calls through every door: what their caller is told, what is done at the server, and what may be said again.

Nobody is told what becomes of a one-way call, so what is compared is the state that the server has reached: with what a
model of the calls says, whichever door they came through.
"""

import threading
from collections import Counter
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.test_four_doors import DOORS, PATIENCE, authenticate, opened
from wireproto import ConnectionLost, Limits
from wireproto.client import connect
from wireproto.client.grpc import connect as connect_grpc
from wireproto.dispatch import Handlers
from wireproto.errors import CallError, EncodeError, LocalProtocolError
from wireproto.handling import Context
from wireproto.schema import Bounds, Message, OneWayMethod, Service
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status
from wireproto.wire.metadata import Metadata

MOST = 200
"""Bytes of a request."""


class Drop(Message):
    """What the server takes: a number within its bounds."""

    key: str
    number: Annotated[int, Bounds(ge=0, le=999)]
    data: bytes = b""


class Stone(Message):
    """The same, as those declare it who know of no bounds."""

    key: str
    number: int
    data: bytes = b""


def bucket(drop: type[Message]) -> Service:
    """The service, with ``drop`` for what is sent."""
    return Service(
        "test.bucket.v1.BucketService",
        version=2,
        methods=[
            OneWayMethod(opcode=1, name="Add", request=drop, requires="write", max_request=MOST),
            OneWayMethod(opcode=2, name="AddOpenly", request=drop, max_request=MOST),
            OneWayMethod(opcode=3, name="Unserved", request=drop),
            OneWayMethod(opcode=4, name="Old", request=drop, until=1),
        ],
    )


SERVED, SENT = bucket(Drop), bucket(Stone)
ADD, ADD_OPENLY, UNSERVED, OLD = SENT.methods
ABORTED, BROKEN, UNREADABLE, UNWRITABLE = 997, 998, 5_000, 2**70


class Bucket:
    """The state: what was added under each key, and how often a handler ran."""

    def __init__(self) -> None:
        self.added: Counter[str] = Counter()
        self.ran = 0
        self.lock = threading.Lock()
        self.may_run = threading.Event()
        self.may_run.set()
        self.handlers = Handlers(SERVED)
        register: Any = self.handlers.register
        for method in (SERVED.methods[0], SERVED.methods[1], SERVED.methods[3]):
            register(method)(self.add)

    def add(self, request: Drop, context: Context) -> None:
        assert self.may_run.wait(PATIENCE)
        with self.lock:
            self.ran += 1
            if request.number == ABORTED:
                raise CallError(Status.ABORTED, "", "no", retry=Retry.NOT_PROCESSED)
            if request.number == BROKEN:
                raise ValueError("secret")
            self.added[request.key] += request.number


def told(client: Any, method: Any, stone: Stone, credential: str) -> object:
    """What the caller learns."""
    try:
        client.post(method, stone, metadata=Metadata(authorization=credential), timeout=PATIENCE)
    except CallError as error:
        return error.status, error.reason, error.retry
    except EncodeError:
        return "cannot be written"
    return "posted"


def expected(door: str, method: Any, stone: Stone) -> object:
    """What the caller learns, by the pages."""
    if method is OLD:
        return Status.UNIMPLEMENTED, "UNKNOWN_OPCODE", Retry.NEVER
    if stone.number == UNWRITABLE:
        return "cannot be written"
    if len(stone.data) > MOST and method is not UNSERVED:
        return Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", Retry.NEVER
    if method is UNSERVED and door == "grpc":
        return Status.UNIMPLEMENTED, "NO_HANDLER", Retry.NEVER  # gRPC has a way to tell, and TCP has none
    return "posted"


def runs(method: Any, stone: Stone, credential: str) -> bool:
    """Whether a handler sees it."""
    allowed = credential == "write:ann" or (method is ADD_OPENLY and credential != "nonsense")
    return method in (ADD, ADD_OPENLY) and allowed and stone.number <= BROKEN and len(stone.data) <= MOST


NUMBERS = st.one_of(st.integers(0, 9), st.sampled_from([ABORTED, BROKEN, UNREADABLE, UNWRITABLE]))
STONES = st.builds(
    Stone,
    key=st.sampled_from(["", "a", "b|", "\u00e4"]),
    number=NUMBERS,
    data=st.sampled_from([b"", b"\x00\xff", bytes(MOST + 1)]),
)
POSTS = st.lists(
    st.tuples(
        st.sampled_from([ADD, ADD, ADD_OPENLY, UNSERVED, OLD]), STONES, st.sampled_from(["write:ann", "read:ann", ""])
    ),
    max_size=12,
)


@settings(max_examples=max(25, settings().max_examples // 8))  # each starts four servers
@given(POSTS)
def test_every_door_reaches_the_same_state(posts: Any) -> None:
    """Random one-way calls, allowed or not, readable or not, do what the model says, and are told as the pages say."""
    wanted = [(method, stone) for method, stone, credential in posts if runs(method, stone, credential)]
    sums: Counter[str] = Counter()
    for _, stone in wanted:
        if stone.number < ABORTED:
            sums[stone.key] += stone.number
    for door in DOORS:
        made = Bucket()
        with opened(door, made.handlers, authenticate, SENT) as client:
            for method, stone, credential in posts:
                outcome = told(client, method, stone, credential)
                assert outcome == expected(door, method, stone), f"{door}: {method.name} {stone!r} was {outcome}"
            client.ping(PATIENCE)  # the server has read them all
        # The end of the server has waited for what ran.
        assert (made.ran, made.added) == (len(wanted), sums), f"through {door}: {posts!r}"


@pytest.mark.parametrize("door", DOORS)
def test_calls_that_have_to_wait_are_done_once_each(door: str) -> None:
    """While handlers are stuck some are posted and some wait; those given up by then are never done, the others are."""
    made = Bucket()
    made.may_run.clear()
    limits = Limits(one_way_calls=2)
    server: Any
    if door == "grpc":
        server = GrpcGateway(made.handlers, port=0, limits=limits, workers=4)
    else:
        server = Server(made.handlers, codecs=[door], limits=limits, workers=4)
    connecting: Any = connect_grpc if door == "grpc" else connect
    more = {} if door == "grpc" else {"codec": door}
    with server, connecting(server.address, SENT, timeout=PATIENCE, **more) as client:
        for number in (1, 2):
            client.post(ADD_OPENLY, Stone(key="a", number=number), timeout=PATIENCE)
        with pytest.raises(CallError) as caught:
            client.post(ADD_OPENLY, Stone(key="a", number=100), timeout=0.2)
        assert (caught.value.status, caught.value.reason) == (Status.DEADLINE_EXCEEDED, "DEADLINE")
        # Over TCP it waited here, over gRPC at the server, whose word may come behind the end of the caller's patience.
        allowed = {Retry.NOT_PROCESSED, Retry.MAYBE_PROCESSED} if door == "grpc" else {Retry.NOT_PROCESSED}
        assert caught.value.retry in allowed
        made.may_run.set()
        for number in (4, 8):
            client.post(ADD_OPENLY, Stone(key="a", number=number), timeout=PATIENCE)
    assert (made.added["a"], made.ran) == (15, 4)


@pytest.mark.parametrize("door", DOORS)
def test_where_there_is_no_server_nothing_was_done(door: str) -> None:
    """A call to a server that has ended was not processed, whoever says so; a client that was closed makes none."""
    made = Bucket()
    server: Any
    server = GrpcGateway(made.handlers, port=0) if door == "grpc" else Server(made.handlers, codecs=[door])
    connecting: Any = connect_grpc if door == "grpc" else connect
    more = {} if door == "grpc" else {"codec": door}
    with server:
        client = connecting(server.address, SENT, timeout=PATIENCE, **more)
        client.post(ADD_OPENLY, Stone(key="a", number=1), timeout=PATIENCE)
        client.ping(PATIENCE)
    with client, pytest.raises(ConnectionLost) as caught:
        client.post(ADD_OPENLY, Stone(key="a", number=2), timeout=PATIENCE)
    assert caught.value.retry is Retry.NOT_PROCESSED
    with pytest.raises(LocalProtocolError, match="client is closed"):
        client.post(ADD_OPENLY, Stone(key="a", number=2))
    assert made.added["a"] == 1
