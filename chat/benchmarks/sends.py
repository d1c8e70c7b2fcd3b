"""Durable sends a second through the whole chat server, against what bare sqlite3 does in the same run.

A server process on a fresh store (synchronous=FULL) and, in this process, clients that each send one message after the
other, with an idempotency key, to each other's mailboxes. In rounds that take turns: one client, many clients, and a
plain ``sqlite3`` loop that runs the same statements, item by item, in batches of the size that the server's
transactions had. Each figure is the median of the rounds, with the least and the greatest.

    python chat/benchmarks/sends.py [--clients 64] [--rounds 5] [--seconds 2] [--codec msgpack] [--directory DIR]
"""

import argparse
import itertools
import json
import secrets
import select
import sqlite3
import tempfile
import time
from pathlib import Path

from people import Client, cpu_seconds, percentiles, populate, say, server, table
from sqlalchemy.dialects.sqlite import pysqlite

from wireproto import Metadata
from wireproto_chat.opcodes import SEND_MESSAGE, SendMessageRequest
from wireproto_chat.store.sums import KEY, MESSAGE
from wireproto_chat.store.tables import Statements

TEXT = "x" * 60


class Sender(Client):
    """Sends as fast as it is answered."""

    def __init__(self, address: str, name: str, token: str, to: list[str], codec: str) -> None:
        super().__init__(address, name, token, codec=codec)
        # To each in turn, so that no mailbox fills up.
        each = [self.encode(SEND_MESSAGE, SendMessageRequest(recipient=recipient, text=TEXT)) for recipient in to]
        self._messages = itertools.cycle(each)
        self._sent_at = 0.0

    def next(self) -> None:
        """Send the next message."""
        self._sent_at = time.perf_counter()
        self.send(SEND_MESSAGE, next(self._messages), Metadata(idempotency_key=secrets.token_bytes(16)))

    def receive(self) -> float | None:
        """Read what is there; how long the answer took, when it is whole."""
        for answer in self.answers():
            if answer.call_id == self.call_id:
                return time.perf_counter() - self._sent_at
        return None


def drive(senders: list[Sender], seconds: float) -> tuple[float, list[float]]:
    """Keep every sender busy; sends a second and each answer's time."""
    poll = select.epoll()
    by_fd = {sender.socket.fileno(): sender for sender in senders}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    times: list[float] = []
    begin = time.perf_counter()
    for sender in senders:
        sender.next()
    waiting = len(senders)
    while waiting:
        for fd, _ in poll.poll():
            sender = by_fd[fd]
            took = sender.receive()
            if took is not None:
                times.append(took)
                if time.perf_counter() - begin < seconds:
                    sender.next()
                else:
                    waiting -= 1
    poll.close()
    return len(times) / (time.perf_counter() - begin), times


class Bare:
    """sqlite3 alone on a store of its own: one statement for each step of each send."""

    def __init__(self, path: Path, accounts: int) -> None:
        populate(path, [f"u{number}" for number in range(accounts)], signed_in=0)
        self._accounts = accounts
        self._count = 0
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA wal_autocheckpoint = 4000")
        self._count_up = "UPDATE mailboxes SET head_seq = head_seq + 1, bytes_in = bytes_in + 60 WHERE account_id = ?"
        sql = Statements(pysqlite.dialect())
        (self._find, _), (self._add_key, _), (self._add_message, _) = (
            (query.sql, parameters)
            for rows in (sql.keys_find, sql.keys_add, sql.messages_add)
            for query, parameters in rows.chunks([0] * rows.width)[:1]
        )
        self._messages = 0

    def drive(self, batch: int, seconds: float) -> float:
        """Sends a second, ``batch`` of them a commit."""
        run = self._database.execute
        body = TEXT.encode()
        first = self._count
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            now = time.time_ns() // 1000
            run("BEGIN IMMEDIATE")
            for number in range(self._count, self._count + batch):
                sender, box = number % self._accounts + 1, number * 7 % self._accounts + 1
                key, message_id = secrets.token_bytes(16), secrets.token_bytes(16)
                run(self._find, (sender, key)).fetchone()
                run(
                    "UPDATE mailboxes SET head_seq = head_seq + 1, bytes_in = bytes_in + 60 WHERE account_id = ?",
                    (box,),
                )
                (sequence,) = run("SELECT head_seq FROM mailboxes WHERE account_id = ?", (box,)).fetchone()
                self._messages += 1
                row = (self._messages, box, sequence, message_id, sender, now, sequence * 60, body)
                run(self._add_message, MESSAGE.row(*row))
                run(self._add_key, KEY.row(sender, key, message_id, message_id, sequence, now))
            run("COMMIT")
            self._count += batch
        return (self._count - first) / (time.perf_counter() - begin)


def average_batch(path: Path, since: int) -> tuple[float, int]:
    """The mean size of the transactions after a message's id, those with a single send left out; and the last id.

    Messages that share their time of acceptance were committed together.
    """
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    grouped = "SELECT count(*) AS size FROM messages WHERE id > ? GROUP BY sent_at"
    (mean,) = database.execute(f"SELECT avg(size) FROM ({grouped}) WHERE size > 1", (since,)).fetchone()
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()
    database.close()
    return mean or 1.0, last


def main() -> None:
    """Run it and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each part of a round")
    parser.add_argument("--codec", default="msgpack")
    parser.add_argument("--directory", type=Path, help="where the stores are made; a disk, not a tmpfs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        store = Path(directory) / "chat.db"
        names = [f"u{number}" for number in range(options.clients)]
        tokens = populate(store, names, signed_in=len(names))
        bare = Bare(Path(directory) / "bare.db", len(names))
        with server(store) as (process, address):
            senders = [
                Sender(address, each, tokens[each], names[index:] + names[:index], options.codec)
                for index, each in enumerate(names)
            ]
            drive(senders, 0.5)
            for number in range(options.rounds):
                found: dict[str, float] = {}
                for label, busy in (("one", senders[:1]), ("many", senders)):
                    _, last = average_batch(store, 0)
                    cpu = cpu_seconds(process.pid)
                    found[f"{label}_sends_per_second"], times = drive(busy, options.seconds)
                    cpu = cpu_seconds(process.pid) - cpu
                    found |= {f"{label}_{name}": value for name, value in percentiles(times).items()}
                    found[f"{label}_server_cpu_us"] = cpu / len(times) * 1e6
                found["average_batch"], _ = average_batch(store, last)
                found["bare_sends_per_second"] = bare.drive(round(found["average_batch"]), options.seconds)
                found["share_of_bare"] = found["many_sends_per_second"] / found["bare_sends_per_second"]
                rounds.append(found)
                say(f"round {number + 1} of {options.rounds}: {found['many_sends_per_second']:,.0f} sends/s")
    print(json.dumps(rounds) if options.json else table(rounds))


if __name__ == "__main__":
    main()
