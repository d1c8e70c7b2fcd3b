"""How fast a full mailbox is emptied, received and acknowledged a page at a time.

In turns: by ReceiveMessages, with an Acknowledge for every so many messages, and by PopUndelivered, which does both in
one call. The mailbox is filled anew before each.

    python chat/benchmarks/drain.py [--messages 10000] [--page 32] [--rounds 5] [--directory DIR]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from people import Client, cpu_seconds, populate, say, server, table

from wireproto import Credit, Metadata
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    AcknowledgeRequest,
    PopUndeliveredRequest,
    ReceiveMessagesRequest,
    SendMessageRequest,
)

IN_FLIGHT = 100


def fill(client: Client, count: int) -> None:
    """Put messages into the client's own mailbox."""
    message = client.encode(SEND_MESSAGE, SendMessageRequest(recipient=client.name, text="x" * 60))
    sent = answered = 0
    while answered < count:
        while sent < count and sent - answered < IN_FLIGHT:
            client.send(SEND_MESSAGE, message)
            sent += 1
        answered += sum(answer.last for answer in client.answers())


def by_stream(client: Client, count: int, page: int) -> None:
    """Receive and acknowledge everything; each page's acknowledgement is on its way while the next page comes."""
    decode = client.decoder(RECEIVE_MESSAGES)
    everything = client.encode(RECEIVE_MESSAGES, ReceiveMessagesRequest())
    stream = client.send(RECEIVE_MESSAGES, everything, Metadata(credit=Credit(count, 1 << 30)))
    received = last = 0
    waiting = set()
    while received < count or waiting:
        for answer in client.answers():
            if answer.call_id == stream:
                item = decode(answer.payload)
                if last and item.sequence != last + 1:
                    raise RuntimeError(f"message {item.sequence} came after {last}")
                last = item.sequence
                received += 1
                if received % page == 0 or received == count:
                    asked = AcknowledgeRequest(sequence=last)
                    waiting.add(client.send(ACKNOWLEDGE, client.encode(ACKNOWLEDGE, asked)))
            else:
                waiting.discard(answer.call_id)


def by_page(client: Client, count: int, page: int) -> None:
    """Take a full page after the other."""
    decode = client.decoder(POP_UNDELIVERED)
    take = client.encode(POP_UNDELIVERED, PopUndeliveredRequest())
    received = 0
    while received < count:
        received += len(decode(client.call(POP_UNDELIVERED, take)).messages)


def main() -> None:
    """Run it and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--page", type=int, default=32, help="messages that one Acknowledge acknowledges")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where the store is made; a disk, not a tmpfs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ways: dict[str, Callable[[Client, int, int], None]] = {"stream": by_stream, "page": by_page}
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        store = Path(directory) / "chat.db"
        tokens = populate(store, ["ann"], signed_in=1)
        with server(store) as (process, address):
            for number in range(options.rounds):
                found: dict[str, float] = {}
                for label, drain in ways.items():
                    client = Client(address, "ann", tokens["ann"])
                    fill(client, options.messages)
                    cpu = cpu_seconds(process.pid)
                    begin = time.perf_counter()
                    drain(client, options.messages, options.page)
                    took = time.perf_counter() - begin
                    found[f"{label}_messages_per_second"] = options.messages / took
                    found[f"{label}_server_cpu_us"] = (cpu_seconds(process.pid) - cpu) / options.messages * 1e6
                    client.socket.close()
                rounds.append(found)
                say(f"round {number + 1} of {options.rounds}: {found['stream_messages_per_second']:,.0f}/s by stream")
    print(json.dumps(rounds) if options.json else table(rounds))


if __name__ == "__main__":
    main()
