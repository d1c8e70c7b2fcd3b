"""pair with calls of every shape: items both ways, sinks, one-way calls, and the credit between them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import (
    AVERAGE,
    BEEP,
    CONVERT,
    FOLLOW,
    PROBE,
    RESET,
    SHAPES,
    STORE,
    AverageRequest,
    AverageResponse,
    BeepRequest,
    ConvertRequest,
    ConvertResponse,
    FollowRequest,
    FollowResponse,
    ProbeRequest,
    ProbeResponse,
    ResetRequest,
    StoreRequest,
    StoreResponse,
)
from wireproto import (
    CallError,
    Context,
    EncodeError,
    Handlers,
    Identity,
    Limits,
    LocalProtocolError,
    Metadata,
    Retry,
    Shape,
    Sink,
    Status,
    Subscription,
)
from wireproto.schema import Operation
from wireproto.testing import Pair, pair
from wireproto.wire.connection import Role
from wireproto.wire.events import (
    CreditReceived,
    EndReceived,
    ErrorReceived,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
    ResponseReceived,
)
from wireproto.wire.frame import Credit, Flag
from wireproto.wire.metadata import pack_metadata

SIGNED = Metadata(authorization="beeper")


class Shelf(Sink[StoreRequest, StoreResponse]):
    """Stores samples as its test tells it, and remembers what it was told."""

    def __init__(self, bench: "Bench", context: Context) -> None:
        self.bench = bench
        self.context = context
        self.told: list[object] = []
        self.values: list[int] = []

    def receive(self, item: StoreRequest) -> Future[Any] | None:
        self.told.append(item.value)
        self.values.append(item.value)
        return self.bench.receiving(self, item)

    def finished(self) -> StoreResponse | Future[StoreResponse] | None:
        self.told.append("finished")
        return self.bench.finishing(self)

    def failed(self, error: CallError) -> None:
        self.told.append((error.reason, error.message))

    def response(self) -> StoreResponse:
        return StoreResponse(count=len(self.values), total=sum(self.values))


class Converter(Sink[ConvertRequest, ConvertResponse], Subscription[ConvertResponse]):
    """Says each number in words, as soon as it is asked."""

    def __init__(self, bench: "Bench", context: Context) -> None:
        self.bench = bench
        self.told: list[object] = []
        self.found: list[ConvertResponse] = []
        self.complete = False

    def receive(self, item: ConvertRequest) -> Future[Any] | None:
        if item.value < 0:
            raise CallError(Status.ABORTED, "STUCK", "below nothing")
        self.told.append(item.value)
        self.found.append(ConvertResponse(words=f"{item.value} times"))
        return self.bench.converting()

    def finished(self) -> None:
        self.told.append("finished")
        self.complete = self.bench.ends

    def failed(self, error: CallError) -> None:
        self.told.append(error.reason)

    def take(self, n: int) -> Sequence[ConvertResponse]:
        if len(self.told) >= self.bench.enough or (self.complete and not self.found):
            raise StopIteration
        return [self.found.pop(0) for _ in self.found[:n]]

    def close(self, reason: str) -> None:
        self.told.append(reason)


class Bench:
    """Handlers of all shapes; what the sinks of uploads do is set by the test."""

    def __init__(self) -> None:
        self.handlers = Handlers(SHAPES)
        self.shelves: list[Shelf] = []
        self.converters: list[Converter] = []
        self.beeps: list[int] = []
        self.receiving: Callable[[Shelf, StoreRequest], Future[Any] | None] = lambda shelf, item: None
        self.finishing: Callable[[Shelf], StoreResponse | Future[StoreResponse] | None] = lambda shelf: shelf.response()
        self.converting: Callable[[], Future[Any] | None] = lambda: None
        self.enough = 1000
        self.ends = True
        self.handlers.register(PROBE)(lambda request, context: ProbeResponse(name=request.name))
        self.handlers.register(FOLLOW)(
            lambda request, context: (FollowResponse(value=value) for value in range(request.count))
        )
        self.handlers.sink(STORE)(self.shelf)
        self.handlers.register(AVERAGE)(self.average)
        self.handlers.sink(CONVERT)(self.converter)
        self.handlers.register(BEEP)(self.beep)

    def shelf(self, context: Context) -> Shelf:
        self.shelves.append(Shelf(self, context))
        return self.shelves[-1]

    def converter(self, context: Context) -> Converter:
        self.converters.append(Converter(self, context))
        return self.converters[-1]

    def average(self, items: list[AverageRequest], context: Context) -> AverageResponse:
        return AverageResponse(value=sum(item.value for item in items) / len(items))

    def beep(self, request: BeepRequest, context: Context) -> None:
        self.beeps.append(request.tone)
        if request.tone == 0:
            context.abort(Status.FAILED_PRECONDITION, "MUTE", "the horn is off")
        if request.tone < 0:
            raise ValueError("the horn burst")

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        return Identity("ann", [metadata.authorization])


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def link(bench: Bench) -> Pair:
    return pair(bench.handlers, authenticate=bench.authenticate)


def stored(*values: int) -> list[StoreRequest]:
    return [StoreRequest(value=value) for value in values]


def to_convert(*values: int) -> list[ConvertRequest]:
    return [ConvertRequest(value=value) for value in values]


def frames(link: Pair, by: Role) -> list[str]:
    """The kinds of what one side sent, behind the handshake."""
    lines = [line.split(":")[0].split(" call ")[0] for line in link.transcript().splitlines()]
    return [line.removeprefix(f"{by.value} ") for line in lines if line.startswith(by.value)][2:]


def own_handler(method: Any, handler: Callable[..., Any]) -> Pair:
    """A pair with a handler of one method alone."""
    handlers = Handlers(SHAPES)
    register: Any = handlers.register
    register(method)(handler)
    return pair(handlers)


# Uploads --------------------------------------------------------------------------------------------------------


def test_an_upload_is_given_to_its_sink(bench: Bench, link: Pair) -> None:
    """Each item comes in order, then the end, and what the sink returns is the answer."""
    assert link.upload(STORE, stored(1, 2, 3)) == StoreResponse(count=3, total=6)
    (shelf,) = bench.shelves
    assert shelf.told == [1, 2, 3, "finished"]
    assert shelf.context.method is STORE
    assert link.upload(STORE, []) == StoreResponse(count=0)
    assert bench.shelves[1].told == ["finished"]


def test_the_frames_of_an_upload_can_be_looked_at(link: Pair) -> None:
    """The REQUEST says that items follow and has none; ITEMs and END follow, and the answer is one RESPONSE."""
    link.upload(STORE, stored(7, 8))
    lines = [line for line in link.transcript().splitlines() if " call " in line]
    assert [line.partition(":")[0] for line in lines] == [
        "client REQUEST call 1 opcode 0x0012 flags 0x04",
        "client ITEM call 1 opcode 0x0012",
        "client ITEM call 1 opcode 0x0012",
        "client END call 1 opcode 0x0012",
        "server RESPONSE call 1 opcode 0x0012",
    ]
    assert lines[0].endswith(": ")


def test_items_are_sent_within_the_credit_that_the_server_gives(bench: Bench) -> None:
    """The first items are those that the handshake allows; more follow when some were taken."""
    link = pair(bench.handlers, limits=Limits(first_items=4))
    taken: list[int] = []

    def items() -> Iterator[StoreRequest]:
        for value in range(10):
            taken.append(value)
            yield StoreRequest(value=value)

    seen: list[int] = []
    bench.receiving = lambda shelf, item: seen.append(max(taken))
    assert link.upload(STORE, items()).total == 45
    # One item is taken from the caller's before there is credit for it, for it may be that there is none.
    assert seen == [4, 4, 4, 4, 8, 8, 8, 8, 9, 9]
    assert frames(link, Role.SERVER) == ["CREDIT", "CREDIT", "RESPONSE"]


def test_bytes_are_credit_as_items_are() -> None:
    """An item needs a byte of credit and takes all of its own, so that a large one may be the last for a while."""
    bench = Bench()
    link = pair(bench.handlers, limits=Limits(first_bytes=1))
    assert link.upload(STORE, stored(1, 2, 3)).count == 3
    assert frames(link, Role.SERVER) == ["CREDIT", "CREDIT", "RESPONSE"]


def test_a_future_of_an_item_holds_the_next_one(bench: Bench, link: Pair) -> None:
    """The sink is given no further item, and the client no further credit, until the future is done."""
    futures: list[Future[None]] = []

    def receiving(shelf: Shelf, item: StoreRequest) -> Future[Any]:
        futures.append(Future())
        return futures[-1]

    bench.receiving = receiving
    call_id = link.start(STORE)
    link.send_item(call_id, STORE, StoreRequest(value=1))
    link.send_item(call_id, STORE, StoreRequest(value=2))
    assert link.exchange() == []
    (shelf,) = bench.shelves
    assert shelf.told == [1]
    futures[0].set_result(None)
    (credit,) = link.exchange()
    assert isinstance(credit, CreditReceived)
    assert credit.more.items == 1
    assert shelf.told == [1, 2]
    link.client.send_end(call_id)
    assert link.exchange() == []
    assert shelf.told == [1, 2]
    futures[1].set_result(None)
    (answer,) = link.exchange()
    assert isinstance(answer, ResponseReceived)
    assert shelf.told == [1, 2, "finished"]


def test_an_upload_that_cannot_go_on_says_why(bench: Bench) -> None:
    """Nothing waits here: without credit, or without an answer, it is told which future is not done; and cancelled."""
    link = pair(bench.handlers, limits=Limits(first_items=2))
    bench.receiving = lambda shelf, item: Future()
    with pytest.raises(LocalProtocolError, match="Store takes no further item yet; its sink gave a future that is not"):
        link.upload(STORE, stored(*range(5)))
    assert bench.shelves[0].told == [0, ("CANCELLED", "cancelled by the caller")]
    with pytest.raises(LocalProtocolError, match="Store is not answered yet; its handler gave a future that is not"):
        link.upload(STORE, stored(1, 2))  # as many as there is credit for: the end needs none
    bench.receiving = lambda shelf, item: None
    pending: Future[StoreResponse] = Future()
    bench.finishing = lambda shelf: pending
    with pytest.raises(LocalProtocolError, match="Store is not answered yet"):
        link.upload(STORE, stored(1))
    assert pending.cancelled()


def test_a_future_may_be_the_answer(bench: Bench, link: Pair) -> None:
    """It is sent with the exchange after its completion; one that failed is an incident."""
    futures: list[Future[StoreResponse]] = [Future(), Future()]
    bench.finishing = lambda shelf: futures[len(bench.shelves) - 1]
    for _ in futures:
        call_id = link.start(STORE)
        link.client.send_end(call_id)
        assert link.exchange() == []
    futures[0].set_result(StoreResponse(count=9))
    futures[1].set_exception(ValueError("secret"))
    answer, error = link.exchange()
    assert isinstance(answer, ResponseReceived)
    assert isinstance(error, ErrorReceived)
    assert error.error.reason == "INTERNAL"
    assert [shelf.told for shelf in bench.shelves] == [["finished"], ["finished"]]


def test_an_early_answer_ends_the_upload(bench: Bench) -> None:
    """The client has its answer and sends no more; the sink is told the end, and what it returns is not looked at."""
    link = pair(bench.handlers, limits=Limits(first_items=2))

    def receiving(shelf: Shelf, item: StoreRequest) -> None:
        if item.value == 1:
            shelf.answer(StoreResponse(count=99))
            shelf.answer(StoreResponse(count=100))  # only the first counts

    bench.receiving = receiving
    items = iter(stored(*range(10)))
    assert link.upload(STORE, items).count == 99
    assert bench.shelves[0].told == [0, 1, "finished"]
    assert next(items).value == 3  # one was held without credit
    assert link.upload(STORE, stored(5)).total == 5


def test_a_sink_may_answer_between_two_items(bench: Bench, link: Pair) -> None:
    """It answers whenever it likes; the bytes move with the next exchange."""
    call_id = link.start(STORE)
    link.send_item(call_id, STORE, StoreRequest(value=1))
    link.exchange()
    (shelf,) = bench.shelves
    shelf.answer(StoreResponse(count=7))
    (answer,) = link.exchange()
    assert isinstance(answer, ResponseReceived)
    assert shelf.told == [1, "finished"]
    link.exchange()
    assert shelf.told == [1, "finished"]


def test_an_early_answer_of_another_type_is_an_incident(bench: Bench, link: Pair) -> None:
    """The caller learns its number, and the sink is told that it failed."""

    def receiving(shelf: Shelf, item: StoreRequest) -> None:
        wrong: Any = shelf.answer
        wrong(ProbeResponse(name="secret"))

    bench.receiving = receiving
    with pytest.raises(CallError, match="INTERNAL") as caught:
        link.upload(STORE, stored(1, 2))
    assert "secret" not in str(caught.value)
    assert bench.shelves[0].told == [1, ("INTERNAL", caught.value.message)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CallError(Status.ABORTED, "FULL", "no room"), "FULL"), (ValueError("secret"), "INTERNAL")],
    ids=["declared", "another"],
)
def test_what_a_sink_raises_ends_the_upload(bench: Bench, link: Pair, error: Exception, reason: str) -> None:
    """Whatever it raises for an item, itself or by its future, it is told once that it failed, and nothing else."""

    def raising(shelf: Shelf, item: StoreRequest) -> None:
        raise error

    def failing(shelf: Shelf, item: StoreRequest) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future

    for receiving in (raising, failing):
        bench.receiving = receiving
        with pytest.raises(CallError, match=reason) as caught:
            link.upload(STORE, stored(1, 2))
        assert "secret" not in str(caught.value)
        assert bench.shelves[-1].told == [1, (reason, caught.value.message)]


def test_what_a_sink_raises_at_the_end_ends_the_upload(bench: Bench, link: Pair) -> None:
    """It was told the end already, and is told nothing else."""

    def finishing(shelf: Shelf) -> StoreResponse:
        raise CallError(Status.ABORTED, "FULL", "no room")

    bench.finishing = finishing
    with pytest.raises(CallError, match="FULL"):
        link.upload(STORE, stored(1))
    assert bench.shelves[0].told == [1, "finished"]
    bench.finishing = lambda shelf: None
    with pytest.raises(CallError, match="INTERNAL"):
        link.upload(STORE, stored(1))


def test_what_a_sink_raises_behind_its_answer_is_logged(
    bench: Bench, link: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller has its answer; nobody is told but the log."""

    def finishing(shelf: Shelf) -> StoreResponse:
        raise ValueError("the shelf fell down")

    bench.receiving = lambda shelf, item: shelf.answer(StoreResponse(count=1))
    bench.finishing = finishing
    with caplog.at_level(logging.ERROR):
        assert link.upload(STORE, stored(1)).count == 1
    assert "the shelf fell down" in caplog.text


