"""Whatever goes wrong, a caller is told the same behind every door: TCP in each codec, and gRPC.

Random calls are in flight when a connection is lost, a server is killed or drained; others are refused, or too long by
a few bytes either way. Compared is all that a caller learns: the items that came, the kind of the error, its status and
reason, whether to try again, and whether it is said how long to wait before that.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.peer import until
from tests.server.service import (
    ADMIN,
    BLOCK,
    COUNT,
    DEFER,
    ECHO,
    FAIL,
    FEED,
    SERVICE,
    WHO,
    AdminRequest,
    BlockRequest,
    CountRequest,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    EchoResponse,
    FailRequest,
    FeedRequest,
    Stage,
    WhoRequest,
)
from wireproto import codecs
from wireproto.client import Client
from wireproto.client.grpc import GrpcClient
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Service
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Status
from wireproto.testing import FaultProxy, running
from wireproto.testing.payloads import as_bytes
from wireproto.wire.frame import HEADER_AFTER_LENGTH

pytestmark = pytest.mark.slow

DOORS = ["pipe", "msgpack", "protobuf", "grpc"]
PATIENCE = 30.0
LIMITS = Limits(max_frame=131_072, hello_timeout=PATIENCE, frame_timeout=PATIENCE, write_timeout=PATIENCE)
LARGEST = LIMITS.max_frame - HEADER_AFTER_LENGTH
"""Bytes of a payload that fit a frame without metadata."""


class Told(NamedTuple):
    """What a caller learns of a call that failed."""

    kind: str
    status: str
    reason: str
    retry: str
    waits: bool


# What is gRPC's own -----------------------------------------------------------------------------------------------


class Own(NamedTuple):
    """A difference that is there as long as grpc-core ends what is ours to end on the other door.

    Attributes:
        why: it is there.
        tcp: the fields that differ, as TCP has them.
        grpc: ... and gRPC.
        always: it has to be so, or is to be taken off; False where it is a race which of the two comes first.
    """

    why: str
    tcp: Mapping[str, Any]
    grpc: Mapping[str, Any]
    always: bool = True


OWN: dict[str, Own] = {
    "nobody serves": Own(
        "Our client says how long its back-off waits; grpc-core has one of its own and keeps it to itself.",
        {"waits": True},
        {"waits": False},
    ),
    "a request that no frame holds": Own(
        "Our client knows from the handshake what the server takes; grpc-core's server refuses the message in its own "
        "words, before a call is ours.",
        {"reason": "REQUEST_TOO_LARGE"},
        {"reason": ""},
    ),
    "no place for the call": Own(
        "Our client keeps a call that is one too many to itself; grpc-core's keeps it, too, and does not say so.",
        {"retry": "NOT_PROCESSED"},
        {"retry": "MAYBE_PROCESSED"},
    ),
    "an iterator of a server that drains": Own(
        "Of a call whose client takes nothing of what was sent, grpc-core tells the client the status and no details.",
        {"kind": "CallError", "reason": "SHUTTING_DOWN"},
        {"kind": "ConnectionLost", "reason": "CONNECTION_LOST"},
        always=False,
    ),
}
"""By what happened: which fields differ, and what they are on either side."""


def as_tcp_says(door: str, what: str, told: object) -> object:
    """``told``, with what is gRPC's own turned into what TCP says in its place."""
    own = OWN.get(what)
    if own is None or not isinstance(told, Told):
        return told
    said = {field: getattr(told, field) for field in own.tcp}
    expected = own.grpc if door == "grpc" else own.tcp
    assert said == expected or (said == own.tcp and not own.always), (door, what, told, own.why)
    return told._replace(**own.tcp)


