"""The life of both doors: started once, shut down once, and what is asked for besides is refused or changes nothing."""

import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import until
from tests.server.service import BLOCK, ECHO, SERVICE, BlockRequest, EchoRequest, Stage
from wireproto.client import Client
from wireproto.client.grpc import GrpcClient
from wireproto.errors import ConfigError
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.server.life import Life

PATIENCE = 20.0

Door = Server | GrpcGateway
Make = Callable[[], Door]


@pytest.fixture(params=[Server, GrpcGateway])
def make(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Make]:
    """Makes doors of one kind; afterwards nothing of them may be left."""
    threads = set(threading.enumerate())
    made: list[Door] = []

    def one(port: int = 0) -> Door:
        made.append(request.param(stage.handlers, port=port, workers=4))
        return made[-1]

    yield one
    stage.open_gates()
    for door in made:
        assert door.shutdown(PATIENCE) == []
    until(lambda: set(threading.enumerate()) <= threads, "no thread is left", PATIENCE)


def echoes(door: Door) -> bool:
    """Whether the door serves."""
    address = door.address
    kind = Client if isinstance(door, Server) else GrpcClient
    with kind(address, SERVICE) as client:
        return client.call(ECHO, EchoRequest(text="here"), timeout=PATIENCE).text == "here"


def test_a_door_is_started_once(make: Make) -> None:
    """A second start is refused in words; address, listener and calls are those of the first."""
    door = make()
    door.start()
    address = door.address
    for _ in range(3):
        with pytest.raises(ConfigError, match=r"was started already, and goes on"):
            door.start()
        assert door.address == address
        assert echoes(door)
    assert door.shutdown(PATIENCE) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, timeout=PATIENCE)


def test_of_many_that_start_it_one_does(make: Make) -> None:
    """Threads that start one door at the same time get one listener, and as many refusals as there are others."""
    door = make()
    together = threading.Barrier(8)
    refusals: list[str] = []

    def start() -> None:
        together.wait(PATIENCE)
        try:
            door.start()
        except ConfigError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(refusals) == 7
    assert all("was started already" in text for text in refusals)
    assert echoes(door)


def test_a_door_that_was_shut_down_is_over(make: Make) -> None:
    """It is not started again, and its end may be asked for as often as one likes."""
    door = make()
    with door:
        assert echoes(door)
    assert door.shutdown() == door.shutdown() == []
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"was shut down and serves no more; make another one"):
            door.start()


def test_an_end_before_the_start_holds(make: Make) -> None:
    """A shutdown that comes first, of a signal's handler say, is not forgotten, and waits for nothing."""
    door = make()
    assert door.shutdown(PATIENCE) == door.shutdown(PATIENCE) == []
    with pytest.raises(ConfigError, match="was shut down"):
        door.start()


def test_a_start_that_failed_may_be_tried_again(make: Make) -> None:
    """A port that is taken costs the door nothing: no descriptor, no thread, and it starts when the port is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = make(taken.getsockname()[1])  # type: ignore[call-arg]
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(ConfigError, match="is in use"):
                door.start()
        assert len(os.listdir("/proc/self/fd")) == before
    door.start()
    assert echoes(door)


@pytest.mark.parametrize("kind", [Server, GrpcGateway])
@pytest.mark.parametrize("ended", [True, False])
def test_a_door_that_never_started_holds_nothing(kind: type[Door], ended: bool, stage: Stage) -> None:
    """Whether it is shut down or dropped, a door that was only made gives back what it took."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        door = kind(stage.handlers, port=0)
        if ended:
            assert door.shutdown(0) == []
        del door
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_further_shutdown_waits_for_those_who_stayed(make: Make, stage: Stage) -> None:
    """It names who is still inside a handler, and once they have left it says so."""
    door = make()
    door.start()
    kind = Client if isinstance(door, Server) else GrpcClient
    with kind(door.address, SERVICE) as client:
        client.start(BLOCK, BlockRequest(name="b"))
        assert stage.inside("b").wait(PATIENCE)
        (survivor,) = door.shutdown(0.1)
        assert door.shutdown(0.1) == [survivor]
        stage.gate("b").set()
        assert door.shutdown(PATIENCE) == []


