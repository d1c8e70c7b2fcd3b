"""pair with calls of its server: all five shapes, from the test and from handlers, and every way in which they end."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from tests.agents.conftest import Work
from tests.agents.service import (
    AGENTS,
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
from wireproto import (
    CallError,
    ConfigError,
    ConnectionLost,
    Context,
    DecodeError,
    EncodeError,
    Handlers,
    Identity,
    Limits,
    LocalProtocolError,
    Metadata,
    Retry,
    Sink,
    Status,
    Subscription,
)
from wireproto.reasons import failure
from wireproto.testing import Pair, pair
from wireproto.wire.frame import TOP_BIT

CODECS = ("pipe", "msgpack", "protobuf")


def office(act: Callable[[Context], Any] | None = None) -> Handlers:
    """What the server runs."""
    handlers = Handlers(AGENTS)

    @handlers.register(ENROL)
    def enrol(request: EnrolRequest, context: Context) -> EnrolResponse | Future[EnrolResponse]:
        acted = None if act is None else act(context)
        return acted if isinstance(acted, Future) else EnrolResponse(agents=1)

    return handlers


def agents(work: Handlers | None = None, act: Callable[[Context], Any] | None = None, **settings: Any) -> Pair:
    return pair(office(act), agent=Work().handlers if work is None else work, **settings)


class Taker:
    """Takes items as its test tells it, and keeps what it was told."""

    def __init__(self, receiving: Callable[[Line], Future[Any] | None] = lambda item: None) -> None:
        self.receiving = receiving
        self.told: list[object] = []

    def receive(self, item: Line) -> Future[Any] | None:
        self.told.append(item.text)
        return self.receiving(item)

    def finished(self) -> None:
        self.told.append("finished")

    def failed(self, error: CallError) -> None:
        self.told.append(error.reason)


class Lines(Subscription[Line]):
    """Gives what it was given, when it is there."""

    def __init__(self, *texts: str) -> None:
        self.lines = [Line(text=text) for text in texts]
        self.ends = False
        self.why = ""

    def take(self, n: int) -> Sequence[Line]:
        taken, self.lines = self.lines[:n], self.lines[n:]
        if not taken and self.ends:
            raise StopIteration
        return taken

    def close(self, reason: str) -> None:
        self.why = reason


def lines(*texts: str) -> Iterator[Line]:
    return (Line(text=text) for text in texts)


@pytest.mark.parametrize("codec", CODECS)
def test_every_shape_is_answered(codec: str) -> None:
    """The server's calls of each shape have their answers, in every codec."""
    work = Work()
    link = agents(work.handlers, codec=codec)
    agent = link.agent
    assert (agent.answers, agent.version, agent.codec, agent.connected) == (Limits().max_calls, 1, codec, True)
    assert agent.peer
    assert agent.call(RUN, Order(text="a", count=3), timeout=1) == Result(text="A", count=3)
    assert [line.text for line in agent.stream(TAIL, Order(text="t", count=3), timeout=1)] == ["t0", "t1", "t2"]
    uploaded = agent.upload(REPORT, lines("a", "b"), timeout=1)
    collected = agent.upload(COLLECT, lines("a", "b", "c"), timeout=1)
    link.exchange()
    assert (uploaded.result(), collected.result().count) == (Result(text="a,b", count=2), 3)
    assert [line.text for line in agent.duplex(SHELL, lines("ab", "cd"), timeout=1)] == ["ba", "dc"]
    assert [line.text for line in agent.duplex(CONVERT, lines("ab", "cd"), timeout=1)] == ["AB", "CD"]
    agent.post(NOTIFY, Order(text="told"))
    link.exchange()
    assert work.orders == ["told"]
    begun = [line for line in link.transcript().splitlines() if line.startswith("server REQUEST")]
    assert len(begun) == 7
    assert all(int(line.split()[3]) & TOP_BIT for line in begun)


