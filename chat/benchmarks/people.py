"""What the chat's benchmarks share: a server process on a store of many accounts, and clients that are cheap to run.

A client here is a ``BareClient``: the machine's two cores are for the server, not for what measures it.
"""

import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from wireproto.testing import Answer, BareClient
from wireproto_chat.opcodes import CHAT, LOG_IN, LogInRequest
from wireproto_chat.service.accounts import CreateAccount
from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.sessions import OpenSession
from wireproto_chat.store.sums import ACCOUNT, MAILBOX


@contextlib.contextmanager
def server(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "wireproto", "serve", "--no-grpc", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        try:
            yield process, next(word[4:] for word in ready if word.startswith("tcp="))
        finally:
            process.terminate()
            process.wait(30)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
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
        rest = [(number, name) for number, name in enumerate(names, 1) if number > signed_in]
        database.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [ACCOUNT.row(number, name, "no hash", 0, 0, 0) for number, name in rest],
        )
        database.executemany(
            "INSERT INTO mailboxes VALUES (?, ?, ?, ?, ?, ?, ?)",
            [MAILBOX.row(number, 0, 0, 0, 0, 0) for number, _ in rest],
        )
    return tokens


class Client(BareClient):
    """One connection, signed in by token."""

    def __init__(self, address: str, name: str, token: str, *, codec: str = "msgpack") -> None:
        super().__init__(address, CHAT, codec=codec)
        self.name = name
        self.call(LOG_IN, self.encode(LOG_IN, LogInRequest(username=name, token=token)))

    def answers(self) -> list[Answer]:
        """What ``take`` gives, of calls that may not fail."""
        answers = self.take()
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        return answers


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
