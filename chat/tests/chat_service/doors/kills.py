"""Clients that keep a chat busy and note what they do, while its server is killed and started again on one database."""

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chat_service.doors.history import (
    Acknowledging,
    Deleting,
    History,
    Kept,
    Operation,
    Outcome,
    Seen,
    Sending,
    Standing,
    Streaming,
    Taking,
)
from chat_service.doors.people import DOORS, PATIENCE, Addresses, Door, Inbox, Person
from wireproto import Address, CallError, Retry
from wireproto_chat.opcodes import BROADCAST, SEND_MESSAGE, BroadcastRequest, SendMessageRequest

__all__ = ["Crowd", "Servers"]

SENDERS = 4
IN_FLIGHT = 8

# Imports take longer than all the rest of a start, so one process does them, and is forked for each server. It has one
# thread and has used nothing of what it imported. The child is the program that people start.
_PROGRAM = """
import os
import select
import signal
import sys
import wireproto_chat.service.handlers, wireproto.server.gateway
from wireproto.cli import main
{fault}
while sys.stdin.readline():
    pid = os.fork()
    if pid == 0:
        sys.argv.insert(1, "serve")
        main()
    print("pid", pid, flush=True)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if select.select([0], [], [], 0.005)[0]:  # at its end: whoever started us is gone
            os.kill(pid, signal.SIGKILL)
    print("ended", flush=True)
"""


