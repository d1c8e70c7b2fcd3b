"""A topic with slow listeners: what they cost the others, and how many items each of them is told it has missed.

A server in this process has that many connections, each with one stream of one topic. All but some are read as fast as
this process can; of the slow ones either no credit is granted, or nothing is read from their sockets. Measured is the
time from ``publish`` to the last byte of the item at each of those that are read, in three runs that take turns:
nobody is slow, some have no credit, some are not read. When all is published the slow ones are read to the end, and the
items that they have and those that they were told were left out must be all that there were.

    python benchmarks/topics.py [--quick] [--subscribers N] [--json FILE]
"""

import argparse
import json
import os
import resource
import select
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from wireproto import Context, Handlers, Limits, Message, Server, Service, StreamMethod, Subscription, Topic, codecs
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import WelcomeReceived
from wireproto.wire.frame import Credit, Flag
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import Metadata, pack_metadata

PLENTY = Credit(1_000_000, 1 << 31)
NO_CREDIT = Credit(0, 1 << 31)
KINDS = ("nobody", "no credit", "not read")
ITEM, END, CREDIT, DROPPED = 5, 6, 9, 8
HEADER = 16
CODEC = codecs.get("msgpack")
SMALL_BUFFER = 4096
MARK = 65_536
"""Bytes of output that may wait for one connection, beside one frame."""


class ListenRequest(Message):
    pass


class Tick(Message):
    number: int
    text: str


TICKS = StreamMethod(opcode=1, name="Ticks", request=ListenRequest, response=Tick, slow="drop_oldest")
SERVICE = Service("bench.v1.TickService", methods=[TICKS])


class Listener:
    """One connection with one stream, without anything between its socket and the bytes."""

    def __init__(self, port: int, credit: Credit, *, small: bool = False) -> None:
        self.sock = socket.socket()
        if small:  # or the kernel would take megabytes for one that reads nothing
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False
        self.items = 0
        self.dropped = 0
        self._left = b""
        connection = Connection(Role.CLIENT)
        hello = Hello(
            min_version=1,
            max_version=1,
            codecs=((CODEC.id, CODEC.name),),
            max_frame=1 << 20,
            service=SERVICE.full_name,
        )
        connection.send_hello(hello)
        self.sock.sendall(connection.data_to_send())
        while not isinstance(connection.next_event(), WelcomeReceived):
            connection.receive_data(self.sock.recv(4096))
        block = pack_metadata(Metadata(credit=credit))
        request = CODEC.plan(ListenRequest, 1, Limits()).encode(ListenRequest())
        connection.send_flagged_request(Flag.ITEMS_COME_BACK, TICKS.opcode, request, block, credit=credit)
        self.sock.sendall(connection.data_to_send())

    def grant(self) -> None:
        """All the credit that there may be."""
        body = (1_000_000).to_bytes(4) + (1 << 30).to_bytes(4)
        head = (12 + len(body)).to_bytes(4) + bytes([CREDIT, 0, 0, 0]) + TICKS.opcode.to_bytes(2) + bytes(2)
        self.sock.sendall(head + (1).to_bytes(4) + body)

    def read_to_the_end(self, timeout: float) -> None:
        """Count the items, and those that were left out, up to END."""
        self.sock.settimeout(timeout)
        while not self.ended:
            if not self.read():
                raise RuntimeError("the server closed a slow listener")

    def read(self) -> int:
        """Count what has come; how many bytes that was."""
        more = self.sock.recv(1 << 18)
        data, at = self._left + more, 0
        while len(data) >= at + 4 and len(data) >= (end := at + 4 + int.from_bytes(data[at : at + 4])):
            self._count(data[at:end])
            at = end
        self._left = data[at:]
        return len(more)

    def _count(self, frame: bytes) -> None:
        self.items += frame[4] == ITEM
        self.ended |= frame[4] == END
        block = frame[HEADER : HEADER + int.from_bytes(frame[10:12])]
        while block:
            size = int.from_bytes(block[1:3])
            if block[0] & 0x7F == DROPPED:
                self.dropped += int.from_bytes(block[3 : 3 + size])
            block = block[3 + size :]


class Reader(threading.Thread):
    """Reads those that are not slow, and notes when each has each item."""

    def __init__(self, listeners: list[Listener], items: int) -> None:
        super().__init__(name="reader", daemon=True)
        self.published: list[float] = [0.0] * items
        self.latencies: list[float] = []
        self.done = threading.Event()
        self._missing = items * len(listeners)
        self._listeners = {each.sock.fileno(): each for each in listeners}
        self._poll = select.epoll()
        for number in self._listeners:
            self._poll.register(number, select.EPOLLIN)

    def run(self) -> None:
        while self._missing:
            for number, _ in self._poll.poll():
                listener = self._listeners[number]
                before, missed = listener.items + listener.dropped, listener.dropped
                listener.read()
                now = time.monotonic()
                after = listener.items + listener.dropped
                if listener.dropped == missed:  # of what it has missed there is no time at which it came
                    self.latencies += [now - each for each in self.published[before:after]]
                self._missing -= after - before
        self._poll.close()
        self.done.set()