def test_a_handler_calls_its_client_and_returns_a_future() -> None:
    """What a handler begins is sent by the exchange that runs it, and its answer is that of the client's call."""

    def ask(context: Context) -> Future[EnrolResponse]:
        answer: Future[EnrolResponse] = Future()
        asked = context.client.start(RUN, Order(text="x", count=7), timeout=5)
        asked.add_done_callback(lambda done: answer.set_result(EnrolResponse(agents=done.result().count)))
        return answer

    link = agents(act=ask)
    assert link.call(ENROL, EnrolRequest(name="a")).agents == 7


def test_a_handler_does_not_wait_for_its_client() -> None:
    """Waiting in a handler is refused, by call, by an iterator and by the future."""
    refused: list[str] = []

    def wait(context: Context) -> None:
        client = context.client
        for waiting in (
            lambda: client.call(RUN, Order(), timeout=5),
            lambda: client.stream(TAIL, Order(), timeout=5),
            lambda: client.start(RUN, Order(), timeout=5).result(),
            lambda: client.start(RUN, Order(), timeout=5).exception(),
            lambda: next(kept[0]),
        ):
            with pytest.raises(LocalProtocolError) as caught:
                waiting()
            refused.append(str(caught.value))

    link = agents(act=wait)
    kept = [link.agent.stream(TAIL, Order(count=1), timeout=5)]
    assert link.call(ENROL, EnrolRequest(name="a")).agents == 1
    assert len(refused) == 5
    assert "use start" in refused[0]
    assert "give a sink" in refused[1]


def test_a_client_calls_nobody_and_knows_nobody() -> None:
    """The context of a client's handler has no identity, no client, and its server as its peer."""
    seen: list[Context] = []
    handlers = Handlers(AGENTS)

    @handlers.register(RUN)
    def run(order: Order, context: Context) -> Result:
        seen.append(context)
        assert context.identity is None
        context.sign_out()
        with pytest.raises(LocalProtocolError, match="nobody signs in"):
            context.sign_in(Identity("x"))
        with pytest.raises(LocalProtocolError, match="this is the client"):
            context.client.start(RUN, Order(), timeout=1)
        context.set_metadata("where", "here")
        return Result(text=context.metadata.entries["who"])

    link = agents(handlers)
    asked = link.agent.start(RUN, Order(), timeout=1, metadata=Metadata(entries={"who": "me"}))
    assert asked.metadata == {}
    link.exchange()
    assert asked.result().text == "me"
    assert asked.metadata == {"where": "here"}
    assert seen[0].deadline is not None


def test_the_end_of_a_stream_has_metadata() -> None:
    """What a client says beside the end of its items is there once that is."""
    handlers = Handlers(AGENTS)

    @handlers.register(TAIL)
    def tail(order: Order, context: Context) -> Iterator[Line]:
        yield Line(text="one")
        context.set_metadata("end", "here")

    items = agents(handlers).agent.stream(TAIL, Order(), timeout=1)
    assert next(items).text == "one"
    assert items.metadata == {}  # type: ignore[attr-defined]
    assert list(items) == []
    assert items.metadata == {"end": "here"}  # type: ignore[attr-defined]
    assert list(items) == []


def test_what_a_client_answers_is_raised() -> None:
    """Errors of unary calls, of streams behind their items, and of methods without a handler."""
    link = agents()
    with pytest.raises(CallError) as caught:
        link.agent.call(RUN, Order(text="fail"), timeout=1)
    assert (caught.value.status, caught.value.reason) == (Status.FAILED_PRECONDITION, "BROKEN")
    items = link.agent.stream(TAIL, Order(text="fail", count=1), timeout=1)
    assert next(items).text == "fail0"
    with pytest.raises(CallError, match="the end is missing"):
        next(items)
    assert list(items) == []
    taker = Taker()
    streamed = link.agent.stream(TAIL, Order(text="fail", count=2), taker, timeout=1)
    link.exchange()
    assert taker.told == ["fail0", "fail1", ""]
    assert isinstance(streamed.exception(), CallError)
    bare = pair(office(), agent=Handlers(AGENTS))
    with pytest.raises(CallError) as caught:
        bare.agent.call(RUN, Order(), timeout=1)
    assert caught.value.reason == "NO_HANDLER"
    bare.agent.post(NOTIFY, Order())
    bare.exchange()
    assert [error.reason for error in bare.untold] == ["NO_HANDLER"]


