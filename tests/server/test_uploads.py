"""Uploads, duplex and one-way calls on the TCP server: sinks, iterators, lists, credit, and ends of every kind."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from tests.server.peer import Peer, until, window
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.limits import Limits
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, Service, UploadMethod
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.events import (
    CallOver,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    GoAwayReceived,
    ItemReceived,
    OneWayCreditReceived,
    ResponseReceived,
)
from wireproto.wire.metadata import Metadata, pack_metadata


class Chunk(Message):
    """A piece of something."""

    data: bytes = b""
    number: int = 0


class Sum(Message):
    """What came."""

    total: int = 0
    size: int = 0


ADD_UP = UploadMethod(opcode=1, name="AddUp", request=Chunk, response=Sum, reasons=["TOO_BIG"])
ITERATE = UploadMethod(opcode=2, name="Iterate", request=Chunk, response=Sum)
COLLECT = UploadMethod(opcode=3, name="Collect", request=Chunk, response=Sum, collect=3)
ECHO_ALL = DuplexMethod(opcode=4, name="EchoAll", request=Chunk, response=Chunk)
ECHO_SINK = DuplexMethod(opcode=5, name="EchoSink", request=Chunk, response=Chunk)
NOTE = OneWayMethod(opcode=6, name="Note", request=Chunk)
PLAIN = Method(opcode=7, name="Plain", request=Chunk, response=Sum)
UPLOADS = Service("uploads.v1.UploadsService", 1, [ADD_UP, ITERATE, COLLECT, ECHO_ALL, ECHO_SINK, NOTE, PLAIN])


class Adder(Sink[Chunk, Sum]):
    """Adds numbers; a negative one fails, 1,000 answers early, 500 waits for whoever completes ``Desk.futures``."""

    def __init__(self, desk: "Desk") -> None:
        self.desk = desk
        self.total = self.size = 0

    def receive(self, item: Chunk) -> Future[None] | None:
        if item.number < 0:
            raise CallError(Status.INVALID_ARGUMENT, "TOO_BIG", "negative")
        if item.number == 666:
            raise RuntimeError("a secret")
        self.total += item.number
        self.size += len(item.data)
        self.desk.taken += 1
        if item.number == 1_000:
            self.answer(Sum(total=self.total))
        if item.number == 500:
            future: Future[None] = Future()
            self.desk.futures.append(future)
            return future
        return None

    def finished(self) -> Sum:
        self.desk.ends.append("finished")
        return Sum(total=self.total, size=self.size)

    def failed(self, error: CallError) -> None:
        self.desk.ends.append(error.reason)


class Echo(Sink[Chunk, None], Subscription[Chunk]):
    """Gives back what it takes."""

    def __init__(self, desk: "Desk") -> None:
        self.desk = desk
        self.items: list[Chunk] = []
        self.complete = False

    def receive(self, item: Chunk) -> None:
        self.items.append(item)
        self.wake()

    def finished(self) -> None:
        self.complete = True
        self.desk.ends.append("finished")
        self.wake()

    def failed(self, error: CallError) -> None:
        self.desk.ends.append(error.reason)

    def take(self, n: int) -> list[Chunk]:
        given, self.items = self.items[:n], self.items[n:]
        if not given and self.complete:
            raise StopIteration
        return given

    def close(self, reason: str) -> None:
        self.desk.ends.append("closed")


class Desk:
    """What the handlers do and have seen."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.futures: list[Future[None]] = []
        self.taken = 0
        self.notes: list[int] = []
        self.gate = threading.Event()
        self.handlers = Handlers(UPLOADS)
        self.handlers.sink(ADD_UP)(lambda context: Adder(self))
        self.handlers.sink(ECHO_SINK)(lambda context: Echo(self))

        @self.handlers.register(ITERATE)
        def iterate(items: Iterator[Chunk], context: Context) -> Sum:
            total = size = 0
            try:
                for item in items:
                    self.taken += 1
                    total += item.number
                    size += len(item.data)
                    if item.number == 1_000:
                        break
            except CallError as error:
                self.ends.append(error.reason)
                raise
            return Sum(total=total, size=size)

        @self.handlers.register(COLLECT)
        def collect(items: list[Chunk], context: Context) -> Sum:
            return Sum(total=sum(item.number for item in items))

        @self.handlers.register(ECHO_ALL)
        def echo_all(items: Iterator[Chunk], context: Context) -> Iterator[Chunk]:
            for item in items:
                yield Chunk(number=item.number * 2, data=item.data)

        @self.handlers.register(NOTE)
        def note(request: Chunk, context: Context) -> None:
            if request.number < 0:
                raise CallError(Status.INVALID_ARGUMENT, "", "negative")
            if request.number == 500:
                self.gate.wait(20)
            self.notes.append(request.number)

        @self.handlers.register(PLAIN)
        def plain(request: Chunk, context: Context) -> Sum:
            return Sum(total=request.number)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.set()


