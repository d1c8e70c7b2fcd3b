"""Duplex calls: items out and items back, whichever may move, and every end there may be before or between."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, serving
from tests.client.service import CHAT, ECHO, SERVICE, CountRequest, CountResponse, echo
from tests.client.taking import TAKING, TakingStage
from wireproto import (
    BothFull,
    CallError,
    Client,
    ConnectionLost,
    LocalProtocolError,
    Retry,
    Server,
    Status,
    connect,
)
from wireproto.client import feeding
from wireproto.wire.events import (
    CancelReceived,
    CreditReceived,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
)
from wireproto.wire.frame import Credit, Flag

ROOM = Credit(16, 65_536)


def numbers(*given: int) -> list[CountRequest]:
    return [CountRequest(upto=n) for n in given]


@pytest.fixture
def client() -> Iterator[Client]:
    """Of a real server, which gives back what it takes."""
    with Server(TakingStage().handlers, port=0) as server, connect(server.address, TAKING) as client:
        yield client


def begun(peer: Peer, first: Credit = ROOM) -> FlaggedRequestReceived:
    """Greet, and receive the REQUEST of a duplex call."""
    peer.greet(first=first)
    return peer.flagged_request(Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)


def say(peer: Peer, request: FlaggedRequestReceived, *given: int) -> None:
    """Send items back, together."""
    for n in given:
        peer.connection.send_item(request.call_id, peer.payload(CHAT, CountResponse(n=n)))
    peer.flush()


def end(peer: Peer, request: FlaggedRequestReceived) -> None:
    peer.connection.send_end(request.call_id)
    peer.flush()


def chatting(peer: Peer) -> None:
    """Give back a few items as they come, then echo."""
    request = begun(peer)
    while isinstance(event := peer.event(), ItemReceived):
        say(peer, request, peer.read(request, event.payload).upto)
    assert isinstance(event, RequestEnded)
    end(peer, request)
    peer.serve()


def cancelled(peer: Peer, request: FlaggedRequestReceived) -> None:
    """Receive CANCEL, whatever items come before it, and answer; then echo."""
    while isinstance(event := peer.event(), ItemReceived | CreditReceived | RequestEnded):
        pass
    assert isinstance(event, CancelReceived)
    with contextlib.suppress(ConnectionError):  # the client may be gone by now
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
    peer.serve()


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_one_thread_sends_and_receives(client: Client, kind: Callable[..., list[CountRequest]], count: int) -> None:
    """All go out and all come back, in order, by the one that iterates."""
    assert [item.n for item in client.duplex(CHAT, kind(numbers(*range(count))))] == list(range(count))


@pytest.mark.parametrize("credit", [1, 2, 7])
def test_little_credit_is_enough(client: Client, credit: int) -> None:
    """Each half waits for the other one's credit, and neither for ever."""
    assert [item.n for item in client.duplex(CHAT, numbers(*range(600)), credit=credit)] == list(range(600))


def test_the_same_thread_can_send_and_receive_in_turn(client: Client) -> None:
    """A conversation: each item is answered before the next one."""
    with client.duplex(CHAT) as chat:
        for n in range(500):
            chat.send(CountRequest(upto=n))
            assert next(chat).n == n
        chat.finish()
        chat.finish()
        assert list(chat) == []


@pytest.mark.parametrize("credit", [3, 64])
def test_one_thread_can_send_and_another_receive(client: Client, credit: int) -> None:
    """Thousands of items, with a thread for each half: sending waits for the thread that reads."""
    with ThreadPoolExecutor(1) as pool, client.duplex(CHAT, credit=credit) as chat:

        def read() -> list[int]:
            found = [next(chat).n]
            reading.set()
            found += [item.n for item in chat]
            return found

        reading = threading.Event()
        reader = pool.submit(read)
        chat.send(CountRequest(upto=0))
        assert reading.wait(PATIENCE)
        for n in range(1, 3000):
            chat.send(CountRequest(upto=n))
        chat.finish()
        assert reader.result(PATIENCE) == list(range(3000))


def test_items_may_come_from_the_client_itself(client: Client) -> None:
    """The iterable is the caller's code, run outside of every method of the client."""
    items = (CountRequest(upto=int(client.call(ECHO, echo(str(n))).text)) for n in range(10))
    assert [item.n for item in client.duplex(CHAT, items)] == list(range(10))