def test_items_that_are_none_are_refused(bench: Bench, link: Pair) -> None:
    """An item that is no message, or too large, ends its call; the one before it was taken."""
    for payload, reason in ((b"\xc1", "BAD_PAYLOAD"), (bytes(65), "REQUEST_TOO_LARGE")):
        call_id = link.start(STORE)
        link.send_item(call_id, STORE, StoreRequest(value=1))
        link.client.send_item(call_id, payload)
        (error,) = link.exchange()
        assert isinstance(error, ErrorReceived)
        assert error.error.reason == reason
        assert bench.shelves[-1].told == [1, (reason, error.error.message)]


def test_a_message_that_cannot_be_written_cancels_the_upload(bench: Bench, link: Pair) -> None:
    """Its caller has the error, and the sink is told that the call was cancelled."""
    with pytest.raises(EncodeError, match=r"StoreRequest\.value"):
        link.upload(STORE, [StoreRequest(value=1), StoreRequest(value=2**70)])
    assert bench.shelves[0].told[-1] == ("CANCELLED", "cancelled by the caller")
    assert link.upload(STORE, stored(1)).count == 1


def test_an_upload_that_collects_has_a_list(link: Pair) -> None:
    """The handler is run once with all items, and there may be so many."""
    assert link.upload(AVERAGE, [AverageRequest(value=value) for value in (1, 2, 6)]).value == 3.0
    with pytest.raises(CallError, match="Average takes at most 3 items in one call") as caught:
        link.upload(AVERAGE, [AverageRequest(value=0)] * 4)
    assert caught.value.reason == "REQUEST_TOO_LARGE"