Serving = Callable[..., Server]


@pytest.fixture
def serving(desk: Desk) -> Iterator[Serving]:
    servers: list[Server] = []

    def serve(**limits: float) -> Server:
        server = Server(desk.handlers, port=0, limits=Limits(**limits))  # type: ignore[arg-type]
        server.start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.shutdown(0)


def answered(peer: Peer, method: UploadMethod[Chunk, Sum]) -> Sum:
    """The answer, whatever credit comes before it."""
    while True:
        event = peer.event()
        if isinstance(event, ResponseReceived):
            answer = peer.decode(method, event.payload)
            assert isinstance(answer, Sum)
            return answer
        assert isinstance(event, CreditReceived), event


def assert_alive(peer: Peer) -> None:
    """Another call is answered, whatever credit comes before that."""
    peer.start(PLAIN, Chunk(number=1))
    assert answered(peer, ADD_UP).total == 1


def failed(peer: Peer) -> CallError:
    """The error, whatever credit comes before it."""
    while True:
        event = peer.event()
        if isinstance(event, ErrorReceived):
            return event.error
        assert isinstance(event, CreditReceived), event


def push(peer: Peer, method: UploadMethod[Chunk, Sum], call_id: int, items: list[Chunk]) -> None:
    """Send items as credit allows, reading what comes meanwhile."""
    for item in items:
        while not peer.connection.may_send_item(call_id):
            peer.expect(CreditReceived)
        peer.send(method, call_id, item)
    peer.connection.send_end(call_id)


@pytest.mark.parametrize("method", [ADD_UP, ITERATE], ids=["sink", "iterator"])
@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 5), (1_000, 10), (40, 100_000), (3, 900_000)])
def test_an_upload_of_any_size_arrives_whole(
    serving: Serving, method: UploadMethod[Chunk, Sum], count: int, size: int
) -> None:
    """However many items of whatever size: all are taken, as fast as credit comes back, and one answer comes."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(method, Chunk())
        numbers = [number % 400 for number in range(count)]
        push(peer, method, call_id, [Chunk(number=number, data=bytes(size)) for number in numbers])
        assert answered(peer, method) == Sum(total=sum(numbers), size=count * size)
        assert_alive(peer)


def test_items_are_collected(serving: Serving) -> None:
    """With ``collect`` the handler has all items at once; one too many fails the call."""
    with Peer(serving(), UPLOADS) as peer:
        for count in (0, 3):
            call_id = peer.start(COLLECT, Chunk())
            push(peer, COLLECT, call_id, [Chunk(number=1)] * count)
            assert answered(peer, COLLECT) == Sum(total=count)
        call_id = peer.start(COLLECT, Chunk())
        push(peer, COLLECT, call_id, [Chunk()] * 4)
        assert failed(peer).reason == "REQUEST_TOO_LARGE"


def test_a_sink_holds_back_its_caller_with_a_future(serving: Serving, desk: Desk) -> None:
    """While the future of an item is not done nothing is taken, so that the window is all that may be sent."""
    with Peer(serving(window_items=16, first_items=16), UPLOADS) as peer:
        call_id = peer.start(ADD_UP, Chunk())
        peer.send(ADD_UP, call_id, Chunk(number=500), *[Chunk(number=1)] * 15)
        peer.flush()
        until(lambda: bool(desk.futures), "the sink waits")
        assert not peer.connection.may_send_item(call_id)
        assert_alive(peer)
        assert desk.taken == 1
        desk.futures[0].set_result(None)
        push(peer, ADD_UP, call_id, [Chunk(number=1)] * 20)
        assert answered(peer, ADD_UP).total == 535


def test_cancelling_gives_up_a_future(serving: Serving, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """CANCEL while a sink waits for its future: that is cancelled, the sink is told why, and it is no incident."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(ADD_UP, Chunk())
        peer.send(ADD_UP, call_id, Chunk(number=500))
        peer.flush()
        until(lambda: bool(desk.futures), "the sink waits")
        peer.connection.send_cancel(call_id)
        peer.flush()
        until(lambda: desk.ends == ["CANCELLED"], "the sink is told")
        assert desk.futures[0].cancelled()
        assert "incident" not in caplog.text


