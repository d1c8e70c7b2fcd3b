"""What a server gets when it calls a client: every shape, both forms of handlers, every codec."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.agents.conftest import Branch
from tests.agents.service import (
    COLLECT,
    CONVERT,
    ENROL,
    NOTIFY,
    REPORT,
    RUN,
    SHELL,
    TAIL,
    EnrolRequest,
    EnrolResponse,
    Line,
    Order,
    Result,
)
from wireproto import CallError, LocalProtocolError, Retry, Sink, Status, StreamMethod, Subscription, Topic

CODECS = ("pipe", "msgpack", "protobuf")
every_codec = pytest.mark.parametrize("codec", CODECS)


class Kept(Sink[Line, None]):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.error: CallError | None = None
        self.over = 0

    def receive(self, item: Line) -> None:
        self.texts.append(item.text)

    def finished(self) -> None:
        self.over += 1

    def failed(self, error: CallError) -> None:
        self.over += 1
        self.error = error


def lines(count: int) -> Iterator[Line]:
    return (Line(text=str(number)) for number in range(count))


@every_codec
def test_every_shape_is_answered(branch: Branch, codec: str) -> None:
    """A server calls each kind of method of a client, in every codec, from a thread of its own."""
    agent, _, work = branch.agent(branch.office(), codec=codec)
    assert (agent.codec, agent.version) == (codec, 1)
    assert agent.call(RUN, Order(text="dig", count=3), timeout=10) == Result(text="DIG", count=3)
    assert agent.start(RUN, Order(text="dig"), timeout=10).result(10).text == "DIG"
    assert [line.text for line in agent.stream(TAIL, Order(text="x", count=3), timeout=10)] == ["x0", "x1", "x2"]
    sink = Kept()
    assert agent.stream(TAIL, Order(text="x", count=300), sink, timeout=10).result(10) is None
    assert (sink.texts, sink.over) == ([f"x{number}" for number in range(300)], 1)
    assert agent.upload(REPORT, lines(1000), timeout=10).result(10).count == 1000
    assert agent.upload(COLLECT, list(lines(100)), timeout=10).result(10).count == 100
    assert [line.text for line in agent.duplex(SHELL, [Line(text="abc"), Line(text="de")], timeout=10)] == ["cba", "ed"]
    sink = Kept()
    agent.duplex(CONVERT, (Line(text=f"n{number}") for number in range(500)), sink, timeout=10).result(10)
    assert sink.texts == [f"N{number}" for number in range(500)]
    for number in range(5):
        agent.post(NOTIFY, Order(text=str(number)))
    for _ in range(5):
        assert work.noted.acquire(timeout=10)
    assert sorted(work.orders) == [str(number) for number in range(5)]  # workers begin them in any order


def test_a_handler_calls_its_caller(branch: Branch) -> None:
    """Within a handler the call is a future, which may be the handler's own answer."""
    office = branch.office()

    def ask(client: Any) -> Future[EnrolResponse]:
        answer: Future[EnrolResponse] = Future()
        answer.set_running_or_notify_cancel()
        asked = client.start(RUN, Order(text="dig", count=7), timeout=10)
        asked.add_done_callback(lambda done: answer.set_result(EnrolResponse(agents=done.result().count)))
        return answer

    office.act = ask
    client, _ = branch.client(office)
    assert client.call(ENROL, EnrolRequest(name="a"), timeout=10) == EnrolResponse(agents=7)


def test_a_handler_cannot_wait_for_a_client(branch: Branch) -> None:
    """Every way to wait is refused on a worker, in words."""
    office = branch.office()
    problems: list[str] = []

    def wait(client: Any) -> None:
        attempts: list[Callable[[], object]] = [
            lambda: client.call(RUN, Order(), timeout=10),
            lambda: client.start(RUN, Order(text="later"), timeout=10).result(),
            lambda: client.start(RUN, Order(text="later"), timeout=10).exception(),
            lambda: client.stream(TAIL, Order(), timeout=10),
        ]
        for attempt in attempts:
            with pytest.raises(LocalProtocolError, match="a handler cannot wait for a client") as caught:
                attempt()
            problems.append(str(caught.value))

    office.act = wait
    branch.agent(office)
    assert len(problems) == 4


