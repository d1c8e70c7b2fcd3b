"""AgentSuite: the handlers of a client that its server calls, tested as ``ServerSuite`` tests those of a server."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from wireproto.client import Client
from wireproto.client.face import Answered
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Sink, Subscription
from wireproto.schema import Message
from wireproto.server import Server
from wireproto.testing.cases import AgentPeers, Left, Peers
from wireproto.testing.doors import threads_end
from wireproto.testing.live import HandlerSuite
from wireproto.testing.overheard import Heard, Overheard
from wireproto.testing.standin import PATIENCE

__all__ = ["AgentSuite"]


class AgentSuite(HandlerSuite):
    """What the handlers of a client answer its server, for every method ``by="server"``, codec and version.

        class TestWorkers(AgentSuite):
            handlers = work

    Shown of them: generated requests and items are answered, or refused with a reason that is declared, and never fail
    with an exception; a server that leaves in the middle of its items keeps no handler; and the same calls have the
    same answers in every codec, and between a server and a client of any two versions.

    Handlers with state get it by overriding ``application``, and requests that mean something to them by overriding
    ``requests``, as of ``ServerSuite``. Each test begins with an application of its own.

    Attributes:
        handlers: what is tested.
        service: its table; needed only where ``application`` makes the handlers.
        codecs: names or objects; None is every codec there is.
        limits: of the server and its client.
        versions: those of servers and clients that are tried; None is every one.
        max_examples: of each test; None for a fifth of what the Hypothesis profile in force says.
        varying: names of fields whose values are others each time, and names of methods whose answers are.
        quiet: seconds without an item after which a stream is left, and a duplex call after fifty times as many.
        patience: seconds in which a handler must have answered a call, if the method declares no less.
    """

    _by = "server"
    _wanted = {
        "test_calls_that_are_left_end": lambda suite, case: case.method.items_follow,
        "test_every_peer_is_answered_alike": lambda suite, peers: bool(suite._methods_at(peers.spoken)),  # noqa: SLF001 - it is this
    }
    _of_peers = {"test_every_peer_is_answered_alike"}
    _of_methods = frozenset[str]()
    _peers = AgentPeers

    @contextlib.contextmanager
    def _world(self, peers: Peers, door: str) -> Iterator[tuple[Any, Handlers, Heard]]:
        """A server of a client with fresh handlers, those, and what becomes of its calls."""
        heard, limits, codec = Heard(), self._patient_limits(), self._doors()[door]
        with threads_end(PATIENCE), self.application() as application, contextlib.ExitStack() as stack:
            handlers = Overheard(application.handlers.as_of(peers.server), heard)
            found: queue.Queue[ConnectedClient] = queue.Queue()
            server = Server(
                Handlers(self._service().as_of(peers.client)), codecs=[codec], limits=limits, on_client=found.put
            )
            server.start()
            stack.callback(server.shutdown, PATIENCE)
            client = Client(server.address, handlers.service, codec=codec, handlers=handlers, limits=limits)
            stack.callback(client.close)
            client.open()
            yield ServerCaller(client, found.get(timeout=PATIENCE)), handlers, heard


class ServerCaller:
    """A server's side of one connection, with the calls of a ``BlockingClient`` as far as suites make them.

    Args:
        client: the client itself.
        agent: ... and as its server sees it.
    """

    def __init__(self, client: Client, agent: ConnectedClient) -> None:
        self._client = client
        self._agent = agent

    @property
    def version(self) -> int:
        """Of the service."""
        return self._agent.version

    @property
    def codec(self) -> str:
        """Its name."""
        return self._agent.codec

    def start(self, method: Any, request: Message, *, timeout: float | None = None) -> Future[Any]:
        return self._agent.start(method, request, timeout=_timeout(method, timeout))

    def post(self, method: Any, request: Message, *, timeout: float | None = None) -> None:
        self._agent.post(method, request)

    def upload(self, method: Any, items: Iterable[Message], *, timeout: float | None = None) -> Any:
        return self.upload_with_metadata(method, items, timeout=timeout).message

    def upload_with_metadata(
        self, method: Any, items: Iterable[Message], *, timeout: float | None = None
    ) -> Answered[Any]:
        future: Any = self._agent.upload(method, self._seen(items), timeout=_timeout(method, timeout))
        return Answered(future.result(), future.metadata)

    def stream(self, method: Any, request: Message, *, timeout: float | None = None) -> "AgentAnswers":
        taker = OneByOne()
        return AgentAnswers(taker, self._agent.stream(method, request, taker, timeout=_timeout(method, timeout)))

    def duplex(
        self, method: Any, items: Iterable[Message] | None = None, *, timeout: float | None = None
    ) -> "AgentAnswers":
        taker, source = OneByOne(), SentOneByOne()
        future = self._agent.duplex(
            method, source if items is None else items, taker, timeout=_timeout(method, timeout)
        )
        return AgentAnswers(taker, future, source)

    def _seen(self, items: Iterable[Message]) -> Iterator[Message]:
        """The same items. Who leaves does so once the client has those that are sent, so that its handler begins."""
        try:
            yield from items
        except Left:
            self._client.ping(PATIENCE)
            raise

    def ping(self, timeout: float) -> float:
        """See ``BlockingClient.ping``: both sides go on."""
        return self._client.ping(timeout)


def _timeout(method: Any, timeout: float | None) -> float | None:
    """Every call of a server has one."""
    return timeout if timeout is not None or method.timeout is not None else 2 * PATIENCE


class OneByOne(Sink[Any, None]):
    """Has the items of one call for whoever asks, one by one: the next one comes when this one is taken."""

    def __init__(self) -> None:
        self.items: queue.Queue[tuple[Any, Future[Any]] | CallError | None] = queue.Queue()

    def receive(self, item: Any) -> Future[Any]:
        taken: Future[Any] = Future()
        self.items.put((item, taken))
        return taken

    def finished(self) -> None:
        self.items.put(None)

    def failed(self, error: CallError) -> None:
        self.items.put(error)


class SentOneByOne(Subscription[Any]):
    """What is sent item by item; its end never comes, because whoever sends them leaves."""

    def __init__(self) -> None:
        self._items: deque[tuple[Message, threading.Event]] = deque()
        self.over = threading.Event()

    def put(self, item: Message, within: float) -> None:
        """Have one item sent; returns when it is, when the call is over, or after ``within`` seconds.

        Raises:
            TimeoutError: it was not sent.
        """
        sent = threading.Event()
        self._items.append((item, sent))
        if self.over.is_set():  # maybe since a moment ago: whoever closed it did not see this one
            return
        self.wake()
        if not sent.wait(within):
            raise TimeoutError

    def take(self, n: int) -> Sequence[Any]:
        found: list[Message] = []
        while self._items and len(found) < n:
            item, sent = self._items.popleft()
            found.append(item)
            sent.set()
        return found

    def close(self, reason: str) -> None:
        self.over.set()
        while self._items:
            self._items.popleft()[1].set()


class AgentAnswers:
    """The answers of one call, as ``Stream`` and ``Duplex`` have them."""

    def __init__(self, taker: OneByOne, future: Any, source: SentOneByOne | None = None) -> None:
        self._taker = taker
        self._future = future
        self._source = source

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was said beside the end, for whoever has come to it."""
        self._future.exception(PATIENCE)  # it is done as soon as the sink has returned
        said: Mapping[str, str] = self._future.metadata
        return said

    def next(self, timeout: float | None = None) -> Any:
        """The next item.

        Raises:
            StopIteration: there are no more.
            TimeoutError: there is none yet.
            CallError: the call has failed.
        """
        try:
            found = self._taker.items.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if found is None:
            raise StopIteration
        if isinstance(found, CallError):
            raise found
        item, taken = found
        taken.set_result(None)
        return item

    def send(self, item: Message, timeout: float) -> None:
        """Send one item.

        Raises:
            TimeoutError: it was not sent.
        """
        assert self._source is not None
        if not self._source.over.is_set():
            self._source.put(item, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._future.cancel()
