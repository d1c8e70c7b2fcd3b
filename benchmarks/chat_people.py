"""What the chat's benchmarks share: a server process on a store of many accounts, and clients that are cheap to run.

A client here is one socket, on which requests are packed and answers cut by hand: the machine's two cores are for the
server, not for what measures it.
"""

import contextlib
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from wireproto import codecs
from wireproto.chat.accounts import CreateAccount
from wireproto.chat.contract import CHAT, LOG_IN, LogInRequest
from wireproto.chat.handlers import open_chat
from wireproto.chat.sessions import OpenSession
from wireproto.limits import Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import ErrorReceived, ResponseReceived, WelcomeReceived
from wireproto.wire.frame import HEADER, Kind, pack
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import Metadata, pack_metadata

VERSION = CHAT.version


@contextlib.contextmanager
def server(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "wireproto", "serve", "--no-grpc", "--port", "0", "--store", str(store)]
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


def say(text: str) -> None:
    """What is going on, to stderr."""
    print(text, file=sys.stderr, flush=True)


def populate(store: Path, names: list[str], *, signed_in: int) -> dict[str, str]:
    """Make accounts that have no password, and log the first of them in; their tokens.

    A password costs 16 ms each time, which is not what is measured.
    """
    tokens: dict[str, str] = {}
    with open_chat(str(store)) as app:
        submit = app._store.submit

        def claimed() -> "Future[Any]":
            answer: Future[Any] = Future()
            answer.set_running_or_notify_cancel()
            return answer

        for number, name in enumerate(names[:signed_in]):
            answer = claimed()
            submit(CreateAccount(answer, name, "no hash"))
            answer.result(60)
            answer = claimed()
            opened = OpenSession(
                answer, number + 1, old_hash="no hash", new_hash=None, guess=None, signed_in=lambda *_: None
            )
            submit(opened)
            tokens[name] = answer.result(60).token
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        rest = names[signed_in:]
        database.executemany(
            "INSERT INTO accounts (name, password_hash, created_at, deleted_at) VALUES (?, 'no hash', 0, 0)",
            [(name,) for name in rest],
        )
        database.execute(
            "INSERT INTO mailboxes SELECT id, 0, 0, 0, 0 FROM accounts "
            "WHERE id NOT IN (SELECT account_id FROM mailboxes)"
        )
    return tokens


class Client:
    """One connection, signed in by token."""

    def __init__(self, address: str, name: str, token: str, *, codec: str = "msgpack") -> None:
        host, port = address.rsplit(":", 1)
        self.name = name
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._plugin = codecs.get(codec)
        connection = Connection(Role.CLIENT, Limits())
        connection.send_hello(
            Hello(
                min_version=VERSION,
                max_version=VERSION,
                codecs=((self._plugin.id, codec),),
                max_frame=65_536,
                service=CHAT.full_name,
            )
        )
        self._exchange(connection, WelcomeReceived)
        log_in = self.payload(LOG_IN, LogInRequest(username=name, token=token))
        self.call_id = connection.send_request(LOG_IN.opcode, log_in)
        self._exchange(connection, ResponseReceived)
        self._buffer = bytearray()

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

    def payload(self, method: Any, request: Any) -> bytes:
        """A request as bytes."""
        return self._plugin.plan(method.request, VERSION, Limits()).encode(request)

    def decoder(self, method: Any) -> Any:
        """What makes an answer, or an item, of its bytes."""
        return self._plugin.plan(method.response, VERSION, Limits()).decode

    def send(self, method: Any, payload: bytes, *, key: bytes = b"", credit: int | None = None) -> int:
        """Send a request; its call id."""
        self.call_id += 1
        metadata = pack_metadata(Metadata(idempotency_key=key, credit=credit)) if key or credit is not None else b""
        self.socket.sendall(
            pack(Kind.REQUEST, self._plugin.id, VERSION, method.opcode, self.call_id, metadata, payload)
        )
        return self.call_id

    def frames(self) -> "list[tuple[int, int, bytes]]":
        """Read once; kind, call id and payload of each frame that is whole now."""
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError(f"the server has closed the connection of {self.name}")
        buffer = self._buffer
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            length, kind, _, _, _, _, metadata, call_id = HEADER.unpack_from(buffer, start)
            end = start + 4 + length
            if len(buffer) < end:
                break
            if kind == Kind.ERROR:
                raise RuntimeError(f"a call of {self.name} failed: {bytes(buffer[start:end])!r}")
            found.append((kind, call_id, bytes(buffer[start + HEADER.size + metadata : end])))
            start = end
        del buffer[:start]
        return found

    def call(self, method: Any, payload: bytes) -> bytes:
        """The answer's payload, with nothing else under way."""
        call_id = self.send(method, payload)
        while True:
            for _, answered, answer in self.frames():
                if answered == call_id:
                    return answer


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The 50th, the 99th and the longest of some times, in milliseconds."""
    times = sorted(seconds)
    return {
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1000,
        "max_ms": times[-1] * 1000,
    }


def table(rounds: "list[dict[str, float]]") -> str:
    """Each figure's median over the rounds, with the least and the greatest."""
    rows = [f"{'':30}{'median':>12}{'least':>12}{'greatest':>12}"]
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        figures = (statistics.median(values), min(values), max(values))
        rows.append(f"{name:30}" + "".join(f"{value:12,.2f}" for value in figures))
    return "\n".join(rows)