@pytest.mark.parametrize("method", [ADD_UP, ITERATE], ids=["sink", "iterator"])
def test_an_early_answer(serving: Serving, desk: Desk, method: UploadMethod[Chunk, Sum]) -> None:
    """The answer may come before the end of the items; what still comes is dropped, and the connection goes on."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(method, Chunk())
        peer.send(method, call_id, Chunk(number=1_000))
        peer.flush()
        assert answered(peer, method).total == 1_000
        # The call is over here. Had the answer crossed these items on the wire, they would have been dropped.
        assert_alive(peer)
        if method is ADD_UP:
            until(lambda: desk.ends == ["finished"], "the sink is told")


@pytest.mark.parametrize("method", [ADD_UP, ITERATE], ids=["sink", "iterator"])
def test_cancelling_ends_the_items(serving: Serving, desk: Desk, method: UploadMethod[Chunk, Sum]) -> None:
    """CANCEL is answered, the handler sees it, and the place is free."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(method, Chunk())
        peer.send(method, call_id, Chunk(number=1))
        peer.flush()
        until(lambda: desk.taken == 1, "the item is taken")
        peer.connection.send_cancel(call_id)
        peer.flush()
        until(lambda: desk.ends == ["CANCELLED"], "the handler sees it")


def test_a_deadline_ends_the_items(serving: Serving, desk: Desk) -> None:
    """Whether a sink or an iterator waits for items: the deadline ends both."""
    with Peer(serving(), UPLOADS) as peer:
        for method in (ADD_UP, ITERATE):
            call_id = peer.start(method, Chunk(), Metadata(deadline_ms=200))
            peer.send(method, call_id, Chunk(number=1))
            assert failed(peer).reason == "DEADLINE"
        until(lambda: desk.ends == ["DEADLINE", "DEADLINE"], "both are told")


def test_a_handler_does_not_wait_for_ever(serving: Serving, desk: Desk) -> None:
    """A caller that sends nothing though it may ends its call after ``item_timeout``."""
    with Peer(serving(item_timeout=0.2), UPLOADS) as peer:
        call_id = peer.start(ITERATE, Chunk())
        peer.send(ITERATE, call_id, Chunk(number=1))
        error = failed(peer)
        assert (error.status, error.reason, error.retry) == (
            Status.DEADLINE_EXCEEDED,
            "ITEM_TIMEOUT",
            Retry.MAYBE_PROCESSED,
        )