def test_a_handler_that_iterates_is_run_when_all_is_there() -> None:
    """Credit returns as items come, so that any number of them can be sent before it is run."""
    begun: list[int] = []

    def store(items: Iterator[StoreRequest], context: Context) -> StoreResponse:
        begun.append(0)
        values = [item.value for item in items]
        return StoreResponse(count=len(values), total=sum(values))

    link = own_handler(STORE, store)
    call_id = link.start(STORE)
    for value in range(20):
        link.send_item(call_id, STORE, StoreRequest(value=value))
        link.exchange()
    assert begun == []
    assert link.client.credit(call_id)[0] == 16
    link.client.send_end(call_id)
    (answer,) = link.exchange()
    assert isinstance(answer, ResponseReceived)
    assert link.upload(STORE, stored(*range(100))).count == 100
    assert begun == [0, 0]


def test_a_handler_that_iterates_meets_a_bad_item() -> None:
    """The item is refused as if it were a request's payload, wherever the handler has come to."""
    link = own_handler(STORE, lambda items, context: StoreResponse(count=len(list(items))))
    call_id = link.start(STORE)
    link.client.send_item(call_id, b"\xc1")
    link.client.send_end(call_id)
    (error,) = link.exchange()
    assert isinstance(error, ErrorReceived)
    assert error.error.reason == "BAD_PAYLOAD"


