"""Calls over gRPC that are made again by themselves: by the rule of the other client, and no others."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from tests.server.peer import until
from tests.server.test_uploads import ADD_UP, ECHO_ALL, NOTE, PLAIN, UPLOADS, Chunk, Sum
from wireproto import CallError, Retry, Status
from wireproto.client.grpc import GrpcClient
from wireproto.client.line import REPEATS
from wireproto.codecs import get
from wireproto.limits import Limits
from wireproto.protos.status import to_rpc_status
from wireproto.reasons import failure

PATIENCE = 30.0
GOING = failure("SHUTTING_DOWN", "this server is going away", retry=Retry.NOT_PROCESSED)
CODEC = get("protobuf")


class Reluctant(grpc.GenericRpcHandler):
    """A server of another make, which refuses so many calls of each method before it does what it is asked."""

    def __init__(self, refusals: int, error: CallError = GOING) -> None:
        self.calls: Counter[str] = Counter()
        self.refusals = refusals
        self.error = error
        self.lock = threading.Lock()
        self.seen = threading.Event()
        self.may_refuse = threading.Event()
        self.may_refuse.set()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name == "Describe":
            return None  # as a server that is none of ours
        kinds: dict[str, Any] = {
            "AddUp": grpc.stream_unary_rpc_method_handler,
            "EchoAll": grpc.stream_stream_rpc_method_handler,
        }
        kind: Any = kinds.get(name, grpc.unary_unary_rpc_method_handler)
        behaviours: dict[str, Any] = {"AddUp": self.add_up, "EchoAll": self.echo, "Note": self.note}
        behave = behaviours.get(name, self.plain)

        def handle(request: Any, context: Any) -> Any:
            self.refuse(name, context)
            return behave(request)

        return kind(handle)

    def refuse(self, name: str, context: Any) -> None:
        with self.lock:
            self.calls[name] += 1
            refused = self.calls[name] <= self.refusals
        self.seen.set()
        if refused:
            assert self.may_refuse.wait(PATIENCE)
            context.abort_with_status(rpc_status.to_status(to_rpc_status(self.error)))

    def plain(self, request: bytes) -> bytes:
        return encoded(Sum(total=1))

    def note(self, request: bytes) -> bytes:
        return b""

    def add_up(self, items: Iterator[bytes]) -> bytes:
        return encoded(Sum(size=len(list(items))))

    def echo(self, items: Iterator[bytes]) -> Iterator[bytes]:
        return iter(list(items))


def encoded(answer: Sum) -> bytes:
    return CODEC.plan(Sum, 1, Limits(), request=False).encode(answer)


@pytest.fixture
def serving() -> Iterator[Callable[[Reluctant], GrpcClient]]:
    """A client of a server that is reluctant."""
    ends: list[Callable[[], object]] = []

    def serve(reluctant: Reluctant) -> GrpcClient:
        pool = ThreadPoolExecutor(4)
        server = grpc.server(pool, handlers=[reluctant])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        client = GrpcClient(("127.0.0.1", port), UPLOADS)
        client.open()
        ends.extend([pool.shutdown, lambda: server.stop(None).wait(PATIENCE), client.close])
        return client

    yield serve
    for end in reversed(ends):
        end()


def posted(client: GrpcClient, timeout: float | None) -> int:
    client.post(NOTE, Chunk(), timeout=timeout)
    return 1


CHUNKS = [Chunk(number=number) for number in range(3)]
CALLS: dict[str, Callable[[GrpcClient], object]] = {
    "Plain": lambda client: client.call(PLAIN, Chunk(), timeout=PATIENCE).total,
    "start": lambda client: client.start(PLAIN, Chunk(), timeout=PATIENCE).result(PATIENCE).total,
    "call_many": lambda client: next(client.call_many(PLAIN, [Chunk()], timeout=PATIENCE)).total,
    "Note": lambda client: posted(client, PATIENCE),
    "post without a time": lambda client: posted(client, None),
    "AddUp": lambda client: client.upload(ADD_UP, CHUNKS, timeout=PATIENCE).size,
    "EchoAll": lambda client: len(list(client.duplex(ECHO_ALL, tuple(CHUNKS), timeout=PATIENCE))),
    "EchoAll, with a time": lambda client: client.duplex(ECHO_ALL, CHUNKS, timeout=PATIENCE).next(PATIENCE).number + 1,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_was_not_looked_at_is_made_again(
    serving: Callable[[Reluctant], GrpcClient], call: Callable[[GrpcClient], Any]
) -> None:
    """As often as by the other client, and then it is answered; one refusal more is told."""
    reluctant = Reluctant(REPEATS)
    assert call(serving(reluctant)) in (1, 3)
    assert set(reluctant.calls.values()) == {REPEATS + 1}
    reluctant = Reluctant(REPEATS + 1)
    with pytest.raises(CallError) as caught:
        call(serving(reluctant))
    assert (caught.value.reason, caught.value.retry) == ("SHUTTING_DOWN", Retry.NOT_PROCESSED)
    assert set(reluctant.calls.values()) == {REPEATS + 1}


OTHERS = [
    failure("SHUTTING_DOWN", "in the middle", retry=Retry.MAYBE_PROCESSED),
    failure("SERVER_BUSY", "try later", retry=Retry.NOT_PROCESSED),
    CallError(Status.ABORTED, "", "a handler's own", retry=Retry.NOT_PROCESSED),
]


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: f"{error.reason}-{error.retry.name}")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_other_calls_are_not_made_again(
    serving: Callable[[Reluctant], GrpcClient], call: Callable[[GrpcClient], Any], error: CallError
) -> None:
    """What may have been processed is the caller's to repeat, and so is what the server's load or a handler refuses."""
    reluctant = Reluctant(1, error)
    with pytest.raises(CallError) as caught:
        call(serving(reluctant))
    assert (caught.value.reason, caught.value.retry) == (error.reason, error.retry)
    assert set(reluctant.calls.values()) == {1}


@pytest.mark.parametrize("name", ["AddUp", "EchoAll"])
def test_items_that_are_gone_are_not_sent_again(serving: Callable[[Reluctant], GrpcClient], name: str) -> None:
    """An iterator that was asked cannot be asked again: its caller is told, and has to know what to do."""
    reluctant = Reluctant(1)
    reluctant.may_refuse.clear()
    client = serving(reluctant)

    def items() -> Iterator[Chunk]:
        yield CHUNKS[0]
        reluctant.may_refuse.set()

    def send() -> None:
        if name == "AddUp":
            client.upload(ADD_UP, items(), timeout=PATIENCE)
        else:
            list(client.duplex(ECHO_ALL, items(), timeout=PATIENCE))

    with pytest.raises(CallError) as caught:
        send()
    assert caught.value.retry is Retry.NOT_PROCESSED
    assert reluctant.calls == {name: 1}


def test_a_call_whose_items_are_sent_one_by_one_is_not_made_again(serving: Callable[[Reluctant], GrpcClient]) -> None:
    """Nobody has kept them."""
    reluctant = Reluctant(1)
    with serving(reluctant).duplex(ECHO_ALL, timeout=PATIENCE) as both, pytest.raises(CallError) as caught:
        next(both)
    assert caught.value.reason == "SHUTTING_DOWN"
    assert reluctant.calls == {"EchoAll": 1}


def test_a_future_that_was_cancelled_is_not_made_again(serving: Callable[[Reluctant], GrpcClient]) -> None:
    """Nobody wants it any more."""
    reluctant = Reluctant(1)
    reluctant.may_refuse.clear()
    client = serving(reluctant)
    future = client.start(PLAIN, Chunk(), timeout=PATIENCE)
    assert reluctant.seen.wait(PATIENCE)
    assert future.cancel()
    reluctant.may_refuse.set()
    assert client.call(PLAIN, Chunk(), timeout=PATIENCE).total == 1
    until(lambda: client._started == 0, "it is not counted any more", PATIENCE)
    assert reluctant.calls == {"Plain": 2}


def test_a_server_that_is_not_there_is_not_asked_again() -> None:
    """One attempt to connect decides, as on the other door: nothing is made again where nobody was reached."""
    client = GrpcClient("127.0.0.1:1", UPLOADS)
    attempts: list[object] = []
    callable_ = client._callable

    def counted(method: object) -> object:
        attempts.append(method)
        return callable_(method)

    client._callable = counted  # type: ignore[method-assign]
    with client, pytest.raises(CallError) as caught:
        client.call(PLAIN, Chunk(), timeout=PATIENCE)
    assert caught.value.retry is Retry.NOT_PROCESSED
    assert len(attempts) == 1