def test_handlers_are_of_the_methods_of_the_other_side() -> None:
    """Handlers that would never run are refused."""
    with pytest.raises(ConfigError, match="called by the client"):
        pair(AGENTS, agent=office())
    with pytest.raises(ConfigError, match="called by the server"):
        pair(Work().handlers)


def test_a_client_without_handlers_is_sent_nothing() -> None:
    """Its calls fail at once, NO_HANDLER, not processed."""
    link = pair(office())
    sent = len(link.sent)
    failed = link.agent.start(RUN, Order(), timeout=1).exception()
    assert isinstance(failed, CallError)
    assert (failed.reason, failed.retry) == ("NO_HANDLER", Retry.NOT_PROCESSED)
    with pytest.raises(CallError, match="answers no calls"):
        link.agent.post(NOTIFY, Order())
    with pytest.raises(CallError, match="answers no calls"):
        link.agent.call(RUN, Order(), timeout=1)
    taker = Taker()
    assert link.agent.stream(TAIL, Order(), taker, timeout=1).exception() is not None
    assert taker.told == ["NO_HANDLER"]
    link.exchange()
    assert len(link.sent) == sent


def test_what_is_asked_wrongly_is_refused() -> None:
    """A call without a timeout, of another kind of method, of a client's method, or with what is no message of it."""
    link = agents()
    wrong: Any = Line()
    with pytest.raises(ValueError, match="timeout is None"):
        link.agent.start(RUN, Order())
    with pytest.raises(ValueError, match="timeout is 0"):
        link.agent.start(RUN, Order(), timeout=0)
    with pytest.raises(TypeError, match="no Method"):
        link.agent.start(TAIL, Order(), timeout=1)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="called by the client"):
        link.agent.start(ENROL, EnrolRequest(name="a"), timeout=1)
    with pytest.raises(TypeError, match="is sent Order, not Line"):
        link.agent.start(RUN, wrong, timeout=1)
    with pytest.raises(EncodeError):
        link.agent.start(RUN, Order(count="x"), timeout=1)  # type: ignore[arg-type]


def test_calls_wait_for_a_place_and_then_are_refused() -> None:
    """Beyond what the client accepts calls wait in line, and beyond that they fail TOO_MANY_CALLS."""
    work = Work()
    link = agents(work.handlers, limits=Limits(max_calls=1, start_queue=1))
    first, second, third = (link.agent.start(RUN, Order(text="later", count=n), timeout=1) for n in range(3))
    failed = third.exception()
    assert isinstance(failed, CallError)
    assert failed.reason == "TOO_MANY_CALLS"
    link.exchange()
    assert len(work.futures) == 1
    work.futures[0].set_result(Result(count=1))
    link.exchange()
    assert (first.result().count, len(work.futures)) == (1, 2)
    fourth = link.agent.start(RUN, Order(text="later"), timeout=1)
    assert fourth.cancel()
    with pytest.raises(CancelledError):
        fourth.result()
    work.futures[1].set_result(Result(count=2))
    link.exchange()
    assert second.result().count == 2
    assert len(work.futures) == 2


def test_cancelling_is_told() -> None:
    """A future that is cancelled, and an iterator that is closed, end the call at the client."""
    work = Work()
    link = agents(work.handlers)
    asked = link.agent.start(RUN, Order(text="later"), timeout=1)
    link.exchange()
    assert asked.cancel()
    assert not asked.cancel() or asked.cancelled()
    link.exchange()
    assert work.contexts[0].cancelled
    assert work.futures[0].cancelled()
    waiting = Lines("a")
    items: Any = link.agent.duplex(CONVERT, waiting, timeout=1)
    assert next(items).text == "A"
    items.close()
    items.close()
    link.exchange()
    assert waiting.why
    assert "server CANCEL" in link.transcript()
    done = link.agent.start(RUN, Order(text="a"), timeout=1)
    link.exchange()
    assert not done.cancel()
    with pytest.raises(LocalProtocolError, match="not answered yet"):
        link.agent.call(RUN, Order(text="later"), timeout=1)
    link.exchange()
    assert work.futures[1].cancelled()


