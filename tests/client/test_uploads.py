"""Uploads: items as the server takes them, one response, and every end there may be before or between."""

import signal
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ADD_UP, ECHO, SEND, SERVICE, CountRequest, CountResponse, EchoRequest, echo
from tests.client.taking import TAKING, TakingStage
from wireproto import CallError, Client, ConnectionLost, EncodeError, Limits, Retry, Server, Status, connect
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
)
from wireproto.wire.frame import NO_CREDIT, Credit, Flag

ROOM = Credit(16, 65_536)


class Asked:
    """Numbers to upload, and how many of them were asked for."""

    def __init__(self, upto: int) -> None:
        self.count = 0
        self._upto = upto

    def __iter__(self) -> Iterator[CountRequest]:
        for number in range(self._upto):
            self.count += 1
            yield CountRequest(upto=number)


@pytest.fixture
def taking() -> Iterator[Callable[..., Client]]:
    """Makes clients of a real server with limits of its own."""
    servers: list[Server] = []
    clients: list[Client] = []

    def make(**limits: int) -> Client:
        server = Server(TakingStage().handlers, port=0, limits=Limits(**limits))
        server.start()
        servers.append(server)
        clients.append(connect(server.address, TAKING))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    for server in servers:
        server.shutdown(0)


def begun(peer: Peer, first: Credit = NO_CREDIT) -> FlaggedRequestReceived:
    """Greet, and receive the REQUEST of an upload."""
    peer.greet(first=first)
    return peer.flagged_request(Flag.ITEMS_FOLLOW)


def all_of(peer: Peer, request: FlaggedRequestReceived) -> list[int]:
    """Every item of an upload that needs no credit granted, up to its END."""
    found: list[int] = []
    while isinstance(event := peer.event(), ItemReceived):
        found.append(peer.read(request, event.payload).upto)
    assert isinstance(event, RequestEnded), event
    return found


def summing(peer: Peer) -> None:
    """Answer an upload of a few items with their sum, then echo."""
    request = begun(peer, first=ROOM)
    peer.respond(request, ADD_UP, CountResponse(n=sum(all_of(peer, request))))
    peer.serve()


@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_every_item_arrives(taking: Callable[..., Client], kind: Callable[..., object], count: int) -> None:
    """However many there are and whatever they come in, the response is that to all of them."""
    client = taking()
    items = kind([CountRequest(upto=n) for n in range(count)])
    assert client.upload(ADD_UP, items).n == sum(range(count))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [list, iter])
def test_items_larger_than_the_window_go_one_by_one(taking: Callable[..., Client], kind: Callable[..., object]) -> None:
    """An item may go beyond the bytes that are left, once; the next one waits until it is taken."""
    client = taking(first_items=2, first_bytes=100, window_items=4, window_bytes=1000)
    items = kind([EchoRequest(text="x" * 50_000)] * 20)
    assert client.upload(SEND, items).n == 20 * 50_000  # type: ignore[arg-type]


def test_uploads_and_calls_share_a_connection(taking: Callable[..., Client]) -> None:
    """Several threads upload and one calls: each gets its own, whoever receives."""
    client = taking()
    with ThreadPoolExecutor(5) as pool:
        uploads = [pool.submit(client.upload, ADD_UP, Asked(800 + n)) for n in range(4)]
        calls = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(50)]
        assert [upload.result(PATIENCE).n for upload in uploads] == [sum(range(800 + n)) for n in range(4)]
        assert [call.result(PATIENCE).text for call in calls] == [str(n) for n in range(50)]


def test_items_may_come_from_the_client_itself(taking: Callable[..., Client]) -> None:
    """The iterable is the caller's code, run outside of every method of the client."""
    client = taking()
    items = (CountRequest(upto=int(client.call(ECHO, echo(str(n))).text)) for n in range(10))
    assert client.upload(ADD_UP, items).n == 45


def test_an_item_is_asked_for_when_it_may_be_sent() -> None:
    """With credit for one at a time, none is asked for ahead of it."""
    asked = Asked(5)
    ahead: list[int] = []

    def script(peer: Peer) -> None:
        request = begun(peer)
        for n in range(5):
            ahead.append(asked.count - n)
            peer.grant(request, 1, 2)
            assert peer.item(request).upto == n
        peer.grant(request, 1, 1)  # the end is found by asking once more
        peer.expect(RequestEnded)
        peer.respond(request, ADD_UP, CountResponse(n=10))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, asked).n == 10
    assert ahead == [0] * 5


