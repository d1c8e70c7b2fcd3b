"""Connecting: a TCP connection, then the handshake, within one deadline."""

import math
import select
import socket
import time
from collections.abc import Callable

from wireproto.address import Address
from wireproto.binding import Dialect
from wireproto.client.calls import EarlyCall
from wireproto.client.keeper import the_keeper
from wireproto.client.link import Answers, Link
from wireproto.client.queue import CallQueue
from wireproto.client.reception import CHUNK, POLL_MAX
from wireproto.errors import ConnectionLost, HandshakeError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.schema import Service
from wireproto.status import Retry
from wireproto.wire.connection import Connection, PayloadTooLarge
from wireproto.wire.early import EarlyRequest
from wireproto.wire.events import NEED_DATA, ConnectionEnded, WelcomeReceived
from wireproto.wire.handshake import Hello, Welcome, compare_digests

__all__ = ["open_connection", "open_link"]

_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A peer whose host is gone is found out by the kernel within a minute, whatever heartbeat was agreed on.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)


def open_link(
    address: Address,
    connection: Connection,
    hello: Hello,
    service: Service,
    limits: Limits,
    deadline: float,
    dialect: Callable[[int, int, int, int], Dialect],
    queue: CallQueue,
    changed: Callable[[], None],
    answers: Answers | None = None,
    early: EarlyCall | None = None,
) -> Link:
    """Connect, greet and be welcomed; the keeper looks after the link from then on.

    Args:
        address, connection, hello, service, limits, deadline: as for ``open_connection``.
        dialect: makes what is spoken out of what was agreed on: the codec's id, the version, the algorithm, and the
            control version.
        queue, changed, answers: as for ``Link``.
        early: as for ``open_connection``.

    Raises:
        HandshakeError, ConnectionLost: as ``open_connection``.
    """
    sock = open_connection(address, connection, hello, service, limits, deadline, early)
    try:
        sock.setblocking(True)
        spoken = dialect(connection.codec, connection.version, connection.packing, connection.control)
        return Link(sock, connection, spoken, str(address), limits, the_keeper(), queue, changed, answers, early)
    except BaseException:
        sock.close()
        raise


def open_connection(
    address: Address,
    connection: Connection,
    hello: Hello,
    service: Service,
    limits: Limits,
    deadline: float,
    early: EarlyCall | None = None,
) -> socket.socket:
    """Connect, greet and be welcomed. The socket is non-blocking, and the caller's to close.

    Args:
        address: of the server; each of the host's addresses is tried in turn.
        connection: a client's that has not begun; it is open afterwards.
        hello: what to offer.
        service: what this client was made for, to compare with what the server says that it declares.
        limits: of this side.
        deadline: point in time by ``time.monotonic``. Looking up the host's name is not bound by it: the C library's
            resolver has time limits of its own.
        early: a call to send together with HELLO, if there is room. It has its id afterwards if it is in flight; else
            it was not processed, unless it is ``in_doubt``.

    Raises:
        HandshakeError: the peer refused, or is no wireproto server, or declares a method differently.
        ConnectionLost: there is nobody, or no answer in time; the retry advice is NOT_PROCESSED.
    """
    sock = _connect(address, deadline)
    try:
        for level, option, value in _OPTIONS:
            sock.setsockopt(level, option, value)
        sock.setblocking(False)
        limit = min(deadline, time.monotonic() + limits.hello_timeout)
        if early is None:
            connection.send_hello(hello)
            _check_welcome(sock, connection, address, service, _shake_hands(sock, connection, address, limit).welcome)
        else:
            sent = _greet(connection, hello, early)
            welcomed = _shake_hands(sock, connection, address, limit, early)
            early.in_doubt &= not welcomed.skipped
            _check_welcome(sock, connection, address, service, welcomed.welcome)
            early.call_id = sent if early.in_doubt else 0
            early.in_doubt = False
    except BaseException:
        sock.close()
        raise
    return sock


def _greet(connection: Connection, hello: Hello, early: EarlyCall) -> int:
    """Queue HELLO, and behind it the early call if there is room for both: the id of that, else 0."""
    try:
        (call_id,) = connection.send_hello(hello, [EarlyRequest(early.opcode, early.request, early.block())])
    except PayloadTooLarge:
        connection.send_hello(hello)
        return 0
    early.in_doubt = True
    return call_id