def test_a_stream_that_pauses_ends_with_what_is_there() -> None:
    """An iterator does not wait: no time passes."""
    waiting = Lines("a", "b")
    assert [item.text for item in agents().agent.duplex(CONVERT, waiting, timeout=1)] == ["A", "B"]
    assert waiting.why


def test_a_sink_takes_its_time() -> None:
    """The credit of an item returns when what the sink gave for it is done, and the end comes behind the last one."""
    futures: list[Future[Any]] = []

    def later(item: Line) -> Future[Any]:
        futures.append(Future())
        return futures[-1]

    link = agents(limits=Limits(first_items=1))
    taker = Taker(later)
    streamed = link.agent.stream(TAIL, Order(text="t", count=2), taker, timeout=1)
    link.exchange()
    assert taker.told == ["t0"]
    futures[0].set_result(None)
    link.exchange()
    assert taker.told == ["t0", "t1"]
    futures[1].set_result(None)
    link.exchange()
    assert taker.told == ["t0", "t1", "finished"]
    assert streamed.result() is None


def test_a_sink_is_told_late_of_a_call_that_is_over() -> None:
    """A call that ends while its sink holds an item goes on for the sink: what came is its own first."""
    future: Future[Any] = Future()
    link = agents()
    taker = Taker(lambda item: future if item.text == "t0" else None)
    streamed = link.agent.stream(TAIL, Order(text="t", count=2), taker, timeout=1)
    link.exchange()
    assert (taker.told, streamed.done()) == (["t0"], False)
    future.set_result(None)
    link.exchange()
    assert taker.told == ["t0", "t1", "finished"]
    assert streamed.result() is None


class Spoilt(Taker):
    """A sink that raises what it was made with, where it was told to."""

    def __init__(self, *where: str) -> None:
        super().__init__(self.raising if "receive" in where else lambda item: None)
        self.raises = where

    def raising(self, item: Line) -> None:
        raise ZeroDivisionError

    def finished(self) -> None:
        super().finished()
        if "finished" in self.raises:
            raise ZeroDivisionError

    def failed(self, error: CallError) -> None:
        super().failed(error)
        if "failed" in self.raises:
            raise ZeroDivisionError


def test_what_a_sink_raises_is_its_futures(caplog: pytest.LogCaptureFixture) -> None:
    """A sink that raises ends its call; the future has that, and the sink is told once."""
    link = agents()
    for where, told in (("receive", ["t0", "CANCELLED"]), ("finished", ["t0", "finished"])):
        sink = Spoilt(where)
        streamed = link.agent.stream(TAIL, Order(text="t", count=1), sink, timeout=1)
        link.exchange()
        assert isinstance(streamed.exception(), ZeroDivisionError)
        assert sink.told == told
    endless = Spoilt("receive")
    waiting = Lines("a")
    converted = link.agent.duplex(CONVERT, waiting, endless, timeout=1)
    link.exchange()
    assert isinstance(converted.exception(), ZeroDivisionError)
    assert endless.told == ["A", "CANCELLED"]
    assert waiting.why
    assert "server CANCEL" in link.transcript()
    with caplog.at_level(logging.ERROR, "wireproto.testing"):
        late = link.agent.stream(TAIL, Order(text="fail", count=0), Spoilt("failed"), timeout=1)
        link.exchange()
    assert isinstance(late.exception(), CallError)
    assert "ZeroDivisionError" in caplog.text


def test_a_cancelled_stream_tells_its_sink() -> None:
    """Cancelling the future of a stream tells the client with the next exchange, and the sink."""
    link = agents()
    taker, waiting = Taker(), Lines("a")
    converted = link.agent.duplex(CONVERT, waiting, taker, timeout=1)
    link.exchange()
    assert converted.cancel()
    link.exchange()
    assert taker.told == ["A", "CANCELLED"]
    assert converted.cancelled()


