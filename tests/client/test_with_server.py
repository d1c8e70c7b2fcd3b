"""The client and the real server together."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE
from tests.client.service import (
    COUNT,
    ECHO,
    NEW,
    SERVICE,
    SMALL,
    CountRequest,
    CountResponse,
    EchoRequest,
    EchoResponse,
    NewRequest,
    NewResponse,
    SmallRequest,
    SmallResponse,
    echo,
)
from wireproto import (
    CallError,
    ConnectionLost,
    Context,
    Handlers,
    HandshakeError,
    Limits,
    Message,
    Method,
    Retry,
    Server,
    Service,
    Status,
    connect,
)
from wireproto.client import Backoff
from wireproto.control import CHECK, CheckRequest, Health

CODECS = ["pipe", "msgpack", "protobuf"]


class Stage:
    """Handlers, and the gate at which calls with the text "wait" stop."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.inside = threading.Semaphore(0)
        self.handlers = Handlers(SERVICE)
        register = self.handlers.register

        @register(ECHO)
        def answer(request: EchoRequest, context: Context) -> EchoResponse:
            if request.text == "wait":
                self.inside.release()
                assert self.gate.wait(PATIENCE)
            if request.text == "size":
                return EchoResponse(text="y" * 10_240)
            return EchoResponse(text=request.text.upper() if request.loud else request.text)

        @register(COUNT)
        def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
            for n in range(request.upto):
                yield CountResponse(n=n)

        @register(NEW)
        def new(request: NewRequest, context: Context) -> NewResponse:
            return NewResponse()

        @register(SMALL)
        def small(request: SmallRequest, context: Context) -> SmallResponse:
            context.abort(Status.NOT_FOUND, "", "no such thing")


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.gate.set()


@pytest.mark.parametrize("codec", CODECS)
def test_everything_in_every_codec(stage: Stage, codec: str) -> None:
    """Calls, futures, many calls, streams, errors and the framework's own methods."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE, codec=codec) as client:
        assert (client.codec, client.version) == (codec, 2)
        assert client.call(ECHO, EchoRequest(text="hello", loud=True)).text == "HELLO"
        assert client.start(ECHO, echo("x"), timeout=PATIENCE).result(PATIENCE).text == "x"
        texts = [str(n) for n in range(1000)]
        assert [each.text for each in client.call_many(ECHO, map(echo, texts))] == texts
        for credit, batch in ((1, 1), (64, 32)):
            stream = client.stream(COUNT, CountRequest(upto=500), credit=credit, batch=batch)
            assert [item.n for item in stream] == list(range(500))
        with pytest.raises(CallError, match="no such thing"):
            client.call(SMALL, SmallRequest(text="x"), timeout=PATIENCE)
        assert client.call(CHECK, CheckRequest()).health is Health.SERVING
        assert 0 < client.ping(PATIENCE) < PATIENCE


def test_an_old_client_and_a_new_server(stage: Stage) -> None:
    """A client of version 1 is served; what version 1 lacks is not sent."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE, version=1) as client:
        assert client.version == 1
        assert client.call(ECHO, echo("x")).text == "x"
        with pytest.raises(CallError, match="since version 2"):
            client.call(NEW, NewRequest())


def test_refusals_list_what_there_is(stage: Stage) -> None:
    """Service, codec and contract: the text of each refusal helps."""

    class PingRequest(Message):
        text: bytes

    class PingResponse(Message):
        text: str

    other = Service("test.v1.OtherService", version=1)
    differing = Service(
        SERVICE.full_name,
        version=2,
        methods=[Method(opcode=1, name="Ping", request=PingRequest, response=PingResponse)],
    )
    with Server(stage.handlers, codecs=["pipe"]) as server:
        with pytest.raises(HandshakeError, match=r"hosts: test\.v1\.ClientService"):
            connect(server.address, other, codec="pipe")
        with pytest.raises(HandshakeError, match=r"pipe \(1\)"):
            connect(server.address, SERVICE, codec="msgpack")
        with pytest.raises(HandshakeError, match="0x0001"):
            connect(server.address, differing, codec="pipe")


