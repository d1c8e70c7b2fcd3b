"""What a stream has given out: how far it may be acknowledged, and that a deletion takes it back or comes after it."""

import random
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from chat_service.fakes import WAIT, Chat, Clock, FakeContext, Reader
from wireproto import Status
from wireproto_chat.opcodes import ACKNOWLEDGE, DELETE_MESSAGE, AcknowledgeRequest, DeleteMessageRequest


def test_what_was_not_delivered_cannot_be_acknowledged(chat: Chat) -> None:
    """Up to what any stream of the account has given, or was told that the client has, and no further; a stream that
    has ended counts."""
    _, bob = chat.filled(9)
    phone = FakeContext()
    chat.log_in("bob", phone)

    def refused(sequence: int) -> bool:
        error = chat.refused(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence), phone)
        return (error.status, error.reason) == (Status.OUT_OF_RANGE, "ACKNOWLEDGED_TOO_MUCH")

    assert refused(1)
    reader = chat.receive(bob)
    assert refused(1)
    reader.take(2)
    assert refused(3)
    assert chat.acknowledge(phone, 1).acknowledged == 1
    reader.take(1)
    reader.close()
    assert refused(4)
    assert chat.acknowledge(phone, 3).acknowledged == 3
    assert refused(4)
    with closing(chat.receive(bob, after=5)):
        assert refused(6)
        assert chat.acknowledge(phone, 5).acknowledged == 5
    # A page acknowledges itself.
    assert chat.pop(bob) == ["6", "7", "8", "9"]
    assert chat.acknowledge(phone, 9).acknowledged == 9


def test_what_a_server_before_may_have_delivered_can_be_acknowledged(store_path: Path, clock: Clock) -> None:
    """After a restart nobody knows what was delivered before: all that is older may be acknowledged, nothing newer."""
    chat = Chat(store_path, clock)
    chat.filled(5)
    chat.close()
    chat = Chat(store_path, clock)
    ann, bob = FakeContext(), FakeContext()
    chat.log_in("ann", ann)
    chat.log_in("bob", bob)
    chat.send(ann, "bob", "6")
    assert chat.refused(ACKNOWLEDGE, AcknowledgeRequest(sequence=6), bob).reason == "ACKNOWLEDGED_TOO_MUCH"
    assert chat.acknowledge(bob, 4).acknowledged == 4
    assert chat.receive(bob).texts() == ["5", "6"]
    assert chat.acknowledge(bob, 6).acknowledged == 6
    chat.close()


class Watched:
    """A stream's lock that says when somebody has to wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.wanted.set()
            self.lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("when", ["before it is taken", "after it is taken"])
def test_a_deletion_waits_for_what_is_being_given_out(chat: Chat, when: str) -> None:
    """What a stream has taken is encoded before the deletion is answered; what it takes later was read after it."""
    ann, bob = chat.filled(3)
    stream = chat.receive(bob).stream
    lock = Watched()
    stream.giving = lock
    given: list[int] = []
    with stream.giving:
        if when == "after it is taken":
            given += [item.sequence for item in stream.take(2)]
        answer = chat.start(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=2), ann)
        assert lock.wanted.wait(WAIT)
        if when == "before it is taken":
            given += [item.sequence for item in stream.take(1)]
        assert not answer.done()
    answer.result(WAIT)
    with stream.giving:
        given += [item.sequence for item in stream.take(64)]
    assert given == ([1, 2, 3] if when == "after it is taken" else [1, 3])


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_given_out_after_its_deletion_was_answered(chat: Chat, seed: int) -> None:
    """However streams, which read ahead, and deletions interleave, no item follows the answer to its deletion."""
    chance = random.Random(seed)
    ann, bob = chat.filled(400)
    log: list[tuple[str, int]] = []
    done = threading.Event()

    def follow(reader: Reader, sizes: list[int]) -> None:
        last = 0
        while not done.is_set():
            with reader.stream.giving:
                # To the log goes what a server would encode, in the same critical section.
                for item in reader.stream.take(sizes[last % len(sizes)]):
                    log.append(("item", last := item.sequence))

    readers = [chat.receive(bob) for _ in range(2)]
    threads = [
        threading.Thread(target=follow, args=(reader, [chance.randrange(1, 9) for _ in range(7)])) for reader in readers
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        answers = []
        for through in range(0, 400, 8):
            for reader in readers:
                reader.stream.acknowledged(through)  # lets it go on as far again
            # Near the place where the streams are, a little ahead of it as a rule.
            place = max((sequence for _, sequence in log[-20:]), default=0)
            for sequence in sorted({min(400, place + chance.randrange(1, 12)) for _ in range(3)}):
                answer = chat.start(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=sequence), ann)
                answer.add_done_callback(partial(lambda number, _: log.append(("answer", number)), sequence))
                answers.append(answer)
            answers[-1].result(WAIT)
        for answer in answers:
            answer.result(WAIT)
    finally:
        sys.setswitchinterval(interval)
        done.set()
        for thread in threads:
            thread.join(WAIT)
    gone: set[int] = set()
    for what, sequence in log:
        if what == "answer":
            gone.add(sequence)
        else:
            assert sequence not in gone
    assert len(gone) > 30
    assert not any(thread.is_alive() for thread in threads)
