"""One item to many subscribers: what it costs above bare sends, whether that is linear, how often it is encoded.

A server in this process has that many connections, each with one open stream over a ``Subscription`` in memory. An item
is put into every subscription and woken; measured is the process's CPU time until every socket has been written to, per
subscriber. The bare loop sends the same frame on as many sockets of the same kind. Both take turns; nobody reads until
a turn is over, so that only the sending side is measured.

    python benchmarks/fanout.py [--quick] [--json FILE]
"""

import argparse
import json
import os
import resource
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import load

from wireproto import Context, Handlers, Message, Server, Service, StreamMethod, Subscription, codecs
from wireproto.dispatch import Entry
from wireproto.limits import Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import WelcomeReceived
from wireproto.wire.frame import Credit, Flag
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import Metadata, pack_metadata

SUBSCRIBERS = (250, 500, 1000)
CREDIT = Credit(1_000_000, 1 << 30)


class FeedRequest(Message):
    pass


class FeedItem(Message):
    sender: str
    text: str
    number: int


FEED = StreamMethod(opcode=1, name="Feed", request=FeedRequest, response=FeedItem)
SERVICE = Service("bench.v1.FeedService", version=1, methods=[FEED])


class Inbox(Subscription[FeedItem]):
    """A subscriber in memory."""

    def __init__(self, turn: "Turn") -> None:
        self.items: deque[FeedItem] = deque()
        self.turn = turn

    def take(self, n: int) -> Sequence[FeedItem]:
        items = self.items
        if not items:
            return ()
        self.turn.count_down()
        return [items.popleft()]


class Turn:
    """Over once every subscriber has taken its item."""

    def __init__(self) -> None:
        self.left = 0
        self.over = threading.Event()

    def count_down(self) -> None:
        self.left -= 1  # by the leader only
        if not self.left:
            self.over.set()


class Counted:
    """Counts how often an item is encoded."""

    def __init__(self) -> None:
        self.times = 0
        # The dispatcher calls the codec's function through the entry, which is where it can be counted.
        original = Entry.encode

        def encode(entry: Entry, answer: object) -> Any:
            self.times += 1
            return original(entry, answer)

        Entry.encode = encode  # type: ignore[method-assign]


def subscribe(port: int, codec: str) -> socket.socket:
    chosen = codecs.get(codec)
    sock = load.dial(port)
    connection = Connection(Role.CLIENT)
    connection.send_hello(
        Hello(
            min_version=1,
            max_version=1,
            codecs=((chosen.id, chosen.name),),
            max_frame=1 << 20,
            service=SERVICE.full_name,
        )
    )
    sock.sendall(connection.data_to_send())
    while not isinstance(connection.next_event(), WelcomeReceived):
        connection.receive_data(sock.recv(4096))
    block = pack_metadata(Metadata(credit=CREDIT))
    request = chosen.plan(FeedRequest, 1, Limits()).encode(FeedRequest())
    connection.send_flagged_request(Flag.ITEMS_COME_BACK, FEED.opcode, request, block, credit=CREDIT)
    sock.sendall(connection.data_to_send())
    return sock


def read_all(socks: list[socket.socket], size: int) -> None:
    """Take ``size`` bytes from every socket: then all of it was written."""
    for sock in socks:
        left = size
        while left:
            left -= len(sock.recv(left))


def measure(subscribers: int, codec: str, turns: int) -> dict[str, float]:
    inboxes: list[Inbox] = []
    turn = Turn()
    handlers = Handlers(SERVICE)
    opened = threading.Semaphore(0)

    @handlers.register(FEED)
    def feed(request: FeedRequest, context: Context) -> Inbox:
        inbox = Inbox(turn)
        inboxes.append(inbox)
        opened.release()
        return inbox

    frame = 16 + len(codecs.get(codec).plan(FeedItem, 1, Limits()).encode(item(0)))
    ours, bare = [], []
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    with Server(handlers, port=0, codecs=[codec]) as server:
        socks = [subscribe(server.address.port, codec) for _ in range(subscribers)]
        for _ in socks:
            opened.acquire()
        pairs = [(load.dial(listener.getsockname()[1]), listener.accept()[0]) for _ in range(subscribers)]
        data = bytes(frame)
        for number in range(turns + 2):
            one = item(number)
            turn.left = subscribers
            turn.over.clear()
            began = time.process_time()
            for inbox in inboxes:
                inbox.items.append(one)
                inbox.wake()
            turn.over.wait()
            # What was taken last may not be written yet: only the frames that are missing now are waited for.
            ours.append(time.process_time() - began)
            read_all(socks, frame)
            began = time.process_time()
            for _, sock in pairs:
                sock.send(data)
            bare.append(time.process_time() - began)
            read_all([client for client, _ in pairs], frame)
        for sock in socks:
            sock.close()
    for client, sock in pairs:
        client.close()
        sock.close()
    listener.close()
    ratios = [a / b for a, b in zip(ours[2:], bare[2:], strict=True)]
    return {
        "subscribers": subscribers,
        "us_each": statistics.median(ours[2:]) / subscribers * 1e6,
        "bare_us_each": statistics.median(bare[2:]) / subscribers * 1e6,
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


def item(number: int) -> FeedItem:
    return FeedItem(sender="alice", text="x" * 60, number=100 + number)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_000, hard), hard))
    sys.setswitchinterval(0.0005)  # as `wireproto serve` does
    counted = Counted()
    turns = 7 if options.quick else 25
    result: dict[str, Any] = {"by_subscribers": [measure(count, "msgpack", turns) for count in SUBSCRIBERS]}
    before = counted.times
    measure(100, "pipe", 8)
    result["encoded_per_item"] = (counted.times - before) / 10
    for line in result["by_subscribers"]:
        print({key: round(value, 2) for key, value in line.items()})
    print("encoded per item, 100 subscribers:", result["encoded_per_item"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