# One door ---------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A server behind one door, a proxy before it, and a client that comes through the proxy."""

    door: str
    stage: Stage
    server: Server | GrpcGateway
    proxy: FaultProxy
    client: Any  # the two kinds of client have one face and no common class

    def outcome(self, call: Callable[[], object]) -> object:
        """What comes of a call; an answer is shown as text, for that of NaN."""
        try:
            return repr(call())
        except CallError as error:
            return Told(
                type(error).__name__, error.status.name, error.reason, error.retry.name, error.retry_after_ms > 0
            )

    def text_of(self, message: type[Message], payload: int, **others: object) -> str:
        """A text with which the message has ``payload`` bytes in the codec of the door."""
        codec = codecs.get("protobuf" if self.door == "grpc" else self.door)
        encode = codec.plan(message, 1, Limits(max_frame=2**24)).encode
        (name,) = (each for each in message.__struct_fields__ if each not in others)
        text = "x" * (payload - 16)  # what else there is takes fewer bytes in every codec, and more than it lacks
        while missing := payload - len(encode(message(**{name: text}, **others))):
            text = text[:missing] if missing < 0 else text + "x" * missing
        return text


@contextlib.contextmanager
def scene(door: str, limits: Limits = LIMITS, workers: int = 8) -> Iterator[Scene]:
    stage = Stage()
    grpc = door == "grpc"
    with (
        running(
            stage.handlers,
            codecs=["msgpack" if grpc else door],
            grpc=grpc,
            limits=limits,
            workers=workers,
            authenticate=stage.authenticate,
            leaks=False,  # the other doors' scenes begin and end meanwhile
        ) as doors,
        contextlib.ExitStack() as stack,
    ):
        server = doors.gateway if grpc else doors.server
        assert server is not None
        proxy = stack.enter_context(FaultProxy(server.address))
        client = (
            GrpcClient(proxy.address, SERVICE, limits=limits)
            if grpc
            else Client(proxy.address, SERVICE, codec=door, limits=limits)
        )
        stack.callback(client.close)
        stack.callback(stage.open_gates)
        client.open()
        yield Scene(door, stage, server, proxy, client)


def at_each_door(play: Callable[[Scene], list[tuple[str, object]]], **settings: Any) -> None:
    """Play the same before every door, and compare what its caller was told, line by line."""

    def one(door: str) -> list[tuple[str, object]]:
        with scene(door, **settings) as made:
            return [(what, as_tcp_says(door, what, told)) for what, told in play(made)]

    with ThreadPoolExecutor(len(DOORS)) as pool:
        lines = dict(zip(DOORS, pool.map(one, DOORS), strict=True))
    for number, line in enumerate(lines["pipe"]):
        each = {door: lines[door][number] for door in DOORS}
        assert all(told == line for told in each.values()), "".join(f"\n{door:9} {told}" for door, told in each.items())
    assert all(len(told) == len(lines["pipe"]) for told in lines.values())


# Calls in flight --------------------------------------------------------------------------------------------------


class Flight(NamedTuple):
    """A call whose handler has begun.

    Attributes:
        kind: how it answers.
        name: of its own.
        items: that its caller has had.
    """

    kind: str
    name: str
    items: int

    def begin(self, at: Scene) -> Callable[[], object]:
        """Make the call, wait for its handler, take its items; gives what waits for the rest."""
        client, stage = at.client, at.stage
        if self.kind == "future":
            call = client.start(DEFER, DeferRequest(name=self.name))
            stage.future(self.name)
            return lambda: call.result(PATIENCE)
        if self.kind == "blocking":
            call = client.start(BLOCK, BlockRequest(name=self.name))
            assert stage.inside(self.name).wait(PATIENCE)
            return lambda: call.result(PATIENCE)
        if self.kind == "subscription":
            stream = client.stream(FEED, FeedRequest(name=self.name))
            feed = stage.feed(self.name)
            feed.put(*(str(number) for number in range(self.items)))
        else:
            stream = client.stream(COUNT, CountRequest(upto=10**6), credit=8, batch=1)
        for _ in range(self.items):
            stream.next(PATIENCE)
        return lambda: rest_of(stream)

    def when(self, trouble: str) -> str:
        """What happens to it, as ``OWN`` has it."""
        if trouble in ("killed", "cut", "drained") and self.kind == "iterator":
            return "an iterator of a server that drains"
        return f"{self.kind}, {trouble}"

    def finish(self, at: Scene) -> None:
        """Have its handler answer."""
        if self.kind == "future":
            at.stage.future(self.name).set_result(DeferResponse(name=self.name))
        elif self.kind == "blocking":
            at.stage.gate(self.name).set()


