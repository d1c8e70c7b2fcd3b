"""Uploads, duplex and one-way calls by the client over gRPC: the promises of the other client hold for it, too."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client.test_signals import handling
from tests.server.peer import until
from tests.server.test_uploads import (
    ADD_UP,
    COLLECT,
    ECHO_ALL,
    ECHO_SINK,
    ITERATE,
    NOTE,
    PLAIN,
    UPLOADS,
    Chunk,
    Desk,
)
from wireproto import BothFull, CallError, ConnectionLost, EncodeError, Limits, LocalProtocolError, Retry, Status
from wireproto.client.grpc import GrpcClient, connect
from wireproto.client.grpc_again import Attempts
from wireproto.client.grpc_duplex import GrpcDuplex
from wireproto.client.grpc_outlet import Outlet
from wireproto.client.grpc_stream import GrpcStream
from wireproto.server.gateway import GrpcGateway

PATIENCE = 60.0
FORMS = pytest.mark.parametrize("method", [ADD_UP, ITERATE], ids=["sink", "iterator"])
BOTH_WAYS = pytest.mark.parametrize("method", [ECHO_ALL, ECHO_SINK], ids=["iterator", "sink"])


class Numbers:
    """Chunks with these numbers, how many were asked for, and by which threads."""

    def __init__(self, *numbers: int) -> None:
        self.asked = 0
        self.threads: set[int] = set()
        self._numbers = numbers

    def __iter__(self) -> Iterator[Chunk]:
        for number in self._numbers:
            self.asked += 1
            self.threads.add(threading.get_ident())
            yield Chunk(number=number)


Opening = Callable[..., GrpcClient]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.set()


@pytest.fixture
def opening(desk: Desk) -> Iterator[Opening]:
    """Serves the desk, and connects to it."""
    gateways: list[GrpcGateway] = []
    clients: list[GrpcClient] = []

    def serve(**limits: Any) -> GrpcClient:
        gateways.append(GrpcGateway(desk.handlers, port=0, limits=Limits(**limits)))
        gateways[-1].start()
        clients.append(connect(gateways[-1].address, UPLOADS))
        return clients[-1]

    yield serve
    desk.gate.set()
    for client in clients:
        client.close()
    for gateway in gateways:
        gateway.shutdown(PATIENCE)


def assert_alive(client: GrpcClient) -> None:
    assert client.call(PLAIN, Chunk(number=1), timeout=PATIENCE).total == 1


# Uploads


@FORMS
@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_every_item_arrives(opening: Opening, method: Any, kind: Any, count: int) -> None:
    """However many there are and whatever they come in, the response is that to all of them."""
    items = kind([Chunk(number=n % 100, data=bytes(100)) for n in range(count)])
    answer = opening().upload(method, items, timeout=PATIENCE)
    assert (answer.total, answer.size) == (sum(n % 100 for n in range(count)), 100 * count)


def test_items_are_asked_for_on_the_thread_of_the_caller(opening: Opening) -> None:
    """It is the caller's code, and may use the client itself, which is refused in the middle of a method of one."""
    client = opening()
    numbers = Numbers(*range(20))
    assert client.upload(ADD_UP, numbers).total == 190
    assert numbers.threads == {threading.get_ident()}
    items = (Chunk(number=client.call(PLAIN, Chunk(number=n)).total) for n in range(10))
    assert client.upload(ADD_UP, items).total == 45


def test_uploads_and_calls_share_a_connection(opening: Opening) -> None:
    """Several threads upload and one calls: each gets its own."""
    client = opening()
    with ThreadPoolExecutor(5) as pool:
        uploads = [pool.submit(client.upload, ITERATE, Numbers(*range(100 + n))) for n in range(4)]
        calls = [pool.submit(client.call, PLAIN, Chunk(number=n)) for n in range(50)]
        assert [upload.result(PATIENCE).total for upload in uploads] == [sum(range(100 + n)) for n in range(4)]
        assert [call.result(PATIENCE).total for call in calls] == list(range(50))


def test_no_more_is_asked_for_than_http_has_room_for(opening: Opening, desk: Desk) -> None:
    """A sink that takes nothing more holds back the caller's iterable, too."""
    client = opening()
    asked = 0

    def items() -> Iterator[Chunk]:
        nonlocal asked
        for number in [500] + [1] * 60:
            asked += 1
            yield Chunk(number=number, data=bytes(20_000))

    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(client.upload, ADD_UP, items(), timeout=PATIENCE)
        until(lambda: bool(desk.futures), "the sink waits", PATIENCE)
        for _ in range(3):
            assert_alive(client)
        assert asked < 20
        desk.futures[0].set_result(None)
        assert upload.result(PATIENCE).total == 560