# Duplex calls ---------------------------------------------------------------------------------------------------


def test_a_duplex_call_answers_as_its_items_come(bench: Bench, link: Pair) -> None:
    """An item is taken from the caller's when all answers so far were given, so that it may depend on them."""
    answers: list[str] = []

    def items() -> Iterator[ConvertRequest]:
        for value in range(3):
            assert len(answers) == value
            yield ConvertRequest(value=value)

    for answer in link.duplex(CONVERT, items()):
        answers.append(answer.words)
    assert answers == ["0 times", "1 times", "2 times"]
    assert bench.converters[0].told == [0, 1, 2, "finished", "ended"]


def test_the_answers_of_a_duplex_call_have_credit() -> None:
    """More answers than the caller has granted wait until it grants more."""
    bench = Bench()
    link = pair(bench.handlers)
    call_id = link.start(CONVERT, credit=2)
    for item in to_convert(1, 2, 3):
        link.send_item(call_id, CONVERT, item)
    link.client.send_end(call_id)
    assert [type(event) for event in link.exchange()] == [ItemReceived] * 2
    link.client.send_credit(call_id, 2, 0)
    assert [type(event) for event in link.exchange()] == [ItemReceived, EndReceived]
    many = to_convert(*range(50))
    assert [answer.words for answer in link.duplex(CONVERT, many, credit=1)] == [f"{n} times" for n in range(50)]