class Servers:
    """The servers on one store, one after the other, each a process of its own.

    Args:
        store: the database.
        fault: a program that breaks the service first, for tests that want to see that found.
    """

    def __init__(self, store: Path, *, fault: str = "") -> None:
        command = [
            sys.executable,
            "-c",
            _PROGRAM.format(fault=fault),
            "--port",
            "0",
            "--grpc-port",
            "0",
            "--store",
            str(store),
        ]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._pid = 0
        self._early: list[str] = []
        self.log = ""
        # A log that nobody reads would stop the server once the pipe is full.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.log = self._process.stderr.read()

    def _line(self, first: str) -> list[str]:
        """The next line of output that begins with this word; the two of a start may come in any order."""
        assert self._process.stdout is not None
        for place, line in enumerate(self._early):
            if line.startswith(first):
                return self._early.pop(place).split()
        while not (line := self._process.stdout.readline()).startswith(first):
            assert line, f"no server: {self.log}"
            self._early.append(line)
        return line.split()

    def start(self) -> None:
        """Begin to start one; there is none."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._pid = int(self._line("pid")[1])

    def ready(self) -> Addresses:
        """Where it serves, once it does."""
        where = dict(word.partition("=")[::2] for word in self._line("ready")[1:])
        return Addresses(Address.parse(where["tcp"]), Address.parse(where["grpc"]))

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        pid, self._pid = self._pid, 0
        os.kill(pid, signal.SIGKILL)
        self._line("ended")
        self._early.clear()  # it may have become ready just before

    def close(self) -> str:
        """End it all; what the servers have logged."""
        if self._pid:
            self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        return self.log


@contextmanager
def noted(history: History, operation: Operation) -> Iterator[None]:
    """Note how an operation ended. An error goes on to the caller."""
    with denied(history, operation):
        yield
    operation.outcome = Outcome.DONE
    operation.ended = history.now()


@contextmanager
def denied(history: History, operation: Operation) -> Iterator[None]:
    """Note an error that says that the operation was not done."""
    try:
        yield
    except CallError as error:
        if error.retry is not Retry.MAYBE_PROCESSED:
            operation.outcome = Outcome.NOT_DONE
            operation.ended = history.now()
        raise


class Crowd:
    """The people of one part of a run, their history, and what they have to do.

    Three mailboxes get mail: ``shared`` is followed by two clients that acknowledge, ``streamed`` by one, ``popped`` is
    read with PopUndelivered. Four people send to them, each by another door, which they change
    in every life of the server: with fresh keys, used ones, other people's and none; they broadcast and delete. Whoever
    receives deletes, too.
    """

    def __init__(self, name: str, chance: random.Random) -> None:
        self.history = History()
        self.chance = chance
        self.name = name
        self.boxes = [f"{name}.{kind}" for kind in ("popped", "shared", "streamed")]
        self.senders = [f"{name}-sender{i}" for i in range(SENDERS)]
        self.tokens: dict[str, str] = {}
        self.answered = 0
        self.unexpected: list[BaseException] = []
        self._unknown: list[Sending] = []
        self._settled: dict[str, list[Sending]] = {name: [] for name in self.senders}
        self._texts = 0
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ between two kills

    def arrive(self, addresses: Addresses) -> None:
        """Make the accounts."""
        for name in (*self.boxes, *self.senders):
            with addresses.person("msgpack", name) as person:
                person.create()
                self.tokens[name] = person.log_in().token

    def live(self, addresses: Addresses, life: int, kill: Callable[[], None]) -> None:
        """One life of the server: look around, repeat what was not answered, keep it busy, kill it."""
        with ExitStack() as stack:

            def person(name: str, door: Door) -> Person:
                someone = stack.enter_context(addresses.person(door, name))
                # A session that was opened before the kill is there after it.
                someone.log_in(token=self.tokens[name])
                return someone

            doors = DOORS[life % 4 :] + DOORS[: life % 4]
            popped, shared, streamed = (person(name, door) for name, door in zip(self.boxes, doors[:3], strict=True))
            also_shared = person(shared.name, doors[3])
            for each in (popped, shared, streamed):
                self.look(each)
            senders = [person(name, door) for name, door in zip(self.senders, doors, strict=True)]
            self.repeat(senders)
            tasks: list[Callable[[], None]] = [
                *(lambda sender=sender: self.send(sender) for sender in senders),
                lambda: self.receive(streamed),
                lambda: self.receive(shared),
                lambda: self.receive(also_shared),
                lambda: self.take(popped),
            ]
            threads = [threading.Thread(target=self.until_killed, args=(task,)) for task in tasks]
            wanted = self.answered + self.chance.choice((0, 1, 10, 50, 200, 400)) + self.chance.randrange(20)
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + PATIENCE
            while self.answered < wanted and time.monotonic() < deadline and not self.unexpected:
                time.sleep(0.001)
            # Not only just after an answer: this sleep is the fault's own randomness, nothing waits for it.
            time.sleep(self.chance.random() * 0.02)
            kill()
            for thread in threads:
                thread.join(PATIENCE)
            assert not [thread for thread in threads if thread.is_alive()]
        if self.unexpected:
            raise self.unexpected[0]

    def until_killed(self, task: Callable[[], None]) -> None:
        try:
            task()
        except CallError as error:
            if error.reason != "CONNECTION_LOST":
                self.unexpected.append(error)
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever joins the thread
            self.unexpected.append(error)

    def look(self, person: Person) -> None:
        """Ask how a mailbox stands that nobody uses just now."""
        at = self.history.now()
        found = person.who_am_i()
        self.history.standings.append(
            Standing(
                at=at,
                owner=person.name,
                acknowledged=found.acknowledged,
                last=found.last_sequence,
                undelivered=found.undelivered,
            )
        )

    def leave(self, addresses: Addresses) -> list[str]:
        """Receive all that waits, look at everything, and have it judged."""
        with ExitStack() as stack:
            people = {
                name: stack.enter_context(addresses.person("msgpack", name)) for name in (*self.boxes, *self.senders)
            }
            for name, person in people.items():
                person.log_in(token=self.tokens[name])
            self.repeat([people[name] for name in self.senders])
            for name in self.boxes:
                person = people[name]
                self.look(person)
                if waiting := self.history.standings[-1].undelivered:
                    streaming, inbox = self.open(person)
                    with inbox:
                        for number in range(1, waiting + 1):
                            self.note(streaming, inbox)
                            if number % 50 == 0 or number == waiting:
                                self.acknowledge(inbox)
                self.look(person)
                self.history.kept[name] = sorted(self.conversations(person))
        return self.history.violations()

    def conversations(self, person: Person) -> Iterator[Kept]:
        for other in self.senders:
            position, more = 0, True
            while more:
                page = person.conversation(other, after=position, oldest_first=True)
                for each in page.messages:
                    yield Kept(each.sequence, each.message_id, each.sender, each.text, each.deleted)
                    position = each.position
                more = page.more

    # ------------------------------------------------------------------ sending

    def fresh(self, person: Person, *, broadcast: bool = False, key: bytes | None = None) -> Sending:
        with self._lock:
            self._texts += 1
            text = f"{self._texts} by {person.name}" + "." * self.chance.choice((0, 0, 100, 2000))
        return Sending(
            begun=0,
            sender=person.name,
            recipients=frozenset(self.boxes if broadcast else [self.chance.choice(self.boxes)]),
            text=text,
            key=secrets.token_bytes(16) if key is None else key,
            broadcast=broadcast,
        )

    def again(self, sending: Sending) -> Sending:
        return Sending(
            begun=0,
            sender=sending.sender,
            recipients=sending.recipients,
            text=sending.text,
            key=sending.key,
            broadcast=sending.broadcast,
        )

    def begin(self, person: Person, sending: Sending) -> "Future[Any]":
        """Send without waiting for the answer."""
        sending.begun = self.history.now()
        self.history.sendings.append(sending)
        with self._lock:
            self._unknown.append(sending)
        with denied(self.history, sending):
            if sending.broadcast:
                pattern = f"{self.name}.*"
                return person.start(BROADCAST, BroadcastRequest(pattern=pattern, text=sending.text), key=sending.key)
            (to,) = sending.recipients
            return person.start(SEND_MESSAGE, SendMessageRequest(recipient=to, text=sending.text), key=sending.key)

    def finish(self, sending: Sending, future: "Future[Any]") -> None:
        """Wait for the answer. To be refused, for its key or since broadcasts come too often, is one like another."""
        try:
            with noted(self.history, sending):
                answer = future.result(PATIENCE)
        except CallError as error:
            if error.reason not in ("KEY_CONFLICT", "TOO_OFTEN"):
                raise
            with self._lock:
                self._unknown.remove(sending)
            return
        sending.duplicate = answer.duplicate
        if sending.broadcast:
            sending.sent_to = answer.recipients
        else:
            sending.message_id, sending.sequence = answer.message_id, answer.sequence
        with self._lock:
            self._unknown.remove(sending)
            self._settled[sending.sender].append(sending)
            self.answered += 1

    def next_one(self, person: Person) -> Sending:
        """What to send next."""
        settled = self._settled[person.name]
        kind = self.chance.randrange(40)
        if kind == 0:
            return self.fresh(person, broadcast=True)
        if kind == 1:
            return self.fresh(person, key=b"")
        if settled and kind < 6:
            old = self.chance.choice(settled[-100:])
            if old.key:
                # A used key, for the same and for something else; or one that another account has used.
                return self.again(old) if kind < 4 else self.fresh(person, key=old.key)
        others = self._settled[self.chance.choice(self.senders)]
        if others and kind == 6 and others[-1].sender != person.name:
            return self.fresh(person, key=others[-1].key)
        return self.fresh(person)

    def send(self, person: Person) -> None:
        """Keep sends in flight; now and then delete something sent."""
        while True:
            started = [(each, self.begin(person, each)) for each in (self.next_one(person) for _ in range(IN_FLIGHT))]
            for sending, future in started:
                self.finish(sending, future)
            if self.chance.random() < 0.2:
                sent = self.chance.choice(self._settled[person.name] or [started[0][0]])
                if sent.sequence:
                    (box,) = sent.recipients
                    self.delete(person, box, sent.sequence)

    def repeat(self, senders: list[Person]) -> None:
        """Send again what was not answered, with its key; a few stay unknown for good."""
        unknown, self._unknown = self._unknown, []
        people = {person.name: person for person in senders}
        for sending in unknown:
            if sending.outcome is Outcome.UNKNOWN and sending.key and self.chance.random() < 0.9:
                repeated = self.again(sending)
                self.finish(repeated, self.begin(people[sending.sender], repeated))

    # ------------------------------------------------------------------ receiving

    def open(self, person: Person) -> tuple[Streaming, Inbox]:
        streaming = Streaming(begun=self.history.now(), owner=person.name)
        self.history.streamings.append(streaming)
        return streaming, person.receive(by_itself=False)

    def note(self, streaming: Streaming, inbox: Inbox) -> None:
        message = inbox.next()
        seen = Seen(message.sequence, message.message_id, message.sender, message.text)
        streaming.came.append((self.history.now(), seen))

    def receive(self, person: Person) -> None:
        """Follow a mailbox, acknowledging what came in portions; now and then delete something."""
        streaming, inbox = self.open(person)
        with inbox:
            while True:
                for _ in range(self.chance.randrange(1, 20)):
                    self.note(streaming, inbox)
                self.acknowledge(inbox)
                if self.chance.random() < 0.2:
                    _, message = self.chance.choice(streaming.came)
                    self.delete(person, person.name, message.sequence)

    def acknowledge(self, inbox: Inbox) -> None:
        operation = Acknowledging(begun=self.history.now(), owner=inbox.person.name, sequence=inbox.last)
        self.history.acknowledgings.append(operation)
        with noted(self.history, operation):
            answer = inbox.person.acknowledge(inbox.last)
            operation.acknowledged, operation.undelivered = answer.acknowledged, answer.undelivered

    def take(self, person: Person) -> None:
        """Take pages, as long as there are any; a pause when there is none, so as not to do only that."""
        while True:
            if not self.pop(person, self.chance.randrange(1, 30)):
                time.sleep(0.002)

    def pop(self, person: Person, limit: int) -> list[Seen]:
        operation = Taking(begun=self.history.now(), owner=person.name, limit=limit)
        self.history.takings.append(operation)
        with noted(self.history, operation):
            page = person.pop(limit)
            operation.messages = [
                Seen(each.sequence, each.message_id, each.sender, each.text) for each in page.messages
            ]
            operation.remaining = page.remaining
        return operation.messages

    def delete(self, person: Person, recipient: str, sequence: int) -> None:
        operation = Deleting(begun=self.history.now(), recipient=recipient, sequence=sequence)
        self.history.deletings.append(operation)
        try:
            with noted(self.history, operation):
                person.delete_message(recipient, sequence)
        except CallError as error:
            if error.reason != "UNKNOWN_MESSAGE":
                raise
            operation.missing = True