def rest_of(stream: Any) -> str:
    """Read to the end. How many items are on the way when a stream is cut is nobody's to say."""
    for _ in stream:
        pass
    return "the end"


FLIGHTS = st.lists(
    st.tuples(st.sampled_from(["future", "blocking", "subscription", "iterator"]), st.integers(1, 3)),
    min_size=1,
    max_size=3,
).map(lambda drawn: [Flight(kind, f"{kind}{place}", items) for place, (kind, items) in enumerate(drawn)])


def lost(at: Scene, flights: list[Flight]) -> None:
    """The network resets the connection."""
    at.proxy.reset()


def killed(at: Scene, flights: list[Flight]) -> None:
    """The server goes without giving anybody time."""
    at.server.shutdown(0)


def cut(at: Scene, flights: list[Flight]) -> None:
    """The server drains, and nobody ends in time."""
    at.server.shutdown(0.3)


def drained(at: Scene, flights: list[Flight]) -> None:
    """The server drains, and whoever answers does so in time."""
    # An iterator that does not look whether the server drains has what time there is, over gRPC.
    grace = 3.0 if any(flight.kind == "iterator" for flight in flights) else PATIENCE
    ending = threading.Thread(target=at.server.shutdown, args=(grace,))
    ending.start()
    # Behind the first step of the end: what would answer now is in flight, and nothing new is taken.
    until(lambda: not takes_connections(at), "nothing is taken any more", PATIENCE)
    for flight in flights:
        flight.finish(at)
    ending.join(PATIENCE)


def takes_connections(at: Scene) -> bool:
    try:
        socket.create_connection(at.server.address, timeout=PATIENCE).close()
    except OSError:
        return False
    return True


TROUBLES = {"lost": lost, "killed": killed, "cut": cut, "drained": drained}


