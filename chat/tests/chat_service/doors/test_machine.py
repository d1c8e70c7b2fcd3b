"""The model of the chat and the real server agree through each door, and through all of them at once."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from chat_service.doors.machine import WINDOW, Crashing, People
from chat_service.doors.people import DOORS, Door
from wireproto import CallError
from wireproto_chat.opcodes import (
    AcknowledgeResponse,
    DeleteMessageResponse,
    PopUndeliveredResponse,
    ReceiveMessagesResponse,
    SendMessageResponse,
)
from wireproto_chat.service import live
from wireproto_chat.service.history import ClearMessage
from wireproto_chat.service.live import MailboxStream
from wireproto_chat.service.mailboxes import AcknowledgeThrough, AppendMessage, TakePage
from wireproto_chat.service.sessions import Sessions
from wireproto_chat.store.transaction import IdempotencyKey, KnownKey, Mailbox, Transaction


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crashing]:
    monkeypatch.setattr(live, "WINDOW", WINDOW)
    crashing = Crashing(tmp_path)
    yield crashing
    crashing.close()


def run(crashing: Crashing, doors: tuple[Door, ...], examples: int, steps: int) -> int:
    """So many runs of the machine behind these doors; how many steps they took."""

    class Here(People):
        pass

    Here.crashing, Here.doors = crashing, doors
    # A failure is told as it was found: to make it smaller takes minutes, for each try has a server to talk to.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    how = settings(max_examples=examples, stateful_step_count=steps, deadline=None, phases=phases)
    run_state_machine_as_test(Here, settings=how)
    return Here.steps


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("doors", [*((door,) for door in DOORS), DOORS], ids=[*DOORS, "all"])
def test_the_service_does_what_the_model_does(crashing: Crashing, doors: tuple[Door, ...]) -> None:
    """Whatever is done, over crashes: each answer is the model's, and each invariant holds."""
    steps = run(crashing, doors, max(5, settings().max_examples // 20), 50)
    print(f"{steps} steps")


# ---------------------------------------------------------------------- the machine finds what it is there to find

Fault = Callable[[pytest.MonkeyPatch], None]


def every_third(replacement: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
    """What is there, but each third time what is wrong."""
    count = itertools.count(1)
    return lambda *args, **kwargs: (real if next(count) % 3 else replacement)(*args, **kwargs)


def deliver_twice(patch: pytest.MonkeyPatch) -> None:
    """Streams read once more what they had given out last."""
    real = MailboxStream.take

    def take(self: MailboxStream, n: int) -> Sequence[ReceiveMessagesResponse]:
        if self._cursor > 0 and not self._page:
            self._cursor -= 1
        return real(self, n)

    patch.setattr(MailboxStream, "take", every_third(take, real))


def skip_one(patch: pytest.MonkeyPatch) -> None:
    """Streams leave a message out."""
    real = MailboxStream.take

    def take(self: MailboxStream, n: int) -> Sequence[ReceiveMessagesResponse]:
        items = real(self, n)
        if len(self._page) > 1:
            self._page.popleft()
        return items

    patch.setattr(MailboxStream, "take", take)


def lose_a_wake_up(patch: pytest.MonkeyPatch) -> None:
    """A stream is not told of some messages."""
    patch.setattr(MailboxStream, "told", every_third(lambda self, head: None, MailboxStream.told))


def answer_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Some sends are answered and never written: they are in memory, until a crash."""
    real = Transaction.append

    def append(self: Transaction, box: Mailbox, sender_id: int, body: bytes) -> tuple[bytes, int]:
        answer = real(self, box, sender_id, body)
        del self._messages[-7:]
        return answer

    patch.setattr(Transaction, "append", every_third(append, real))


def keep_acknowledgements_in_memory(patch: pytest.MonkeyPatch) -> None:
    """What was acknowledged is forgotten in a crash: the store is told of the message before it."""
    real = Transaction.acknowledge

    def acknowledge(self: Transaction, box: Mailbox, sequence: int, bytes_through: int) -> None:
        real(self, box, sequence, bytes_through)
        self._changed.discard(box)

    patch.setattr(Transaction, "acknowledge", acknowledge)


def forget_keys(patch: pytest.MonkeyPatch) -> None:
    """Keys are known within a transaction, and not after it."""

    def remember(self: Transaction, key: IdempotencyKey, request_hash: bytes, message_id: bytes, sequence: int) -> None:
        self.known[key] = KnownKey(request_hash, message_id, sequence, self.now)

    patch.setattr(Transaction, "remember", remember)


def take_keys_for_another_message(patch: pytest.MonkeyPatch) -> None:
    """A key's content is not compared."""
    real = AppendMessage.__init__

    def init(self: AppendMessage, *args: Any) -> None:
        real(self, *args)
        self._hash = b"the same"

    patch.setattr(AppendMessage, "__init__", init)


def leave_a_gap(patch: pytest.MonkeyPatch) -> None:
    """A sequence is left out now and then."""
    real = Transaction.append

    def append(self: Transaction, box: Mailbox, sender_id: int, body: bytes) -> tuple[bytes, int]:
        box.head += 1
        return real(self, box, sender_id, body)

    patch.setattr(Transaction, "append", every_third(append, real))


def deliver_the_deleted(patch: pytest.MonkeyPatch) -> None:
    """A deleted message stays where it is."""
    patch.setattr(ClearMessage, "apply", lambda self, tx: DeleteMessageResponse())


def name_another_sender(patch: pytest.MonkeyPatch) -> None:
    """The recipient is taken for the sender."""
    real = Transaction.append
    patch.setattr(
        Transaction,
        "append",
        every_third(lambda self, box, sender_id, body: real(self, box, box.account_id, body), real),
    )


def leak_another_mailbox(patch: pytest.MonkeyPatch) -> None:
    """Pages come from whatever mailbox was used first."""
    real = TakePage.apply

    def apply(self: TakePage, tx: Transaction) -> PopUndeliveredResponse:
        owner, self._owner = self._owner, copy(self._owner)
        self._owner.account_id = max(1, owner.account_id - 1)
        return real(self, tx)

    patch.setattr(TakePage, "apply", every_third(apply, real))


def send_into_two_mailboxes(patch: pytest.MonkeyPatch) -> None:
    """The sender gets what it sent, too."""
    real = Transaction.append

    def append(self: Transaction, box: Mailbox, sender_id: int, body: bytes) -> tuple[bytes, int]:
        own = self.mailbox(sender_id)
        if own is not None and own is not box:
            real(self, own, sender_id, body)
        return real(self, box, sender_id, body)

    patch.setattr(Transaction, "append", append)


def count_the_deleted(patch: pytest.MonkeyPatch) -> None:
    """What was deleted still counts as undelivered."""
    patch.setattr(Mailbox, "undelivered", property(lambda self: self.head - self.acked))


def move_acknowledgements_back(patch: pytest.MonkeyPatch) -> None:
    """A late acknowledgement takes an earlier one back."""
    real = AcknowledgeThrough.apply

    def apply(self: AcknowledgeThrough, tx: Transaction) -> AcknowledgeResponse:
        box = tx.mailbox(self._owner.account_id)
        if box is not None and 0 < self._sequence < box.acked:
            box.acked = self._sequence - 1
        return real(self, tx)

    patch.setattr(AcknowledgeThrough, "apply", apply)


def do_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    """A send whose key is refused is sent all the same."""
    real = AppendMessage._repeated

    def repeated(self: AppendMessage, tx: Transaction, key: IdempotencyKey, known: KnownKey) -> SendMessageResponse:
        box = tx.mailbox(self._recipient)
        if known.request_hash != self._hash and box is not None:
            tx.append(box, self._sender.account_id, self._body)
        return real(self, tx, key, known)

    patch.setattr(AppendMessage, "_repeated", repeated)


def keep_sessions(patch: pytest.MonkeyPatch) -> None:
    """Who has logged out is not forgotten."""
    patch.setattr(Sessions, "end", lambda self, token_hash: None)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("invariant", "fault"),
    [
        ("I1", answer_before_the_commit),
        ("I2", forget_keys),
        ("I2", take_keys_for_another_message),
        ("I3", leave_a_gap),
        ("I4", deliver_twice),
        ("I4", skip_one),
        ("I5", deliver_the_deleted),
        ("I6", name_another_sender),
        ("I7", leak_another_mailbox),
        ("I7", send_into_two_mailboxes),
        ("I8", keep_acknowledgements_in_memory),
        ("I8", count_the_deleted),
        ("I8", move_acknowledgements_back),
        ("I9", do_what_is_refused),
        ("I10", lose_a_wake_up),
        ("sessions", keep_sessions),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_fault_of_the_service_is_found(crashing: Crashing, invariant: str, fault: Fault) -> None:
    """A service with one fault, of those that its invariants speak of, does not pass for the model."""

    class Here(People):
        patience = 0.5

    Here.crashing, Here.doors = crashing, ("msgpack",)
    quick = settings(
        max_examples=40,
        stateful_step_count=50,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        # A fault that comes each third time is somewhere else when the failed run is tried again.
        with pytest.raises((AssertionError, CallError, TimeoutError, Flaky)):
            run_state_machine_as_test(Here, settings=quick)
    print(f"{invariant}: found after {Here.steps} steps")