@FORMS
def test_an_answer_that_comes_early_ends_the_asking(opening: Opening, method: Any) -> None:
    """The response is there, and nothing more is asked for."""
    client = opening()
    answered = threading.Event()
    asked = 0

    def items() -> Iterator[Chunk]:
        nonlocal asked
        for number in [1_000] + [1] * 1_000:
            asked += 1
            yield Chunk(number=number, data=bytes(50_000))
        answered.wait(PATIENCE)

    assert client.upload(method, items(), timeout=PATIENCE).total >= 1_000
    assert asked < 1_000
    assert_alive(client)


def test_an_iterable_that_raises_cancels_the_call(opening: Opening, desk: Desk) -> None:
    """The caller has its own exception, and the handler is told that the call is cancelled."""
    client = opening()

    def items() -> Iterator[Chunk]:
        yield Chunk(number=1)
        until(lambda: desk.taken == 1, "the item is taken", PATIENCE)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        client.upload(ADD_UP, items())
    until(lambda: desk.ends == ["CANCELLED"], "the handler is told", PATIENCE)
    assert_alive(client)


def test_an_item_that_cannot_be_written_cancels_the_call(opening: Opening, desk: Desk) -> None:
    """It is an EncodeError, and what was sent before is no upload."""
    client = opening()
    with pytest.raises(EncodeError):
        client.upload(ADD_UP, [Chunk(number=1), Chunk(number=2**70)])
    until(lambda: "finished" not in desk.ends and len(desk.ends) == (desk.taken > 0), "it is cancelled", PATIENCE)
    assert_alive(client)


@pytest.mark.parametrize(("number", "reason"), [(-1, "TOO_BIG"), (666, "INTERNAL")])
def test_an_upload_that_fails(opening: Opening, number: int, reason: str) -> None:
    """Status, reason and retry advice are those of the server."""
    with pytest.raises(CallError) as caught:
        opening().upload(ADD_UP, Numbers(1, number, 2), timeout=PATIENCE)
    assert caught.value.reason == reason


def test_what_a_method_collects(opening: Opening) -> None:
    """A list, up to its bound."""
    client = opening()
    assert client.upload(COLLECT, Numbers(1, 2, 3)).total == 6
    with pytest.raises(CallError, match="REQUEST_TOO_LARGE: Collect takes at most 3 items"):
        client.upload(COLLECT, Numbers(1, 2, 3, 4))


@FORMS
def test_the_time_is_up_while_the_iterable_takes_its_own(opening: Opening, desk: Desk, method: Any) -> None:
    """It is that of the whole upload; the iterable is not asked again behind the deadline."""
    client = opening()
    asked: list[int] = []
    late = time.monotonic() + 1.0

    def items() -> Iterator[Chunk]:
        while True:
            asked.append(1)
            yield Chunk(number=1)
            until(lambda: time.monotonic() > late, "its time is up", PATIENCE)

    with pytest.raises(CallError) as caught:
        client.upload(method, items(), timeout=0.5)
    assert (caught.value.status, caught.value.reason) == (Status.DEADLINE_EXCEEDED, "DEADLINE")
    assert len(asked) <= 3
    until(lambda: len(desk.ends) == (desk.taken > 0), "the handler is told, if it has begun", PATIENCE)
    assert set(desk.ends) <= {"DEADLINE", "CANCELLED"}


def test_without_a_server_an_upload_is_not_processed(opening: Opening) -> None:
    """As any call; and a client that is closed says so."""
    with GrpcClient("127.0.0.1:1", UPLOADS) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.upload(ADD_UP, Numbers(1, 2))
        assert caught.value.retry is Retry.NOT_PROCESSED
    for call in (
        lambda: client.upload(ADD_UP, Numbers(1)),
        lambda: client.duplex(ECHO_ALL),
        lambda: client.post(NOTE, Chunk()),
    ):
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            call()


def test_closing_the_client_ends_an_upload(opening: Opening, desk: Desk) -> None:
    """Whoever waits for the answer learns that the client was closed."""
    client = opening()
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(client.upload, ADD_UP, Numbers(500))
        until(lambda: bool(desk.futures), "the sink waits", PATIENCE)
        client.close()
        with pytest.raises(ConnectionLost, match="the client was closed"):
            upload.result(PATIENCE)


