"""The fault proxy with real sockets: what each fault is to the two programs it stands between."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wireproto import ConfigError
from wireproto.testing import Bandwidth, Cut, Fault, FaultProxy, Flip, Latency, ProxyEvent, Reset, Slicer, Stall

DATA = bytes(range(256)) * 8
PATIENCE = 20.0
RESETS = (ConnectionResetError, BrokenPipeError)


class Echo:
    """A server that sends back what it is sent, until the end of the input, and then its own end."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.endings: list[str] = []
        self.ended = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
                self.endings.append("eof")
            except OSError as error:
                self.endings.append(type(error).__name__)
        self.ended.release()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
        for thread in (self._thread, *self._threads):
            thread.join(PATIENCE)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


class Events:
    """What a proxy tells, and a way to wait for it."""

    def __init__(self) -> None:
        self.seen: list[ProxyEvent] = []
        self._told = threading.Condition()

    def __call__(self, event: ProxyEvent) -> None:
        with self._told:
            self.seen.append(event)
            self._told.notify_all()

    def wait(self, kind: str, count: int = 1) -> ProxyEvent:
        def there() -> list[ProxyEvent]:
            return [event for event in self.seen if event.kind == kind]

        with self._told:
            assert self._told.wait_for(lambda: len(there()) >= count, PATIENCE), self.seen
            return there()[count - 1]


def exchange(proxy: FaultProxy, data: bytes = DATA) -> tuple[bytes, str]:
    """Send ``data`` and the end of it through the proxy; what comes back, and how that ended."""
    received = b""
    with socket.create_connection(proxy.address, timeout=PATIENCE) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the proxy ended it already: what can be read says how
        try:
            while part := sock.recv(65536):
                received += part
        except TimeoutError:
            raise
        except OSError as error:
            return received, type(error).__name__
    return received, "eof"


def gone(proxy: FaultProxy) -> bool:
    """Whether the proxy resets a connection at once; the client may see it in any of its calls."""
    try:
        return exchange(proxy)[1] in ("ConnectionResetError", "BrokenPipeError")
    except RESETS:
        return True