def test_the_server_may_end_a_duplex_call_before_the_items(bench: Bench, link: Pair) -> None:
    """The caller's iterator is left, and the sink is told the end once."""
    bench.enough = 3
    items = iter(to_convert(*range(10)))
    assert [answer.words for answer in link.duplex(CONVERT, items)] == ["0 times", "1 times"]
    assert next(items).value == 3
    assert bench.converters[0].told == [0, 1, 2, "ended", "finished"]


def test_a_duplex_call_that_fails_raises(bench: Bench, link: Pair) -> None:
    """The answers before it are given; sink and subscription are told, each once."""
    answers = link.duplex(CONVERT, to_convert(1, -1, 2))
    assert next(answers).words == "1 times"
    with pytest.raises(CallError, match="STUCK"):
        next(answers)
    assert bench.converters[0].told == [1, "failed", "STUCK"]


def test_a_duplex_call_that_is_left_is_cancelled(bench: Bench, link: Pair) -> None:
    """Sink and subscription are told so."""
    answers = link.duplex(CONVERT, to_convert(1, 2, 3))
    next(answers)
    answers.close()
    assert bench.converters[0].told == [1, "the caller cancelled", "CANCELLED"]


def test_a_duplex_call_that_pauses_ends_with_what_is_there(bench: Bench, link: Pair) -> None:
    """Nothing here can wait: without answers to come, and without credit for an item, it is over."""

    bench.ends = False
    assert [answer.words for answer in link.duplex(CONVERT, to_convert(1))] == ["1 times"]
    # Its sink had its end already.
    assert bench.converters[0].told == [1, "finished", "the caller cancelled"]
    bench.converting = Future
    link = pair(bench.handlers, limits=Limits(first_items=2))
    assert [answer.words for answer in link.duplex(CONVERT, to_convert(1, 2, 3))] == ["1 times"]
    assert bench.converters[1].told == [1, "the caller cancelled", "CANCELLED"]


