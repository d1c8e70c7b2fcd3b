"""The paths that ``instructions.py`` counts; it runs this program, under valgrind and before that once without.

Nothing here costs anything that depends on the machine. Sockets, polls, threads and clocks are fakes: a socket hands
over what it was given, a poll is always ready, no thread starts, and the clock goes on by a microsecond whenever it is
read, so that no handler ever looks slow. Hence there is one thread and no wait. The frames are those of the real client
and the real server; where a path is about one side only, the frames of the other side were recorded before, and their
call ids are set.

Each path runs in a process of its own, forked from one that has imported everything. So it starts from the same memory
whichever other paths run, and the import, which is most of the work under valgrind, is done once. A window, from one
call of ``os.getpgid`` to the next, is what valgrind dumps by itself; nobody else calls that function.

    python benchmarks/instruction_paths.py FOLDER [PATH ...]

writes for each path, or for those named, FOLDER/PATH.json: its process, which of its dumps are windows, and how many
units are in each.
"""

import gc
import itertools
import json
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before the package is imported, which keeps some of these by name.
sys.path.insert(0, str(Path(sys.argv[0]).parent.parent))
time.monotonic = time.perf_counter = itertools.count(1.0, 1e-6).__next__  # type: ignore[assignment]

from wireproto import Context, Handlers, Message, Method, Server, Service, StreamMethod, codecs, connect  # noqa: E402
from wireproto.answering.pool import Worker  # noqa: E402
from wireproto.handling import Subscription  # noqa: E402
from wireproto.limits import Limits  # noqa: E402
from wireproto.poller import READ  # noqa: E402

WARM = 3
"""Turns before the first window: CPython 3.11 and newer adapts code to what it meets in its first runs."""

WINDOWS = 3
"""The middle one counts. They are the same to a few instructions unless a dict or a list happens to grow in one."""

CALLS = 256
DEPTH = 64
CONNECTS = 32
BATCH = 32  # items after which the client gives their credit back; its own default
JOBS = 2  # processes at a time
ADDRESS = ("127.0.0.1", 7411)
TEXT = "x" * 60


class AskRequest(Message):
    recipient: str
    text: str
    nonce: int


class AskResponse(Message):
    id: int
    stamp: float


class WatchRequest(Message):
    after: int


class Note(Message):
    id: int
    sender: str
    text: str


ASK = Method(opcode=1, name="Ask", request=AskRequest, response=AskResponse)
WATCH = StreamMethod(opcode=2, name="Watch", request=WatchRequest, response=Note)
SERVICE = Service("count.v1.CountService", version=1, methods=[ASK, WATCH])
QUESTION = AskRequest(recipient="bob", text=TEXT, nonce=1_000_000)
ANSWER = AskResponse(id=1_000_000, stamp=1.5)


class Measured(NamedTuple):
    """A path: ``run`` does ``units`` of what is counted, with what ``refill`` made ready outside of the window."""

    units: int
    run: Callable[[], None]
    refill: Callable[[], None] = lambda: None


# ------------------------------------------------------------------ a world that costs nothing

_descriptors = itertools.count(1000)


class Socket:
    """Either end of a connection: takes everything, hands out what ``coming`` has, and is no descriptor."""

    def __init__(self, *kind: object) -> None:
        self.number = next(_descriptors)
        self.coming: list[bytes] = []
        self.sent: list[bytes] | None = []
        self.sends = 0

    def fileno(self) -> int:
        return self.number

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.coming.pop()

    def send(self, data: bytes, flags: int = 0) -> int:
        if self.sent is not None:
            self.sent.append(data)
        self.sends += 1
        return len(data)

    def setblocking(self, flag: bool) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def setsockopt(self, level: int, option: int, value: int) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


class ClientSocket(Socket):
    """The client's end. Whatever is sent has its answer made at once, by ``answer``: at first that is the server."""

    world: "World"

    def connect(self, target: object) -> None:
        self.answer = self.world.accept()

    def send(self, data: bytes, flags: int = 0) -> int:
        self.last = data
        self.coming.append(self.answer(data))
        return len(data)