def test_a_signal_handler_that_raises_gives_the_upload_up(opening: Opening, desk: Desk) -> None:
    """The server is told; the client goes on."""
    client = opening()

    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    def press() -> None:
        until(lambda: bool(desk.futures), "the sink waits", PATIENCE)
        signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    presser = threading.Thread(target=press)
    with handling(enough, signal.SIGUSR1):
        presser.start()
        with pytest.raises(Enough):
            client.upload(ADD_UP, Numbers(500))
        presser.join(PATIENCE)
    until(lambda: desk.ends == ["CANCELLED"], "the sink is told", PATIENCE)
    assert_alive(client)


# Duplex calls


@BOTH_WAYS
def test_one_thread_sends_and_receives(opening: Opening, method: Any) -> None:
    """Each item comes back before the next is sent; the end of what is sent ends the rest."""
    factor = 2 if method is ECHO_ALL else 1
    with opening().duplex(method, timeout=PATIENCE) as both:
        for number in range(50):
            both.send(Chunk(number=number))
            assert next(both).number == number * factor
        both.finish()
        both.finish()
        assert list(both) == []
        with pytest.raises(LocalProtocolError, match="finish was called"):
            both.send(Chunk())


@BOTH_WAYS
@pytest.mark.parametrize("count", [0, 1, 200])
def test_a_call_that_is_given_its_items(opening: Opening, method: Any, count: int) -> None:
    """Iterating sends them, on the thread that iterates, and nothing is lost."""
    factor = 2 if method is ECHO_ALL else 1
    numbers = Numbers(*range(count))
    with opening().duplex(method, numbers, timeout=PATIENCE) as both:
        assert [item.number for item in both] == [number * factor for number in range(count)]
        with pytest.raises(LocalProtocolError, match="this call was given its items"):
            both.send(Chunk())
        with pytest.raises(LocalProtocolError, match="this call was given its items"):
            both.finish()
    assert numbers.threads <= {threading.get_ident()}


def test_what_the_iterable_raises_is_raised_by_the_iterator(opening: Opening, desk: Desk) -> None:
    """And it cancels the call."""

    def items() -> Iterator[Chunk]:
        yield Chunk(number=1)
        raise ValueError("mine")

    both = opening().duplex(ECHO_SINK, items(), timeout=PATIENCE)
    with pytest.raises(ValueError, match="mine"):
        for _ in both:
            pass
    assert list(both) == []
    until(lambda: len(desk.ends) in (0, 2) and "finished" not in desk.ends, "it is cancelled", PATIENCE)


def test_waiting_for_an_item_has_an_end(opening: Opening) -> None:
    """TimeoutError, with which the call goes on, whether it sends by itself or not."""
    client = opening()
    with client.duplex(ECHO_ALL, timeout=PATIENCE) as both:
        with pytest.raises(TimeoutError, match="no item came in time"):
            both.next(0.05)
        both.send(Chunk(number=3))
        assert both.next(PATIENCE).number == 6
    with client.duplex(ECHO_SINK, Numbers(1), timeout=PATIENCE) as given:
        assert given.next(PATIENCE).number == 1
        assert list(given) == []