def test_a_duplex_handler_that_iterates_is_run_when_all_is_there() -> None:
    """It is a generator like a stream's, and closed when its caller has had enough."""
    closed: list[bool] = []

    def convert(items: Iterator[ConvertRequest], context: Context) -> Iterator[ConvertResponse]:
        try:
            for item in items:
                yield ConvertResponse(words=str(item.value))
        finally:
            closed.append(context.cancelled)

    link = own_handler(CONVERT, convert)
    assert [answer.words for answer in link.duplex(CONVERT, to_convert(*range(40)))] == [str(n) for n in range(40)]
    answers = link.duplex(CONVERT, to_convert(1, 2, 3), credit=1)
    assert next(answers).words == "1"
    answers.close()
    assert closed == [False, True]


@given(
    values=st.lists(st.integers(0, 2**40), max_size=40),
    items=st.integers(1, 20),
    size=st.integers(1, 60),
    granted=st.integers(1, 20),
    window=st.integers(1, 60),
)
def test_whatever_the_credit_everything_comes(
    values: list[int], items: int, size: int, granted: int, window: int
) -> None:
    """Items and answers of any number go through any credit, in order, and neither side sends beyond it."""
    bench = Bench()
    link = pair(bench.handlers, limits=Limits(first_items=items, first_bytes=size))
    assert link.upload(STORE, stored(*values)).total == sum(values)
    assert bench.shelves[0].told == [*values, "finished"]
    answers = link.duplex(CONVERT, to_convert(*values), credit=granted, window=window)
    assert [answer.words for answer in answers] == [f"{value} times" for value in values]
    assert bench.converters[0].told == [*values, "finished", "ended"]
    assert link.client.calls_in_flight == link.server.calls_in_flight == 0


# One-way calls --------------------------------------------------------------------------------------------------


def test_a_one_way_call_is_run_and_not_answered(bench: Bench, link: Pair) -> None:
    """Its handler has run when post returns, and nothing comes back."""
    assert link.post(BEEP, BeepRequest(tone=5), metadata=SIGNED) is None  # type: ignore[func-returns-value]
    assert bench.beeps == [5]
    assert link.untold == []
    assert frames(link, Role.CLIENT) == ["REQUEST"]
    assert frames(link, Role.SERVER) == []