class Listener(Socket):
    """Has ``waiting`` connections to accept."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Socket] = []

    def accept(self) -> tuple[Socket, tuple[str, int]]:
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(), ADDRESS


class Poll:
    """Both ``select.poll`` and ``select.epoll``: everything is ready."""

    def register(self, descriptor: object, mask: int = 0) -> None: ...

    modify = register

    def unregister(self, descriptor: object) -> None: ...

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        return [(0, READ)]


class Feed(Subscription[Note]):
    """Has ``waiting`` items, and gives one at a time."""

    waiting = 0

    def take(self, n: int) -> Sequence[Note]:
        if not self.waiting:
            return []
        self.waiting -= 1
        return [Note(id=1_000_000, sender="alice", text=TEXT)]


class World:
    """A server that was never started: the caller is its leader. Clients reach it by ``connect``."""

    def __init__(self, codec: str) -> None:
        select.poll = select.epoll = Poll  # type: ignore[assignment, misc]
        socket.socket = ClientSocket  # type: ignore[assignment, misc]
        socket.getaddrinfo = lambda host, port, **_: [  # type: ignore[assignment]
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
        ]
        threading.Thread.start = lambda self: None  # type: ignore[method-assign]
        ClientSocket.world = self
        self.codec = codec
        self.feed = Feed()
        handlers = Handlers(SERVICE)

        @handlers.register(ASK)
        def ask(request: AskRequest, context: Context) -> AskResponse:
            return AskResponse(id=request.nonce, stamp=1.5)

        @handlers.register(WATCH)
        def watch(request: WatchRequest, context: Context) -> Feed:
            return self.feed

        self.server = Server(handlers, codecs=[codec])
        pool = self.server.pool
        pool.leader = self.worker = Worker(pool, 0)
        pool._parked.append(Worker(pool, 1))  # so that the first calls of a method may run on the leader
        self.listener = Listener()
        self.server._listener = self.listener  # type: ignore[assignment]
        self.server._listening = True
        self.served: Socket = self.listener  # the server's end of the latest connection
        self.client = connect(ADDRESS, SERVICE, codec=codec)  # keeps the keeper, which is no thread, from leaving
        self.near: ClientSocket = self.client._line.link(None)._sock  # type: ignore[assignment]

    def accept(self) -> Callable[[bytes], bytes]:
        """Connect to the server; what asks it then."""
        served = self.served = Socket()
        self.listener.waiting.append(served)
        self.server._on_events(self.worker, [(self.listener.number, READ)])

        def ask(data: bytes) -> bytes:
            served.coming.append(data)
            self.server._on_events(self.worker, [(served.number, READ)])
            self.post()
            answer = b"".join(served.sent or ())
            served.sent = []
            return answer

        return ask

    def post(self) -> None:
        """Run what was posted to the leader."""
        pool = self.server.pool
        while pool._posted:
            pool._run_posted(self.worker)


# ------------------------------------------------------------------ the paths


def unary(codec: str, depth: int = 1) -> Measured:
    """From an event of the poller to the answer in ``send``, for ``depth`` requests that come together."""
    world = World(codec)
    world.client.call(ASK, QUESTION)
    served, request = world.served, world.near.last
    head, tail = request[:12], request[16:]
    served.sent = None
    ids = itertools.count(int.from_bytes(request[12:16], "big") + 1)
    turns = CALLS // depth
    serve, worker, events = world.server._on_events, world.worker, [(served.number, READ)]

    def refill() -> None:
        served.sends = 0
        served.coming = [
            b"".join(head + next(ids).to_bytes(4, "big") + tail for _ in range(depth)) for _ in range(turns)
        ][::-1]

    def run() -> None:
        for _ in range(turns):
            serve(worker, events)
        if served.sends != turns:
            raise RuntimeError(f"{turns} turns made {served.sends} writes")

    return Measured(CALLS, run, refill)


def client_call() -> Measured:
    """``Client.call``, from the request's message to the response's; the server's answer was recorded before."""
    world = World("msgpack")
    near = world.near
    server = near.answer
    recorded = b""

    def record(data: bytes) -> bytes:
        nonlocal recorded
        recorded = server(data)
        return recorded

    near.answer = record
    world.client.call(ASK, QUESTION)
    head, tail = recorded[:12], recorded[16:]
    near.answer = lambda data: head + data[12:16] + tail
    call = world.client.call

    def run() -> None:
        for _ in range(CALLS):
            call(ASK, QUESTION)

    return Measured(CALLS, run)