def test_handlers_run_on_the_clients_workers(branch: Branch) -> None:
    """Neither the keeper nor a caller of the client runs one; nobody is known there but the server."""
    office = branch.office()
    agent, client, work = branch.agent(office)
    assert agent.call(RUN, Order(text="thread"), timeout=10).text.startswith("wireproto-agent-worker-")
    context = work.contexts[-1]
    assert (context.identity, context.peer, context.version, context.method) == (None, str(client.address), 1, RUN)
    assert context.remaining() is not None
    with pytest.raises(LocalProtocolError, match="this is the client"):
        context.client  # noqa: B018 - a property that raises
    del work.contexts[:], context


def test_an_error_is_told(branch: Branch) -> None:
    """What a client's handler aborts with is what the server's call fails with; items before it come first."""
    agent, _, _ = branch.agent(branch.office())
    with pytest.raises(CallError) as caught:
        agent.call(RUN, Order(text="fail"), timeout=10)
    assert (caught.value.status, caught.value.reason) == (Status.FAILED_PRECONDITION, "BROKEN")
    sink = Kept()
    future = agent.stream(TAIL, Order(text="fail", count=3), sink, timeout=10)
    assert isinstance(future.exception(10), CallError)
    assert (sink.texts, sink.over) == (["fail0", "fail1", "fail2"], 1)
    assert sink.error is not None
    assert sink.error.status is Status.ABORTED
    stream = agent.stream(TAIL, Order(text="fail", count=2), timeout=10)
    assert [next(stream).text, next(stream).text] == ["fail0", "fail1"]
    with pytest.raises(CallError, match="the end is missing"):
        next(stream)
    assert list(stream) == []


def test_a_deferred_answer_is_sent(branch: Branch) -> None:
    """A client's handler may return a future, and holds no worker of the client's."""
    agent, _, work = branch.agent(branch.office(), workers=2)
    futures = [agent.start(RUN, Order(text="later"), timeout=10) for _ in range(8)]
    for _ in futures:
        assert work.waiting.acquire(timeout=10)
    assert agent.call(RUN, Order(text="quick"), timeout=10).text == "QUICK"
    for number, future in enumerate(work.futures):
        future.set_result(Result(count=number))
    assert sorted(future.result(10).count for future in futures) == list(range(8))


def test_a_call_needs_a_timeout(branch: Branch) -> None:
    """A client that never answers must not hold a call for ever: at the deadline it ends, and is told so."""
    agent, _, work = branch.agent(branch.office())
    with pytest.raises(ValueError, match="give Run seconds above 0, or declare it with a timeout"):
        agent.start(RUN, Order())
    with pytest.raises(ValueError, match="timeout is 0"):
        agent.start(RUN, Order(), timeout=0)
    with pytest.raises(CallError) as caught:
        agent.call(RUN, Order(text="wait"), timeout=0.1)
    assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.MAYBE_PROCESSED)
    assert work.contexts[-1].deadline is not None
    work.gate.set()
    del work.contexts[:]


def test_a_call_is_cancelled(branch: Branch) -> None:
    """A future that is cancelled ends its call, and so does an iterator that is closed; the client sees it."""
    agent, _, work = branch.agent(branch.office())
    future = agent.start(RUN, Order(text="wait"), timeout=20)
    assert work.waiting.acquire(timeout=10)
    assert future.cancel()
    wait_until(lambda: work.contexts[-1].cancelled)
    work.gate.set()
    stream: Any = agent.stream(TAIL, Order(text="x", count=100_000), timeout=20)
    assert next(stream).text == "x0"
    stream.close()
    assert list(stream) == []
    sink = Kept()
    following = agent.stream(TAIL, Order(text="x", count=100_000), sink, timeout=20)
    wait_until(lambda: bool(sink.texts))
    assert following.cancel()
    wait_until(lambda: sink.over == 1)
    assert sink.error is not None
    assert sink.error.reason == "CANCELLED"
    assert agent.call(RUN, Order(text="on"), timeout=10).text == "ON"
    del work.contexts[:]


def test_a_sink_that_is_behind_hears_of_a_cancel(branch: Branch) -> None:
    """Though the client has sent all, its items are not all taken: the rest is dropped, and ``failed`` comes last."""

    class Behind(Kept):
        def receive(self, item: Line) -> Future[object]:  # type: ignore[override]
            super().receive(item)
            return Future()

    agent, _, _ = branch.agent(branch.office())
    sink = Behind()
    following = agent.stream(TAIL, Order(text="x", count=5), sink, timeout=20)
    wait_until(lambda: bool(sink.texts))
    assert agent.call(RUN, Order(text="on"), timeout=10).text == "ON"  # behind the end of the items
    assert following.cancel()
    wait_until(lambda: sink.over == 1)
    assert sink.texts == ["x0"]
    assert sink.error is not None
    assert sink.error.reason == "CANCELLED"