def test_what_became_of_a_one_way_call_is_kept_for_the_test(bench: Bench, link: Pair) -> None:
    """Refusals, what handlers abort with and incidents are told to nobody; ``untold`` has them in order."""
    link.post(BEEP, BeepRequest(tone=1))
    link.post(BEEP, BeepRequest(tone=0), metadata=SIGNED)
    link.post(BEEP, BeepRequest(tone=-1), metadata=SIGNED)
    link.post(RESET, ResetRequest())
    link.client.send_flagged_request(Flag.ONE_WAY, BEEP.opcode, b"\xc1", pack_metadata(SIGNED))
    link.client.send_flagged_request(Flag.ONE_WAY, PROBE.opcode, b"")
    link.client.send_flagged_request(Flag.ONE_WAY, 0x7777, b"")
    assert link.exchange() == []
    assert [error.reason for error in link.untold] == [
        "SIGN_IN_REQUIRED",
        "MUTE",
        "INTERNAL",
        "NO_HANDLER",
        "BAD_PAYLOAD",
        "WRONG_SHAPE",
        "UNKNOWN_OPCODE",
    ]
    assert "burst" not in str(link.untold[2])
    assert bench.beeps == [0, -1]
    assert frames(link, Role.SERVER) == []


def test_one_way_calls_have_credit(bench: Bench) -> None:
    """It returns by half of what the handshake gives, when handlers have returned; without any, nothing is sent."""
    link = pair(bench.handlers, authenticate=bench.authenticate, limits=Limits(one_way_calls=4))
    left = []
    for tone in range(1, 9):
        link.post(BEEP, BeepRequest(tone=tone), metadata=SIGNED)
        left.append(link.client.one_way_credit)
    assert left == [3, 4] * 4
    alone = pair(SHAPES, limits=Limits(one_way_calls=1))
    alone.post(BEEP, BeepRequest())
    with pytest.raises(LocalProtocolError, match="no credit for another one-way call"):
        alone.post(BEEP, BeepRequest())


# What begins no call --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        pytest.param(method, shape.flags, id=f"{method.name}-{shape.value}")
        for method in (PROBE, FOLLOW, STORE, CONVERT, BEEP)
        for shape in Shape
        if shape not in (method.shape, Shape.ONE_WAY)  # of which nothing is answered
    ],
)
def test_a_call_of_another_shape_is_refused(link: Pair, method: Any, flags: int) -> None:
    """A REQUEST whose flags are not the method's is answered WRONG_SHAPE, whatever is behind it."""
    if flags:
        granted = Credit(1, 1) if flags & Flag.ITEMS_COME_BACK else None
        block = pack_metadata(Metadata(credit=granted))
        call_id = link.client.send_flagged_request(flags, method.opcode, b"", block, credit=granted)
    else:
        call_id = link.client.send_request(method.opcode, b"")
    if flags & Flag.ITEMS_FOLLOW:
        link.client.send_item(call_id, b"anything")
    (error,) = link.exchange()
    assert isinstance(error, ErrorReceived)
    assert (error.error.reason, error.error.retry) == ("WRONG_SHAPE", Retry.NOT_PROCESSED)
    assert link.call(PROBE, ProbeRequest(name="still there")).name == "still there"


def test_refusals_of_uploads_are_the_dispatchers(bench: Bench) -> None:
    """Deadline, identity and whatever makes the sink are judged before any item; what was sent is dropped."""
    link = pair(bench.handlers)
    with pytest.raises(CallError) as caught:
        link.upload(STORE, stored(1, 2, 3), metadata=Metadata(deadline_ms=0))
    assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
    assert bench.shelves == []
    handlers = Handlers(SHAPES)

    def refusing(context: Context) -> Shelf:
        context.abort(Status.ABORTED, "FULL", "no shelf is free")

    handlers.sink(STORE)(refusing)
    link = pair(handlers)
    for _ in range(3):
        with pytest.raises(CallError, match="no shelf is free"):
            link.upload(STORE, stored(1, 2, 3))
    link.client.send_flagged_request(Flag.ITEMS_FOLLOW, STORE.opcode, b"", b"\xff")
    (error,) = link.exchange()
    assert isinstance(error, ErrorReceived)
    assert error.error.reason == "BAD_METADATA"
    with pytest.raises(CallError, match="NO_HANDLER"):
        link.upload(AVERAGE, [AverageRequest(value=1)])