def stream_item() -> Measured:
    """One item that comes by itself, from the source's ``wake`` to ``send``, and its share of a CREDIT.

    The source is a ``Subscription``, since the leader pumps those: an iterator is pumped by a follower, which is
    another thread.
    """
    world = World("msgpack")
    stream = world.client.stream(WATCH, WatchRequest(after=0), credit=2 * BATCH, batch=BATCH)
    served, near, feed = world.served, world.near, world.feed
    feed.waiting = BATCH + 1
    feed.wake()
    world.post()
    near.coming = [b"".join(served.sent or ())]
    for _ in range(BATCH + 1):
        next(stream)
    credit = near.last
    served.sent = None
    serve, worker, events, post = world.server._on_events, world.worker, [(served.number, READ)], world.post

    def run() -> None:
        served.sends = 0
        for _ in range(CALLS // BATCH):
            for _ in range(BATCH):
                feed.waiting = 1
                feed.wake()
                post()
            served.coming.append(credit)
            serve(worker, events)
            post()
        if served.sends < CALLS:
            raise RuntimeError(f"{CALLS} items made {served.sends} writes")

    # The last item handed out must not be taken for a lost stream, which would cancel it when it is collected.
    return Measured(CALLS, run, lambda: stream and None)


def connecting() -> Measured:
    """``connect`` on one side, accept, HELLO and WELCOME on the other; closing is left out."""
    world = World("msgpack")
    clients: list[Any] = []

    def refill() -> None:
        for client in clients:
            client.close()
        clients.clear()
        for session in list(world.server.sessions.values()):
            session.close("")

    def run() -> None:
        for _ in range(CONNECTS):
            clients.append(connect(ADDRESS, SERVICE))

    return Measured(CONNECTS, run, refill)


def coding(codec: str) -> Measured:
    """Encode and decode a request, encode and decode a response."""
    request = codecs.get(codec).plan(AskRequest, 1, Limits())
    response = codecs.get(codec).plan(AskResponse, 1, Limits(), request=False)

    def run() -> None:
        for _ in range(CALLS):
            request.decode(request.encode(QUESTION))
            response.decode(response.encode(ANSWER))

    return Measured(CALLS, run)


PATHS: dict[str, Callable[[], Measured]] = {
    "unary, pipe": lambda: unary("pipe"),
    "unary, msgpack": lambda: unary("msgpack"),
    "unary, protobuf": lambda: unary("protobuf"),
    "unary, 64 in flight": lambda: unary("msgpack", DEPTH),
    "client call": client_call,
    "stream item": stream_item,
    "connect": connecting,
    "codec, pipe": lambda: coding("pipe"),
    "codec, msgpack": lambda: coding("msgpack"),
    "codec, protobuf": lambda: coding("protobuf"),
}


# ------------------------------------------------------------------ the processes


def measure(name: str, folder: Path) -> None:
    """Run a path with its windows marked, and say where they are."""
    path = PATHS[name]()
    for _ in range(WARM):
        path.refill()
        path.run()
    # The collector would run in whichever window its counters happen to be full.
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(WINDOWS):
        path.refill()
        os.getpgid(0)
        path.run()
        os.getpgid(0)
    # Each mark dumps what was counted since the mark before, so every second dump is a window.
    said = {"path": name, "process": os.getpid(), "dumps": [2 * n + 2 for n in range(WINDOWS)], "units": path.units}
    (folder / f"{name}.json").write_text(json.dumps(said), "utf-8")


def forked(name: str, folder: Path) -> None:
    """Measure a path in a process of its own."""
    if os.fork():
        return
    status = 1
    try:
        measure(name, folder)
        status = 0
    except BaseException:  # noqa: BLE001 - it is printed, and a forked process must not return from here
        traceback.print_exc()
    os._exit(status)


def main() -> None:
    folder, *names = sys.argv[1:]
    for codec in ("pipe", "msgpack", "protobuf"):
        codecs.get(codec)  # imported once, before the processes part
    failed = False
    running = 0
    for name in names or PATHS:
        if running == JOBS:
            failed |= os.wait()[1] != 0
            running -= 1
        forked(name, Path(folder))
        running += 1
    for _ in range(running):
        failed |= os.wait()[1] != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
