"""The workers: who leads, who is deposed, and what never gets lost or stops them."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import (
    BLOCK,
    COUNT,
    ECHO,
    SERVICE,
    STALL,
    BlockRequest,
    BlockResponse,
    CountRequest,
    CountResponse,
    EchoRequest,
    EchoResponse,
    Stage,
    StallRequest,
    StallResponse,
)
from wireproto.answering.call import Call
from wireproto.answering.pace import PROVEN, SLOW
from wireproto.answering.pool import Pool, Worker
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.server import Server
from wireproto.server.poller import LookingPoller
from wireproto.server.session import Session
from wireproto.wire.events import ResponseReceived
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Payload


@pytest.fixture
def pool() -> Iterator[Pool]:
    poller = LookingPoller()
    made = Pool(
        size=4,
        queue_limit=10,
        poller=poller,
        on_events=lambda worker, events: None,
        on_slow_turn=lambda: None,
        on_tick=lambda late: None,
        on_stuck=lambda session: None,
    )
    made.start()
    yield made
    assert made.stop(threading.TIMEOUT_MAX) == []
    poller.close()


def test_a_job_that_is_withdrawn_is_not_run_and_leaves_its_place(pool: Pool) -> None:
    """It is taken out of the run queue; one that a worker has, or nobody ever had, is no news."""
    gate = threading.Event()
    ran: list[str] = []

    class Job:
        def __init__(self, name: str) -> None:
            self.name = name
            self.begun = threading.Event()

        def run_blocking(self) -> None:
            self.begun.set()
            assert gate.wait(30)
            ran.append(self.name)

    until(lambda: len(pool._parked) == 3, "the followers are there")
    busy = [Job(f"busy {number}") for number in range(2)]  # one is kept back
    for job in busy:
        assert pool.submit(job)
        assert job.begun.wait(10)
    queued = [Job(f"{number}") for number in range(10)]
    assert all(pool.submit(job) for job in queued)
    assert not pool.submit(Job("one too many"))
    pool.withdraw(queued[3])
    pool.withdraw(queued[3])
    pool.withdraw(busy[0])
    pool.withdraw(Job("a stranger"))
    assert pool.submit(Job("another"))
    gate.set()
    expected = ["busy 0", "busy 1", *(job.name for job in queued if job is not queued[3]), "another"]
    until(lambda: len(ran) == len(expected), "the others are run")
    assert sorted(ran) == sorted(expected)


def test_a_deposed_leader_on_its_way_to_poll_is_woken_by_the_stop() -> None:
    """The wake that ends the pool is there for a second waiter, too, however late it comes."""

    class Held(LookingPoller):
        """Holds the first thread that polls until it is let go."""

        def __init__(self) -> None:
            super().__init__()
            self.first: list[threading.Thread] = []
            self.there = threading.Event()
            self.go = threading.Event()

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            if not self.first:
                self.first.append(threading.current_thread())
                self.there.set()
                assert self.go.wait(30)
            return super().poll(timeout)

    poller = Held()
    pool = Pool(
        size=4,
        queue_limit=10,
        poller=poller,
        on_events=lambda worker, events: None,
        on_slow_turn=lambda: None,
        on_tick=lambda late: None,
        on_stuck=lambda session: None,
    )
    pool.start()
    assert poller.there.wait(10)
    leader = pool.leader
    assert leader is poller.first[0]
    leader.running = pool  # as if the watchdog had looked a moment before the handler returned
    until(lambda: pool.leader is not leader, "the watchdog deposes the leader")
    leader.running = None
    others = [worker for worker in threading.enumerate() if isinstance(worker, Worker) and worker.pool is pool]
    others.remove(leader)
    late: list[str] = []
    stopping = threading.Thread(target=lambda: late.extend(pool.stop(time.monotonic() + 30)))
    stopping.start()
    for worker in others:
        worker.join(10)
        assert not worker.is_alive()
    poller.go.set()
    stopping.join(10)
    poller.wake()  # only the one that was forgotten still needs it
    assert not stopping.is_alive()
    assert late == []
    poller.close()


def runs(pool: Pool) -> Worker:
    """Post an action and wait for it: the worker that led."""
    done = threading.Event()
    led: list[Worker] = []

    def action(worker: Worker) -> None:
        led.append(worker)
        done.set()

    pool.post(action)
    assert done.wait(10)
    return led[0]


def test_a_leader_deposed_in_its_poll_takes_no_wake_with_it(pool: Pool) -> None:
    """A watchdog that looked a moment too early leaves two threads in the poll; what is posted is run all the same."""
    for _ in range(50):
        leader = runs(pool)
        until(lambda: pool._sleeping, "the leader polls")
        leader.running = object()  # what the watchdog saw before the handler returned
        pool._watching = True  # it may have gone to sleep meanwhile, for the leader was quick
        pool._open_watch_gate()
        until(lambda leader=leader: pool.leader is not leader, "the leader is deposed")  # type: ignore[misc]
        leader.running = None
        for _ in range(5):
            runs(pool)


@pytest.mark.parametrize("error", [ValueError("posted"), IndexError("posted"), SystemExit("posted")])
def test_an_action_that_raises_is_logged_and_stops_nobody(
    error: BaseException, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a posted action raises, the leader leads on and the log says so."""

    def action(worker: Worker) -> None:
        raise error

    pool.post(action)
    runs(pool)  # by another leader, perhaps, while the one it happened to still writes the log
    until(
        lambda: any(record.exc_info and record.exc_info[1] is error for record in caplog.records), "the log has a line"
    )


