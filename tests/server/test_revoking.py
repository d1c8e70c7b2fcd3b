"""What becomes of calls in flight when the identity they were begun with is revoked, and when the server drains."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from tests.copies import WAYS
from tests.server.peer import until
from wireproto.client import connect
from wireproto.client.grpc import connect as connect_grpc
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Holder, Identity
from wireproto.schema import DuplexMethod, Message, Method, Service, StreamMethod, UploadMethod
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status
from wireproto.wire.metadata import Metadata

PATIENCE = 20.0
DOORS = ["pipe", "msgpack", "protobuf", "core", "public"]


class Ask(Message):
    name: str = ""


class Told(Message):
    name: str = ""


SIGN_IN = Method(opcode=1, name="SignIn", request=Ask, response=Told)
BLOCK = Method(opcode=2, name="Block", request=Ask, response=Told, requires="user", blocking=True)
LATER = Method(opcode=3, name="Later", request=Ask, response=Told, requires="user")
FEED = StreamMethod(opcode=4, name="Feed", request=Ask, response=Told, requires="user")
FEED_ON = StreamMethod(opcode=5, name="FeedOn", request=Ask, response=Told, drains=True, outlives_identity=True)
TICK = StreamMethod(opcode=6, name="Tick", request=Ask, response=Told)
SINK = UploadMethod(opcode=7, name="Sink", request=Ask, response=Told, requires="user")
TALK = DuplexMethod(opcode=8, name="Talk", request=Ask, response=Told, requires="user")
LOG_OUT = Method(opcode=9, name="LogOut", request=Ask, response=Told, requires="user", outlives_identity=True)
RASH = Method(opcode=10, name="Rash", request=Ask, response=Told, requires="user")
TALK_ON = DuplexMethod(opcode=11, name="TalkOn", request=Ask, response=Told, drains=True)
SERVICE = Service(
    "test.revoking.v1.RevokingService",
    methods=[SIGN_IN, BLOCK, LATER, FEED, FEED_ON, TICK, SINK, TALK, LOG_OUT, RASH, TALK_ON],
)


class Source(Subscription[Told]):
    """Gives a greeting, or not even that, and no more; with ``leaves`` it ends when it sees that the server drains."""

    def __init__(self, context: Context, *, leaves: bool = False, silent: bool = False) -> None:
        self.context = context
        self.leaves = leaves
        self.greeted = silent
        self.closed: list[str] = []
        self.was_closed = threading.Event()

    def take(self, n: int) -> Sequence[Told]:
        if not self.greeted:
            self.greeted = True
            return [Told(name="hello")]
        if self.leaves and self.context.draining:
            raise StopIteration
        return ()

    def close(self, reason: str) -> None:
        self.closed.append(reason)
        self.was_closed.set()


class Taker(Sink[Ask, Told]):
    """Takes whatever comes."""

    def __init__(self, stage: "Stage") -> None:
        self.stage = stage

    def receive(self, item: Ask) -> None:
        self.stage.inside.set()

    def finished(self) -> Told:
        return Told(name="all")

    def failed(self, error: CallError) -> None:
        self.stage.failed.append(error)
        self.stage.ended.set()


class Talker(Taker, Source):
    """Both ways."""

    def __init__(self, stage: "Stage", context: Context) -> None:
        Taker.__init__(self, stage)
        Source.__init__(self, context, leaves=True)


class Stage:
    """The handlers, and what a test sees of them."""

    def __init__(self) -> None:
        self.ann = Identity("ann", ["user"])
        self.bob = Identity("bob", ["user"])
        self.inside = threading.Event()
        self.gate = threading.Event()
        self.ended = threading.Event()
        self.cancelled: list[bool] = []
        self.failed: list[CallError] = []
        self.futures: list[Future[Told]] = []
        self.sources: list[Source] = []
        self.handlers = Handlers(SERVICE)
        self._register(self.handlers)

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        return {"ann": self.ann, "bob": self.bob}.get(metadata.authorization)

    def _register(self, handlers: Handlers) -> None:
        @handlers.register(SIGN_IN)
        def sign_in(request: Ask, context: Context) -> Told:
            context.sign_in({"ann": self.ann, "bob": self.bob}[request.name])
            return Told()

        @handlers.register(BLOCK)
        def block(request: Ask, context: Context) -> Told:
            self.inside.set()
            assert self.gate.wait(PATIENCE)
            self.cancelled.append(context.cancelled)
            self.ended.set()
            return Told(name="too late")

        @handlers.register(LATER)
        def later(request: Ask, context: Context) -> "Future[Told]":
            self.futures.append(Future())
            self.futures[-1].add_done_callback(lambda future: self.ended.set())
            self.inside.set()
            return self.futures[-1]

        @handlers.register(FEED)
        def feed(request: Ask, context: Context) -> Source:
            self.sources.append(Source(context, silent=request.name == "silent"))
            return self.sources[-1]

        @handlers.register(FEED_ON)
        def feed_on(request: Ask, context: Context) -> Source:
            self.sources.append(Source(context, leaves=request.name == "leaves"))
            return self.sources[-1]

        @handlers.register(TICK)
        def tick(request: Ask, context: Context) -> Iterator[Told]:
            pause = threading.Event()
            while not context.cancelled:
                yield Told(name="tick")
                pause.wait(0.01)

        handlers.sink(SINK)(lambda context: Taker(self))

        @handlers.register(TALK)
        def talk(items: Iterator[Ask], context: Context) -> Iterator[Told]:
            for item in items:
                yield Told(name=item.name)

        @handlers.sink(TALK_ON)
        def talk_on(context: Context) -> Talker:
            self.sources.append(Talker(self, context))
            return self.sources[-1]  # type: ignore[return-value]

        @handlers.register(LOG_OUT)
        def log_out(request: Ask, context: Context) -> Told:
            assert context.identity is not None
            context.identity.revoke()
            return Told(name=f"bye, cancelled {context.cancelled}")

        @handlers.register(RASH)
        def rash(request: Ask, context: Context) -> Told:
            assert context.identity is not None
            context.identity.revoke()
            self.cancelled.append(context.cancelled)
            self.ended.set()
            return Told()


class Door:
    """One server or gateway, and clients of it."""

    def __init__(self, stage: Stage, kind: str) -> None:
        self.kind = kind
        self.server: Any = (
            GrpcGateway(stage.handlers, port=0, engine=kind, authenticate=stage.authenticate)  # type: ignore[arg-type]
            if kind in ("core", "public")
            else Server(stage.handlers, port=0, codecs=[kind], authenticate=stage.authenticate)
        )
        self.server.start()
        self._clients: list[Any] = []

    def client(self, authorization: str = "") -> Any:
        address = self.server.address
        client: Any = (
            connect_grpc(address, SERVICE, authorization=authorization)
            if self.kind in ("core", "public")
            else connect(address, SERVICE, codec=self.kind, authorization=authorization)
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        assert self.server.shutdown(PATIENCE) == []


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.gate.set()


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Door]:
    made = Door(stage, request.param)
    yield made
    stage.gate.set()
    made.close()


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


def check(error: CallError) -> None:
    assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED")
    assert error.retry is Retry.MAYBE_PROCESSED
    assert "was revoked while it ran" in error.message


# Revoking


def test_a_call_ends_whose_handler_runs(door: Door, stage: Stage) -> None:
    """The caller is told at once, and the handler sees that nobody waits; what it answers is dropped."""
    ann, bob = door.client("ann"), door.client("bob")
    call = ann.start(BLOCK, Ask())
    assert stage.inside.wait(PATIENCE)
    stage.ann.revoke()
    check(refused(lambda: call.result(PATIENCE)))
    assert stage.cancelled == []
    stage.gate.set()
    assert stage.ended.wait(PATIENCE)
    assert stage.cancelled == [True]
    again = refused(lambda: ann.call(BLOCK, Ask()))
    assert (again.reason, again.retry) == ("SIGN_IN_REQUIRED", Retry.NEVER)
    assert bob.call(BLOCK, Ask()).name == "too late"


def test_a_deferred_answer_is_dropped(door: Door, stage: Stage) -> None:
    """The future is cancelled; that of another identity is not."""
    ann, bob = door.client("ann"), door.client("bob")
    call = ann.start(LATER, Ask())
    assert stage.inside.wait(PATIENCE)
    stage.inside.clear()
    other = bob.start(LATER, Ask())
    assert stage.inside.wait(PATIENCE)
    stage.ann.revoke()
    check(refused(lambda: call.result(PATIENCE)))
    assert stage.ended.wait(PATIENCE)
    first, second = stage.futures
    assert first.cancelled()
    second.set_result(Told(name="here"))
    assert other.result(PATIENCE).name == "here"


def test_streams_end_but_for_those_that_outlive_it(door: Door, stage: Stage) -> None:
    """A subscription and an iterator are ended in words; one whose method says so goes on."""
    ann = door.client("ann")
    feed, tick, on = ann.stream(FEED, Ask()), ann.stream(TICK, Ask()), ann.stream(FEED_ON, Ask(name="on"))
    for each in (feed, tick, on):
        next(each)
    source, other = stage.sources
    stage.ann.revoke()
    check(refused(lambda: next(feed)))
    check(refused(lambda: [item for item in tick if item.name != "tick"]))
    assert source.was_closed.wait(PATIENCE)
    assert "was revoked" in source.closed[0]
    assert other.closed == []
    other.greeted = False
    other.wake()
    assert next(on).name == "hello"
    on.close()


def test_calls_whose_items_follow_end(door: Door, stage: Stage) -> None:
    """A sink is told that it failed; a duplex call of an iterating handler ends, too."""
    ann = door.client("ann")
    going = threading.Event()

    def items() -> Iterator[Ask]:
        yield Ask(name="one")
        assert going.wait(PATIENCE)
        yield Ask(name="two")

    errors: list[CallError] = []
    upload = threading.Thread(target=lambda: errors.append(refused(lambda: ann.upload(SINK, items()))))
    upload.start()
    assert stage.inside.wait(PATIENCE)
    talk = ann.duplex(TALK)
    talk.send(Ask(name="a"))
    assert next(talk).name == "a"
    stage.ann.revoke()
    assert stage.ended.wait(PATIENCE)
    going.set()
    upload.join(PATIENCE)
    (told,) = errors
    check(told)
    check(refused(lambda: next(talk)))
    (failed,) = stage.failed
    assert failed.reason == "SIGN_IN_REQUIRED"


def test_who_revokes_its_own_caller_needs_to_outlive_it(door: Door, stage: Stage) -> None:
    """Logging out is answered if its method says so; where it does not, it is ended as any other call."""
    assert door.client("ann").call(LOG_OUT, Ask()).name == "bye, cancelled False"
    check(refused(lambda: door.client("bob").call(RASH, Ask())))
    assert stage.ended.wait(PATIENCE)
    assert stage.cancelled == [True]


@pytest.mark.parametrize("door", ["msgpack"], indirect=True)
def test_who_signed_in_on_a_connection(door: Door, stage: Stage) -> None:
    """Every connection that signed in with it is told, calls of methods that need nobody, too, and those of before the
    sign-out; a connection that signed in otherwise is not."""
    clients = [door.client() for _ in range(3)]
    for client, name in zip(clients, ("ann", "ann", "bob"), strict=True):
        client.call(SIGN_IN, Ask(name=name))
    ticks = [client.stream(TICK, Ask()) for client in clients]
    for each in ticks:
        next(each)
    stage.ann.revoke()
    stage.ann.revoke()  # as often as one likes
    for each in ticks[:2]:
        check(refused(lambda each=each: [item for item in each if item.name != "tick"]))  # type: ignore[misc]
    assert next(ticks[2]).name == "tick"
    ticks[2].close()


@pytest.mark.parametrize("door", ["msgpack"], indirect=True)
def test_a_connection_that_is_gone_is_forgotten(door: Door, stage: Stage) -> None:
    """An identity keeps no connection alive, and revoking it then has nothing to do."""
    ann = door.client()
    ann.call(SIGN_IN, Ask(name="ann"))
    assert len(stage.ann._holders or ()) == 1
    assert WAYS["pickle5"](stage.ann).subject == "ann"  # and nothing of its connections
    ann.close()

    def gone() -> bool:
        gc.collect()
        return not stage.ann._holders

    pause = threading.Event()
    for _ in range(1000):
        if gone():
            break
        pause.wait(0.01)
    assert gone()
    stage.ann.revoke()


def test_revoking_and_calling_at_once_leaves_no_call_behind(stage: Stage) -> None:
    """Of calls that begin while the identity is revoked each is refused, ended or answered; none is forgotten."""
    for _ in range(20):
        stage.ann = Identity("ann", ["user"])
        made = Door(stage, "msgpack")
        try:
            client = made.client("ann")
            streams = [client.stream(FEED, Ask()) for _ in range(10)]
            revoking = threading.Thread(target=stage.ann.revoke)
            revoking.start()
            streams += [client.stream(FEED, Ask()) for _ in range(10)]
            revoking.join(PATIENCE)
            for each in streams:
                error = refused(lambda each=each: list(each))  # type: ignore[misc]
                assert error.reason == "SIGN_IN_REQUIRED"
        finally:
            made.close()


def test_a_holder_is_told_once_however_often_it_is_entered() -> None:
    """What ends the calls is asked for each `revoke`, and once; None is nobody."""

    class Counting:
        def __init__(self) -> None:
            self.told: list[Identity] = []

        def identity_revoked(self, identity: Identity) -> None:
            assert identity.revoked
            self.told.append(identity)

    holder: Counting = Counting()
    held: Holder = holder
    ann = Identity("ann")
    for _ in range(3):
        ann.held_by(held)
    ann.held_by(None)
    ann.revoke()
    assert holder.told == [ann]


# Draining


def drain(door: Door, timeout: float = PATIENCE) -> threading.Thread:
    thread = threading.Thread(target=door.server.shutdown, args=(timeout,))
    thread.start()
    return thread


def test_a_stream_that_began_and_gave_nothing_may_have_been_processed(door: Door, stage: Stage) -> None:
    """Its handler may have done something all the same; nobody has seen an item, and it is no safer to call again."""
    feed = door.client("ann").stream(FEED, Ask(name="silent"))
    until(lambda: bool(stage.sources), "its handler has begun")
    ending = drain(door)
    error = refused(lambda: next(feed))
    assert (error.status, error.reason, error.retry) == (Status.UNAVAILABLE, "SHUTTING_DOWN", Retry.MAYBE_PROCESSED)
    ending.join(PATIENCE)
    assert not ending.is_alive()


def test_a_subscription_that_drains_ends_by_itself(door: Door, stage: Stage) -> None:
    """It is woken, may look at `context.draining`, and ends well; one that does not drain ends at once, in words."""
    client = door.client("ann")
    feed, on, talk = client.stream(FEED, Ask()), client.stream(FEED_ON, Ask(name="leaves")), client.duplex(TALK_ON)
    assert [next(feed).name, next(on).name] == ["hello"] * 2
    talk.send(Ask())
    assert next(talk).name == "hello"
    ending = drain(door)
    error = refused(lambda: next(feed))
    assert (error.status, error.reason, error.retry) == (Status.UNAVAILABLE, "SHUTTING_DOWN", Retry.MAYBE_PROCESSED)
    assert list(on) == []
    assert list(talk) == []
    ending.join(PATIENCE)
    assert not ending.is_alive()
    assert [source.closed for source in stage.sources[1:]] == [["ended"]] * 2


def test_a_subscription_that_drains_has_until_the_grace_is_over(door: Door, stage: Stage) -> None:
    """It goes on giving, and is ended in words when the time is up."""
    client = door.client("ann")
    on = client.stream(FEED_ON, Ask())
    assert next(on).name == "hello"
    (source,) = stage.sources
    ending = drain(door, 1.0)
    pause = threading.Event()
    while not source.context.draining:
        pause.wait(0.001)
    source.greeted = False
    source.wake()
    assert next(on).name == "hello"
    error = refused(lambda: next(on))
    assert (error.status, error.reason, error.retry) == (Status.UNAVAILABLE, "SHUTTING_DOWN", Retry.MAYBE_PROCESSED)
    assert source.was_closed.wait(PATIENCE)
    ending.join(PATIENCE)
    assert not ending.is_alive()