def test_items_at_hand_go_in_one_write() -> None:
    """Those of a list, as many as may be sent, and END behind the last: one write and not one for each."""
    together: list[int] = []

    def script(peer: Peer) -> None:
        request = begun(peer)
        peer.grant(request, 16, 65_536)
        peer.connection.receive_data(peer.sock.recv(65_536))
        events = []
        while (event := peer.connection.next_event()) is not NEED_DATA:
            events.append(type(event))
        together.append(events.count(ItemReceived))
        assert events[-1] is RequestEnded
        peer.respond(request, ADD_UP, CountResponse(n=1))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, [CountRequest(upto=n) for n in range(12)]).n == 1
    assert together == [12]


def test_an_item_is_on_its_way_before_the_next_is_asked_for() -> None:
    """An iterable that waits for something does not hold up what it gave before."""
    arrived = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        peer.item(request)
        arrived.set()
        assert all_of(peer, request) == [2]
        peer.respond(request, ADD_UP, CountResponse(n=3))
        peer.until_gone()

    def items() -> Iterator[CountRequest]:
        yield CountRequest(upto=1)
        assert arrived.wait(PATIENCE)
        yield CountRequest(upto=2)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, items()).n == 3


def test_without_credit_the_time_is_up() -> None:
    """Nothing is asked for, the server is told to stop, and the connection goes on."""
    asked = Asked(5)

    def script(peer: Peer) -> None:
        request = begun(peer)
        assert peer.expect(CancelReceived).call_id == request.call_id
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError) as caught:
            client.upload(ADD_UP, asked, timeout=0.1)
        assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.MAYBE_PROCESSED)
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1
    assert asked.count == 0


def test_the_time_is_up_while_the_answer_is_waited_for() -> None:
    """It is that of the whole upload, and the server is told here, too."""

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        assert all_of(peer, request) == [0, 1]
        peer.expect(CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="DEADLINE"):
            client.upload(ADD_UP, Asked(2), timeout=0.2)
        assert client.call(ECHO, echo("x")).text == "x"


def test_the_time_is_up_while_the_iterable_takes_its_own() -> None:
    """There is credit, and the iterable is slow: it is not asked again behind the deadline."""
    pause = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        while isinstance(event := peer.event(), ItemReceived):
            pass
        assert isinstance(event, CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.until_gone()

    def items() -> Iterator[CountRequest]:
        while True:
            pause.wait(0.06)
            yield CountRequest(upto=1)

    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        pytest.raises(CallError, match="DEADLINE"),
    ):
        client.upload(ADD_UP, items(), timeout=0.1)


def test_an_answer_that_comes_early_ends_the_wait_for_credit() -> None:
    """The response is there, and nothing more is asked for."""
    asked = Asked(100)

    def script(peer: Peer) -> None:
        request = begun(peer, first=Credit(2, 100))
        assert [peer.item(request).upto, peer.item(request).upto] == [0, 1]
        peer.respond(request, ADD_UP, CountResponse(n=7))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, asked).n == 7
        assert client.call(ECHO, echo("x")).text == "x"
    assert asked.count == 2


@pytest.mark.parametrize("refused", [False, True])
def test_an_answer_that_crosses_items_is_seen_though_there_is_credit(refused: bool) -> None:
    """What was sent meanwhile is dropped by the server; no further item is asked for. An error is one as well."""
    answered = threading.Event()
    asked = 0

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        assert peer.item(request).upto == 0
        if refused:
            peer.refuse(request, CallError(Status.ABORTED, "ENOUGH", "no more"))
        else:
            peer.respond(request, ADD_UP, CountResponse(n=7))
        answered.set()
        peer.serve()

    def items() -> Iterator[CountRequest]:
        nonlocal asked
        for n in range(16):
            asked += 1
            yield CountRequest(upto=n)
            assert answered.wait(PATIENCE)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        if refused:
            with pytest.raises(CallError, match="ENOUGH: no more"):
                client.upload(ADD_UP, items())
        else:
            assert client.upload(ADD_UP, items()).n == 7
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1
    assert asked <= 2, "the second one may have crossed the answer"