def test_there_is_no_thread_behind_it(client: Client) -> None:
    """The caller's threads do it all."""
    before = threading.active_count()
    with client.duplex(CHAT, iter(numbers(*range(100)))) as chat:
        assert next(chat).n == 0
        # The server has a thread for the handler; nothing here may add to that.
        names = {thread.name for thread in threading.enumerate()}
        assert threading.active_count() <= before + 1, names
        assert len(list(chat)) == 99


def test_answers_come_before_more_is_sent() -> None:
    """What has come is handed out, and the iterable is asked for no more than it takes."""
    asked = 0

    def script(peer: Peer) -> None:
        request = begun(peer)
        assert peer.item(request).upto == 0
        say(peer, request, 10, 11, 12)
        sent.set()
        cancelled(peer, request)

    def items() -> Iterator[CountRequest]:
        nonlocal asked
        while True:
            yield CountRequest(upto=asked)
            asked += 1
            assert sent.wait(PATIENCE)

    sent = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client, client.duplex(CHAT, items()) as chat:
        assert next(chat).n == 10
        before = asked
        assert [next(chat).n, next(chat).n] == [11, 12]
        assert asked == before


def test_an_end_that_comes_early_ends_the_iteration() -> None:
    """No more is asked for, and what would be sent by hand is refused."""
    asked = 0

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        peer.item(request)
        say(peer, request, 5)
        end(peer, request)
        second = peer.flagged_request(Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)
        end(peer, second)
        peer.serve()

    def items() -> Iterator[CountRequest]:
        nonlocal asked
        while True:
            asked += 1
            yield CountRequest(upto=1)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert [item.n for item in client.duplex(CHAT, items())] == [5]
        assert asked == 1
        chat = client.duplex(CHAT)
        assert list(chat) == []
        with pytest.raises(LocalProtocolError, match="this call is over"):
            chat.send(CountRequest(upto=1))
        chat.finish()
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


def test_an_error_is_told_to_both_halves() -> None:
    """The iterator raises it behind the items before, and ``send`` raises the same one, each in its own thread."""

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        peer.item(request)
        say(peer, request, 1)
        peer.refuse(request, CallError(Status.ABORTED, "ENOUGH", "no more"))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT)
        chat.send(CountRequest(upto=0))
        with pytest.raises(CallError, match="ENOUGH: no more") as sending:
            chat.send(CountRequest(upto=1))
        assert next(chat).n == 1
        with pytest.raises(CallError, match="ENOUGH: no more") as reading:
            next(chat)
        assert reading.value is not sending.value


def test_both_full_is_told() -> None:
    """Without credit, and with every answer that may come here unread, nothing would ever move: reading does."""
    full = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(2, 100))
        assert [peer.item(request).upto, peer.item(request).upto] == [0, 1]
        say(peer, request, 10, 11)
        assert full.wait(PATIENCE)
        assert peer.expect(CreditReceived).more.items == 1
        peer.grant(request, 1, 100)
        assert peer.item(request).upto == 2
        cancelled(peer, request)

    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        client.duplex(CHAT, credit=2, batch=1) as chat,
    ):
        for n in range(2):
            chat.send(CountRequest(upto=n))
        # Whether it finds so, or waits and is told when the answers have come.
        with pytest.raises(BothFull, match=r"that it may send \(2\) are here unread"):
            chat.send(CountRequest(upto=2))
        full.set()
        assert next(chat).n == 10
        chat.acknowledge()
        chat.send(CountRequest(upto=2))
        assert next(chat).n == 11


@pytest.mark.parametrize("reader", ["this thread", "a thread that has ended"])
def test_both_full_is_told_though_somebody_has_read(reader: str) -> None:
    """Whoever read is the one that sends now, or is there no more: nobody will make room."""

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        peer.item(request)
        say(peer, request, 10)
        peer.expect(CreditReceived)
        say(peer, request, 11)
        cancelled(peer, request)

    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        client.duplex(CHAT, credit=1) as chat,
    ):

        def read() -> None:
            assert next(chat).n == 10
            chat.acknowledge()

        chat.send(CountRequest(upto=0))
        if reader == "this thread":
            read()
        else:
            thread = threading.Thread(target=read)
            thread.start()
            thread.join(PATIENCE)
        with pytest.raises(BothFull, match=r"that it may send \(1\) are here unread"):
            chat.send(CountRequest(upto=1), timeout=PATIENCE)


