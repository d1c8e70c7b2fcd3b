"""A resumable stream that is followed: no item twice, none left out unsaid, whatever becomes of the connection."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.client.resumed import COUNTED, ITEMS, LOGS, MARKED, NAMED, NUMBERED, PLAIN, Log, LogRequest, Numbered
from wireproto import (
    CallError,
    Client,
    ConnectionLost,
    Context,
    EncodeError,
    Gap,
    Handlers,
    Identity,
    LocalProtocolError,
    Metadata,
    Retry,
    Server,
    Service,
    Status,
    StreamMethod,
)
from wireproto.client import Backoff, BlockingClient
from wireproto.client.following import REOPENINGS, Following
from wireproto.client.grpc import GrpcClient
from wireproto.server.gateway import GrpcGateway
from wireproto.testing import Cut, FaultProxy
from wireproto.testing.faults import Fault

DOORS = ("pipe", "msgpack", "protobuf", "grpc")
UPTO = 5
PATIENCE = 20.0


def quick() -> Backoff:
    """Back-off that a test has the time for."""
    return Backoff(0.001, 0.002)


@contextmanager
def served(handlers: Handlers, door: str, **options: Any) -> Iterator[Any]:
    """A server of the door, and where it listens."""
    options = {"port": 0} | options
    server: Any = GrpcGateway(handlers, **options) if door == "grpc" else Server(handlers, workers=4, **options)
    with server:
        yield server


@contextmanager
def client_at(handlers: Handlers, door: str) -> Iterator[BlockingClient]:
    """A client of a server of the door."""
    with served(handlers, door) as server, client_of(door, server.address) as client:
        yield client


def client_of(door: str, address: Any) -> BlockingClient:
    """A client that is not connected yet."""
    if door == "grpc":
        # Its own back-off is gRPC's, of 100 ms at the least: attempts within it fail at once, and ten are soon made.
        return GrpcClient(address, LOGS, backoff=Backoff(0.1, 0.2))
    return Client(address, LOGS, codec=door, backoff=quick())


def texts(items: list[Any]) -> list[Any]:
    return [each if isinstance(each, Gap) else each.cursor for each in items]


def cursors(method: StreamMethod[LogRequest, Any], first: int = 1, last: int = UPTO) -> list[Any]:
    return [ITEMS[method](n).cursor for n in range(first, last + 1)]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("method", list(ITEMS), ids=lambda method: method.name)
def test_a_position_of_each_type_goes_through_each_door(method: StreamMethod[LogRequest, Any], door: str) -> None:
    """The handler is given the position as the field has it, and the items go on behind it."""
    log = Log(UPTO)
    with client_at(log.handlers(), door) as client:
        with client.follow(method, LogRequest(upto=UPTO)) as whole:
            assert whole.position is None
            assert texts(list(whole)) == cursors(method)
            assert whole.position == cursors(method)[-1]
        with client.follow(method, LogRequest(upto=UPTO), after=cursors(method)[1]) as rest:
            assert texts(list(rest)) == cursors(method, 3)
            assert rest.reopened == 0
    assert log.begun == [None, cursors(method)[1]]


def _cut_everywhere(door: str, direction: str, step: int) -> None:
    """Cut the first connection behind each byte of the stream, and look at what the program is given."""
    log = Log(UPTO)
    with served(log.handlers(), door) as server:
        with FaultProxy(server.address) as proxy, client_of(door, proxy.address) as client:
            if door != "grpc":  # whose connection is part of what the first call meets
                client.open()
            began = getattr(proxy.stats, direction)
            assert len(list(client.stream(NUMBERED, LogRequest(upto=UPTO)))) == UPTO
            ended = getattr(proxy.stats, direction)
        resumed = gaps = 0
        for at in range(began + 1, ended, step):
            faults: list[Fault] = [Cut(at, count=1)]
            up, down = (faults, []) if direction == "up" else ([], faults)
            log.begun.clear()
            with (
                FaultProxy(server.address, up=up, down=down) as proxy,
                client_of(door, proxy.address) as client,
                client.follow(NUMBERED, LogRequest(upto=UPTO), timeout=PATIENCE) as items,
            ):
                seen = texts(list(items))
            told = [each for each in seen if not isinstance(each, Gap)]
            assert told == cursors(NUMBERED), at
            if len(seen) > len(told):  # said where there was nothing to go on behind, and nowhere else
                # Once for each call that was begun: over gRPC one may be, and find nobody, before the next one.
                assert set(seen[: len(seen) - len(told)]) == {Gap(None)}, at
                assert set(log.begun) == {None}, at
                gaps += 1
            elif len(log.begun) > 1:
                assert log.begun[-1] in cursors(NUMBERED), at
                resumed += 1
    if direction == "down":
        assert resumed
        assert gaps


@pytest.mark.plain
@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(("door", "step"), [("pipe", 1), ("msgpack", 1), ("protobuf", 3), ("grpc", 11)])
def test_a_stream_that_is_cut_anywhere_has_each_item_once(door: str, step: int, direction: str) -> None:
    """A cut behind any byte, on the way there and back, loses no item and repeats none."""
    _cut_everywhere(door, direction, step)


@pytest.mark.plain
@pytest.mark.long
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_stream_over_grpc_that_is_cut_anywhere_has_each_item_once(direction: str) -> None:
    """The same behind every byte of HTTP/2."""
    _cut_everywhere("grpc", direction, 1)


@pytest.mark.parametrize("method", list(ITEMS), ids=lambda method: method.name)
def test_server_codec_and_door_may_change_in_the_middle(method: StreamMethod[LogRequest, Any]) -> None:
    """One stream over three servers, two codecs of one client and two doors: each item once, and in order."""
    log = Log(2)
    request = LogRequest(upto=6)
    with ExitStack() as stack:
        first = Server(log.handlers(), workers=4, codecs=["msgpack"])
        first.start()
        port = first.address.port
        client = stack.enter_context(Client(first.address, LOGS, codec=["msgpack", "pipe"], backoff=quick()))
        items = stack.enter_context(client.follow(method, request, timeout=PATIENCE))
        seen = [next(items), next(items)]
        assert client.codec == "msgpack"
        first.shutdown(0.0)
        second = stack.enter_context(Server(log.handlers(), port=port, workers=4, codecs=["pipe"]))
        log.grow(4)
        seen += [next(items), next(items)]
        assert client.codec == "pipe"
        assert items.reopened >= 1
        position = items.position
        items.close()
        gateway = stack.enter_context(GrpcGateway(log.handlers(), port=0))
        other = stack.enter_context(GrpcClient(gateway.address, LOGS, backoff=quick()))
        log.grow(5)
        with other.follow(method, request, after=position, timeout=PATIENCE) as over_grpc:
            seen.append(next(over_grpc))
            position = over_grpc.position
        log.grow(6)
        with client.follow(method, request, after=position, timeout=PATIENCE) as rest:
            seen += list(rest)
        assert second.address.port == port
    assert texts(seen) == cursors(method, 1, 6)
    assert log.begun[0] is None
    assert set(log.begun[1:]) == {cursors(method, n, n)[0] for n in (2, 4, 5)}


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_outlives_its_server(door: str) -> None:
    """A server that goes away and another one in its place: each item once, and no gap."""
    log = Log(2)
    with served(log.handlers(), door) as first:
        address = first.address
        client = client_of(door, address)
        items = client.follow(NAMED, LogRequest(upto=5), timeout=PATIENCE)
        seen = [next(items), next(items)]
    with served(log.handlers(), door, port=address.port), client, items:
        log.grow(5)
        seen += list(items)
        assert items.reopened >= 1
    assert texts(seen) == cursors(NAMED)
    assert log.begun[0] is None
    assert set(log.begun[1:]) == {cursors(NAMED)[1]}


@pytest.mark.parametrize("door", DOORS)
def test_a_gap_is_said_where_the_server_cannot_go_on(door: str) -> None:
    """A restarted server that has forgotten the position: the program is told, in its place, and the rest comes."""
    log = Log(3)
    with ExitStack() as stack:
        server = stack.enter_context(served(log.handlers(), door))
        with (
            FaultProxy(server.address) as proxy,
            client_of(door, proxy.address) as client,
            client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
        ):
            seen = [next(items) for _ in range(3)]
            log.forget(6)
            proxy.reset()
            log.grow(9)
            seen += list(items)
            assert items.position == 6
    assert texts(seen) == [*cursors(NUMBERED, 1, 3), Gap(0), *cursors(NUMBERED, 7, 9)]
    assert log.begun == [None, 0, None]


@pytest.mark.parametrize("door", DOORS)
def test_a_position_that_was_kept_too_long_is_a_gap(door: str) -> None:
    """The same for a position from another day, and for one that is no position of the method at all."""
    log = Log(9, forgotten=6)
    with client_at(log.handlers(), door) as client:
        assert texts(list(client.follow(NUMBERED, LogRequest(upto=9), after=-1))) == [Gap(-1), *cursors(NUMBERED, 7, 9)]
        method: Any
        for method, written in ((NUMBERED, b"1x"), (COUNTED, b"-1"), (NAMED, b"\xff"), (PLAIN, b"1")):
            with pytest.raises(CallError) as caught:
                list(client.stream(method, LogRequest(upto=9), metadata=Metadata(resume_after=written)))
            told = caught.value
            assert (told.status, told.reason, told.retry) == (
                Status.OUT_OF_RANGE,
                "POSITION_LOST",
                Retry.NOT_PROCESSED,
            )


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_does_not_act_on_a_lost_position_by_itself(door: str) -> None:
    """The rule for what was not processed is of lost connections: ``stream`` tells its program."""
    log = Log(9, forgotten=6)
    with client_at(log.handlers(), door) as client, pytest.raises(CallError, match="POSITION_LOST"):
        list(client.stream(NUMBERED, LogRequest(upto=9), metadata=Metadata(resume_after=b"1")))
    assert log.begun == [1]


class Refusing:
    """Handlers that answer with errors in turn, each after some items."""

    def __init__(self, *answers: tuple[int, CallError]) -> None:
        self.answers = list(answers)
        self.begun: list[object] = []

    def handlers(self) -> Handlers:
        handlers = Handlers(LOGS)

        @handlers.register(NUMBERED)
        def read(request: LogRequest, context: Context) -> Iterator[Numbered]:
            self.begun.append(context.resume_after)
            items, error = self.answers.pop(0)
            for n in range(items):
                yield Numbered(cursor=100 * len(self.begun) + n)
            raise error

        return handlers


def unavailable() -> CallError:
    return CallError(Status.UNAVAILABLE, "", "come back", retry=Retry.MAYBE_PROCESSED)


@pytest.mark.parametrize("door", DOORS)
def test_unavailable_opens_the_stream_again_and_nothing_else_does(door: str) -> None:
    """Another status is the program's."""
    handlers = Refusing((2, unavailable()), (1, CallError(Status.ABORTED, "", "no more")))
    with (
        client_at(handlers.handlers(), door) as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        seen = [next(items) for _ in range(3)]
        with pytest.raises(CallError, match="no more"):
            next(items)
        with pytest.raises(StopIteration):
            next(items)
    assert texts(seen) == [100, 101, 200]
    assert handlers.begun == [None, 101]


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_without_items_is_opened_ten_times_again(door: str) -> None:
    """Then the last loss is told. An item begins the count anew, and each opening without a position may be a gap."""
    handlers = Refusing((1, unavailable()), *[(0, unavailable())] * (REOPENINGS + 1))
    with (
        client_at(handlers.handlers(), door) as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        assert next(items) == Numbered(cursor=100)
        with pytest.raises(CallError, match="come back"):
            next(items)
        assert items.reopened == REOPENINGS
    assert handlers.begun == [None, *[100] * REOPENINGS]


def test_a_gap_is_said_again_for_each_opening_without_a_position() -> None:
    """Behind a gap there is nothing to go on behind, so what was missed since is another one."""
    lost = CallError(Status.OUT_OF_RANGE, "POSITION_LOST", "gone", retry=Retry.NOT_PROCESSED)
    handlers = Refusing((1, unavailable()), (0, lost), (0, unavailable()), (1, lost))
    with (
        client_at(handlers.handlers(), "msgpack") as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        seen = [next(items) for _ in range(4)]
        assert items.position == 400
        with pytest.raises(CallError, match="POSITION_LOST"):  # nothing was asked for, so it means nothing
            next(items)
    assert texts(seen) == [100, Gap(100), Gap(100), 400]
    assert handlers.begun == [None, 100, None, None]


def test_no_gap_is_said_where_nothing_was_processed() -> None:
    """A server that took no call has given nothing that could be missed."""
    refusal = CallError(Status.UNAVAILABLE, "", "later", retry=Retry.NOT_PROCESSED)
    handlers = Refusing((0, refusal), (0, refusal), (1, CallError(Status.ABORTED)))
    with (
        client_at(handlers.handlers(), "msgpack") as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        assert next(items) == Numbered(cursor=300)


@pytest.mark.parametrize("door", DOORS)
def test_the_time_of_the_stream_counts_through_its_pauses(door: str) -> None:
    """A pause that would outlast the stream is not begun: DEADLINE at once."""
    far = CallError(Status.UNAVAILABLE, "", "in a minute", retry=Retry.MAYBE_PROCESSED, retry_after_ms=60_000)
    handlers = Refusing((1, far))
    with (
        client_at(handlers.handlers(), door) as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        next(items)
        began = time.monotonic()
        with pytest.raises(CallError, match="DEADLINE"):
            next(items)
        assert time.monotonic() - began < PATIENCE / 2
        with pytest.raises(StopIteration):
            next(items)


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
def test_time_that_is_up_while_nobody_asks_is_no_end(door: str) -> None:
    """Whoever comes back behind the time of a stream that was lost is told DEADLINE, not that there was no more."""
    soon = CallError(Status.UNAVAILABLE, "", "soon", retry=Retry.MAYBE_PROCESSED, retry_after_ms=100)
    handlers = Refusing((1, soon))
    with (
        client_at(handlers.handlers(), door) as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=1.0) as items,
    ):
        next(items)
        until = time.monotonic() + 1.0
        assert isinstance(items, Following)
        while not items._lost:
            with pytest.raises(TimeoutError):
                items.next(0.01)
        while (left := until - time.monotonic()) > 0:
            threading.Event().wait(left)
        with pytest.raises(CallError, match="DEADLINE"):
            next(items)
        with pytest.raises(StopIteration):
            next(items)


def test_the_calls_of_one_stream_share_its_time() -> None:
    """Each opening has what is left, and none begins when nothing is."""
    left: list[float | None] = []
    handlers = Handlers(LOGS)

    @handlers.register(NUMBERED)
    def read(request: LogRequest, context: Context) -> Iterator[Numbered]:
        left.append(context.remaining())
        yield Numbered(cursor=1)
        raise CallError(Status.UNAVAILABLE, "", "soon", retry=Retry.MAYBE_PROCESSED, retry_after_ms=50)

    with (
        client_at(handlers, "msgpack") as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        for _ in range(3):
            next(items)
    # Each later one has less by the pause before it, but for the milliseconds in which deadlines are told.
    times = [each for each in [PATIENCE, *left] if each is not None]
    assert len(times) == 4
    assert [before - after >= 0.04 for before, after in pairwise(times[1:])] == [True, True]
    assert times[1] <= PATIENCE


@pytest.mark.parametrize("door", DOORS)
def test_who_may_not_begin_a_stream_may_not_go_on_with_one(door: str) -> None:
    """A position proves nothing: the caller is judged anew for each call, and before its position is."""
    guarded = StreamMethod(
        opcode=9, name="ReadSecret", request=LogRequest, response=Numbered, resumable="cursor", requires="reader"
    )
    service = Service("test.v1.SecretService", methods=[guarded])
    handlers = Handlers(service)
    readers = {"ann"}
    begun: list[object] = []

    @handlers.register(guarded)
    def read(request: LogRequest, context: Context) -> Iterator[Numbered]:
        begun.append(context.resume_after)
        yield Numbered(cursor=1)
        readers.clear()
        raise unavailable()

    def authenticate(metadata: Metadata, peer: str) -> Identity | None:
        return Identity(metadata.authorization, ["reader"] if metadata.authorization in readers else [])

    with served(handlers, door, authenticate=authenticate) as server:
        client: BlockingClient = (
            GrpcClient(server.address, service, authorization="ann")
            if door == "grpc"
            else Client(server.address, service, codec=door, authorization="ann")
        )
        with client, client.follow(guarded, LogRequest(upto=9), timeout=PATIENCE) as items:
            assert next(items) == Numbered(cursor=1)
            with pytest.raises(CallError, match="NOT_PERMITTED"):
                next(items)
            with pytest.raises(CallError, match="NOT_PERMITTED"):
                list(client.stream(guarded, LogRequest(upto=9), metadata=Metadata(resume_after=b"no position")))
    assert begun == [None]


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
def test_patience_ends_a_wait_and_not_the_stream(door: str) -> None:
    """A ``next`` with a time limit says so in a pause as it does between items, and the stream goes on."""
    soon = CallError(Status.UNAVAILABLE, "", "soon", retry=Retry.MAYBE_PROCESSED, retry_after_ms=300)
    handlers = Refusing((1, soon), (1, CallError(Status.ABORTED)))
    with (
        client_at(handlers.handlers(), door) as client,
        client.follow(NUMBERED, LogRequest(upto=9), timeout=PATIENCE) as items,
    ):
        assert items.next(PATIENCE) == Numbered(cursor=100)
        with pytest.raises(TimeoutError):
            items.next(0.01)
        assert items.next(PATIENCE) == Numbered(cursor=200)
        items.acknowledge()


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
@pytest.mark.parametrize("where", ["in a pause", "between items"])
def test_close_ends_what_waits(door: str, where: str) -> None:
    """A thread that waits for an item, or for the next attempt, sees the end of the stream at once."""
    log = Log(1)
    far = CallError(Status.UNAVAILABLE, "", "in a minute", retry=Retry.MAYBE_PROCESSED, retry_after_ms=60_000)
    handlers = Refusing((1, far)).handlers() if where == "in a pause" else log.handlers()
    with client_at(handlers, door) as client:
        items = client.follow(NUMBERED, LogRequest(upto=9))
        next(items)
        ended = threading.Event()

        def wait() -> None:
            assert list(items) == []
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not ended.wait(0.05)
        items.close()
        assert ended.wait(PATIENCE)
        waiting.join()


def test_a_closed_client_ends_its_streams() -> None:
    """Its program learns that it closed the client, after no more than the first pause."""
    log = Log(1)
    with served(log.handlers(), "msgpack") as server:
        client = client_of("msgpack", server.address)
        items = client.follow(NUMBERED, LogRequest(upto=9))
        next(items)
        client.close()
        with pytest.raises(LocalProtocolError):
            next(items)


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
def test_what_cannot_be_followed_is_refused_at_once(door: str) -> None:
    """Methods without positions, and positions of another type."""
    with client_of(door, "127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="ReadPlain cannot be followed"):
            client.follow(PLAIN, LogRequest(upto=1))
        wrong: Any = LOGS
        with pytest.raises(TypeError, match="StreamMethod"):
            client.follow(wrong, LogRequest(upto=1))
        method: Any
        for method, after in ((NUMBERED, "1"), (COUNTED, -1), (NAMED, b"x"), (MARKED, b"")):
            with pytest.raises(EncodeError, match="cursor"):
                client.follow(method, LogRequest(upto=1), after=after)
        with pytest.raises(ConnectionLost):
            list(client.follow(NUMBERED, LogRequest(upto=1), after=1, timeout=PATIENCE))


@pytest.mark.parametrize("door", DOORS)
def test_an_item_without_a_position_is_no_item(door: str) -> None:
    """A server does not send what nobody could go on behind: its log has the reason."""
    handlers = Handlers(LOGS)
    item: Callable[[str], Any] = lambda cursor: ITEMS[NAMED](1).__class__(text="", cursor=cursor)  # noqa: E731
    handlers.register(NAMED)(lambda request, context: iter([item("x" * 64), item("x" * 65)]))
    with client_at(handlers, door) as client, client.follow(NAMED, LogRequest(upto=9), timeout=PATIENCE) as items:
        assert next(items) == item("x" * 64)
        with pytest.raises(CallError, match="INTERNAL"):
            next(items)


def test_a_client_does_not_take_an_item_without_a_position() -> None:
    """Another server may send one; it is no use to go on without the program's knowing."""
    handlers = Handlers(LOGS)
    handlers.register(MARKED)(lambda request, context: iter([ITEMS[MARKED](1), ITEMS[MARKED](2)]))
    with client_at(handlers, "msgpack") as client, client.follow(MARKED, LogRequest(upto=9), timeout=PATIENCE) as items:
        next(items)
        stream: Any = items
        binding = stream._stream._binding
        decode = binding.decode
        binding.decode = lambda payload: decode(payload).__class__(cursor=b"")
        try:
            with pytest.raises(EncodeError, match="1 to 64"):
                next(items)
        finally:
            binding.decode = decode
        with pytest.raises(StopIteration):
            next(items)