def test_an_iterable_that_raises_cancels_the_call() -> None:
    """The caller has its own exception, and the server is told."""

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        peer.item(request)
        peer.expect(CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    def items() -> Iterator[CountRequest]:
        yield CountRequest(upto=0)
        raise ZeroDivisionError("mine")

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(ZeroDivisionError, match="mine"):
            client.upload(ADD_UP, items())
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


def test_the_server_is_told_of_every_upload_that_is_given_up() -> None:
    """Also when so many calls are cancelled that those of unary ones are not told: it would wait for items for ever."""

    def script(peer: Peer) -> None:
        peer.greet(first=ROOM)
        for _ in range(5):
            request = peer.flagged_request(Flag.ITEMS_FOLLOW)
            peer.expect(CancelReceived)
            peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    limits = Limits(cancels_per_second=0.001, cancel_burst=2)
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                client.upload(ADD_UP, (CountRequest(upto=1 // n) for n in range(1)))
        assert client.call(ECHO, echo("x")).text == "x"


@pytest.mark.parametrize(
    ("item", "error", "text"),
    [
        (
            EchoRequest(text="x" * 300_000),
            CallError,
            "an item .* takes at most 200000. It was not sent; what came before",
        ),
        (EchoRequest(text="x" * 150_000), CallError, "an item .* accepts 100000. It was not sent; what came before"),
        (EchoRequest(text="\ud800"), EncodeError, "text"),
    ],
)
def test_an_item_that_cannot_be_sent_cancels_the_call(item: EchoRequest, error: type[Exception], text: str) -> None:
    """What came before it was sent, as the error says; the connection goes on."""

    def script(peer: Peer) -> None:
        peer.greet(first=ROOM, max_frame=100_000)
        request = peer.flagged_request(Flag.ITEMS_FOLLOW)
        assert peer.item(request).text == "first"
        peer.expect(CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(error, match=text):
            client.upload(SEND, iter([EchoRequest(text="first"), item]))
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_server_that_closes_in_the_middle_may_have_processed_it() -> None:
    """The call is not repeated, even if its items are at hand."""

    def script(peer: Peer) -> None:
        peer.item(begun(peer, first=Credit(1, 100)))

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(ConnectionLost, match="closed the connection") as caught:
            client.upload(ADD_UP, [CountRequest(upto=1)] * 5)
        assert caught.value.retry is Retry.MAYBE_PROCESSED
        assert server.connections == 1


def going(taken: int) -> Callable[[Peer], None]:
    """The script of a server that takes so many items, and then says that it has not looked at the call."""

    def script(peer: Peer) -> None:
        request = begun(peer, first=Credit(taken, 100) if taken else Credit(0, 0))
        for _ in range(taken):
            peer.item(request)
        peer.go_away(0)
        peer.until_gone()

    return script


def test_a_call_that_was_not_looked_at_is_repeated_while_nothing_was_asked_for() -> None:
    """Any iterable can begin elsewhere as long as it was not touched."""
    asked = Asked(4)
    with serving(going(0), summing) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, asked).n == 6
        assert server.connections == 2
    assert asked.count == 4


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_call_with_its_items_at_hand_is_repeated_from_the_first(kind: Callable[..., list[CountRequest]]) -> None:
    """Those sent before are sent again."""
    with serving(going(2), summing) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, kind(CountRequest(upto=n) for n in range(4))).n == 6
        assert server.connections == 2


def test_a_call_that_was_complete_is_repeated_from_the_first() -> None:
    """Its END was sent before the server said that it had not looked at it."""

    def script(peer: Peer) -> None:
        request = begun(peer, first=ROOM)
        assert all_of(peer, request) == [0, 1, 2, 3]
        peer.go_away(0)
        peer.until_gone()

    with serving(script, summing) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, [CountRequest(upto=n) for n in range(4)]).n == 6
        assert server.connections == 2


def test_a_call_whose_items_are_gone_is_not_repeated() -> None:
    """It was not processed, which its caller is told, who may have the items again."""
    with serving(going(2), summing) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.upload(ADD_UP, Asked(4))
        assert caught.value.retry is Retry.NOT_PROCESSED
        assert server.connections == 1


def test_a_call_that_goaway_names_goes_on() -> None:
    """Its items are taken and answered; other calls go elsewhere."""

    def script(peer: Peer) -> None:
        request = begun(peer, first=Credit(1, 100))
        peer.item(request)
        peer.go_away(request.call_id)
        peer.grant(request, 16, 1000)
        assert all_of(peer, request) == [1, 2, 3]
        peer.respond(request, ADD_UP, CountResponse(n=6))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.upload(ADD_UP, Asked(4)).n == 6
        assert server.connections == 1


def test_an_upload_takes_a_place() -> None:
    """With one place, a call waits until the upload is over: the server would refuse it."""
    uploading = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1, first=ROOM)
        request = peer.flagged_request(Flag.ITEMS_FOLLOW)
        uploading.set()
        assert all_of(peer, request) == [0, 1]
        peer.respond(request, ADD_UP, CountResponse(n=1))
        peer.serve()

    def items() -> Iterator[CountRequest]:
        yield CountRequest(upto=0)
        assert calling.wait(PATIENCE)
        yield CountRequest(upto=1)

    calling = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(2) as pool:
        upload = pool.submit(client.upload, ADD_UP, items())
        assert uploading.wait(PATIENCE)
        call = pool.submit(client.call, ECHO, echo("x"))
        link = client._line.links[-1]
        while not link._places.threads:
            assert not call.done()
        calling.set()
        assert upload.result(PATIENCE).n == 1
        assert call.result(PATIENCE).text == "x"


def test_nothing_is_queued_behind_output_that_the_kernel_does_not_take() -> None:
    """However much credit there is: memory is bounded by the mark, a write and a frame, until the server reads on."""
    limits = Limits(low_watermark=100_000)
    size, count = 50_000, 1000
    go = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer, first=Credit(100_000, 2**31))
        assert go.wait(PATIENCE)
        got = 0
        while isinstance(event := peer.event(), ItemReceived):
            got += 1
        assert isinstance(event, RequestEnded)
        peer.respond(request, SEND, CountResponse(n=got))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        waiting: list[int] = []
        link = client._line.links[-1]

        def items() -> Iterator[EchoRequest]:
            for _ in range(count):
                waiting.append(len(link._output.waiting))
                yield EchoRequest(text="x" * size)

        with ThreadPoolExecutor(1) as pool:
            tracemalloc.start()
            upload = pool.submit(client.upload, SEND, items())
            while not link._held_up:
                assert not upload.done()
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            go.set()
            assert upload.result(PATIENCE).n == count
    assert max(waiting) < limits.low_watermark
    assert held < 2_000_000, "50 MB were to be sent"


