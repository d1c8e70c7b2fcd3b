"""Items a second, both ways, beside grpcio and a bare socket: over loopback, each server in a process of its own.

Small items (100 bytes) of a server stream, an upload and a duplex call in ping-pong, and 1 GiB in items of 64 KiB, up
and down. Ours are in msgpack. The kinds are measured in turns, and the median of the turns is printed: items or MiB a
second, and CPU of both sides together.

    python benchmarks/items.py [--turns 3] [--bulk MIB]
"""

import argparse
import multiprocessing
import os
import queue
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from typing import Any

import grpc

from wireproto import (
    Client,
    DuplexMethod,
    Handlers,
    Message,
    Server,
    Service,
    Sink,
    StreamMethod,
    Subscription,
    UploadMethod,
    connect,
)

SMALL, LARGE = 100, 65_536
MANY, FEW = 100_000, 10_000


class Chunk(Message):
    """An item."""

    data: bytes = b""


class Ask(Message):
    """How many items are wanted, and of what size."""

    count: int = 0
    size: int = 0


class Count(Message):
    """How many items came."""

    count: int = 0


DOWN = StreamMethod(opcode=1, name="Down", request=Ask, response=Chunk)
UP = UploadMethod(opcode=2, name="Up", request=Chunk, response=Count)
BOTH = DuplexMethod(opcode=3, name="Both", request=Chunk, response=Chunk)
ITEMS = Service("items.v1.ItemsService", 1, [DOWN, UP, BOTH])


class Feed(Subscription[Chunk]):
    """So many of one item."""

    def __init__(self, ask: Ask) -> None:
        self.left = ask.count
        self.item = Chunk(data=bytes(ask.size))

    def take(self, n: int) -> Sequence[Chunk]:
        if not self.left:
            raise StopIteration
        n = min(n, self.left)
        self.left -= n
        return [self.item] * n


class Counting(Sink[Chunk, Count]):
    """Counts what comes."""

    def __init__(self) -> None:
        self.count = 0

    def receive(self, item: Chunk) -> None:
        self.count += 1

    def finished(self) -> Count:
        return Count(count=self.count)


class Echoing(Sink[Chunk, None], Subscription[Chunk]):
    """Gives back what comes."""

    def __init__(self) -> None:
        self.items: list[Chunk] = []
        self.over = False

    def receive(self, item: Chunk) -> None:
        self.items.append(item)
        self.wake()

    def finished(self) -> None:
        self.over = True
        self.wake()

    def take(self, n: int) -> Sequence[Chunk]:
        given, self.items = self.items[:n], self.items[n:]
        if not given and self.over:
            raise StopIteration
        return given


def ours(places: "Queue[tuple[int, int]]") -> None:
    """A wireproto server, until it is terminated."""
    handlers = Handlers(ITEMS)
    handlers.register(DOWN)(lambda request, context: Feed(request))
    handlers.sink(UP)(lambda context: Counting())
    handlers.sink(BOTH)(lambda context: Echoing())
    with Server(handlers, port=0) as server:
        places.put((server.address.port, os.getpid()))
        server.wait()


def theirs(places: "Queue[tuple[int, int]]") -> None:
    """A grpcio server of bytes, until it is terminated."""

    def down(request: bytes, context: Any) -> Iterator[bytes]:
        count, size = map(int, request.split())
        item = bytes(size)
        for _ in range(count):
            yield item

    methods: dict[str, Any] = {
        "down": grpc.unary_stream_rpc_method_handler(down),
        "up": grpc.stream_unary_rpc_method_handler(lambda items, context: b"%d" % sum(1 for _ in items)),
        "both": grpc.stream_stream_rpc_method_handler(lambda items, context: iter(items)),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("items", methods),))
    places.put((server.add_insecure_port("127.0.0.1:0"), os.getpid()))
    server.start()
    server.wait_for_termination()


def bare(places: "Queue[tuple[int, int]]") -> None:
    """Sends or takes as many bytes as it is asked for, until it is terminated."""
    listener = socket.create_server(("127.0.0.1", 0))
    places.put((listener.getsockname()[1], os.getpid()))
    buffer, item = bytearray(4 * LARGE), bytes(LARGE)
    while True:
        peer, _ = listener.accept()
        with peer:
            way, left = peer.recv(64).split()
            rest = int(left)
            peer.sendall(b"!")
            while rest > 0:
                if way == b"down":
                    peer.sendall(item)
                    rest -= LARGE
                else:
                    rest -= peer.recv_into(buffer)
            peer.sendall(b".")