def test_a_time_limit_reaches_the_server(stage: Stage) -> None:
    """Whoever is first to notice, the call ends in time and the connection goes on."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE) as client:
        for _ in range(5):
            with pytest.raises(CallError) as caught:
                client.call(ECHO, echo("wait"), timeout=0.05)
            assert (caught.value.status, caught.value.reason) == (Status.DEADLINE_EXCEEDED, "DEADLINE")
        stage.gate.set()
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_window_smaller_than_the_work(stage: Stage) -> None:
    """A server that takes four calls at a time serves sixteen threads and two iterators, and refuses nobody."""
    limits = Limits(max_calls=4)
    with (
        Server(stage.handlers, limits=limits) as server,
        connect(server.address, SERVICE) as client,
        ThreadPoolExecutor(18) as pool,
    ):

        def single(thread: int) -> None:
            for n in range(30):
                assert client.call(ECHO, echo(f"{thread}.{n}")).text == f"{thread}.{n}"

        def many(thread: int) -> None:
            texts = [f"{thread}.{n}" for n in range(200)]
            assert [each.text for each in client.call_many(ECHO, map(echo, texts))] == texts

        for task in [pool.submit(single, n) for n in range(16)] + [pool.submit(many, n) for n in range(2)]:
            task.result(PATIENCE)


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_large_answers(stage: Stage, count: int) -> None:
    """Answers of 10 KiB, as fast as they come."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, (echo("size") for _ in range(count)))
        assert sum(len(response.text) == 10_240 for response in responses) == count


def test_cancelled_calls_do_not_cost_the_connection(stage: Stage) -> None:
    """Giving up hundreds of calls at once is no flood."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE) as client:
        for _ in range(3):
            futures = [client.start(ECHO, echo("wait")) for _ in range(20)]
            assert all(future.cancel() for future in futures)
        stage.gate.set()
        for _ in range(3):
            responses = iter(client.call_many(ECHO, (echo(str(n)) for n in range(100_000))))
            assert next(responses).text == "0"
            del responses
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_shutdown_loses_no_call(stage: Stage) -> None:
    """Calls in flight at GOAWAY are answered; those after it are repeated on the next server, or not processed."""
    with Server(stage.handlers) as first, ThreadPoolExecutor(6) as pool:
        client = connect(first.address, SERVICE, backoff=Backoff(0.01, 0.05))
        accepted = [pool.submit(client.call, ECHO, echo("wait")) for _ in range(3)]
        for _ in accepted:
            assert stage.inside.acquire(timeout=PATIENCE)
        down = pool.submit(first.shutdown, PATIENCE)

        def call_for_ever() -> None:
            while True:
                assert client.call(ECHO, echo("x"), timeout=PATIENCE).text == "x"

        with pytest.raises(ConnectionLost) as caught:
            call_for_ever()
        assert caught.value.retry is Retry.NOT_PROCESSED
        stage.gate.set()
        assert [each.result(PATIENCE).text for each in accepted] == ["wait"] * 3
        assert down.result(PATIENCE) == []
        with Server(stage.handlers, port=client.address.port):
            assert client.call(ECHO, echo("again"), timeout=PATIENCE).text == "again"
        client.close()


def test_hundreds_of_streams_need_no_threads(stage: Stage) -> None:
    """Streams that wait for a slow consumer hold no thread of the client."""
    with Server(stage.handlers) as server, connect(server.address, SERVICE) as client:
        before = threading.active_count()
        streams = [client.stream(COUNT, CountRequest(upto=40), credit=4, batch=2) for _ in range(200)]
        assert threading.active_count() <= before + 1
        for n in range(40):
            for stream in streams:
                assert next(stream).n == n
        for stream in streams:
            assert list(stream) == []