@pytest.mark.parametrize(("number", "reason"), [(-1, "TOO_BIG"), (666, "INTERNAL")])
def test_what_a_sink_raises_ends_its_call(serving: Serving, desk: Desk, number: int, reason: str) -> None:
    """A CallError is the answer, anything else an incident; the sink is told, and the connection goes on."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(ADD_UP, Chunk())
        peer.send(ADD_UP, call_id, Chunk(number=number))
        error = failed(peer)
        assert error.reason == reason
        assert "secret" not in error.message
        until(lambda: desk.ends == [reason], "the sink is told")
        assert_alive(peer)


def test_an_item_that_cannot_be_read_ends_its_call(serving: Serving, desk: Desk) -> None:
    """A bad payload in the middle is BAD_PAYLOAD; the sink is told."""
    for method in (ADD_UP, ITERATE):
        with Peer(serving(), UPLOADS) as peer:
            call_id = peer.start(method, Chunk())
            peer.send(method, call_id, Chunk(number=1))
            peer.connection.send_item(call_id, b"\xc1")
            assert failed(peer).reason == "BAD_PAYLOAD"
            assert_alive(peer)
    until(lambda: desk.ends == ["BAD_PAYLOAD", "BAD_PAYLOAD"], "both are told")


def test_a_lost_connection_ends_the_items(serving: Serving, desk: Desk) -> None:
    """Sinks and iterators of a connection that is gone are told so."""
    with Peer(serving(), UPLOADS) as peer:
        for method in (ADD_UP, ITERATE):
            peer.send(method, peer.start(method, Chunk()), Chunk(number=1))
        peer.flush()
        until(lambda: desk.taken == 2, "both are taken")
    until(lambda: desk.ends == ["CANCELLED", "CANCELLED"], "both are told")


def test_half_close_ends_what_is_not_complete(serving: Serving, desk: Desk) -> None:
    """An upload whose items are all there is answered behind the end of input; one that is not is CANCELLED."""
    import socket

    with Peer(serving(), UPLOADS) as peer:
        whole = peer.start(ADD_UP, Chunk())
        part = peer.start(ADD_UP, Chunk())
        peer.send(ADD_UP, whole, Chunk(number=1))
        peer.send(ADD_UP, part, Chunk(number=1))
        peer.connection.send_end(whole)
        peer.flush()
        peer.connection.end_output()
        peer.socket.shutdown(socket.SHUT_WR)
        ends: dict[int, str] = {}
        while len(ends) < 2:
            event = peer.event()
            if isinstance(event, ResponseReceived):
                ends[event.call_id] = "answered"
            elif isinstance(event, ErrorReceived):
                ends[event.call_id] = event.error.reason
        assert ends == {whole: "answered", part: "CANCELLED"}


@pytest.mark.parametrize("method", [ECHO_ALL, ECHO_SINK], ids=["iterator", "sink"])
def test_a_duplex_call_goes_both_ways(serving: Serving, desk: Desk, method: DuplexMethod[Chunk, Chunk]) -> None:
    """Items come back while others go out, within the credit of each half; END ends either half by itself."""
    factor = 2 if method is ECHO_ALL else 1
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(method, Chunk(), Metadata(credit=window(5)))
        back: list[int] = []
        for number in range(200):
            while not peer.connection.may_send_item(call_id):
                peer.expect(CreditReceived)
            peer.send(method, call_id, Chunk(number=number))
            while len(back) <= number:
                event = peer.event()
                if isinstance(event, ItemReceived):
                    back.append(peer.decode(method, event.payload).number)
                    peer.connection.send_credit(call_id, 1, len(event.payload))
        peer.connection.send_end(call_id)
        while not isinstance(event := peer.event(), EndReceived):
            assert isinstance(event, CreditReceived)
        assert back == [number * factor for number in range(200)]
        if method is ECHO_SINK:
            until(lambda: sorted(desk.ends) == ["closed", "finished"], "both of its ends are told, once")


def test_one_way_calls_run_and_return_their_credit(serving: Serving, desk: Desk) -> None:
    """Thousands run though a few may be on their way; nothing is answered, and failures are nobody's."""
    with Peer(serving(one_way_calls=4), UPLOADS) as peer:
        for number in range(-10, 200):
            while not peer.connection.one_way_credit:
                peer.expect(OneWayCreditReceived)
            peer.start(NOTE, Chunk(number=number))
        peer.flush()
        until(lambda: len(desk.notes) == 200, "all have run")
        assert sorted(desk.notes) == list(range(200))
        assert peer.connection.own_calls == 0


def test_one_way_calls_without_credit_end_the_connection(serving: Serving, desk: Desk) -> None:
    """A caller that ignores its credit is ended; what it had is not."""
    with Peer(serving(one_way_calls=2), UPLOADS) as peer:
        for number in (500, 500):
            peer.start(NOTE, Chunk(number=number))
        peer.connection._ours.one_way = 1
        peer.start(NOTE, Chunk(number=2))
        error = peer.ended().error
        assert isinstance(error, CallError)
        assert error.reason == "CREDIT_EXCEEDED"


