"""Items a second, both ways, beside grpcio, connect-py and a bare socket: over loopback, each server a process.

Small items (100 bytes) of a server stream, an upload and a duplex call in ping-pong, in msgpack; and 1 GiB in items of
64 KiB, up and down, in each codec. The kinds are measured in turns, and the median of the turns is printed: items or
MiB a second, CPU of both sides together, and for the bulk how much the memory of each side of ours grew at its highest.
connect-py's server is uvicorn, which speaks HTTP/1.1, so that it has no ping-pong.

    python benchmarks/items.py [--turns 3] [--bulk MIB]
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.queues import Queue

from item_peers import LARGE, Connect, Grpc, ask_bare, bare, connect_server, grpc_server

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

SMALL = 100
MANY, FEW = 100_000, 10_000
CODECS = ("msgpack", "protobuf", "pipe")


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


def cpu_of(process: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def grown(process: int) -> Callable[[], float]:
    """Gives the MiB by which a process has grown since now, at its highest."""
    with open(f"/proc/{process}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the highest so far is what it has now

    def resident(name: str) -> float:
        with open(f"/proc/{process}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))

    before = resident("VmRSS:")
    return lambda: resident("VmHWM:") - before


class Figures:
    """What was measured, by name.

    Args:
        processes: of the servers, by kind.
    """

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._found: dict[str, list[tuple[float, float, float, float]]] = {}

    def run(self, name: str, kind: str, amount: float, act: Callable[[], object]) -> None:
        """Do it once: the rate, CPU for each of what was done, and how much more memory each side had."""
        process = self._processes[kind]
        here, there = grown(os.getpid()), grown(process)
        began, used = time.perf_counter(), time.process_time() + cpu_of(process)
        act()
        took = time.perf_counter() - began
        used = time.process_time() + cpu_of(process) - used
        self._found.setdefault(name, []).append((amount / took, used / amount, here(), there()))

    def show(self, unit: str, scale: float, cost: str, *, memory: bool = False) -> None:
        """Print the medians, and forget them."""
        for name, turns in self._found.items():
            rate, used, here, there = (statistics.median(each) for each in zip(*turns, strict=True))
            grew = f"  {here:6.1f} and {there:6.1f} MiB more at client and server" if memory else ""
            print(f"{name:32} {rate:12,.0f} {unit}  {used * scale:10.2f} {cost}{grew}")
        self._found.clear()


def ping_pong(client: Client, count: int) -> None:
    """Each item is sent when the one before has come back."""
    with client.duplex(BOTH) as both:
        for _ in range(count):
            both.send(Chunk(data=bytes(SMALL)))
            next(both)
        both.finish()


def take(client: Client, ask: Ask, credit: int = 64) -> None:
    """Take the items of a stream."""
    for _ in client.stream(DOWN, ask, credit=credit):
        pass


def measure(places: dict[str, tuple[int, int]], turns: int, bulk: int) -> None:
    """Take the turns, and print what they came to."""
    figures = Figures({kind: process for kind, (_, process) in places.items()})
    address = f"127.0.0.1:{places['ours'][0]}"
    theirs, another = Grpc(places["grpcio"][0]), Connect(places["connect-py"][0])
    small, large = Chunk(data=bytes(SMALL)), Chunk(data=bytes(LARGE))
    with connect(address, ITEMS) as client:
        many = Ask(count=MANY, size=SMALL)
        for _ in range(turns):
            figures.run("stream", "ours", MANY, lambda: take(client, many))
            figures.run("stream, credit 1024", "ours", MANY, lambda: take(client, many, 1024))
            figures.run("stream, grpcio", "grpcio", FEW, lambda: theirs.down(FEW, SMALL))
            figures.run("stream, connect-py", "connect-py", FEW, lambda: another.down(FEW, SMALL))
            figures.run("upload", "ours", MANY, lambda: client.upload(UP, [small] * MANY))
            figures.run("upload of a generator", "ours", FEW, lambda: client.upload(UP, (small for _ in range(FEW))))
            figures.run("upload, grpcio", "grpcio", FEW, lambda: theirs.up(FEW, small.data))
            figures.run("upload, connect-py", "connect-py", FEW, lambda: another.up(FEW, small.data))
            figures.run("ping-pong", "ours", FEW // 2, lambda: ping_pong(client, FEW // 2))
            figures.run("ping-pong, grpcio", "grpcio", FEW // 2, lambda: theirs.ping_pong(FEW // 2, small.data))
        figures.show("items/s", 1e6, "us of CPU an item")
    count, port = bulk * 1024 * 1024 // LARGE, places["bare"][0]
    wanted = Ask(count=count, size=LARGE)
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(connect(address, ITEMS, codec=name)) for name in CODECS}
        for _ in range(turns):
            figures.run("down, bare", "bare", bulk, lambda: ask_bare(port, "down", bulk << 20))
            for name, each in clients.items():
                figures.run(f"down, {name}", "ours", bulk, partial(take, each, wanted))
            figures.run("down, grpcio", "grpcio", bulk, lambda: theirs.down(count, LARGE))
            figures.run("down, connect-py", "connect-py", bulk, lambda: another.down(count, LARGE))
            figures.run("up, bare", "bare", bulk, lambda: ask_bare(port, "up", bulk << 20))
            for name, each in clients.items():
                figures.run(f"up, {name}", "ours", bulk, partial(each.upload, UP, [large] * count))
            figures.run("up, grpcio", "grpcio", bulk, lambda: theirs.up(count, large.data))
            figures.run("up, connect-py", "connect-py", bulk, lambda: another.up(count, large.data))
        figures.show("MiB/s", 1024, "s of CPU a GiB", memory=True)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bulk", type=int, default=1024, metavar="MIB")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    places: Queue[tuple[int, int]] = context.Queue()
    servers = []
    found = {}
    kinds = {"ours": ours, "grpcio": grpc_server, "connect-py": connect_server, "bare": bare}
    try:
        for kind, target in kinds.items():
            servers.append(context.Process(target=target, args=(places,), daemon=True))
            servers[-1].start()
            found[kind] = places.get(timeout=30)
        measure(found, given.turns, given.bulk)
    finally:
        for server in servers:
            server.terminate()


if __name__ == "__main__":
    main()