def test_a_call_begins_with_a_request_or_with_items(link: Pair) -> None:
    """A request where items follow, and none where one is to be sent, are refused before anything is sent."""
    before = len(link.sent)
    with pytest.raises(LocalProtocolError, match="Store begins without a request, its items follow"):
        link.start(STORE, StoreRequest(value=1))
    methods: list[Operation[Any, Any]] = [PROBE, FOLLOW, BEEP]
    for method in methods:
        with pytest.raises(LocalProtocolError, match=f"{method.name} wants a {method.request.__name__}"):
            link.start(method)
    link.exchange()
    assert len(link.sent) == before


# The test plays the server, or ends the connection ----------------------------------------------------------------


def test_a_test_may_play_the_server_of_any_shape() -> None:
    """Items and their end are events; answers go through the connection."""
    link = pair(SHAPES, codec="pipe")
    call_id = link.start(STORE)
    link.send_item(call_id, STORE, StoreRequest(value=3))
    link.client.send_end(call_id)
    begun, item, ended = link.deliver(link.client)
    assert isinstance(begun, FlaggedRequestReceived)
    assert isinstance(item, ItemReceived)
    assert (begun.flags, item.payload) == (Flag.ITEMS_FOLLOW, b"3|")
    assert ended == RequestEnded(call_id)
    link.server.send_response(call_id, b"1|3")
    assert link.deliver(link.server) == [ResponseReceived(call_id, STORE.opcode, b"1|3")]
    with pytest.raises(LocalProtocolError, match="nobody answers Store"):
        link.upload(STORE, stored(1))
    with pytest.raises(LocalProtocolError, match="nobody answers Store"):
        link.upload(STORE, stored(*range(20)))


def test_the_end_of_the_connection_fails_its_sinks(bench: Bench, link: Pair) -> None:
    """A sink is told once, and the subscription that it may be is closed."""
    uploading, talking = link.start(STORE), link.start(CONVERT)
    link.send_item(uploading, STORE, StoreRequest(value=1))
    link.send_item(talking, CONVERT, ConvertRequest(value=1))
    link.exchange()
    link.server.receive_data(b"\0\0\0\0")
    with pytest.raises(CallError, match="FRAME_TOO_SHORT"):
        link.upload(STORE, stored(1))
    assert bench.shelves[0].told == [1, ("CANCELLED", "the connection ended")]
    assert bench.converters[0].told == [1, "the connection ended", "CANCELLED"]


def test_calls_of_several_shapes_go_side_by_side(bench: Bench, link: Pair) -> None:
    """What comes for another call is kept for it."""
    answers = link.duplex(CONVERT, to_convert(1, 2))
    stream = link.stream(FOLLOW, FollowRequest(count=3), credit=1)
    assert next(answers).words == "1 times"
    assert next(stream).value == 0
    assert link.upload(STORE, stored(5)).total == 5
    assert link.call(PROBE, ProbeRequest(name="a")).name == "a"
    assert [answer.words for answer in answers] == ["2 times"]
    assert [item.value for item in stream] == [1, 2]


def test_a_revoked_identity_ends_its_calls(bench: Bench) -> None:
    """As on a real server the calls in flight fail, and a sink is told; other identities' calls go on."""
    known = {name: Identity(name) for name in ("ann", "bob")}
    link = pair(bench.handlers, authenticate=lambda metadata, peer: known[metadata.authorization])
    stream, other = (
        link.stream(FOLLOW, FollowRequest(count=3), credit=1, metadata=Metadata(authorization=name)) for name in known
    )
    assert (next(stream).value, next(other).value) == (0, 0)
    known["ann"].revoke()
    with pytest.raises(CallError, match="SIGN_IN_REQUIRED") as caught:
        list(stream)
    assert caught.value.retry is Retry.MAYBE_PROCESSED
    assert [item.value for item in other] == [1, 2]