def test_closing_waits_for_uploads_and_one_way_calls(serving: Serving, desk: Desk) -> None:
    """What is under way when the server closes is finished within its time."""
    server = serving()
    with Peer(server, UPLOADS) as peer:
        call_id = peer.start(ITERATE, Chunk())
        peer.send(ITERATE, call_id, Chunk(number=1))
        peer.start(NOTE, Chunk(number=500))
        assert_alive(peer)
        closing = threading.Thread(target=lambda: server.shutdown(20))
        closing.start()
        while not isinstance(peer.event(), GoAwayReceived):
            pass
        peer.send(ITERATE, call_id, Chunk(number=2))
        peer.connection.send_end(call_id)
        assert answered(peer, ITERATE).total == 3
        desk.gate.set()
        closing.join(20)
        assert not closing.is_alive()
        assert desk.notes == [500]


def test_held_bytes_are_bounded(serving: Serving, desk: Desk) -> None:
    """Calls beyond ``max_held`` keep their first credit, and all of them complete."""
    with Peer(serving(max_held=2_300_000), UPLOADS) as peer:
        calls = [peer.start(ADD_UP, Chunk()) for _ in range(4)]
        for _ in range(2):
            peer.expect(CreditReceived)
        windows = sorted(peer.connection.credit(call_id)[1] for call_id in calls)
        assert windows == [65_536, 65_536, 1_048_576, 1_048_576]
        for call_id in calls:
            push(peer, ADD_UP, call_id, [Chunk(number=1, data=bytes(30_000))] * 20)
            assert answered(peer, ADD_UP) == Sum(total=20, size=600_000)


def test_cancelled_calls_are_over_for_the_peer(serving: Serving) -> None:
    """The terminal frame of a cancelled upload comes as ``CallOver``."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(ADD_UP, Chunk())
        peer.connection.send_cancel(call_id)
        assert_alive(peer)
        until(lambda: peer.connection.own_calls == 0, "it is over")
        assert CallOver(call_id).call_id in peer.over


# What a review found, each by itself.


def test_requests_behind_an_item_are_all_answered(serving: Serving) -> None:
    """An item among more calls than a turn takes, in the same bytes, leaves none of them unread."""
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(ADD_UP, Chunk())
        assert_alive(peer)
        peer.send(ADD_UP, call_id, Chunk(number=1))
        calls = {peer.start(PLAIN, Chunk(number=number)) for number in range(200)}
        peer.flush()
        while calls:
            event = peer.event()
            if isinstance(event, ResponseReceived):
                calls.remove(event.call_id)


def test_a_future_given_when_the_call_is_over_is_cancelled(serving: Serving, desk: Desk) -> None:
    """The end may come while the sink takes an item: the future that it gives then is cancelled, and the sink told."""
    entered, go = threading.Event(), threading.Event()
    futures: list[Future[None]] = []

    class Slow(Adder):
        def receive(self, item: Chunk) -> Future[None]:
            entered.set()
            assert go.wait(20)
            futures.append(Future())
            return futures[-1]

    handlers = Handlers(UPLOADS)
    handlers.sink(ADD_UP)(lambda context: Slow(desk))
    desk.handlers = handlers
    server = serving()
    with Peer(server, UPLOADS) as peer:
        peer.send(ADD_UP, peer.start(ADD_UP, Chunk()), Chunk())
        peer.flush()
        assert entered.wait(20)
    until(lambda: not server.sessions, "the connection is gone")
    go.set()
    until(lambda: desk.ends == ["CANCELLED"], "the sink is told")
    assert futures[0].cancelled()


def test_a_call_whose_sink_is_made_may_have_been_processed(serving: Serving, desk: Desk) -> None:
    """What makes the sink is the user's code: from then on nobody says NOT_PROCESSED."""
    go = threading.Event()
    handlers = Handlers(UPLOADS)

    @handlers.sink(ADD_UP)
    def make(context: Context) -> Adder:
        assert go.wait(20)
        return Adder(desk)

    desk.handlers = handlers
    with Peer(serving(), UPLOADS) as peer:
        peer.start(ADD_UP, Chunk(), Metadata(deadline_ms=100))
        assert failed(peer).retry is Retry.MAYBE_PROCESSED
        go.set()
        until(lambda: desk.ends == ["DEADLINE"], "the sink is told")


