"""How calls of a server end when something else does: the connection, a side of it, the time to drain, the room."""

import contextlib
import gc
import queue
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tests.agents.conftest import LIMITS, Branch, Work
from tests.agents.service import AGENTS, ENROL, NOTIFY, REPORT, RUN, TAIL, EnrolRequest, EnrolResponse, Order, Result
from tests.agents.test_calls import GivenLines, Kept, wait_until
from wireproto import (
    CallError,
    Client,
    ConfigError,
    ConnectionLost,
    Context,
    EncodeError,
    Handlers,
    Limits,
    Method,
    Retry,
    Server,
    Service,
    Workers,
    connect,
)
from wireproto.answering.call import Call
from wireproto.answering.pace import PROVEN, Pace
from wireproto.client.agent import Agent
from wireproto.connected import ConnectedClient
from wireproto.wire.metadata import Metadata, pack_metadata


def failure_of(future: Future[Any]) -> CallError:
    error = future.exception(10)
    assert isinstance(error, CallError), error
    return error


def test_a_client_without_handlers_is_called_in_vain(branch: Branch) -> None:
    """It says so in its HELLO, and no call is sent: not processed."""
    agent, client, _ = branch.agent(branch.office(), handlers=None)
    assert agent.answers == 0
    error = failure_of(agent.start(RUN, Order(), timeout=10))
    assert (error.reason, error.retry) == ("NO_HANDLER", Retry.NOT_PROCESSED)
    with pytest.raises(CallError, match="this client answers no calls"):
        agent.post(NOTIFY, Order())
    assert client.ping(10) > 0


def test_a_lost_client_may_have_processed(branch: Branch) -> None:
    """What was sent may have been processed; what waited for a place was not; and the handle says that it is gone."""
    office = branch.office()
    agent, client, work = branch.agent(office, limits=Limits(heartbeat=0, max_calls=2))
    assert agent.answers == 2
    gone = threading.Event()
    agent.on_close(gone.set)
    sent = [agent.start(RUN, Order(text="wait"), timeout=20) for _ in range(2)]
    sink = Kept()
    waits = agent.start(RUN, Order(), timeout=20)
    streamed = agent.stream(TAIL, Order(count=1), sink, timeout=20)
    for _ in sent:
        assert work.waiting.acquire(timeout=10)
    client.close()
    for future in sent:
        error = failure_of(future)
        assert isinstance(error, ConnectionLost)
        assert error.retry is Retry.MAYBE_PROCESSED
    for lost in (waits, streamed):
        assert failure_of(lost).retry is Retry.NOT_PROCESSED
    assert sink.over == 1
    assert gone.wait(10)
    assert not agent.connected
    again = threading.Event()
    agent.on_close(again.set)
    assert again.wait(10)
    assert failure_of(agent.start(RUN, Order(), timeout=10)).retry is Retry.NOT_PROCESSED
    work.gate.set()