@settings(max_examples=max(15, settings().max_examples // 8))  # each starts four servers
@given(FLIGHTS, st.sampled_from(sorted(TROUBLES)), st.sampled_from(["call", "start", "stream"]))
def test_what_is_in_flight_when_a_connection_ends(flights: list[Flight], trouble: str, after: str) -> None:
    """Calls of every kind learn the same of their connection's end, however it comes, and so does one made after it."""

    def play(at: Scene) -> list[tuple[str, object]]:
        waiting = [flight.begin(at) for flight in flights]
        TROUBLES[trouble](at, flights)
        told = [(flight.when(trouble), at.outcome(wait)) for flight, wait in zip(flights, waiting, strict=True)]
        again: dict[str, Callable[[], object]] = {
            "call": lambda: at.client.call(ECHO, EchoRequest(text="again"), timeout=PATIENCE),
            "start": lambda: at.client.start(ECHO, EchoRequest(text="again"), timeout=PATIENCE).result(PATIENCE),
            "stream": lambda: rest_of(at.client.stream(COUNT, CountRequest(upto=3), timeout=PATIENCE)),
        }
        return [*told, ("a new call" if trouble == "lost" else "nobody serves", at.outcome(again[after]))]

    at_each_door(play)


# Refusals, and what is too long -----------------------------------------------------------------------------------

Request = Callable[[Scene], Callable[[], object]]


def asked(method: Any, request: Message, **metadata: str) -> Request:
    return lambda at: lambda: at.client.call(method, request, metadata=metadata)


def asked_as(who: str, name: str) -> Request:
    """By somebody, or by nobody, for what only some may."""
    method, request = {"Who": (WHO, WhoRequest()), "Admin": (ADMIN, AdminRequest())}[name]
    return asked(method, request, **({"authorization": who} if who else {}))


def request_of(size: int) -> Request:
    """Of exactly ``size`` bytes, for a method that takes a thousand."""
    return lambda at: lambda: at.client.call(FAIL, FailRequest(how=at.text_of(FailRequest, size)))


def request_by_a_client_that_does_not_look(size: int) -> Request:
    def made(at: Scene) -> Callable[[], object]:
        codec = codecs.get("protobuf" if at.door == "grpc" else at.door)
        payload = codec.plan(FailRequest, 1, Limits()).encode(FailRequest(how=at.text_of(FailRequest, size)))
        return lambda: at.client.call(as_bytes(at.client, FAIL), payload)

    return made


def frame_of(size: int) -> Request:
    """With a payload of exactly ``size`` bytes, for a method that takes what a frame holds."""

    def made(at: Scene) -> Callable[[], object]:
        text = at.text_of(EchoRequest, size, size=0)
        return lambda: len(at.client.call(ECHO, EchoRequest(text=text)).text) == len(text)

    return made


def answer_of(size: int) -> Request:
    """Answered with a payload of exactly ``size`` bytes."""
    return lambda at: lambda: bool(at.client.call(ECHO, EchoRequest(size=len(at.text_of(EchoResponse, size)))))


def late_answer_of(size: int) -> Request:
    def made(at: Scene) -> Callable[[], object]:
        call = at.client.start(DEFER, DeferRequest(name=f"late{size}"))
        text = at.text_of(DeferResponse, size)
        at.stage.future(f"late{size}").set_result(DeferResponse(name=text))
        return lambda: call.result(PATIENCE) is not None

    return made


def item_of(text: Any) -> Request:
    """Behind one that is well, and taken together with it."""

    def made(at: Scene) -> Callable[[], object]:
        name = f"item {str(text)[:3]}"
        stream = at.client.stream(FEED, FeedRequest(name=name))
        feed = at.stage.feed(name)
        feed.put("first", text, "last")
        feed.end()
        assert stream.next(PATIENCE).text == "first"
        return lambda: rest_of(stream)

    return made


def metadata_of(size: int) -> Request:
    return asked(ECHO, EchoRequest(), x="x" * size)


def out_of_time(at: Scene) -> Callable[[], object]:
    call = at.client.start(DEFER, DeferRequest(name="never"), timeout=0.2)
    return lambda: call.result(PATIENCE)


def given_up_by_the_server(at: Scene) -> Callable[[], object]:
    call = at.client.start(DEFER, DeferRequest(name="gone"))
    at.stage.future("gone").cancel()
    return lambda: call.result(PATIENCE)


def wrong_error_of_a_future(at: Scene) -> Callable[[], object]:
    call = at.client.start(DEFER, DeferRequest(name="wrong"))
    at.stage.future("wrong").set_exception(ValueError("secret"))
    return lambda: call.result(PATIENCE)


NEAR = st.integers(-3, 3)
REQUESTS: st.SearchStrategy[tuple[str, Request]] = st.one_of(
    st.sampled_from(["declared", "undeclared", "exit", "type", "surrogate", "x"]).map(
        lambda how: (f"fails: {how}", asked(FAIL, FailRequest(how=how)))
    ),
    st.tuples(st.sampled_from(["", "user:ann", "admin:ann", "nonsense"]), st.sampled_from(["Who", "Admin"])).map(
        lambda drawn: (f"{drawn[1]} as {drawn[0]!r}", asked_as(*drawn))
    ),
    st.one_of(NEAR.map(lambda over: 1000 + over), st.just(5000)).map(
        lambda size: (f"request {size}", request_of(size))
    ),
    st.one_of(NEAR.map(lambda over: 1000 + over), st.just(5000)).map(
        lambda size: (f"raw request {size}", request_by_a_client_that_does_not_look(size))
    ),
    st.integers(-3, 0).map(lambda over: (f"frame {over}", frame_of(LARGEST + over))),
    st.sampled_from([1, 3, 100_000]).map(lambda over: ("a request that no frame holds", frame_of(LARGEST + over))),
    st.one_of(NEAR, st.just(100_000)).map(lambda over: (f"answer {over}", answer_of(LARGEST + over))),
    st.one_of(NEAR, st.just(100_000)).map(lambda over: (f"late answer {over}", late_answer_of(LARGEST + over))),
    st.sampled_from([("well", "y"), ("too long", "x" * 200_000), ("no text", 5)]).map(
        lambda item: (f"item: {item[0]}", item_of(item[1]))
    ),
    st.sampled_from([8000, 8170, 8300, 9000, 60_000]).map(lambda size: (f"metadata {size}", metadata_of(size))),
    st.sampled_from(
        [("deadline", out_of_time), ("given up", given_up_by_the_server), ("wrong", wrong_error_of_a_future)]
    ),
)


@settings(max_examples=max(40, settings().max_examples // 8))  # each starts four servers
@given(st.lists(REQUESTS, min_size=1, max_size=5, unique_by=lambda drawn: drawn[0]))
def test_what_is_refused_or_too_long(requests: list[tuple[str, Request]]) -> None:
    """Each refusal says the same behind every door, to the byte at each limit, and the connection goes on."""

    def play(at: Scene) -> list[tuple[str, object]]:
        told: list[tuple[str, object]] = []
        for what, request in requests:
            told.append((what, at.outcome(request(at))))
            told.append(("next", at.outcome(lambda: at.client.call(ECHO, EchoRequest(text="next")))))
        return told

    at_each_door(play)


def test_a_busy_server_refuses_alike() -> None:
    """Beyond the workers and the queue a call is refused, not processed, with how long to wait."""

    def play(at: Scene) -> list[tuple[str, object]]:
        calls = [at.client.start(BLOCK, BlockRequest(name="b")) for _ in range(16)]
        until(lambda: any(call.done() for call in calls), "one is refused", PATIENCE)
        told = {at.outcome(call.result) for call in calls if call.done()}
        at.stage.open_gates()
        for call in calls:
            call.exception(PATIENCE)
        return [("busy", each) for each in told]

    at_each_door(play, limits=Limits(run_queue=2), workers=2)


def test_a_call_that_finds_no_place() -> None:
    """One beyond what the server takes at once waits, and its deadline ends it before it was sent."""

    def play(at: Scene) -> list[tuple[str, object]]:
        calls = [at.client.start(DEFER, DeferRequest(name=f"place{number}")) for number in range(2)]
        for number in range(2):
            at.stage.future(f"place{number}")
        late = at.client.call
        told = at.outcome(lambda: late(ECHO, EchoRequest(), timeout=0.3))
        for number in range(2):
            at.stage.future(f"place{number}").set_result(DeferResponse(name=""))
        return [("no place for the call", told), *(("one in flight", at.outcome(call.result)) for call in calls)]

    at_each_door(play, limits=Limits(max_calls=2))


@pytest.mark.parametrize(
    "arguments", [{"status": 5}, {"message": ValueError("secret")}, {"retry_after_ms": 1.5}], ids=str
)
def test_an_error_that_cannot_be_made(arguments: dict[str, Any]) -> None:
    """A handler that aborts with what no error can hold fails its own call, and no connection."""
    handlers = Handlers(Service("tests.v1.AbortService", methods=[ECHO]))

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        if request.text == "abort":
            context.abort(**{"status": Status.ABORTED, **arguments})
        return EchoResponse(text=request.text)

    with running(handlers) as doors:
        for client in doors.values():
            with pytest.raises(CallError, match=r"INTERNAL: incident [0-9a-f]{8}: the server failed"):
                client.call(ECHO, EchoRequest(text="abort"), timeout=PATIENCE)
            assert client.call(ECHO, EchoRequest(text="next"), timeout=PATIENCE).text == "next"