def wait_until(true: Any) -> None:
    """Wait, without a notice of it, until something is so."""
    pause = threading.Event()
    for _ in range(2000):
        if true():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to be so within 10 s")


class GivenLines(Subscription[Line]):
    """Gives a number of lines."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.closed: list[str] = []

    def take(self, n: int) -> list[Line]:
        if not self.left:
            raise StopIteration
        taken = min(n, self.left)
        self.left -= taken
        return [Line(text="x")] * taken

    def close(self, reason: str) -> None:
        self.closed.append(reason)


def test_a_subscription_may_give_the_items(branch: Branch) -> None:
    """It holds no thread, and is closed once, also if the call never began."""
    agent, client, _ = branch.agent(branch.office())
    source = GivenLines(2000)
    assert agent.upload(REPORT, source, timeout=10).result(10).count == 2000
    wait_until(lambda: source.closed == ["ended"])
    client.close()
    wait_until(lambda: not agent.connected)
    late = GivenLines(1)
    assert isinstance(agent.upload(REPORT, late, timeout=10).exception(10), CallError)
    wait_until(lambda: len(late.closed) == 1)


def test_an_answer_may_come_early(branch: Branch) -> None:
    """A client that has seen enough answers, and the rest of the items is not asked for."""
    agent, _, _ = branch.agent(branch.office())
    source = iter([Line(text="a"), Line(text="enough"), *lines(100_000)])
    assert agent.upload(REPORT, source, timeout=10).result(10).text == "a"
    assert agent.call(RUN, Order(text="on"), timeout=10).text == "ON"


def test_what_the_application_raises_is_its_own(branch: Branch) -> None:
    """An iterable, an item or a sink that fails ends its call with that very error in the future."""
    agent, _, _ = branch.agent(branch.office())

    def broken() -> Iterator[Line]:
        yield Line(text="a")
        raise KeyError("my own")

    assert isinstance(agent.upload(REPORT, broken(), timeout=10).exception(10), KeyError)
    wrong: Any = [Order()]
    assert isinstance(agent.upload(REPORT, wrong, timeout=10).exception(10), TypeError)
    with pytest.raises(TypeError, match="Run is sent Order, not Line"):
        agent.start(RUN, wrong_request(), timeout=10)

    class Fussy(Kept):
        def receive(self, item: Line) -> None:
            raise KeyError("my own")

    sink = Fussy()
    assert isinstance(agent.stream(TAIL, Order(count=5), sink, timeout=10).exception(10), KeyError)
    wait_until(lambda: sink.over == 1)
    with pytest.raises(KeyError, match="my own"):
        list(agent.duplex(SHELL, broken(), timeout=10))
    assert agent.call(RUN, Order(text="on"), timeout=10).text == "ON"


def wrong_request() -> Any:
    return Line()


def test_the_wrong_method_is_refused(branch: Branch) -> None:
    """Each side calls its own methods, and each kind has its own way to be called."""
    agent, client, _ = branch.agent(branch.office())
    with pytest.raises(LocalProtocolError, match="Enrol is called by the client"):
        agent.start(ENROL, EnrolRequest(name="x"), timeout=10)
    with pytest.raises(LocalProtocolError, match="Run is called by the server"):
        client.call(RUN, Order(), timeout=10)
    with pytest.raises(TypeError, match="is no Method"):
        agent.start(TAIL, Order(), timeout=10)  # type: ignore[arg-type]


def test_a_topic_keeps_nothing_for_each_client(branch: Branch) -> None:
    """What many clients are sent of one topic is held by the topic once, and not once more for each of them."""
    method = StreamMethod(opcode=0x90, name="Lines", request=Order, response=Line, slow="drop_oldest")
    topic = Topic(method, keep=10)
    office = branch.office()
    agents = [branch.agent(office, f"a{number}")[0] for number in range(3)]
    sent = [agent.upload(REPORT, topic.subscribe(), timeout=10) for agent in agents]
    for text in ("one", "two", "enough"):
        topic.publish(Line(text=text))
    assert [future.result(10) for future in sent] == [Result(text="one,two", count=2)] * 3
    assert [len(slot.payloads) for slot in topic._ring if slot is not None] == [0, 0, 0]
