"""Unary calls: one at a time, from many threads, in time and late."""

import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import (
    COUNT,
    ECHO,
    NEW,
    OTHER,
    SERVICE,
    SMALL,
    CountRequest,
    EchoRequest,
    EchoResponse,
    NewRequest,
    SmallRequest,
    echo,
)
from wireproto import (
    CallError,
    Client,
    ConfigError,
    DecodeError,
    EncodeError,
    Limits,
    LocalProtocolError,
    Metadata,
    Retry,
    Status,
    connect,
)
from wireproto.client.calls import Waiter
from wireproto.control import ECHO as CONTROL_ECHO
from wireproto.control import EchoRequest as ControlEchoRequest
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import CancelReceived, PongReceived, RequestReceived


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_a_call_is_answered_in_every_codec(codec: str) -> None:
    """The codec that was asked for is the one that is spoken."""
    with serving(echoing) as server, connect(server.address, SERVICE, codec=codec) as client:
        assert client.call(ECHO, echo("hello")).text == "hello"
        assert (client.codec, client.version) == (codec, 2)


@pytest.mark.plain
def test_codecs_are_offered_in_order_of_preference() -> None:
    """Several codecs may be given; the server chooses."""
    seen = []

    def script(peer: Peer) -> None:
        peer.greet(codec="pipe")
        assert peer.hello is not None
        seen.append([name for _, name in peer.hello.codecs])
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE, codec=["protobuf", "pipe"]) as client:
        assert client.codec == "pipe"
        assert client.call(ECHO, echo("hello")).text == "hello"
    assert seen == [["protobuf", "pipe"]]


def test_answers_in_any_order_reach_their_callers() -> None:
    """Eight threads share one connection; answers come in reverse, and each thread gets its own."""

    def script(peer: Peer) -> None:
        peer.greet()
        for _ in range(20):
            for request in reversed([peer.request() for _ in range(8)]):
                peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(8) as pool:
        barrier = threading.Barrier(8)

        def calls(thread: int) -> list[str]:
            found = []
            for turn in range(20):
                barrier.wait(PATIENCE)
                found.append(client.call(ECHO, echo(f"{thread}.{turn}")).text)
            return found

        for thread, found in enumerate(pool.map(calls, range(8))):
            assert found == [f"{thread}.{turn}" for turn in range(20)]
        assert server.connections == 1


def test_many_threads_hammer_one_connection() -> None:
    """Sixteen threads call as fast as they can, some with time limits; no answer goes astray."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(16) as pool:

        def calls(thread: int) -> None:
            for turn in range(150):
                text = f"{thread}.{turn}" * (turn % 50)
                timeout = PATIENCE if turn % 3 == 0 else None
                assert client.call(ECHO, echo(text), timeout=timeout).text == text

        list(pool.map(calls, range(16)))
        assert server.connections == 1


def test_the_lead_is_handed_over() -> None:
    """The caller that receives leaves with its answer; at once another one that waits receives on."""
    waiting = threading.Semaphore(0)
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        first = peer.request()
        waiting.release()
        rest = [peer.request() for _ in range(3)]
        peer.answer(first)
        assert go.wait(PATIENCE)
        for request in rest:
            peer.answer(request)
        peer.until_gone()

    threads: set[int] = set()

    def call(text: str) -> str:
        threads.add(threading.get_ident())
        return client.call(ECHO, echo(text)).text

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(4) as pool:
        leader = pool.submit(call, "first")
        assert waiting.acquire(timeout=PATIENCE)
        others = [pool.submit(call, str(n)) for n in range(3)]
        assert leader.result(PATIENCE) == "first"
        deadline = time.monotonic() + PATIENCE
        while "_receive" not in {sys._current_frames()[thread].f_code.co_name for thread in threads}:
            assert time.monotonic() < deadline, "nobody took the lead"
        go.set()
        assert [each.result(PATIENCE) for each in others] == ["0", "1", "2"]


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_request_larger_than_the_kernel_takes(timeout: float | None) -> None:
    """A caller that has to wait for room to write goes on writing, though nothing comes in meanwhile."""
    text = "x" * 12_000_000

    def script(peer: Peer) -> None:
        peer.connection = Connection(Role.SERVER, Limits(max_frame=16 * 1024 * 1024))
        peer.greet(max_frame=16 * 1024 * 1024)
        peer.answer(peer.request(), "got it")
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo(text), timeout=timeout).text == "got it"


def test_a_late_answer_is_dropped_and_the_connection_lives() -> None:
    """A call that times out says so, tells the server, and its answer disturbs nobody."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        late = peer.request()
        assert isinstance(late.metadata, Metadata)
        assert late.metadata.deadline_ms is not None
        assert 0 < late.metadata.deadline_ms <= 50
        assert peer.expect(CancelReceived).call_id == late.call_id
        cancelled.set()
        peer.answer(late)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError) as caught:
            client.call(ECHO, echo("late"), timeout=0.05)
        assert (caught.value.status, caught.value.reason) == (Status.DEADLINE_EXCEEDED, "DEADLINE")
        assert caught.value.retry is Retry.MAYBE_PROCESSED
        assert cancelled.wait(PATIENCE)
        assert client.call(ECHO, echo("next")).text == "next"
        assert server.connections == 1