@pytest.mark.parametrize("given", [False, True])
def test_an_item_that_a_signal_handler_kept_from_its_caller_is_still_there(opening: Opening, given: bool) -> None:
    """The wait for it is over, and it is the next one that is handed out."""

    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    both = opening().duplex(ECHO_ALL, timeout=PATIENCE)
    with both, handling(enough):
        if given:
            both.send(Chunk(number=0))
            assert both.next(PATIENCE).number == 0
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Enough):
            both.next(PATIENCE)
        with pytest.raises(TimeoutError, match="no item came in time"):
            both.next(0.01)
        for number in (1, 2, 3):
            both.send(Chunk(number=number))
        assert [both.next(PATIENCE).number, both.next(PATIENCE).number, next(both).number] == [2, 4, 6]
        both.finish()
        assert list(both) == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_thread_that_cannot_be_started_takes_no_item(
    opening: Opening, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    """The caller is told, and the next one that asks has the item, whether the thread ran in the end or not."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE) as both:
        both.send(Chunk(number=1))
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            if interrupted:
                start(thread)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            both.next(PATIENCE)
        monkeypatch.undo()
        assert both.next(PATIENCE).number == 2


def test_whatever_grpcio_raises_is_raised_in_the_caller() -> None:
    """Also while a thread waits for the item: who asked is not kept waiting."""

    class Broken:
        def __next__(self) -> bytes:
            raise ValueError("a bug")

        def cancel(self) -> None:
            pass

    binding: Any = None
    failure: Any = None
    with (
        GrpcStream[Chunk](Broken, binding, failure, Attempts(None)) as stream,
        pytest.raises(ValueError, match="a bug"),
    ):
        stream.next(PATIENCE)


@pytest.mark.parametrize("timeout", [1e10, math.inf])
def test_a_time_limit_may_be_longer_than_any_lock_waits(opening: Opening, timeout: float) -> None:
    """As over TCP."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE) as both:
        both.send(Chunk(number=1), timeout)
        assert both.next(timeout).number == 2
    outlet = Outlet()
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(outlet.wait, time.monotonic() + timeout)
        with pytest.raises(TimeoutError):
            wait.result(0.05)
        outlet.end()
        assert wait.result(PATIENCE) is False


def test_two_threads_send_and_iterate(opening: Opening) -> None:
    """One sends while another one iterates; ``close`` ends both."""
    both = opening().duplex(ECHO_SINK, timeout=PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(lambda: [item.number for item in both])
        for number in range(200):
            both.send(Chunk(number=number, data=bytes(2_000)))
        both.finish()
        assert received.result(PATIENCE) == list(range(200))


def test_what_cannot_be_sent_in_a_duplex_call(opening: Opening) -> None:
    """An item that cannot be written is the item's fault; a call that was closed, or has failed, says so."""
    client = opening()
    both = client.duplex(ECHO_ALL, timeout=PATIENCE)
    with pytest.raises(EncodeError):
        both.send(Chunk(number=2**70))
    both.send(Chunk(number=1))
    assert next(both).number == 2
    both.close()
    with pytest.raises(LocalProtocolError, match="this call is over"):
        send_for_ever(both)
    late = client.duplex(ECHO_ALL, timeout=0.3)
    with pytest.raises(CallError) as caught:
        late.next(PATIENCE)
    assert caught.value.reason == "DEADLINE"
    with pytest.raises(CallError) as caught:
        send_for_ever(late)
    assert caught.value.reason == "DEADLINE"


@pytest.mark.parametrize("waits", [False, True])
def test_a_call_that_nobody_has_any_more_is_cancelled(opening: Opening, desk: Desk, waits: bool) -> None:
    """Its server is told, and the threads, grpcio's and the one that waits for an item, end."""
    client = opening()
    threads = set(threading.enumerate())
    both = client.duplex(ECHO_SINK, timeout=10 * PATIENCE)
    both.send(Chunk(number=1))
    assert next(both).number == 1
    if waits:
        with pytest.raises(TimeoutError):
            both.next(0.01)
    del both
    until(lambda: sorted(desk.ends) == ["CANCELLED", "closed"], "it is told", PATIENCE)
    until(lambda: set(threading.enumerate()) <= threads, "no thread is left", PATIENCE)


def send_for_ever(both: Any, data: bytes = b"", timeout: float | None = None) -> None:
    number = 0
    while True:
        both.send(Chunk(number=number, data=data), timeout)
        number += 1


def test_sending_has_an_end(opening: Opening) -> None:
    """Where nobody takes, neither here nor there, it is told that both halves are full; the call goes on."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE) as both:
        with pytest.raises(BothFull, match="are unread: read some before you send more"):
            send_for_ever(both, bytes(100_000), PATIENCE)
        for _ in range(3):
            assert len(next(both).data) == 100_000
        with pytest.raises(BothFull):
            send_for_ever(both, bytes(100_000))
        both.finish()
        assert [len(item.data) for item in both][-1] == 100_000


def test_both_full_by_items(opening: Opening) -> None:
    """As many wait here as the credit says, in their order, while nobody reads."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE, credit=2) as both:
        with pytest.raises(BothFull, match=r"that may wait here \(2\) are unread"):
            send_for_ever(both, bytes(100_000))
        both.finish()
        back = [item.number for item in both]
        assert len(back) > 2
        assert back == [2 * number for number in range(len(back))]


def test_sending_may_end_before_that(opening: Opening, desk: Desk) -> None:
    """While another thread reads, full halves are no reason to raise: there the time is up, and the call goes on."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE) as both, ThreadPoolExecutor(1) as pool:
        reading, may_go_on = threading.Event(), threading.Event()

        def read() -> list[int]:
            found = [next(both).number]
            reading.set()
            assert may_go_on.wait(PATIENCE)
            return found + [item.number for item in both]

        received = pool.submit(read)
        both.send(Chunk(number=0))
        assert reading.wait(PATIENCE)
        with pytest.raises(TimeoutError, match="could not be sent in time"):
            send_for_ever(both, bytes(100_000), 1.0)
        may_go_on.set()
        both.finish()
        back = received.result(PATIENCE)
        assert back[:2] == [0, 0]
        assert back[1:] == [2 * number for number in range(len(back) - 1)]


def test_who_reads_behind_the_sender_misses_nothing(opening: Opening) -> None:
    """Items that came while the sender waited are handed out first, to whichever thread, and each once."""
    with opening().duplex(ECHO_ALL, timeout=PATIENCE, credit=500) as both, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: [both.send(Chunk(number=number, data=bytes(50_000))) for number in range(120)])
        until(lambda: len(both._ahead) > 3 or sending.done(), "some have come", PATIENCE)
        back = [both.next(PATIENCE).number for _ in range(120)]
        sending.result(PATIENCE)
        both.finish()
        assert list(both) == []
    assert back == [2 * number for number in range(120)]


def test_an_item_that_comes_just_when_it_is_asked_for_is_the_next_one(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends looks for items meanwhile, and takes none that the reader has seen come already."""
    keep, pull = GrpcDuplex._keep_locked, GrpcStream._pull
    reader = threading.current_thread()

    def keep_locked(self: Any) -> None:
        if threading.current_thread() is reader and self._pulled is not None:
            until(self._pulled.done, "it has come", PATIENCE)  # just now: there was nothing to keep
        else:
            keep(self)

    def pulled(self: Any, timeout: float | None) -> bytes:
        looking = threading.Thread(target=self._look_ahead)
        looking.start()
        looking.join(0.05)
        payload = pull(self, timeout)
        looking.join(0.05)
        return payload

    with opening().duplex(ECHO_ALL, timeout=PATIENCE) as both:
        for number in range(6):
            both.send(Chunk(number=number))
        monkeypatch.setattr(GrpcDuplex, "_keep_locked", keep_locked)
        monkeypatch.setattr(GrpcStream, "_pull", pulled)
        assert [both.next(PATIENCE).number for _ in range(6)] == [0, 2, 4, 6, 8, 10]
        both.finish()
        assert list(both) == []


# One-way calls


def test_one_way_calls_are_posted(opening: Opening, desk: Desk) -> None:
    """It returns when the call is accepted, whatever becomes of it."""
    client = opening()
    client.post(NOTE, Chunk(number=500), timeout=PATIENCE)
    client.post(NOTE, Chunk(number=-1))
    client.post(NOTE, Chunk(number=7))
    until(lambda: desk.notes == [7], "the last one has run", PATIENCE)


@pytest.mark.parametrize("timeout", [0.3, None])
def test_a_one_way_call_waits_for_its_turn(opening: Opening, desk: Desk, timeout: float | None) -> None:
    """... as long as its caller gives it, or as connecting may take; and when it has it, it runs."""
    client = opening(one_way_calls=1)
    client._timeout = 0.3
    client.post(NOTE, Chunk(number=500))
    with pytest.raises(CallError) as caught:
        client.post(NOTE, Chunk(number=1), timeout=timeout)
    assert (caught.value.reason, caught.value.status) == ("DEADLINE", Status.DEADLINE_EXCEEDED)
    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(client.post, NOTE, Chunk(number=2), timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            posting.result(0.1)
        desk.gate.set()
        posting.result(PATIENCE)
    until(lambda: sorted(desk.notes) == [2, 500], "it has run", PATIENCE)


def test_an_outlet_gives_one_item_at_a_time() -> None:
    """Nothing may be given before it is asked for, and the end of the call ends both sides' wait."""
    outlet = Outlet()
    assert not outlet.wait(0.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(next, outlet)
        assert outlet.wait()
        outlet.give(b"a")
        assert asked.result(PATIENCE) == b"a"
        assert not outlet.wait(0.0)
        asked = pool.submit(next, outlet, b"none")
        assert outlet.wait()
        outlet.end()
        assert asked.result(PATIENCE) == b"none"
        assert not outlet.wait()
        assert outlet.over