def test_what_a_source_raises_is_its_futures() -> None:
    """Items that cannot be had, or are none, end the call at the client, and the future has why."""

    def broken() -> Iterator[Line]:
        yield Line(text="a")
        raise ZeroDivisionError

    link = agents()
    failed = link.agent.upload(REPORT, broken(), timeout=1)
    items: Any = [Order()]
    wrong: Future[Result] = link.agent.upload(REPORT, items, timeout=1)
    link.exchange()
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert isinstance(wrong.exception(), TypeError)
    assert link.transcript().count("server CANCEL") == 2


def test_items_are_sent_within_their_credit() -> None:
    """Items go as far as the client lets them, and their end is told without credit for another one."""
    handlers = Handlers(AGENTS)
    futures: list[Future[Any]] = []

    @handlers.sink(REPORT)
    class Slow(Sink[Line, Result]):
        def __init__(self, context: Context) -> None:
            self.count = 0

        def receive(self, item: Line) -> Future[Any]:
            self.count += 1
            futures.append(Future())
            return futures[-1]

        def finished(self) -> Result:
            return Result(count=self.count)

    link = agents(handlers, limits=Limits(first_items=2))
    uploaded = link.agent.upload(REPORT, lines("a", "b"), timeout=1)
    link.exchange()
    assert link.transcript().count("server END") == 1
    more = link.agent.upload(REPORT, lines("a", "b", "c"), timeout=1)
    link.exchange()
    assert link.transcript().count("server END") == 1
    while not (uploaded.done() and more.done()):
        for future in futures:
            if not future.done():
                future.set_result(None)
        link.exchange()
    assert (uploaded.result().count, more.result().count) == (2, 3)


def test_an_early_answer_ends_the_items() -> None:
    """A client that answers before the end has the source closed."""
    handlers = Handlers(AGENTS)

    @handlers.sink(REPORT)
    class Hasty(Sink[Line, Result]):
        def __init__(self, context: Context) -> None: ...

        def receive(self, item: Line) -> None:
            self.answer(Result(text=item.text))

        def finished(self) -> Result:
            raise AssertionError("nobody asks for another answer")

    link = agents(handlers)
    source = Lines("a")
    uploaded = link.agent.upload(REPORT, source, timeout=1)
    link.exchange()
    assert uploaded.result().text == "a"
    assert source.why == "the call is over"


def test_one_way_calls_have_credit() -> None:
    """Without credit a one-way call fails at once; the client returns it as its handlers do."""
    work = Work()
    link = agents(work.handlers, limits=Limits(one_way_calls=2))
    for _ in range(2):
        link.agent.post(NOTIFY, Order(text="x"))
    with pytest.raises(CallError, match="takes no more one-way calls"):
        link.agent.post(NOTIFY, Order(text="y"))
    link.exchange()
    link.agent.post(NOTIFY, Order(text="z"))
    link.exchange()
    assert work.orders == ["x", "x", "z"]


def test_a_client_that_goes_away() -> None:
    """GOAWAY of the client ends what it will not look at, lets the rest be answered, and is the last of it."""
    work = Work()
    link = agents(work.handlers, limits=Limits(max_calls=1))
    seen = link.agent.start(RUN, Order(text="later"), timeout=1)
    waits = link.agent.start(RUN, Order(), timeout=1)
    link.exchange()
    link.client.send_goaway(failure("SHUTTING_DOWN", "bye"))
    link.exchange()
    failed = waits.exception()
    assert isinstance(failed, CallError)
    assert failed.reason == "SHUTTING_DOWN"
    assert not link.agent.connected
    refused = link.agent.start(RUN, Order(), timeout=1).exception()
    assert isinstance(refused, CallError)
    assert refused.reason == "SHUTTING_DOWN"
    work.futures[0].set_result(Result(count=1))
    link.exchange()
    assert seen.result().count == 1