def test_a_time_out_within_a_frame_keeps_what_was_received() -> None:
    """The half of an answer that came before the time-out and the half that comes after it make one frame."""
    timed_out = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        slow = peer.request()
        before, after = peer.half(slow, "never seen")
        peer.sock.sendall(before)
        assert timed_out.wait(PATIENCE)
        peer.sock.sendall(after)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="DEADLINE"):
            client.call(ECHO, echo("slow"), timeout=0.05)
        timed_out.set()
        assert client.call(ECHO, echo("next")).text == "next"
        assert server.connections == 1


def test_a_parked_caller_times_out_while_another_receives() -> None:
    """The time limit of a call holds although another thread does the receiving."""
    received = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        first = peer.request()
        received.set()
        peer.request()
        peer.expect(CancelReceived)
        peer.answer(first)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        leader = pool.submit(client.call, ECHO, echo("first"))
        assert received.wait(PATIENCE)
        with pytest.raises(CallError, match="DEADLINE"):
            client.call(ECHO, echo("second"), timeout=0.05)
        assert leader.result(PATIENCE).text == "first"


def test_the_methods_own_time_limit_holds() -> None:
    """A method that declares a time limit passes it on to calls that bring none."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="DEADLINE"):
            client.call(SMALL, SmallRequest(text="x"))
        with pytest.raises(CallError, match="DEADLINE"):
            client.call(ECHO, echo("x"), metadata=Metadata(deadline_ms=20))


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_time_limit_of_nothing_is_refused(timeout: float) -> None:
    """A time limit must be above zero, wherever one is given."""
    with pytest.raises(ValueError, match="above 0"):
        connect("127.0.0.1:1", SERVICE, timeout=timeout)
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        for attempt in (
            lambda: client.call(ECHO, echo("x"), timeout=timeout),
            lambda: client.start(ECHO, echo("x"), timeout=timeout),
            lambda: client.call_many(ECHO, [echo("x")], timeout=timeout),
            lambda: client.stream(COUNT, CountRequest(upto=1), timeout=timeout),
            lambda: client.ping(timeout),
        ):
            with pytest.raises(ValueError, match="above 0"):
                attempt()


def test_calls_beyond_the_servers_number_wait_for_a_place() -> None:
    """With two calls in flight allowed, the third is sent when one of them ends, and never refused."""
    go = threading.Event()
    both = threading.Event()
    most = []

    def script(peer: Peer) -> None:
        peer.greet(max_calls=2)
        held = [peer.request(), peer.request()]
        most.append(peer.connection.calls_in_flight)
        both.set()
        assert go.wait(PATIENCE)
        for request in held:
            peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(6)]
        assert both.wait(PATIENCE)
        with pytest.raises(CallError, match="no place"):
            client.call(ECHO, echo("late"), timeout=0.02)
        go.set()
        assert [call.result(PATIENCE).text for call in calls] == [str(n) for n in range(6)]
    assert most == [2]


def test_waiting_for_a_place_in_vain_says_that_nothing_was_sent() -> None:
    """A call that never got a place was not processed, for certain."""
    taken = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1)
        request = peer.request()
        taken.set()
        peer.expect(CancelReceived)
        peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        first = client.start(ECHO, echo("first"))
        assert taken.wait(PATIENCE)
        with pytest.raises(CallError) as caught:
            client.call(ECHO, echo("second"), timeout=0.05)
        assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
        first.cancel()
        assert client.call(ECHO, echo("third")).text == "third"


@pytest.mark.parametrize("waits", ["a caller", "a future"])
@pytest.mark.parametrize("how", ["answered", "refused", "ended"])
def test_a_cancelled_call_keeps_its_place_until_the_server_is_done_with_it(waits: str, how: str) -> None:
    """Whatever the terminal frame says: who waits for a place has it then, and not a moment sooner."""
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1)
        request = peer.stream_request() if how == "ended" else peer.request()
        begun.set()
        assert peer.expect(CancelReceived).call_id == request.call_id
        assert waiting.wait(PATIENCE)
        peer.connection.send_ping(b"in order")
        peer.flush()
        assert isinstance(peer.event(), PongReceived)  # and no REQUEST before it
        if how == "ended":
            peer.connection.send_end(request.call_id)
            peer.flush()
        elif isinstance(request, RequestReceived):
            if how == "answered":
                peer.answer(request)
            else:
                peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    begun = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        if how == "ended":
            stream = client.stream(COUNT, CountRequest(upto=9))
            assert begun.wait(PATIENCE)
            stream.close()
        else:
            first = client.start(ECHO, echo("first"))
            assert begun.wait(PATIENCE)
            assert first.cancel()
        second: Future[EchoResponse]
        if waits == "a caller":
            second = pool.submit(client.call, ECHO, echo("second"))
            while not client._line.links[-1]._places.threads:
                assert not second.done()
        else:
            second = client.start(ECHO, echo("second"))
        waiting.set()
        assert second.result(PATIENCE).text == "second"
        assert server.connections == 1


def test_a_place_granted_to_an_interrupted_caller_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes together with the place must not use it up."""
    taken = threading.Event()
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1)
        request = peer.request()
        taken.set()
        assert go.wait(PATIENCE)
        peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        first = client.start(ECHO, echo("first"))
        assert taken.wait(PATIENCE)
        link = client._line.link(None)
        really_await = link._await

        def interrupted(waiter: Waiter, gate: Any, deadline: float | None) -> None:
            go.set()
            really_await(waiter, gate, deadline)
            assert waiter.done
            raise KeyboardInterrupt

        monkeypatch.setattr(link, "_await", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.call(ECHO, echo("second"))
        monkeypatch.undo()
        assert first.result(PATIENCE).text == "first"
        assert client.call(ECHO, echo("third"), timeout=PATIENCE).text == "third"


@pytest.mark.parametrize("why", ["interrupted", "too large"])
def test_a_place_that_is_passed_on_reaches_a_caller_that_leads(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Whoever is next in line may be asleep as the one that receives for all, and nothing else would come for it."""
    taken = threading.Event()
    go = threading.Event()
    queued = {name: threading.Event() for name in ("first in line", "next in line")}
    asleep = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1, max_frame=4096)
        request = peer.request()
        taken.set()
        assert go.wait(PATIENCE)
        peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        running = client.start(ECHO, echo("running"))
        assert taken.wait(PATIENCE)
        link = client._line.link(None)
        really_await, really_sleep = link._await, link._sleep

        def awaiting(waiter: Waiter, gate: Any, deadline: float | None) -> None:
            name = threading.current_thread().name
            queued[name].set()
            really_await(waiter, gate, deadline)
            if name == "first in line":
                assert waiter.done
                assert asleep.wait(PATIENCE)
                if why == "interrupted":
                    raise KeyboardInterrupt

        def sleeping(deadline: float | None) -> None:
            if threading.current_thread().name == "next in line":
                asleep.set()
            really_sleep(deadline)

        monkeypatch.setattr(link, "_await", awaiting)
        monkeypatch.setattr(link, "_sleep", sleeping)

        def named(name: str) -> None:
            threading.current_thread().name = name

        def first() -> None:
            with pytest.raises(KeyboardInterrupt if why == "interrupted" else CallError):
                client.call(ECHO, echo("x" * 8192), timeout=PATIENCE)

        with (
            ThreadPoolExecutor(1, initializer=named, initargs=("first in line",)) as one,
            ThreadPoolExecutor(1, initializer=named, initargs=("next in line",)) as two,
        ):
            passing = one.submit(first)
            assert queued["first in line"].wait(PATIENCE)
            receiving = two.submit(client.call, ECHO, echo("next"), timeout=PATIENCE / 2)
            assert queued["next in line"].wait(PATIENCE)
            go.set()
            passing.result(PATIENCE)
            assert receiving.result(PATIENCE).text == "next"
        assert running.result(PATIENCE).text == "running"


def test_a_method_of_a_later_version_is_not_sent() -> None:
    """The client knows what the version spoken lacks, and says since when it is there."""

    def script(peer: Peer) -> None:
        peer.greet(version=1)
        assert peer.message(peer.request()).text == "only this"
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="since version 2") as caught:
            client.call(NEW, NewRequest())
        assert (caught.value.status, caught.value.retry) == (Status.UNIMPLEMENTED, Retry.NEVER)
        with pytest.raises(EncodeError, match="loud"):
            client.call(ECHO, EchoRequest(text="x", loud=True))
        with pytest.raises(CallError, match="DEADLINE"):
            client.call(ECHO, echo("only this"), timeout=0.05)


def test_an_older_version_can_be_asked_for() -> None:
    """``version`` is the newest that is offered."""
    with serving(echoing) as server, connect(server.address, SERVICE, version=1) as client:
        assert client.version == 1
    with pytest.raises(ConfigError, match="versions 1 to 2"):
        connect(server.address, SERVICE, version=3)


def test_the_frameworks_own_methods_are_on_every_connection() -> None:
    """Health, reflection and echo can be called whatever the service is."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        assert request.opcode == CONTROL_ECHO.opcode
        peer.connection.send_response(request.call_id, request.payload)  # its messages are alike
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.call(CONTROL_ECHO, ControlEchoRequest(payload=b"x")).payload == b"x"


def test_another_services_method_is_refused() -> None:
    """A method with the same opcode is not the same method."""
    with (
        serving(echoing) as server,
        connect(server.address, SERVICE) as client,
        pytest.raises(LocalProtocolError, match=r"no method of test\.v1\.ClientService"),
    ):
        client.call(OTHER, NewRequest())


def test_kinds_of_methods_are_not_mixed_up() -> None:
    """What the type checker refuses is refused at run time, too."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        method: Any = COUNT
        for wrong in (client.call, client.start, client.call_many):
            with pytest.raises(TypeError, match=r"client\.stream"):
                wrong(method, echo())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"client\.call"):
            client.stream(ECHO, echo())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"'Echo' is no Method; give the object"):
            client.call("Echo", echo())  # type: ignore[arg-type]


def test_an_error_answer_is_raised_as_it_came() -> None:
    """Status, reason, text and advice are the server's own."""

    def script(peer: Peer) -> None:
        peer.greet()
        error = CallError(
            Status.ABORTED, "TRY_AGAIN", "somebody was quicker", retry=Retry.NOT_PROCESSED, retry_after_ms=70
        )
        peer.refuse(peer.request(), error)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError) as caught:
            client.call(ECHO, echo("x"))
        error = caught.value
        assert (error.status, error.reason, error.message) == (Status.ABORTED, "TRY_AGAIN", "somebody was quicker")
        assert (error.retry, error.retry_after_ms) == (Retry.NOT_PROCESSED, 70)
        assert client.call(ECHO, echo("y")).text == "y"


def test_an_answer_that_means_nothing_fails_its_call_only() -> None:
    """A response that cannot be decoded is a DecodeError of that caller; the connection goes on."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.connection.send_response(peer.request().call_id, b"\xff nonsense")
        peer.flush()
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(DecodeError):
            client.call(ECHO, echo("x"))
        assert client.call(ECHO, echo("y")).text == "y"
        assert server.connections == 1


def test_a_request_too_large_is_not_sent() -> None:
    """Neither over the server's frame limit nor over the method's own."""

    def script(peer: Peer) -> None:
        peer.greet(max_frame=4096).serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="the server accepts 4096") as caught:
            client.call(ECHO, echo("x" * 5000))
        assert (caught.value.status, caught.value.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
        with pytest.raises(CallError, match="at most 100"):
            client.call(SMALL, SmallRequest(text="x" * 101))
        with pytest.raises(EncodeError):
            client.call(ECHO, EchoRequest(text=7))  # type: ignore[arg-type]
        assert client.call(ECHO, echo("y")).text == "y"


def test_metadata_travels() -> None:
    """Entries, the named fields and the client's own credential arrive; the call's credential goes first."""
    seen: list[Metadata] = []

    def script(peer: Peer) -> None:
        peer.greet()
        while isinstance(event := peer.event(), RequestReceived):
            assert isinstance(event.metadata, Metadata)
            seen.append(event.metadata)
            peer.answer(event)

    with serving(script) as server, connect(server.address, SERVICE, authorization="Bearer ours") as client:
        client.call(ECHO, echo())
        client.call(ECHO, echo(), metadata={"colour": "blue", "idempotency-key": "k1"})
        client.call(ECHO, echo(), metadata={"authorization": "Bearer other"}, timeout=9)
        client.call(ECHO, echo(), metadata=Metadata(idempotency_key=b"k2", traceparent="00-1-2-03"))
        client.call(ECHO, echo(), timeout=9)
        client.authorization = ""
        client.call(ECHO, echo())
        with pytest.raises(EncodeError, match="authorization"):
            client.authorization = "line\nbreak"
        with pytest.raises(EncodeError, match="entries"):
            client.call(ECHO, echo(), metadata={"Not A Name": ""})
    plain, entries, own, full, timed, none = seen
    assert plain == Metadata(authorization="Bearer ours")
    assert entries == Metadata(authorization="Bearer ours", idempotency_key=b"k1", entries={"colour": "blue"})
    assert own.authorization == "Bearer other"
    assert own.deadline_ms is not None
    assert 8000 < own.deadline_ms <= 9000
    assert full == Metadata(authorization="Bearer ours", idempotency_key=b"k2", traceparent="00-1-2-03")
    assert timed.authorization == "Bearer ours"
    assert timed.deadline_ms
    assert none == Metadata()


def test_a_ping_comes_back() -> None:
    """``ping`` gives the seconds it took, and says when there was no answer."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        began = time.monotonic()
        assert 0 < client.ping(PATIENCE) <= time.monotonic() - began

    def deaf(peer: Peer) -> None:
        peer.greet()
        while peer.sock.recv(65_536):
            pass

    with (
        serving(deaf) as server,
        connect(server.address, SERVICE) as client,
        pytest.raises(CallError, match="no PONG"),
    ):
        client.ping(0.05)


def test_a_client_can_be_made_before_its_server() -> None:
    """``Client`` connects with the first call."""
    with serving(echoing) as server:
        client = Client(server.address, SERVICE, codec="pipe")
        assert (client.codec, client.version, server.connections) == ("pipe", 0, 0)
        assert "127.0.0.1" in repr(client)
        assert client.call(ECHO, echo("x")).text == "x"
        client.close()
        assert "closed" in repr(client)