def test_calls_wait_for_a_place(branch: Branch) -> None:
    """A client is given as many at a time as it accepts; the others wait in line, and time out there unprocessed."""
    agent, _, work = branch.agent(branch.office(), limits=Limits(heartbeat=0, max_calls=1))
    first = agent.start(RUN, Order(text="wait"), timeout=20)
    second = agent.start(RUN, Order(text="second"), timeout=20)
    late = agent.start(RUN, Order(text="late"), timeout=0.05)
    error = failure_of(late)
    assert (error.reason, error.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
    assert not first.done()
    given_up = agent.start(RUN, Order(), timeout=20)
    assert given_up.cancel()
    work.gate.set()
    assert second.result(10).text == "SECOND"


def test_metadata_that_cannot_be_written_is_refused_at_once(branch: Branch) -> None:
    """A call whose metadata is too long with its deadline never waits for a place; the calls beside it go on."""
    agent, _, work = branch.agent(branch.office(), limits=Limits(heartbeat=0, max_calls=1))
    first = agent.start(RUN, Order(text="wait"), timeout=20)
    assert work.waiting.acquire(timeout=10)
    longest = Metadata(entries={"a": "x" * 65_530})
    assert len(pack_metadata(longest)) == 0xFFFF
    with pytest.raises(EncodeError, match="at most 65535"):
        agent.start(RUN, Order(), timeout=20, metadata=longest)
    second = agent.start(RUN, Order(text="second"), timeout=20)
    work.gate.set()
    assert (first.result(10).text, second.result(10).text) == ("WAIT", "SECOND")


def test_too_many_calls_wait(branch: Branch) -> None:
    """The line is bounded; one more fails at once."""
    office = branch.office(limits=Limits(heartbeat=0, start_queue=2))
    agent, _, work = branch.agent(office, limits=Limits(heartbeat=0, max_calls=1))
    futures = [agent.start(RUN, Order(text="wait"), timeout=20) for _ in range(4)]
    error = failure_of(futures[-1])
    assert (error.reason, error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
    work.gate.set()
    assert [future.result(10).text for future in futures[:3]] == ["WAIT"] * 3


def test_a_client_that_is_busy_says_so(branch: Branch) -> None:
    """With all workers held and a full queue, a call is refused, not processed."""
    with Workers(2, queue=1) as workers:
        agent, client, work = branch.agent(branch.office(), workers=workers)
        futures = [agent.start(RUN, Order(text="wait"), timeout=20) for _ in range(2)]
        assert work.waiting.acquire(timeout=10)
        futures += [agent.start(RUN, Order(text="more"), timeout=20) for _ in range(20)]
        busy = [future for future in futures if future.done() or _fails_soon(future)]
        work.gate.set()
        assert busy
        for future in busy:
            error = failure_of(future)
            assert (error.reason, error.retry) == ("SERVER_BUSY", Retry.NOT_PROCESSED)
        client.close()


def _fails_soon(future: Future[Any]) -> bool:
    with contextlib.suppress(TimeoutError):
        return future.exception(0.2) is not None
    return False


def test_calls_that_are_given_up_do_not_pile_up(branch: Branch) -> None:
    """A client whose workers are all held lets go of calls that its server begins and cancels."""

    def calls() -> int:
        gc.collect()
        return sum(type(each) is Call for each in gc.get_objects())

    with Workers(2) as workers:
        office = branch.office()
        agent, client, work = branch.agent(office, workers=workers, limits=Limits(heartbeat=0, max_calls=4))
        for _ in range(2 * PROVEN):
            agent.call(RUN, Order(), timeout=20)  # from now on known to be quick, so that the leader runs it
        held = [agent.start(RUN, Order(text="wait"), timeout=60) for _ in range(2)]
        for _ in held:
            assert work.waiting.acquire(timeout=10)
        del work.contexts[:]
        (session,) = office.server.sessions.values()
        for _ in range(60):
            assert agent.start(RUN, Order(), timeout=60).cancel()
            wait_until(lambda: session.connection.own_calls == len(held))
        kept = calls()
        work.gate.set()
        assert [future.result(10).text for future in held] == ["WAIT"] * 2
        client.close()
    assert kept < 30


def test_one_way_calls_have_credit(branch: Branch) -> None:
    """Beyond what the client lets come the server is told at once; credit comes back as the handlers return."""
    agent, _, work = branch.agent(branch.office(), limits=Limits(heartbeat=0, one_way_calls=4))
    work.hold.clear()  # no handler returns, so no credit does
    for _ in range(4):
        agent.post(NOTIFY, Order(text="x"))
    with pytest.raises(CallError) as caught:
        agent.post(NOTIFY, Order(text="x"))
    work.hold.set()
    assert (caught.value.reason, caught.value.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
    for _ in range(4):
        assert work.noted.acquire(timeout=10)

    def goes() -> bool:
        try:
            agent.post(NOTIFY, Order(text="again"))
        except CallError:
            return False
        return True

    wait_until(goes)


def test_a_client_that_drains_finishes_what_it_has(branch: Branch) -> None:
    """close(drain=) says GOAWAY first: calls in flight are answered, later ones are refused, not processed, and
    on_close says so.
    """
    office = branch.office()
    agent, client, work = branch.agent(office)
    running = agent.start(RUN, Order(text="wait"), timeout=20)
    assert work.waiting.acquire(timeout=10)
    gone = threading.Event()
    agent.on_close(gone.set)
    closing = threading.Thread(target=client.close, kwargs={"drain": 10.0})
    closing.start()
    assert gone.wait(10)  # while it still answers
    assert not agent.connected
    error = failure_of(agent.start(RUN, Order(), timeout=10))
    assert (error.reason, error.retry) == ("SHUTTING_DOWN", Retry.NOT_PROCESSED)
    work.gate.set()
    assert running.result(10).text == "WAIT"
    closing.join(10)
    assert not closing.is_alive()


def test_a_client_that_drains_in_vain_ends_its_calls(branch: Branch) -> None:
    """What is not through when the time is over is told to the server."""
    agent, client, work = branch.agent(branch.office())
    running = agent.start(RUN, Order(text="wait"), timeout=20)
    assert work.waiting.acquire(timeout=10)
    client.close(drain=0.2)
    assert failure_of(running).retry is Retry.MAYBE_PROCESSED
    work.gate.set()


def test_a_server_that_drains_still_calls(branch: Branch) -> None:
    """A side that has sent GOAWAY may begin calls: the server's end waits for those, and the client serves on."""
    office = branch.office()
    agent, _, work = branch.agent(office)
    running = agent.start(RUN, Order(text="wait"), timeout=20)
    assert work.waiting.acquire(timeout=10)
    down = threading.Thread(target=office.server.shutdown, args=(10,))
    down.start()
    wait_until(lambda: all(session.draining for session in office.server.sessions.values()))
    more = agent.start(RUN, Order(text="more"), timeout=10)
    assert more.result(10).text == "MORE"
    work.gate.set()
    assert running.result(10).text == "WAIT"
    down.join(10)
    assert not down.is_alive()
    assert not agent.connected


def test_calls_are_cut_off_with_the_server(branch: Branch) -> None:
    """A shutdown does not wait longer than it was told for a client that does not answer."""
    office = branch.office()
    agent, _, work = branch.agent(office)
    running = agent.start(RUN, Order(text="wait"), timeout=60)
    assert work.waiting.acquire(timeout=10)
    assert office.server.shutdown(0.3) == []
    assert failure_of(running).retry is Retry.MAYBE_PROCESSED
    work.gate.set()


def test_calls_behind_the_end_of_the_server_fail(branch: Branch) -> None:
    """A handle outlives its server: each kind of call fails, not processed, and is told so when no worker is left."""
    office = branch.office()
    agent, _, _ = branch.agent(office)
    assert office.server.shutdown(5) == []
    assert failure_of(agent.start(RUN, Order(), timeout=20)).retry is Retry.NOT_PROCESSED
    sink, source, gone = Kept(), GivenLines(1), threading.Event()
    assert failure_of(agent.stream(TAIL, Order(), sink, timeout=20)).retry is Retry.NOT_PROCESSED
    assert sink.over == 1
    assert failure_of(agent.upload(REPORT, source, timeout=20)).retry is Retry.NOT_PROCESSED
    wait_until(lambda: len(source.closed) == 1)
    agent.on_close(gone.set)
    assert gone.wait(10)


def test_a_client_with_handlers_comes_back(branch: Branch) -> None:
    """It opens a lost connection by itself, without any call of its own, and serves on."""
    seen: list[ConnectedClient] = []
    come = threading.Semaphore(0)

    def connected(client: ConnectedClient) -> None:
        seen.append(client)
        come.release()

    office = branch.office(on_client=connected)
    client, _ = branch.client(office)
    for number in range(3):
        assert come.acquire(timeout=20)
        agent = seen[number]
        assert agent.call(RUN, Order(text="dig"), timeout=10).text == "DIG"
        if number < 2:
            for session in list(office.server.sessions.values()):
                session.close("for the test")
    assert client.call(ENROL, EnrolRequest(name="x"), timeout=10) == EnrolResponse(agents=1)


def test_what_on_client_raises_is_logged(branch: Branch, caplog: pytest.LogCaptureFixture) -> None:
    """It costs the client nothing."""

    def connected(client: ConnectedClient) -> None:
        raise KeyError("my own")

    client, _ = branch.client(branch.office(on_client=connected))
    assert client.ping(10) > 0
    wait_until(lambda: any("on_client failed" in record.message for record in caplog.records))


def test_what_on_close_and_close_raise_is_logged(branch: Branch, caplog: pytest.LogCaptureFixture) -> None:
    """It is the application's, and nobody is asked to report it; the next callback is called."""

    def fail() -> None:
        raise KeyError("my own")

    class Fails(GivenLines):
        def close(self, reason: str) -> None:
            super().close(reason)
            raise KeyError("my own")

    agent, client, _ = branch.agent(branch.office())
    gone = threading.Event()
    agent.on_close(fail)
    agent.on_close(gone.set)
    assert agent.upload(REPORT, Fails(3), timeout=10).result(10).count == 3
    client.close()
    assert gone.wait(10)
    wait_until(lambda: "a callback of on_close failed" in caplog.text)
    wait_until(lambda: "closing what a call of Report was sent from failed" in caplog.text)
    assert "please report" not in caplog.text


def test_on_client_is_not_told_of_those_who_have_left(branch: Branch) -> None:
    """An application that is slow to greet is not given a queue of clients that came and went meanwhile."""
    seen: list[ConnectedClient] = []
    busy, go_on = threading.Semaphore(0), threading.Event()

    def connected(client: ConnectedClient) -> None:
        seen.append(client)
        busy.release()
        assert go_on.wait(20)

    office = branch.office(on_client=connected, workers=4)
    held = [branch.client(office) for _ in range(2)]  # of the two workers that may block
    for _ in held:
        assert busy.acquire(timeout=10)
    client, _ = branch.client(office)
    client.close()
    wait_until(lambda: len(office.server.sessions) == len(held))
    last, _ = branch.client(office)
    go_on.set()
    assert busy.acquire(timeout=10)
    assert last.ping(10) > 0
    assert len(seen) == 3
    assert seen[-1].connected


def test_handlers_are_of_the_clients_service(branch: Branch) -> None:
    """Wrong handlers, and too few threads for them, are refused before anything is connected."""
    office = branch.office()
    of_the_server: Any = office.handlers
    with pytest.raises(ConfigError, match="Enrol is called by the client"):
        connect(office.server.address, AGENTS, handlers=of_the_server)
    other = Handlers(AGENTS.as_of(1))
    assert other.service is AGENTS
    with pytest.raises(ConfigError, match="handlers= takes Handlers, not dict"):
        connect(office.server.address, AGENTS, handlers={})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="handlers need at least 2 threads"):
        connect(office.server.address, AGENTS, handlers=Work().handlers, workers=1)
    with pytest.raises(ConfigError, match="its handler would never run here"):
        Server(Work().handlers)


def test_a_dropped_client_leaves_nothing(branch: Branch) -> None:
    """A client that nobody closed does not come back, and its threads end."""
    office = branch.office()
    client = connect(office.server.address, AGENTS, handlers=Work().handlers, limits=LIMITS)
    client.call(ENROL, EnrolRequest(name="a"), timeout=10)
    agent = office.clients["a"]
    with pytest.warns(ResourceWarning, match="unclosed client"):
        del client
    wait_until(lambda: not agent.connected)
    wait_until(lambda: not [each for each in threading.enumerate() if "agent" in each.name])


def agent_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if "agent" in each.name]


def test_a_client_that_never_connected_leaves_nothing(branch: Branch) -> None:
    """Its threads end when it is dropped, and there are none of one that could not be made."""
    client = Client("127.0.0.1:1", AGENTS, handlers=Work().handlers)
    assert agent_threads()
    with pytest.warns(ResourceWarning, match="unclosed client"):
        del client
    wait_until(lambda: not agent_threads())
    with pytest.raises(EncodeError, match="printable ASCII"):
        Client("127.0.0.1:1", AGENTS, handlers=Work().handlers, authorization="\n")
    assert not agent_threads()


def test_shared_workers_forget_closed_clients(branch: Branch) -> None:
    """What they keep of the pace of a client's methods goes with the client."""

    def paces() -> int:
        gc.collect()
        return sum(type(each) is Pace for each in gc.get_objects())

    with Workers(2) as workers:
        before = paces()
        for _ in range(3):
            Client("127.0.0.1:1", AGENTS, handlers=Work().handlers, workers=workers).close()
        assert paces() <= before


def test_a_lost_connection_is_not_kept_until_the_deadlines_of_its_calls(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that others use let go of it soon, however long its server would have waited for an answer."""
    monkeypatch.setattr("wireproto.client.agent.AHEAD", 0.05)

    def agents() -> int:
        gc.collect()
        return sum(type(each) is Agent for each in gc.get_objects())

    office = branch.office()
    with Workers(2) as workers:
        before = agents()
        client = connect(office.server.address, AGENTS, handlers=Work().handlers, limits=LIMITS, workers=workers)
        client.call(ENROL, EnrolRequest(name="a"), timeout=10)
        assert office.clients["a"].call(RUN, Order(text="dig"), timeout=3600).text == "DIG"
        client.close()
        del client
        wait_until(lambda: agents() <= before)


def test_a_deadline_far_ahead_comes(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose alarm comes before the deadline sets another one: its method's own time ends the call."""
    monkeypatch.setattr("wireproto.client.agent.AHEAD", 0.05)
    hurry = Method(opcode=0x20, name="Hurry", request=Order, response=Result, by="server", timeout=0.3)
    service = Service("example.hurry.v1.HurryService", version=1, methods=[hurry])
    seen: queue.Queue[ConnectedClient] = queue.Queue()
    handlers, gate = Handlers(service), threading.Event()

    @handlers.register(hurry)
    def wait(order: Order, context: Context) -> Result:
        assert gate.wait(20)
        return Result()

    with (
        Server(Handlers(service), limits=LIMITS, on_client=seen.put) as server,
        connect(server.address, service, handlers=handlers, limits=LIMITS),
    ):
        asked = seen.get(timeout=10).start(hurry, Order(), timeout=20)
        error = failure_of(asked)
        gate.set()
    assert (error.reason, error.retry) == ("DEADLINE", Retry.MAYBE_PROCESSED)