def test_both_full_is_told_though_the_reader_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is asleep by then. Nobody is told of the end of a thread, so it looks now and then."""
    monkeypatch.setattr(feeding, "LOOK", 0.05)

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        assert peer.item(request).upto == 0
        say(peer, request, 10, 11)
        cancelled(peer, request)

    has_read, may_end = threading.Event(), threading.Event()
    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        client.duplex(CHAT, credit=2, batch=2) as chat,
        ThreadPoolExecutor(1) as pool,
    ):

        def read() -> None:
            assert next(chat).n == 10
            has_read.set()
            assert may_end.wait(PATIENCE)

        reader = threading.Thread(target=read)
        reader.start()
        chat.send(CountRequest(upto=0))
        assert has_read.wait(PATIENCE)
        sending = pool.submit(chat.send, CountRequest(upto=1), PATIENCE)
        with pytest.raises(TimeoutError):
            sending.result(0.2)
        may_end.set()
        with pytest.raises(BothFull):
            sending.result(PATIENCE / 2)
        reader.join(PATIENCE)


def test_both_full_by_bytes() -> None:
    """The window of bytes is full as well as that of items."""

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        peer.item(request)
        say(peer, request, 10)
        cancelled(peer, request)

    with serving(script) as server, connect(server.address, SERVICE) as client, client.duplex(CHAT, window=1) as chat:
        chat.send(CountRequest(upto=0))
        with pytest.raises(BothFull):
            chat.send(CountRequest(upto=1))


def test_a_thread_that_reads_is_waited_for() -> None:
    """While another thread takes answers, however slowly, both halves being full is no reason to raise."""
    taken = threading.Event()
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(1, 100))
        peer.item(request)
        say(peer, request, 10)
        peer.expect(CreditReceived)
        say(peer, request, 11)
        assert waiting.wait(PATIENCE)
        peer.expect(CreditReceived)
        peer.grant(request, 1, 100)
        assert peer.item(request).upto == 1
        cancelled(peer, request)

    with (
        serving(script) as server,
        connect(server.address, SERVICE) as client,
        ThreadPoolExecutor(1) as pool,
        client.duplex(CHAT, credit=1) as chat,
    ):
        step = threading.Event()

        def read() -> list[int]:
            found = [next(chat).n]
            chat.acknowledge()
            taken.set()
            assert step.wait(PATIENCE)
            found.append(next(chat).n)
            chat.acknowledge()
            return found

        reader = pool.submit(read)
        chat.send(CountRequest(upto=0))
        assert taken.wait(PATIENCE)
        with pytest.raises(TimeoutError, match="the call goes on"):
            chat.send(CountRequest(upto=1), timeout=0.1)
        waiting.set()
        step.set()
        chat.send(CountRequest(upto=1), timeout=PATIENCE)
        assert reader.result(PATIENCE) == [10, 11]


def test_sending_has_a_time_limit_of_its_own() -> None:
    """When it is up nothing was sent, and the call goes on."""

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(0, 0))
        assert tried.wait(PATIENCE)
        peer.grant(request, 1, 100)
        assert peer.item(request).upto == 2
        peer.expect(RequestEnded)
        end(peer, request)
        peer.until_gone()

    tried = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT)
        for timeout in (0, 0.03):
            with pytest.raises(TimeoutError, match="the call goes on"):
                chat.send(CountRequest(upto=1), timeout=timeout)
        tried.set()
        chat.send(CountRequest(upto=2), timeout=PATIENCE)
        chat.finish()
        assert list(chat) == []


@pytest.mark.parametrize("given", [False, True])
def test_the_call_has_a_time_limit(given: bool) -> None:
    """It is DEADLINE for whoever sends and whoever reads, and the server is told."""

    def script(peer: Peer) -> None:
        cancelled(peer, begun(peer, Credit(0, 0)))

    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT, iter(numbers(1)) if given else None, timeout=0.1)
        if not given:
            with pytest.raises(CallError, match="DEADLINE"):
                chat.send(CountRequest(upto=1))
        with pytest.raises(CallError, match="DEADLINE"):
            next(chat)
        assert list(chat) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_waiting_for_one_item_has_a_limit_of_its_own() -> None:
    """Also while there are items to be sent; they are, and the call goes on."""

    def script(peer: Peer) -> None:
        request = begun(peer)
        assert [peer.item(request).upto for _ in range(2)] == [0, 1]
        peer.expect(RequestEnded)
        assert tried.wait(PATIENCE)
        say(peer, request, 9)
        end(peer, request)
        peer.until_gone()

    tried = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT, iter(numbers(0, 1)))
        for timeout in (0, 0, 0, 0.03):
            with pytest.raises(TimeoutError, match="goes on"):
                chat.next(timeout)
        tried.set()
        assert chat.next(PATIENCE).n == 9
        with pytest.raises(StopIteration):
            chat.next()


def test_items_that_were_given_are_not_sent_by_hand_as_well() -> None:
    """Nor is anything behind the end, or in a call that was closed."""

    def script(peer: Peer) -> None:
        request = begun(peer)
        cancelled_then = peer.expect(CancelReceived)
        assert cancelled_then.call_id == request.call_id
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        second = peer.flagged_request(Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)
        cancelled(peer, second)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        given = client.duplex(CHAT, numbers(1))
        with pytest.raises(LocalProtocolError, match="was given its items"):
            given.send(CountRequest(upto=1))
        with pytest.raises(LocalProtocolError, match="was given its items"):
            given.finish()
        given.close()
        chat = client.duplex(CHAT)
        chat.finish()
        with pytest.raises(LocalProtocolError, match="finish was called"):
            chat.send(CountRequest(upto=1))
        chat.close()
        assert list(chat) == []


def test_an_iterable_that_raises_cancels_the_call() -> None:
    """The one that iterates has the exception, once."""

    def script(peer: Peer) -> None:
        cancelled(peer, begun(peer))

    def items() -> Iterator[CountRequest]:
        yield CountRequest(upto=0)
        raise ZeroDivisionError("mine")

    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT, items())
        with pytest.raises(ZeroDivisionError, match="mine"):
            next(chat)
        assert list(chat) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_closing_from_another_thread_ends_both_halves() -> None:
    """One that waits to send is told, one that waits for an item sees the end."""

    def script(peer: Peer) -> None:
        cancelled(peer, begun(peer, Credit(0, 0)))

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(2) as pool:
        chat = client.duplex(CHAT)
        link = client._line.links[-1]
        reader = pool.submit(list, chat)
        while not link._led:
            assert not reader.done()
        sender = pool.submit(chat.send, CountRequest(upto=1))
        while not link._parked:
            assert not sender.done()
        chat.close()
        assert reader.result(PATIENCE) == []
        with pytest.raises(LocalProtocolError, match="this call is over"):
            sender.result(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_lost_call_hands_out_what_came_and_then_says_so() -> None:
    """Both halves are told that it may have been processed."""

    def script(peer: Peer) -> None:
        request = begun(peer)
        peer.item(request)
        say(peer, request, 1)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT)
        chat.send(CountRequest(upto=0))
        assert next(chat).n == 1
        with pytest.raises(ConnectionLost, match="closed the connection") as caught:
            next(chat)
        assert caught.value.retry is Retry.MAYBE_PROCESSED
        with pytest.raises(ConnectionLost, match="closed the connection"):
            chat.send(CountRequest(upto=1))


def going(taken: int) -> Callable[[Peer], None]:
    """The script of a server that takes so many items, and then says that it has not looked at the call."""

    def script(peer: Peer) -> None:
        request = begun(peer, Credit(taken, 100) if taken else Credit(0, 0))
        for _ in range(taken):
            peer.item(request)
        peer.go_away(0)
        peer.until_gone()

    return script


def test_a_call_that_was_not_looked_at_begins_again_if_its_items_can() -> None:
    """Untouched, or at hand: then all of them are sent on another connection. Those that are gone are told."""
    with serving(going(0), chatting) as server, connect(server.address, SERVICE) as client:
        assert [item.n for item in client.duplex(CHAT, iter(numbers(0, 1, 2)))] == [0, 1, 2]
        assert server.connections == 2
    with serving(going(2), chatting) as server, connect(server.address, SERVICE) as client:
        assert [item.n for item in client.duplex(CHAT, numbers(0, 1, 2))] == [0, 1, 2]
        assert server.connections == 2
    with serving(going(2), chatting) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(ConnectionLost) as caught:
            list(client.duplex(CHAT, iter(numbers(0, 1, 2))))
        assert caught.value.retry is Retry.NOT_PROCESSED
        assert server.connections == 1


def test_a_dropped_call_is_cancelled() -> None:
    """One that nobody holds any more is not left open on the server."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        request = begun(peer)
        say(peer, request, 0)
        peer.expect(CancelReceived)
        told.set()
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        chat = client.duplex(CHAT)
        assert next(chat).n == 0
        del chat
        gc.collect()
        assert told.wait(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