def cpu_of(process: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Figures:
    """What was measured, by name.

    Args:
        processes: of the servers, by kind.
    """

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._found: dict[str, list[tuple[float, float]]] = {}

    def run(self, name: str, kind: str, amount: float, act: Callable[[], object]) -> None:
        """Do it once: the rate, and CPU for each of what was done."""
        process = self._processes[kind]
        began, used = time.perf_counter(), time.process_time() + cpu_of(process)
        act()
        took = time.perf_counter() - began
        used = time.process_time() + cpu_of(process) - used
        self._found.setdefault(name, []).append((amount / took, used / amount))

    def show(self, unit: str, scale: float, cost: str) -> None:
        """Print the medians, and forget them."""
        for name, turns in self._found.items():
            rate, used = (statistics.median(each) for each in zip(*turns, strict=True))
            print(f"{name:32} {rate:12,.0f} {unit}  {used * scale:10.2f} {cost}")
        self._found.clear()


def ask_bare(port: int, way: str, size: int) -> None:
    """Move so many bytes through the bare server."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(f"{way} {size}".encode())
        peer.recv(1)
        buffer, item = bytearray(4 * LARGE), bytes(LARGE)
        while size > 0:
            if way == "up":
                peer.sendall(item)
                size -= LARGE
            else:
                size -= peer.recv_into(buffer)
        peer.recv(1)


def ping_pong(client: Client, count: int) -> None:
    """Each item is sent when the one before has come back."""
    with client.duplex(BOTH) as both:
        for _ in range(count):
            both.send(Chunk(data=bytes(SMALL)))
            next(both)
        both.finish()


def their_ping_pong(call: Any, count: int) -> None:
    """The same, by grpcio."""
    items: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = call(iter(items.get, None))
    for _ in range(count):
        items.put(bytes(SMALL))
        next(answers)
    items.put(None)


def drained(items: Iterator[object]) -> int:
    """How many there are."""
    return sum(1 for _ in items)


def measure(places: dict[str, tuple[int, int]], turns: int, bulk: int) -> None:
    """Take the turns, and print what they came to."""
    figures = Figures({kind: process for kind, (_, process) in places.items()})
    channel = grpc.insecure_channel(f"127.0.0.1:{places['theirs'][0]}")
    down: Any = channel.unary_stream("/items/down")
    up: Any = channel.stream_unary("/items/up")
    both: Any = channel.stream_stream("/items/both")
    small, large = Chunk(data=bytes(SMALL)), Chunk(data=bytes(LARGE))
    with connect(f"127.0.0.1:{places['ours'][0]}", ITEMS) as client:
        many = Ask(count=MANY, size=SMALL)
        for _ in range(turns):
            figures.run("stream", "ours", MANY, lambda: drained(client.stream(DOWN, many)))
            figures.run("stream, credit 1024", "ours", MANY, lambda: drained(client.stream(DOWN, many, credit=1024)))
            figures.run("stream, grpcio", "theirs", FEW, lambda: drained(down(b"%d %d" % (FEW, SMALL))))
            figures.run("upload", "ours", MANY, lambda: client.upload(UP, [small] * MANY))
            figures.run("upload of a generator", "ours", FEW, lambda: client.upload(UP, (small for _ in range(FEW))))
            figures.run("upload, grpcio", "theirs", FEW, lambda: up(iter([small.data] * FEW)))
            figures.run("ping-pong", "ours", FEW // 2, lambda: ping_pong(client, FEW // 2))
            figures.run("ping-pong, grpcio", "theirs", FEW // 2, lambda: their_ping_pong(both, FEW // 2))
        figures.show("items/s", 1e6, "us of CPU an item")
        count, port = bulk * 1024 * 1024 // LARGE, places["bare"][0]
        wanted = Ask(count=count, size=LARGE)
        for _ in range(turns):
            figures.run("bulk down, bare", "bare", bulk, lambda: ask_bare(port, "down", bulk << 20))
            figures.run("bulk down", "ours", bulk, lambda: drained(client.stream(DOWN, wanted)))
            figures.run("bulk down, grpcio", "theirs", bulk, lambda: drained(down(b"%d %d" % (count, LARGE))))
            figures.run("bulk up, bare", "bare", bulk, lambda: ask_bare(port, "up", bulk << 20))
            figures.run("bulk up", "ours", bulk, lambda: client.upload(UP, [large] * count))
            figures.run("bulk up, grpcio", "theirs", bulk, lambda: up(iter([large.data] * count)))
        figures.show("MiB/s", 1024, "s of CPU a GiB")


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bulk", type=int, default=1024, metavar="MIB")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    places: Queue[tuple[int, int]] = context.Queue()
    servers = {}
    found = {}
    for kind, target in (("ours", ours), ("theirs", theirs), ("bare", bare)):
        servers[kind] = context.Process(target=target, args=(places,), daemon=True)
        servers[kind].start()
        found[kind] = places.get(timeout=30)
    try:
        measure(found, given.turns, given.bulk)
    finally:
        for server in servers.values():
            server.terminate()


if __name__ == "__main__":
    main()