def test_shutdowns_at_the_same_time_end_together(make: Make) -> None:
    """All of them return once it is over, and nobody fails."""
    door = make()
    door.start()
    assert echoes(door)
    ends: list[list[str]] = []
    threads = [threading.Thread(target=lambda: ends.append(door.shutdown(PATIENCE))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert ends == [[]] * 6


class Interrupt(BaseException):
    """What a signal's handler may raise at any line."""


def test_a_shutdown_that_was_interrupted_can_be_made_again(
    make: Make, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second Ctrl-C, which comes as an exception, the next call carries the end out."""
    door = make()
    door.start()
    with monkeypatch.context() as patch:

        def interrupt(*arguments: object) -> None:
            raise Interrupt

        patch.setattr(door, "_leave", interrupt)
        with pytest.raises(Interrupt):
            door.shutdown(PATIENCE)
    assert door.shutdown(PATIENCE) == []


# Signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "turns", [60, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=["some", "many"]
)
def test_waiting_is_ended_by_a_handler_that_shuts_down(stage: Stage, turns: int) -> None:
    """A SIGTERM handler may shut the server down on the very thread that waits for it, or that shuts it down itself."""
    ends: list[list[str]] = []
    current: list[Server] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: ends.append(current[0].shutdown(PATIENCE)))
    main = threading.main_thread().ident
    assert main == threading.get_ident()
    try:
        for turn in range(turns):
            server = Server(stage.handlers, codecs=["msgpack"], workers=2)
            current[:] = [server]
            knock = threading.Timer(turn % 12 * 0.0005, signal.pthread_kill, (main, signal.SIGTERM))
            knock.start()
            try:
                server.start()
                if turn % 2:
                    assert server.wait(PATIENCE)
                server.shutdown(PATIENCE)
            except ConfigError as error:
                assert "was shut down" in str(error)  # noqa: PT017 - it may or may not come
            knock.join()
            until(lambda: bool(ends), "the handler has run", PATIENCE)
            assert ends.pop() == []
            assert server.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)


# Threads ----------------------------------------------------------------------------------------------------------

NO_THREADS = """
import resource, threading
from wireproto import Handlers, Server, Service
server = Server(Handlers(Service("quiet.v1.QuietService")), codecs=["pipe"], workers=30)
threading.stack_size(64 * 2**20)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 400 * 2**20,) * 2)
try:
    server.start()
except Exception as error:
    print(type(error).__name__, error)
print(threading.active_count(), server.shutdown(0))
"""


def test_without_threads_the_server_says_so() -> None:
    """Where the system has no more of them, those that were started end, and the text says what to change."""
    done = subprocess.run([sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stdout.splitlines()
    assert first == (
        "ConfigError 30 threads cannot be started: can't start new thread; give fewer workers, or allow more threads"
    )
    assert second == "1 []"


def test_without_descriptors_the_server_says_so(stage: Stage) -> None:
    """A listener that cannot be had is a sentence, and once there is room the server starts."""
    server = Server(stage.handlers, codecs=["msgpack"], workers=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    fill: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fill.append(os.open("/", os.O_RDONLY))
        for _ in range(3):
            with pytest.raises(ConfigError, match=r"Too many open files"):
                server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in fill:
            os.close(each)
    assert len(os.listdir("/proc/self/fd")) == before
    server.start()
    assert server.shutdown(PATIENCE) == []


# The tokens by themselves -----------------------------------------------------------------------------------------


def test_an_end_while_it_starts_is_the_starters() -> None:
    """Whoever starts a door when its end is asked for is told so, and carries it out; the other waits."""
    life = Life("door")
    life.begin()
    assert not life.end()
    assert not life.wait(0)
    with pytest.raises(ConfigError, match="the door was shut down"):
        life.begun()
    assert life.end()
    assert not life.end()
    life.over()
    assert life.wait(0)


def test_an_end_while_it_could_not_be_started_is_over_at_once() -> None:
    """A start that fails leaves nothing to be carried out; whoever waits for the end has it."""
    life = Life("door")
    life.begin()
    assert not life.end()
    life.not_begun()
    assert life.wait()
    with pytest.raises(ConfigError, match="the door was shut down"):
        life.begin()


def test_who_ends_it_does_not_wait_for_itself() -> None:
    """A handler on the thread that carries the end out returns at once; any other thread waits."""
    life = Life("door")
    life.begin()
    life.begun()
    assert life.end()
    assert not life.wait()
    life.interrupted()
    assert life.end()
    life.over()
    assert life.wait()