def test_a_duplex_call_has_no_early_answer(serving: Serving, desk: Desk) -> None:
    """``Sink.answer`` is for uploads: of a duplex call it is an incident, and the call has its terminal frame."""

    class Eager(Echo):
        def receive(self, item: Chunk) -> None:
            self.answer(None)

    handlers = Handlers(UPLOADS)
    handlers.sink(ECHO_SINK)(lambda context: Eager(desk))
    desk.handlers = handlers
    with Peer(serving(), UPLOADS) as peer:
        call_id = peer.start(ECHO_SINK, Chunk(), Metadata(credit=window(5)))
        peer.send(ECHO_SINK, call_id, Chunk())
        assert failed(peer).reason == "INTERNAL"
        until(lambda: sorted(desk.ends) == ["INTERNAL", "closed"], "both of its ends are told")


def test_collected_bytes_are_bounded(serving: Serving) -> None:
    """A method that collects takes no more bytes in one call than a window has, though their credit goes back."""
    with Peer(serving(window_bytes=100_000), UPLOADS) as peer:
        call_id = peer.start(COLLECT, Chunk())
        push(peer, COLLECT, call_id, [Chunk(data=bytes(49_000))] * 2)
        assert answered(peer, COLLECT).total == 0
        call_id = peer.start(COLLECT, Chunk())
        for _ in range(3):
            while not peer.connection.may_send_item(call_id):
                peer.expect(CreditReceived)
            peer.send(COLLECT, call_id, Chunk(data=bytes(49_000)))
        assert failed(peer).reason == "REQUEST_TOO_LARGE"


def test_what_ends_before_its_turn_waits_for_no_worker(serving: Serving, desk: Desk) -> None:
    """While others hold the workers that iterate, calls that end by their deadlines leave nothing behind."""
    server = serving()
    with Peer(server, UPLOADS) as holding, Peer(server, UPLOADS) as peer:
        slots = server.pool._pull_limit
        for _ in range(slots):
            holding.send(ITERATE, holding.start(ITERATE, Chunk()), Chunk())
        holding.flush()
        until(lambda: desk.taken == slots, "all are held")
        for _ in range(300):
            peer.start(ITERATE, Chunk(), Metadata(deadline_ms=1))
            assert failed(peer).reason == "DEADLINE"
        assert not server.pool._pulls


def test_a_session_that_is_gone_begins_no_call(serving: Serving, desk: Desk) -> None:
    """Credit of one-way calls is returned in the middle of a turn: that a write fails there ends nothing halfway."""
    server = serving(one_way_calls=2)
    with Peer(server, UPLOADS) as peer:
        peer.start(NOTE, Chunk(number=1))
        block = pack_metadata(Metadata(traceparent="x"))[:-1]
        peer.connection.send_flagged_request(NOTE.shape.flags, NOTE.opcode, b"", block)
        for _ in range(5):
            peer.start(ECHO_SINK, Chunk(), Metadata(credit=window(1)))
        peer.flush()
    until(lambda: not server.sessions, "the connection is gone")
    until(lambda: desk.ends.count("closed") == desk.ends.count("CANCELLED"), "all that was opened is closed")


def test_a_blocking_sink_is_no_leaders(serving: Serving, desk: Desk) -> None:
    """Neither what makes the sink of a blocking method, nor the sink, runs on the thread that reads."""
    blocking = UploadMethod(opcode=1, name="Block", request=Chunk, response=Sum, blocking=True)
    service = Service("uploads.v1.BlockingService", 1, [blocking])
    handlers = Handlers(service)
    ran: list[str] = []

    class Named(Adder):
        def receive(self, item: Chunk) -> None:
            ran.append(threading.current_thread().name)

        def finished(self) -> Sum:
            ran.append(threading.current_thread().name)
            return Sum()

    @handlers.sink(blocking)
    def make(context: Context) -> Named:
        ran.append(threading.current_thread().name)
        leaders.add(server.pool.leader.name if server.pool.leader is not None else "")
        return Named(desk)

    leaders: set[str] = set()
    desk.handlers = handlers
    server = serving()
    with Peer(server, service) as peer:
        call_id = peer.start(blocking, Chunk())
        peer.send(blocking, call_id, Chunk())
        peer.connection.send_end(call_id)
        answered(peer, blocking)
    assert len(ran) == 3
    assert not leaders & set(ran)
