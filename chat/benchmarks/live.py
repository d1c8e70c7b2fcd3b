"""How long a message takes from its sender's answer to its recipient, with many accounts online.

A server process on a fresh store (synchronous=FULL); in this process one connection for each account, each with its
stream of messages open, and a few that send, at a fixed pace, each time to somebody else. Every message is
acknowledged. A message may come before its sender is answered; then its time is less than nothing.

    python chat/benchmarks/live.py [--accounts 1000] [--rate 300] [--rounds 3] [--seconds 6] [--directory DIR]
"""

import argparse
import json
import random
import select
import tempfile
import time
from pathlib import Path

from people import Client, cpu_seconds, percentiles, populate, say, server, table

from wireproto import Credit, Metadata
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    AcknowledgeRequest,
    ReceiveMessagesRequest,
    SendMessageRequest,
)

SENDERS = 16


class Online:
    """Everybody's connections, and what was sent over them."""

    def __init__(self, address: str, tokens: dict[str, str]) -> None:
        self.clients = [Client(address, name, token) for name, token in tokens.items()]
        self._streams = {}
        self._poll = select.epoll()
        for client in self.clients:
            everything = client.encode(RECEIVE_MESSAGES, ReceiveMessagesRequest())
            self._streams[client.socket.fileno()] = client.send(
                RECEIVE_MESSAGES, everything, Metadata(credit=Credit(1_000_000, 1 << 30))
            )
            self._poll.register(client.socket.fileno(), select.EPOLLIN)
        self._by_fd = {client.socket.fileno(): client for client in self.clients}
        self._decode = self.clients[0].decoder(RECEIVE_MESSAGES)
        self._chance = random.Random(7)
        self._asked: dict[tuple[int, int], str] = {}
        self.answered: dict[str, float] = {}
        self.received: dict[str, float] = {}
        self.late = 0.0

    def send(self, number: int, due: float) -> None:
        """Send one message, whose text is its number, from one of the senders to anybody."""
        client = self.clients[number % SENDERS]
        to = self._chance.choice(self.clients).name
        text = f"{number} " + "x" * 60
        call_id = client.send(
            SEND_MESSAGE,
            client.encode(SEND_MESSAGE, SendMessageRequest(recipient=to, text=text)),
            Metadata(idempotency_key=b"%d" % number),
        )
        self._asked[client.socket.fileno(), call_id] = text
        self.late = max(self.late, time.perf_counter() - due)

    def receive(self, seconds: float) -> None:
        """Take what comes in so many seconds at most, and acknowledge what are messages."""
        for fd, _ in self._poll.poll(max(0.0, seconds)):
            client = self._by_fd[fd]
            for answer in client.answers():
                now = time.perf_counter()
                if answer.call_id == self._streams[fd]:
                    item = self._decode(answer.payload)
                    self.received[item.text] = now
                    client.send(ACKNOWLEDGE, client.encode(ACKNOWLEDGE, AcknowledgeRequest(sequence=item.sequence)))
                elif (text := self._asked.pop((fd, answer.call_id), None)) is not None:
                    self.answered[text] = now


def main() -> None:
    """Run it and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--directory", type=Path, help="where the store is made; a disk, not a tmpfs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        store = Path(directory) / "chat.db"
        tokens = populate(store, [f"u{number}" for number in range(options.accounts)], signed_in=options.accounts)
        with server(store) as (process, address):
            online = Online(address, tokens)
            say(f"{options.accounts} accounts are online")
            number = 0
            for each in range(-1, options.rounds):  # the first is to warm up
                online.answered.clear()
                online.received.clear()
                online.late = 0.0
                cpu = cpu_seconds(process.pid)
                begin = time.perf_counter()
                count = int(options.rate * (options.seconds if each >= 0 else 1.0))
                for index in range(count):
                    due = begin + index / options.rate
                    while (now := time.perf_counter()) < due:
                        online.receive(due - now)
                    online.send(number, due)
                    number += 1
                deadline = time.perf_counter() + 10.0
                while min(len(online.received), len(online.answered)) < count and time.perf_counter() < deadline:
                    online.receive(0.1)
                if len(online.received) < count or online.answered.keys() != online.received.keys():
                    raise RuntimeError(
                        f"{count} sent, {len(online.answered)} answered, {len(online.received)} received"
                    )
                took = time.perf_counter() - begin
                times = [at - online.answered[text] for text, at in online.received.items()]
                if each >= 0:
                    rounds.append(
                        {
                            "sends_per_second": count / took,
                            **percentiles(times),
                            "server_cpu_percent": (cpu_seconds(process.pid) - cpu) / took * 100,
                            "sent_late_by_ms": online.late * 1000,
                        }
                    )
                    say(f"round {each + 1} of {options.rounds}: p99 {rounds[-1]['p99_ms']:.2f} ms")
    print(json.dumps(rounds) if options.json else table(rounds))


if __name__ == "__main__":
    main()