def test_without_faults_everything_passes(echo: Echo) -> None:
    """Bytes and ends of input go through in both directions, in many connections at a time, and are counted."""
    with FaultProxy(echo.address) as proxy:
        results: list[tuple[bytes, str]] = []
        threads = [
            threading.Thread(target=lambda: results.append(exchange(proxy, DATA * 500)), daemon=True) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [(DATA * 500, "eof")] * 8
        stats = proxy.stats
        assert (stats.connections, stats.up, stats.down) == (8, 8 * len(DATA) * 500, 8 * len(DATA) * 500)
        assert not stats.faults
    assert echo.endings == ["eof"] * 8


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(
    ("fault", "received", "ending"),
    [
        (Cut(0), b"", "eof"),
        (Cut(100), DATA[:100], "eof"),
        (Cut(len(DATA)), DATA, "eof"),
        (Flip(8 * 100), DATA[:100] + bytes([DATA[100] ^ 0x80]) + DATA[101:], "eof"),
        (Slicer(7, variation=3), DATA, "eof"),
        (Latency(0.01, jitter=0.005), DATA, "eof"),
        (Stall(100, 0.05), DATA, "eof"),
        (Bandwidth(100_000), DATA, "eof"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else str(len(value)),
)
def test_what_a_fault_is_to_a_client(echo: Echo, direction: str, fault: Fault, received: bytes, ending: str) -> None:
    """Each fault, in either direction, gives the client the bytes and the end that it is said to."""
    faults: dict[str, Any] = {direction: [fault]}
    events = Events()
    with FaultProxy(echo.address, observe=events, **faults) as proxy:
        found, end = exchange(proxy)
        if isinstance(fault, Cut) and direction == "up":
            # The answer to what passed may be cut off with the rest.
            assert received.startswith(found)
        else:
            assert found == received
        assert end == ending
        close = events.wait("close")
        assert proxy.stats.faults == {fault.name: 1}
        assert (close.up if direction == "up" else close.down) == (len(received) if fault.name == "cut" else len(DATA))


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("at", [0, 100])
def test_a_reset_is_one_on_both_sides(echo: Echo, direction: str, at: int) -> None:
    """Both programs see a reset, not an end."""
    faults: dict[str, Any] = {direction: [Reset(at)]}

    def talk(proxy: FaultProxy) -> None:
        with socket.create_connection(proxy.address, timeout=PATIENCE) as sock:
            sock.sendall(DATA)
            while sock.recv(65536):
                sock.sendall(DATA)

    with FaultProxy(echo.address, **faults) as proxy:
        with pytest.raises(RESETS):
            talk(proxy)
        assert echo.ended.acquire(timeout=PATIENCE)
    assert echo.endings == ["ConnectionResetError"]


def test_a_cut_is_an_end_on_the_other_side(echo: Echo) -> None:
    """The server reads what passed, and then an end of input like any other."""
    with FaultProxy(echo.address, up=[Cut(10)]) as proxy:
        exchange(proxy)
        assert echo.ended.acquire(timeout=PATIENCE)
    assert echo.endings == ["eof"]


def test_latency_is_waited(echo: Echo) -> None:
    """An echo takes at least the latency of both ways."""
    with FaultProxy(echo.address, up=[Latency(0.05)], down=[Latency(0.05)]) as proxy:
        began = time.monotonic()
        exchange(proxy, b"x")
        assert time.monotonic() - began >= 0.1


def test_bandwidth_is_kept(echo: Echo) -> None:
    """So many bytes take at least as long as the line needs."""
    with FaultProxy(echo.address, down=[Bandwidth(20_000)]) as proxy:
        began = time.monotonic()
        assert exchange(proxy)[0] == DATA
        assert time.monotonic() - began >= len(DATA) / 20_000


def test_slices_arrive_apart(echo: Echo) -> None:
    """With a delay between them the receiver reads the slices one by one."""
    with (
        FaultProxy(echo.address, down=[Slicer(10, delay=0.02)]) as proxy,
        socket.create_connection(proxy.address, timeout=PATIENCE) as sock,
    ):
        sock.sendall(DATA[:50])
        sizes: list[int] = []
        while sum(sizes) < 50:
            sizes.append(len(sock.recv(1000)))
    assert max(sizes) <= 20, "on a busy machine two may have been joined, not all"
    assert len(sizes) >= 3


def test_a_stall_without_end_holds_the_rest_back(echo: Echo) -> None:
    """What comes before passes; then nothing, though the connection is there, until the proxy is closed."""
    events = Events()
    with (
        FaultProxy(echo.address, down=[Stall(5)], observe=events) as proxy,
        socket.create_connection(proxy.address, timeout=PATIENCE) as sock,
    ):
        sock.sendall(DATA)
        assert events.wait("fault").detail == "stall without end at byte 5"
        sock.settimeout(0.1)
        assert sock.recv(100) == DATA[:5]
        with pytest.raises(TimeoutError):
            sock.recv(100)
        sock.settimeout(PATIENCE)
        proxy.close()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_faults_work_one_after_the_other(echo: Echo) -> None:
    """A flip behind a slicer is at the same bit; a cut behind both is at the same byte."""
    faults = [Slicer(3), Flip(8 * 9), Latency(0.001), Cut(20)]
    with FaultProxy(echo.address, down=faults) as proxy:
        found, _ = exchange(proxy)
        assert found == DATA[:9] + bytes([DATA[9] ^ 0x80]) + DATA[10:20]
        assert proxy.stats.faults == {"slicer": 1, "latency": 1, "flip": 1, "cut": 1}


def test_later_connections_may_be_spared(echo: Echo) -> None:
    """``skip`` and ``count`` say which connections a fault is for."""
    with FaultProxy(echo.address, up=[Reset(skip=1, count=2)]) as proxy:
        assert [gone(proxy) for _ in range(4)] == [False, True, True, False]


def test_faults_may_be_changed_while_it_runs(echo: Echo) -> None:
    """Connections that are made after the change have the new faults."""
    with FaultProxy(echo.address, down=[Cut(1)]) as proxy:
        assert exchange(proxy)[0] == DATA[:1]
        proxy.down = [Cut(2)]
        assert exchange(proxy)[0] == DATA[:2]
        proxy.down = []
        assert exchange(proxy)[0] == DATA


def test_connections_may_be_reset_at_any_time(echo: Echo) -> None:
    """``reset`` ends what is there now, and nothing else."""
    events = Events()
    with FaultProxy(echo.address, observe=events) as proxy:
        with socket.create_connection(proxy.address, timeout=PATIENCE) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert events.wait("close").detail == "reset by the test"
        assert exchange(proxy) == (DATA, "eof")
        assert proxy.stats.open <= 1


def test_a_side_that_goes_takes_the_other_along(echo: Echo) -> None:
    """A client that resets its connection resets the server's."""
    with FaultProxy(echo.address) as proxy:
        sock = socket.create_connection(proxy.address, timeout=PATIENCE)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert echo.ended.acquire(timeout=PATIENCE)
    assert echo.endings == ["ConnectionResetError"]


def test_without_a_server_clients_are_reset() -> None:
    """Nobody upstream is told, and a reset for the client; the proxy goes on."""
    events = Events()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        with FaultProxy(nobody.getsockname(), observe=events) as proxy:
            for _ in range(2):
                assert gone(proxy)
            assert "Connection refused" in events.wait("refused", 2).detail
            assert proxy.stats.connections == 2


def test_a_slow_reader_does_not_fill_the_proxy(echo: Echo) -> None:
    """While a client does not read, the proxy stops reading; afterwards everything is there."""
    data = DATA * 4000  # 8 MiB
    with (
        FaultProxy(echo.address) as proxy,
        socket.create_connection(proxy.address, timeout=PATIENCE) as sock,
    ):
        sending = threading.Thread(target=sock.sendall, args=(data,), daemon=True)
        sending.start()
        received = 0
        while received < len(data):
            received += len(sock.recv(65536))
        sending.join(PATIENCE)
        assert received == len(data)


def test_events_tell_a_connection_s_life(echo: Echo) -> None:
    """Opened, the fault with its direction, closed with the bytes that passed; numbers rise, time too."""
    events = Events()
    with FaultProxy(echo.address, down=[Cut(3)], observe=events) as proxy:
        exchange(proxy)
        exchange(proxy)
        events.wait("close", 2)
    told = [(event.connection, event.kind, event.direction) for event in events.seen]
    assert sorted(told[:3] + told[3:6]) == sorted(
        (number, kind, direction)
        for number in (1, 2)
        for kind, direction in (("open", ""), ("fault", "down"), ("close", ""))
    )
    assert [event.seconds for event in events.seen] == sorted(event.seconds for event in events.seen)
    assert events.wait("close").down == 3


def test_an_observer_that_raises_is_reported(echo: Echo) -> None:
    """What ``observe`` raises ends the proxy, and ``close`` raises it."""

    def observe(event: ProxyEvent) -> None:
        raise ZeroDivisionError

    proxy = FaultProxy(echo.address, observe=observe)
    proxy.start()
    assert gone(proxy)
    assert proxy.wait(PATIENCE)
    with pytest.raises(ZeroDivisionError):
        proxy.close()
    proxy.close()


def refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_addresses_that_cannot_be_are_refused(echo: Echo) -> None:
    """An address in use, and one asked for too early, are said so."""
    refused(lambda: FaultProxy(echo.address).address, "no address yet")
    refused(lambda: FaultProxy(echo.address, listen=echo.address).start(), "cannot listen on .*Address already in use")
    refused(lambda: FaultProxy("nonsense"), "is not an address")


def test_nothing_is_left(echo: Echo) -> None:
    """After close there is no thread and no connection, however many there were."""
    before = set(threading.enumerate())
    with FaultProxy(echo.address, down=[Stall()]) as proxy:
        sockets = [socket.create_connection(proxy.address, timeout=PATIENCE) for _ in range(5)]
        for sock in sockets:
            sock.sendall(b"x")
    for sock in sockets:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        sock.close()
    assert not any(thread.name == "wireproto-proxy" for thread in set(threading.enumerate()) - before)
    proxy.close()
    proxy.reset()
