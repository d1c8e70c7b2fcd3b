"""Durable sends a second through the whole chat server, against what bare sqlite3 does in the same run.

A server process on a fresh store (synchronous=FULL) and, in this process, clients that each send one message after the
other, with an idempotency key, to each other's mailboxes. Reported: sends a second and the 50th and 99th percentile of
the answer time for one client and for many, the average batch, the server's CPU time a send, and sends a second of a
plain ``sqlite3`` loop that runs the same statements, item by item, in batches of that size.

    python benchmarks/chat_sends.py [--clients 64] [--seconds 5] [--codec msgpack] [--directory DIR]
"""

import argparse
import contextlib
import json
import math
import os
import secrets
import select
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite import pysqlite

from wireproto import codecs, connect
from wireproto.chat.accounts import CreateAccount
from wireproto.chat.contract import (
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    POP_UNDELIVERED,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    PopUndeliveredRequest,
    SendMessageRequest,
)
from wireproto.chat.handlers import open_chat
from wireproto.chat.tables import Statements
from wireproto.connection import Connection, Role
from wireproto.events import ErrorReceived, ResponseReceived, WelcomeReceived
from wireproto.frame import HEADER, Kind, pack
from wireproto.handshake import Hello
from wireproto.limits import Limits
from wireproto.metadata import Metadata, pack_metadata

PASSWORD = "a password of the benchmark"
TEXT = "x" * 60


