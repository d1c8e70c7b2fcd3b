"""kill -9 at any moment: what was answered is there, once and in its place, and the rest may safely be sent again."""

import random
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chat.fakes import PASSWORD
from wireproto import connect
from wireproto.chat.contract import (
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    PopUndeliveredRequest,
    ReceiveMessagesRequest,
    SendMessageRequest,
    SendMessageResponse,
)
from wireproto.client import Client
from wireproto.errors import CallError
from wireproto.metadata import Metadata

SENDERS = 4
IN_FLIGHT = 8
WAIT = 60.0


class Sent(NamedTuple):
    """One message somebody tried to send."""

    to: str
    text: str
    key: bytes


@contextmanager
def serving(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address; killed at the end if it still runs."""
    command = [sys.executable, "-m", "wireproto.server", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # A log that nobody reads would stop the server once the pipe is full.
        log = threading.Thread(target=process.stderr.read)
        log.start()
        try:
            ready = process.stdout.readline().split()
            assert ready[:1] == ["ready"]
            yield process, next(word for word in ready if word.startswith("tcp="))[4:]
        finally:
            process.kill()
            process.wait(WAIT)
            log.join(WAIT)


class History:
    """What clients did and saw, over all the servers' lives.

    Attributes:
        answered: what each answered send was told.
        unknown: sends whose answer did not come.
        delivered: per account, sequence -> (message id, text), from pages and streams alike.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answered: dict[Sent, SendMessageResponse] = {}
        self.unknown: set[Sent] = set()
        self.delivered: dict[str, dict[int, tuple[bytes, str]]] = {"paged": {}, "streamed": {}}
        self.repeated = 0

    def see(self, owner: str, sequence: int, message_id: bytes, text: str) -> None:
        """A message was delivered; twice only as the very same."""
        with self.lock:
            before = self.delivered[owner].setdefault(sequence, (message_id, text))
            assert before == (message_id, text)

    def check(self, owner: str) -> None:
        """The mailbox is dense, and has every answered message once, where the answer said."""
        seen = self.delivered[owner]
        assert sorted(seen) == list(range(1, len(seen) + 1))
        texts = Counter(text for _, text in seen.values())
        doubled = [text for text, count in texts.items() if count > 1]
        assert not doubled
        for sent, answer in self.answered.items():
            if sent.to == owner:
                assert seen[answer.sequence] == (answer.message_id, sent.text)
        known = {sent.text for sent in (*self.answered, *self.unknown) if sent.to == owner}
        assert texts.keys() <= known


def signed_in(stack: ExitStack, address: str, name: str) -> Client:
    client = stack.enter_context(connect(address, CHAT, codec="msgpack", timeout=WAIT))
    client.call(LOG_IN, LogInRequest(username=name, password=PASSWORD))
    return client


def start(client: Client, sent: Sent) -> "Future[SendMessageResponse]":
    return client.start(
        SEND_MESSAGE,
        SendMessageRequest(recipient=sent.to, text=sent.text),
        metadata=Metadata(idempotency_key=sent.key),
    )


def send_until_killed(client: Client, history: History, label: str, count: "list[int]") -> None:
    """Keep sends in flight, to both mailboxes in turn, until the server is gone."""
    number = 0
    while True:
        tried = []
        for _ in range(IN_FLIGHT):
            number += 1
            to = "paged" if number % 2 else "streamed"
            tried.append(Sent(to, f"{label} {number}", secrets.token_bytes(16)))
        with history.lock:
            history.unknown.update(tried)
        try:
            # Whatever could not be started stays unknown: it was not sent, but nobody relies on that here.
            futures = [(sent, start(client, sent)) for sent in tried]
        except CallError:
            return
        for sent, future in futures:
            try:
                answer = future.result(WAIT)
            except CallError:
                return
            with history.lock:
                history.unknown.discard(sent)
                history.answered[sent] = answer
                count[0] += 1


def receive_until_killed(client: Client, history: History) -> None:
    """Follow the mailbox "streamed", acknowledging each message once it is noted."""
    try:
        for item in client.stream(RECEIVE_MESSAGES, ReceiveMessagesRequest(), batch=1):
            history.see("streamed", item.sequence, item.message_id, item.text)
    except CallError:
        return


def catch_up(stack: ExitStack, address: str, history: History) -> None:
    """Fetch what waits in both mailboxes, with the server left alone."""
    for owner in history.delivered:
        client = signed_in(stack, address, owner)
        while messages := client.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages:
            for message in messages:
                history.see(owner, message.sequence, message.message_id, message.text)


def torture(store: Path, kills: int, seed: int) -> History:
    """Kill the server ``kills`` times under load, and check everything after each restart."""
    chance = random.Random(seed)
    history = History()
    with serving(store) as (_, address), connect(address, CHAT, codec="msgpack", timeout=WAIT) as client:
        for name in (*history.delivered, *(f"s{i}" for i in range(SENDERS))):
            client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
    for kill in range(kills):
        with serving(store) as (process, address), ExitStack() as stack:
            # What the last life left behind, before anything new is sent.
            catch_up(stack, address, history)
            for owner in history.delivered:
                history.check(owner)
            senders = [signed_in(stack, address, f"s{i}") for i in range(SENDERS)]
            for sent in sorted(history.unknown):
                # Keys belong to their sender; the text says whose it was.
                history.answered[sent] = start(senders[int(sent.text.split()[1])], sent).result(WAIT)
                history.repeated += 1
            history.unknown.clear()
            catch_up(stack, address, history)
            for owner in history.delivered:
                history.check(owner)
                assert len(history.delivered[owner]) == sum(sent.to == owner for sent in history.answered)

            count = [0]
            threads = [
                threading.Thread(target=send_until_killed, args=(sender, history, f"{kill} {i}", count))
                for i, sender in enumerate(senders)
            ]
            receiver = signed_in(stack, address, "streamed")
            threads.append(threading.Thread(target=receive_until_killed, args=(receiver, history)))
            for thread in threads:
                thread.start()
            wanted = chance.choice((0, 1, 10, 100, 500)) + chance.randrange(20)
            deadline = time.monotonic() + WAIT
            while count[0] < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
            # Not only just after an answer: this sleep is the fault's own randomness, nothing waits for it.
            time.sleep(chance.random() * 0.01)
            process.kill()
            for thread in threads:
                thread.join(WAIT)
            assert not [thread for thread in threads if thread.is_alive()]
    return history


@pytest.mark.slow
def test_every_answered_message_survives_ten_kills(store_path: Path) -> None:
    """After each of 10 kills -9 under load every answered send is there once, dense; the others repeat safely."""
    history = torture(store_path, 10, seed=1)
    assert len(history.answered) > 500


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_answered_message_survives_two_hundred_kills(store_path: Path) -> None:
    """The same for 200 kills, from a fresh seed each run."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    history = torture(store_path, 200, seed)
    print(f"{len(history.answered)} answered, {history.repeated} repeated with their key")