def test_a_job_that_raises_is_logged_and_stops_nobody(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """A worker survives a job that asks the thread to exit."""

    class Leave:
        def run_blocking(self) -> None:
            raise SystemExit

    before = threading.active_count()
    for _ in range(4):
        assert pool.submit(Leave())
    until(lambda: caplog.text.count("a job failed") == 4, "all have run")
    assert threading.active_count() == before


def test_a_wake_after_the_end_writes_nowhere() -> None:
    """A wake that comes after the poller was closed does not reach a descriptor that took its number."""
    poller = LookingPoller()
    poller.close()
    ours = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    poller.wake()
    poller.close()
    for fd in ours:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
        os.close(fd)


def test_somebody_can_depose_the_leader_though_the_queue_is_never_empty(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """The first worker that returns is kept back before queued calls are run, so that no stall stops the server."""
    peer = connect(serve(workers=4))
    for _ in range(20):
        peer.call(STALL, StallRequest(name=""))
        peer.call(ECHO, EchoRequest())
    for name in ("a", "b"):
        peer.start(BLOCK, BlockRequest(name=name))
        peer.flush()
        assert stage.inside(name).wait(10)
    peer.start(STALL, StallRequest(name="x"))
    peer.flush()
    assert stage.inside("x").wait(10)
    peer.start(BLOCK, BlockRequest(name="c"))
    assert peer.call(ECHO, EchoRequest(text="led")).text == "led"
    stage.gate("a").set()
    assert peer.decode(BLOCK, peer.expect(ResponseReceived).payload).name == "a"
    peer.start(STALL, StallRequest(name="y"))
    peer.flush()
    assert stage.inside("y").wait(10)
    assert peer.call(ECHO, EchoRequest(text="still")).text == "still"


def test_blocking_iterators_leave_a_worker_in_the_smallest_pool_with_a_reserve(connect: Callable[..., Peer]) -> None:
    """With four workers a blocking call is run beside streams that block."""
    gate = threading.Event()
    entered = threading.Event()
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        entered.set()
        assert gate.wait(30)
        yield CountResponse(n=1)

    @handlers.register(BLOCK)
    def block(request: BlockRequest, context: Context) -> BlockResponse:
        return BlockResponse(name=request.name, cancelled=False)

    with Server(handlers, codecs=["msgpack"], workers=4) as server:
        peer = connect(server)
        peer.socket.settimeout(5)
        for _ in range(3):
            peer.start(COUNT, CountRequest(upto=1), Metadata(credit=window(9)))
        peer.flush()
        assert entered.wait(10)
        try:
            assert peer.call(BLOCK, BlockRequest(name="through")).name == "through"
        finally:
            gate.set()


def spin(seconds: float) -> None:
    """Keep the thread busy for at least so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_slow_turn_is_told(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn that took long, and not after a quick one, whoever keeps the methods is told."""
    told: list[None] = []
    monkeypatch.setattr(pool, "_on_slow_turn", lambda: told.append(None))

    def slow_turns(seconds: float) -> int:
        """How many were told of because of one action, and of nothing."""
        before = len(told)
        for length in (seconds, 0.0):  # the second one is in a later turn
            done = threading.Event()

            def action(worker: Worker, length: float = length, done: threading.Event = done) -> None:
                spin(length)
                done.set()

            pool.post(action)
            assert done.wait(10)
        return len(told) - before

    assert slow_turns(2 * SLOW) >= 1
    until(lambda: slow_turns(0.0) == 0, "a turn is quick")


def test_what_ran_before_a_slow_turn_is_timed_the_next_time(stage: Stage) -> None:
    """Methods that ran since the last slow turn are to be timed by themselves, each once; the others are left alone."""
    server = Server(stage.handlers, codecs=["msgpack", "pipe"])
    every = list({entry: None for table in server._tables.values() for entry in table.entries.values()})
    for entry in every:
        entry.pace.wary = False
    ran = every[::3]
    for entry in ran:
        entry.pace.ran = True
    server._suspect()
    assert [entry for entry in every if entry.pace.wary] == ran
    for entry in every:
        entry.pace.wary = False
    server._suspect()
    assert not any(entry.pace.wary for entry in every)


def test_a_method_that_became_slow_is_handed_over(connect: Callable[..., Peer]) -> None:
    """A method with a record of being quick that is slow now, but never stuck, runs on followers after a few calls,
    however seldom it is called."""
    handlers = Handlers(SERVICE)
    led: list[bool] = []

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        if request.text:
            spin(2 * SLOW)
        led.append(threading.current_thread() is server.pool.leader)
        return EchoResponse(text="")

    @handlers.register(STALL)
    def other(request: StallRequest, context: Context) -> StallResponse:
        return StallResponse(name="")

    with Server(handlers, codecs=["msgpack"], workers=4) as server:
        peer = connect(server)
        for _ in range(2 * PROVEN):
            peer.call(ECHO, EchoRequest())
        for _ in range(20):
            peer.call(ECHO, EchoRequest(text="slow"))
            if not led[-1]:
                break
            for _ in range(40):
                peer.call(STALL, StallRequest(name=""))
        assert not led[-1]


def test_a_method_that_was_stuck_is_slow_from_then_on(
    stage: Stage, server: Server, connect: Callable[..., Peer]
) -> None:
    """A method with a record of being quick, in which a leader was deposed, runs on followers from its next call on."""
    (entry,) = (table.entries[STALL.opcode] for table in server._tables.values() if STALL.opcode in table.entries)
    peer, other = connect(server), connect(server)
    for _ in range(2 * PROVEN):
        peer.call(STALL, StallRequest(name=""))
    peer.start(STALL, StallRequest(name="x"))
    peer.flush()
    assert stage.inside("x").wait(10)
    assert other.call(ECHO, EchoRequest(text="on")).text == "on"  # somebody else leads
    stage.gate("x").set()
    peer.expect(ResponseReceived)
    until(lambda: not entry.pace.quick, "the method counts as slow")


def test_a_leader_that_waits_behind_its_handler_blames_nobody() -> None:
    """A call whose handler has returned is none that the leader can be stuck in."""
    seen: list[object] = []

    class Answered(Session):
        """A session whose answers are looked at before they are sent."""

        __slots__ = ()

        def settle(self, call: Call, outcome: Payload | CallError, last: bool = False) -> None:
            seen.append(self.pool.leader.running if self.pool.leader is not None else None)
            super().settle(call, outcome, last)

    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        leader = server.pool.leader
        seen.append(leader is not None and leader.running is context)
        return EchoResponse(text="")

    with Server(handlers, codecs=["msgpack"]) as server, Peer(server, SERVICE) as peer:
        (session,) = server.sessions.values()
        session.__class__ = Answered
        for _ in range(2 * PROVEN):  # by the clock at first, and without it then
            peer.call(ECHO, EchoRequest())
    assert seen == [True, None] * (2 * PROVEN)


def test_a_stall_in_quiet_times_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, server: Server, connect: Callable[..., Peer]
) -> None:
    """While nothing was slow for long the watchdog looks less often, and still deposes a leader that is stuck."""
    monkeypatch.setattr("wireproto.answering.watch.QUIET", -1.0)
    peer, other = connect(server), connect(server)
    peer.call(STALL, StallRequest(name=""))
    peer.start(STALL, StallRequest(name="x"))
    peer.flush()
    assert stage.inside("x").wait(10)
    assert other.call(ECHO, EchoRequest(text="on")).text == "on"


def test_a_session_that_breaks_is_closed_and_spoils_nothing(
    server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in our own code ends the connection it happened on, once, instead of being repeated for ever."""
    peer = connect(server)
    session = next(iter(server.sessions.values()))
    other = connect(server)

    class Broken(Session):
        __slots__ = ()

        def on_event(self, worker: Worker, mask: int) -> None:
            raise RuntimeError("ours")

    session.__class__ = Broken
    peer.socket.sendall(b"x")
    until(lambda: session.transport.closed, "the session is closed")
    assert other.call(ECHO, EchoRequest(text="on")).text == "on"
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