def test_a_signal_handler_that_raises_gives_the_upload_up() -> None:
    """The server is told, and the client goes on, on this connection unless it was interrupted on its way to sleep."""
    main = threading.get_ident()

    def script(peer: Peer) -> None:
        request = begun(peer, first=Credit(1, 100))
        peer.item(request)
        while not link._led:
            assert not link._ended
        signal.pthread_kill(main, signal.SIGINT)
        if isinstance(event := peer.event(), ConnectionEnded):
            return
        assert isinstance(event, CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        link = client._line.links[-1]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                client.upload(ADD_UP, Asked(5))
        finally:
            signal.signal(signal.SIGINT, before)
        assert client.call(ECHO, echo("x")).text == "x"


def test_closing_the_client_ends_an_upload() -> None:
    """From another thread, while the upload waits for credit."""
    begin = threading.Event()

    def script(peer: Peer) -> None:
        begun(peer)
        begin.set()
        peer.until_gone()

    with serving(script) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server.address, SERVICE)
        upload = pool.submit(client.upload, ADD_UP, Asked(5))
        assert begin.wait(PATIENCE)
        client.close()
        with pytest.raises(ConnectionLost, match="the client was closed"):
            upload.result(PATIENCE)


def test_draining_the_client_cancels_an_upload(taking: Callable[..., Client]) -> None:
    """Its items can be sent no more, which the server says when it sees the end of them."""
    client = taking(first_items=1)
    asked = threading.Event()
    go = threading.Event()

    def items() -> Iterator[CountRequest]:
        yield CountRequest(upto=1)
        asked.set()
        assert go.wait(PATIENCE)
        yield CountRequest(upto=2)

    with ThreadPoolExecutor(2) as pool:
        upload = pool.submit(client.upload, ADD_UP, items())
        assert asked.wait(PATIENCE)
        link = client._line.links[-1]
        closing = pool.submit(client.close, drain=PATIENCE)
        while not link._output.finished:
            assert not closing.done()
        go.set()
        with pytest.raises(CallError) as caught:
            upload.result(PATIENCE)
        assert caught.value.status is Status.CANCELLED
        closing.result(PATIENCE)


def test_what_is_no_iterable_is_refused_before_anything_is_sent() -> None:
    """It is the caller's mistake, told as Python tells it."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.request())
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(TypeError, match="not iterable"):
            client.upload(ADD_UP, 5)  # type: ignore[arg-type]
        assert client.call(ECHO, echo("x")).text == "x"