@contextlib.contextmanager
def server(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "wireproto.server", "--no-grpc", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        try:
            yield process, next(word[4:] for word in ready if word.startswith("tcp="))
        finally:
            process.terminate()
            process.wait(30)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Sender:
    """One signed-in connection that sends as fast as it is answered, in as little Python as it takes."""

    def __init__(self, address: str, codec: str, name: str, to: str) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plugin = codecs.get(codec)
        self._codec = plugin.id
        connection = Connection(Role.CLIENT, Limits())
        connection.send_hello(
            Hello(min_version=1, max_version=1, codecs=((plugin.id, codec),), max_frame=65_536, service=CHAT.full_name)
        )
        self._exchange(connection, WelcomeReceived)
        log_in = plugin.plan(LOG_IN.request, 1, Limits()).encode(LogInRequest(username=name, password=PASSWORD))
        self._call_id = connection.send_request(LOG_IN.opcode, log_in)
        self._exchange(connection, ResponseReceived)
        self._payload = plugin.plan(SEND_MESSAGE.request, 1, Limits()).encode(
            SendMessageRequest(recipient=to, text=TEXT)
        )
        self._sent_at = 0.0
        self._buffer = b""

    def _exchange(self, connection: Connection, wanted: type) -> None:
        self.socket.sendall(connection.data_to_send())
        while True:
            event = connection.next_event()
            if isinstance(event, wanted):
                return
            if isinstance(event, ErrorReceived):
                raise event.error
            if not isinstance(event, ResponseReceived | WelcomeReceived):
                connection.receive_data(self.socket.recv(65_536))

    def send(self) -> None:
        """Send the next message."""
        self._call_id += 1
        metadata = pack_metadata(Metadata(idempotency_key=secrets.token_bytes(16)))
        frame = pack(Kind.REQUEST, self._codec, 1, SEND_MESSAGE.opcode, self._call_id, metadata, self._payload)
        self._sent_at = time.perf_counter()
        self.socket.sendall(frame)

    def receive(self) -> float | None:
        """Read what is there; how long the answer took, when it is whole."""
        self._buffer += self.socket.recv(4096)
        if len(self._buffer) < HEADER.size:
            return None
        length, kind, *_ = HEADER.unpack_from(self._buffer)
        if len(self._buffer) < length + 4:
            return None
        if kind != Kind.RESPONSE:
            raise RuntimeError(f"a send failed: {self._buffer!r}")
        self._buffer = b""
        return time.perf_counter() - self._sent_at


def drive(senders: list[Sender], seconds: float) -> tuple[float, list[float]]:
    """Keep every sender busy; sends a second and each answer's time."""
    poll = select.epoll()
    by_fd = {sender.socket.fileno(): sender for sender in senders}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    times: list[float] = []
    begin = time.perf_counter()
    for sender in senders:
        sender.send()
    waiting = len(senders)
    while waiting:
        for fd, _ in poll.poll():
            sender = by_fd[fd]
            took = sender.receive()
            if took is not None:
                times.append(took)
                if time.perf_counter() - begin < seconds:
                    sender.send()
                else:
                    waiting -= 1
    poll.close()
    return len(times) / (time.perf_counter() - begin), sorted(times)


def bare(directory: Path, batch: int, accounts: int, seconds: float) -> float:
    """Sends a second of sqlite3 alone, one statement for each step of each send, ``batch`` sends a commit."""
    path = directory / f"bare{batch}.db"
    with open_chat(str(path)) as app:
        for number in range(accounts):
            answer: Future[Any] = Future()
            answer.set_running_or_notify_cancel()
            app._store.submit(CreateAccount(answer, f"u{number}", "no hash"))
            answer.result(10)
    sql = Statements(pysqlite.dialect())
    (find, _), (add_key, _), (add_message, _) = (
        rows.chunks([0] * rows.width)[0] for rows in (sql.keys_find, sql.keys_add, sql.messages_add)
    )
    database = sqlite3.connect(path, isolation_level=None)
    run = database.execute
    run("PRAGMA synchronous = FULL")
    run("PRAGMA wal_autocheckpoint = 4000")
    body = TEXT.encode()
    count = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        now = time.time_ns() // 1000
        run("BEGIN IMMEDIATE")
        for number in range(count, count + batch):
            sender, box = number % accounts + 1, number * 7 % accounts + 1
            key, message_id = secrets.token_bytes(16), secrets.token_bytes(16)
            run(find, (sender, key)).fetchone()
            run("UPDATE mailboxes SET head_seq = head_seq + 1, bytes_in = bytes_in + 60 WHERE account_id = ?", (box,))
            (sequence,) = run("SELECT head_seq FROM mailboxes WHERE account_id = ?", (box,)).fetchone()
            run(add_message, (box, sequence, message_id, sender, now, sequence * 60, body))
            run(add_key, (sender, key, message_id, message_id, sequence, now))
        run("COMMIT")
        count += batch
    rate = count / (time.perf_counter() - begin)
    database.close()
    return rate


def main() -> None:
    """Run it and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--codec", default="msgpack")
    parser.add_argument("--directory", type=Path, help="where the stores are made; a disk, not a tmpfs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        with server(directory / "chat.db") as (process, address):
            names = [f"u{number}" for number in range(options.clients)]
            with connect(address, CHAT, codec=options.codec) as client:
                for each in names:
                    client.call(CREATE_ACCOUNT, CreateAccountRequest(username=each, password=PASSWORD))
            senders = [
                Sender(address, options.codec, each, names[index * 7 % len(names)]) for index, each in enumerate(names)
            ]
            drive(senders, 0.5)
            for label, busy in (("one", senders[:1]), ("many", senders)):
                cpu = cpu_seconds(process.pid)
                rate, times = drive(busy, options.seconds)
                cpu = cpu_seconds(process.pid) - cpu
                result |= {
                    f"{label}_sends_per_second": rate,
                    f"{label}_p50_ms": times[len(times) // 2] * 1000,
                    f"{label}_p99_ms": times[len(times) * 99 // 100] * 1000,
                    f"{label}_server_cpu_us": cpu / len(times) * 1e6,
                }
                drain(address, options.codec, names)
        result["average_batch"] = average_batch(directory / "chat.db")
        batch = max(1, round(result["average_batch"]))
        result[f"bare_sqlite3_batch_{batch}"] = rate = bare(directory, batch, options.clients, 2.0)
        result["share_of_bare"] = result["many_sends_per_second"] / rate
    result["many_over_one"] = result["many_sends_per_second"] / result["one_sends_per_second"]
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value:12,.2f}")


def drain(address: str, codec: str, names: list[str]) -> None:
    """Empty the mailboxes, so that the next round does not meet their quota."""
    for name in names:
        with connect(address, CHAT, codec=codec) as client:
            client.call(LOG_IN, LogInRequest(username=name, password=PASSWORD))
            while client.call(POP_UNDELIVERED, PopUndeliveredRequest()).remaining:
                pass


def average_batch(path: Path) -> float:
    """Messages that share their time of acceptance were committed together; the mean over the many clients' half."""
    database = sqlite3.connect(path)
    sizes = [size for (size,) in database.execute("SELECT count(*) FROM messages GROUP BY sent_at ORDER BY sent_at")]
    database.close()
    # One client alone commits one by one; those are not the batches asked about.
    batches = [size for size in sizes if size > 1]
    return math.fsum(batches) / len(batches) if batches else 1.0


if __name__ == "__main__":
    main()