def test_calls_that_cross_goaway_are_over() -> None:
    """What the client had not read when it said GOAWAY was not processed."""
    link = agents()
    link.client.send_goaway(failure("SHUTTING_DOWN", "bye"))
    taker = Taker()
    crossing = link.agent.stream(TAIL, Order(count=1), taker, timeout=1)
    link.exchange()
    failed = crossing.exception()
    assert isinstance(failed, CallError)
    assert (failed.reason, failed.retry) == ("SHUTTING_DOWN", Retry.NOT_PROCESSED)
    assert taker.told == ["SHUTTING_DOWN"]


def test_a_client_that_is_lost() -> None:
    """The end of the connection ends its calls, and says whether they may have been processed."""
    work = Work()
    link = agents(work.handlers, limits=Limits(max_calls=1))
    closed: list[str] = []
    link.agent.on_close(lambda: closed.append("told"))
    sent = link.agent.start(RUN, Order(text="later"), timeout=1)
    waits = link.agent.start(RUN, Order(), timeout=1)
    link.exchange()
    link.client.refuse(failure("SHUTTING_DOWN", "enough"))
    link.exchange()
    fates = []
    for future in (sent, waits, link.agent.start(RUN, Order(), timeout=1)):
        error = future.exception()
        assert isinstance(error, ConnectionLost)
        fates.append(error.retry)
    assert fates == [Retry.MAYBE_PROCESSED, Retry.NOT_PROCESSED, Retry.NOT_PROCESSED]
    assert not link.agent.connected
    link.agent.on_close(lambda: closed.append("late"))
    assert closed == ["told", "late"]


def test_what_cannot_be_read_is_said() -> None:
    """An answer that is no message of the method fails its call with DecodeError; of a stream it is cancelled."""
    link = agents(Handlers(AGENTS), codec="pipe")
    asked = link.agent.start(RUN, Order(), timeout=1)
    items = link.agent.stream(TAIL, Order(), timeout=1)
    unary, stream = (event.call_id for event in link.deliver(link.server))  # type: ignore[union-attr]
    link.client.send_response(unary, b"x|y|z")
    link.client.send_item(stream, b"x|y|z")
    with pytest.raises(DecodeError):
        next(items)
    assert isinstance(asked.exception(), DecodeError)
    link.exchange()
    assert "server CANCEL" in link.transcript()


def test_a_request_that_fits_no_frame_is_not_sent() -> None:
    """It fails REQUEST_TOO_LARGE, and a sink is told."""
    link = agents(limits=Limits(max_frame=4096))
    large = Order(text="x" * 5000)
    taker = Taker()
    failed = [
        link.agent.start(RUN, large, timeout=1).exception(),
        link.agent.stream(TAIL, large, taker, timeout=1).exception(),
    ]
    assert [error.reason for error in failed if isinstance(error, CallError)] == ["REQUEST_TOO_LARGE"] * 2
    assert taker.told == ["REQUEST_TOO_LARGE"]


def test_calls_of_both_sides_cross() -> None:
    """While the server's calls are in flight the client's own are answered, and each has its own answer."""
    work = Work()
    link = agents(work.handlers)
    asked = link.agent.start(RUN, Order(text="later"), timeout=1)
    assert link.call(ENROL, EnrolRequest(name="a")).agents == 1
    own = link.start(ENROL, EnrolRequest(name="b"))
    assert link.agent.call(RUN, Order(text="x"), timeout=1).text == "X"
    assert [event.call_id for event in link._events_of(own)] == [own]  # type: ignore[union-attr]
    work.futures[0].set_result(Result(count=1))
    link.exchange()
    assert asked.result().count == 1


def test_the_identity_of_the_connection_is_the_servers() -> None:
    """Signing in at the server is told by the pair, and can be set by a test."""
    known = Identity("somebody")
    link = agents(act=lambda context: context.sign_in(known))
    link.call(ENROL, EnrolRequest(name="a"))
    assert link.identity is known
    link.identity = None
    assert link.identity is None