def _connect(address: Address, deadline: float) -> socket.socket:
    try:
        candidates = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _unreachable(address, f"the host's name cannot be resolved: {error.strerror}") from None
    problem = "the host has no address"
    for family, kind, protocol, _, target in candidates:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _unreachable(address, "no answer in time")
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining)
            sock.connect(target)
            return sock
        except TimeoutError:
            problem = "no answer in time"
        except OSError as error:
            problem = error.strerror or str(error)
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise _unreachable(address, problem)


def _check_welcome(
    sock: socket.socket, connection: Connection, address: Address, service: Service, welcome: Welcome
) -> None:
    """Compare contracts. The server has done so where it was this client's newest version that was chosen, and only if
    HELLO had room for our list; a server of yesterday cannot know what a client of today declares of its version.
    """
    try:
        compare_digests(service.full_name, welcome.version, service.digests(welcome.version), welcome.digests)
    except HandshakeError as error:
        connection.refuse(error)
        _leave(sock, connection.data_to_send())
        text = f"{address} serves another contract: {error.message}"
        raise HandshakeError(error.status, error.reason, text) from None


def _shake_hands(
    sock: socket.socket, connection: Connection, address: Address, deadline: float, early: EarlyCall | None = None
) -> WelcomeReceived:
    """Send HELLO and read up to WELCOME; what follows it stays in the connection's buffer."""
    output = connection.data_to_send()
    poll = select.poll()
    while True:
        poll.register(sock, select.POLLIN | select.POLLOUT if output else select.POLLIN)
        remaining = math.ceil((deadline - time.monotonic()) * 1000)
        if remaining <= 0 or not poll.poll(min(remaining, POLL_MAX)):
            raise _unreachable(address, "it accepted the connection and sent no WELCOME in time")
        try:
            if output:
                output = output[_send(sock, output) :]
            try:
                data = sock.recv(CHUNK)
            except BlockingIOError:
                continue
        except OSError as error:
            raise _unreachable(address, f"the connection broke before WELCOME: {error.strerror}") from None
        if data:
            connection.receive_data(data)
        else:
            connection.receive_eof()
        event = connection.next_event()
        if isinstance(event, WelcomeReceived):
            return event
        if isinstance(event, ConnectionEnded):
            if early is not None and isinstance(event.error, HandshakeError):
                early.in_doubt = False  # it is the server's word, which it gives before it looks at any call
            if not output:
                _leave(sock, connection.data_to_send())
            raise _refused(address, event)
        assert event is NEED_DATA, event  # the connection lets nothing else pass before WELCOME


def _send(sock: socket.socket, data: bytes) -> int:
    try:
        return sock.send(data, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0


def _leave(sock: socket.socket, last_words: bytes) -> None:
    """Tell a server what was wrong with its answer. Nobody waits for it: what it has sent by now is dropped, because
    closing with unread input would be a reset, which our words need not survive.
    """
    try:
        if last_words:
            sock.send(last_words, socket.MSG_NOSIGNAL)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(CHUNK):
                pass
    except OSError:
        pass  # it has nothing more for us, or is gone


def _refused(address: Address, event: ConnectionEnded) -> HandshakeError | ConnectionLost:
    error = event.error
    if isinstance(error, HandshakeError):
        if error.reason == "SHUTTING_DOWN":
            return _unreachable(address, error.message)  # there may be another server here in a moment
        return HandshakeError(
            error.status,
            error.reason,
            f"{address} refused the connection: {error.message}",
            retry=error.retry,
            retry_after_ms=error.retry_after_ms,
        )
    if isinstance(error, RemoteProtocolError) and error.reason != "TRUNCATED_FRAME":
        return HandshakeError(
            error.status,
            error.reason,
            f"{address} does not speak this protocol: {error.problem}",
            retry=Retry.NEVER,  # nothing was processed, and nothing will be before somebody gives another address
        )
    return _unreachable(address, "it closed the connection without WELCOME")


def _unreachable(address: Address, problem: str) -> ConnectionLost:
    return ConnectionLost(f"{address} cannot be reached: {problem}", retry=Retry.NOT_PROCESSED)