def measure(
    kind: str, *, subscribers: int, slow: int, items: int, pause: float, size: int, keep: int, patience: float = 60.0
) -> dict[str, Any]:
    """One run.

    Args:
        kind: which of ``KINDS``.
        subscribers: connections, the slow ones among them.
        slow: how many of them are, unless it is nobody.
        items: published, one each ``pause`` seconds.
        size: characters in each.
        keep: of the topic.
        patience: seconds for what must end.

    Returns:
        Seconds from publishing to having it: ``p50`` and ``p99``; ``exact``, whether each slow one has what it was
        not told it had missed; ``dropped``, by all of them; ``held``, the most bytes that waited for one connection,
        and ``may_hold``, what they may be; ``missed``, how many items those that are read were told they had missed.

    Raises:
        RuntimeError: something did not end in time, or a slow one was closed.
    """
    topic = Topic(TICKS, keep=keep)
    handlers = Handlers(SERVICE)

    @handlers.register(TICKS)
    def listen(request: ListenRequest, context: Context) -> Subscription[Tick]:
        return topic.subscribe(context)

    slow = 0 if kind == "nobody" else slow
    ticks = [Tick(number=100 + number % 28, text="x" * size) for number in range(items)]  # of one length
    frame = HEADER + len(CODEC.plan(Tick, 1, Limits(), request=False).encode(ticks[0]))
    # Nobody is closed for not reading within the run, and a run of seconds must be enough to fill an output.
    limits = Limits(write_timeout=600.0, high_watermark=MARK, low_watermark=MARK // 4)
    with Server(handlers, codecs=["msgpack"], limits=limits) as server:
        port = server.address.port
        quick = [Listener(port, PLENTY) for _ in range(subscribers - slow)]
        credit = NO_CREDIT if kind == "no credit" else PLENTY
        late = [Listener(port, credit, small=kind == "not read") for _ in range(slow)]
        _until(lambda: topic.subscribers == subscribers, patience)
        if kind == "not read":
            _narrow(server, {each.sock.getsockname()[1] for each in late})
        reader = Reader(quick, items)
        reader.start()
        held = 0
        due = time.monotonic()
        for number, tick in enumerate(ticks):
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
            reader.published[number] = time.monotonic()
            topic.publish(tick)
        if not reader.done.wait(patience):
            raise RuntimeError("those that read have not had all items in time")
        for session in tuple(server.sessions.values()):
            with session.lock:
                held = max(held, server.limits.high_watermark + 1 - session.room_locked())
        topic.close()
        for each in late:
            if kind == "no credit":
                each.grant()
            each.read_to_the_end(patience)
        for each in (*quick, *late):
            each.sock.close()
    latencies = sorted(reader.latencies)
    return {
        "kind": kind,
        "subscribers": subscribers,
        "slow": slow,
        "p50": statistics.median(latencies),
        "p99": latencies[len(latencies) * 99 // 100],
        "exact": all(each.items + each.dropped == items for each in late),
        "dropped": sum(each.dropped for each in late),
        "held": held,
        "may_hold": MARK + 1 + frame,
        "missed": sum(each.dropped for each in quick),
    }


def _narrow(server: Server, ports: set[int]) -> None:
    """Let the kernel keep little for these clients: over loopback it would take megabytes that nobody reads."""
    for session in tuple(server.sessions.values()):
        with socket.socket(fileno=os.dup(session.transport.fd)) as sock:
            if sock.getpeername()[1] in ports:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)


def _until(condition: Any, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the listeners were not there in time")
        time.sleep(0.01)


def compare(rounds: int, **sizes: Any) -> dict[str, Any]:
    """The three kinds in turn, so many times; the p99 of each over that of nobody, by medians."""
    runs = [measure(kind, **sizes) for _ in range(rounds) for kind in KINDS]
    medians = {kind: statistics.median(run["p99"] for run in runs if run["kind"] == kind) for kind in KINDS}
    return {
        "runs": runs,
        "ratios": {kind: medians[kind] / medians["nobody"] for kind in KINDS[1:]},
        "exact": all(run["exact"] for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subscribers", type=int, default=1000, help="a tenth of them is slow")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two items")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_000, hard), hard))
    sys.setswitchinterval(0.0005)  # as `wireproto serve` does
    found = compare(
        1 if options.quick else options.rounds,
        subscribers=options.subscribers,
        slow=options.subscribers // 10,
        items=150,
        pause=options.pause,
        size=2000,
        keep=64,
    )
    for run in found["runs"]:
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in run.items()})
    print("p99 over that without slow listeners:", {kind: round(value, 2) for kind, value in found["ratios"].items()})
    print("dropped exactly:", found["exact"])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
