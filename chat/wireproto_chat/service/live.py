"""Live delivery: the streams that are open now, and how each follows its mailbox.

No message is kept in memory for delivery. A commit only tells the streams of a mailbox its new head and wakes them;
each then reads the store from its own cursor. So a slow reader costs a cursor, and one that dies costs nothing.

No wake-up is lost, and none is needed from a clock: a stream is registered before the server asks it for anything, and
the writer tells the streams after the commit. A message committed before the first ``take`` is found by reading the
head in the store, which comes after the registration; one committed later finds the stream registered, and the server
runs ``take`` after every wake.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from wireproto import CallError, Status, Subscription
from wireproto_chat.opcodes import ReceiveMessagesResponse
from wireproto_chat.service.mailboxes import LONGEST_READ, StoredMessage, moment, next_message, unreadable
from wireproto_chat.service.sessions import ChatIdentity, note_seen
from wireproto_chat.store.store import Store

__all__ = ["WINDOW", "MailboxStream", "Streams"]

WINDOW = 64
"""Messages sent on one stream and not acknowledged."""

MAX_STREAMS = 16
"""Open streams of one account."""

READ_AHEAD = 16
"""Messages read at once although fewer are wanted: a client that returns its credit one by one costs one read for
sixteen, and at most 256 KiB of texts wait in memory for it."""


class MailboxStream(Subscription[ReceiveMessagesResponse]):
    """One open ReceiveMessages.

    At most ``WINDOW`` of its messages are unacknowledged at any time. What Acknowledge and PopUndelivered acknowledge
    makes room, on whichever connection they were called.

    Args:
        store: where the messages are.
        streams: where the stream is registered until it is closed.
        owner: whose mailbox it follows.
        after: the client has everything up to this sequence.
    """

    def __init__(self, store: Store, streams: "Streams", owner: ChatIdentity, after: int) -> None:
        self.owner = owner
        self.giving = threading.Lock()
        self._store = store
        self._streams = streams
        self._after = after
        # The sequence that was given out last, or that the stream begins behind; -1 until ``take`` was called.
        self._cursor = -1
        # The newest sequence, as ``take`` has read it and as the writer has told it. Each is set by one thread only, so
        # that neither thread overwrites what the other one saw.
        self._head_read = 0
        self._head_told = 0
        self._page: deque[Sequence[Any]] = deque()  # rows that were read and not given out
        self._names: Mapping[int, str] = {}  # of their senders
        self._unacknowledged: deque[int] = deque()  # sequences that were given out; some may be acknowledged by now
        self._acknowledged = 0  # everything up to this sequence, as the writer has told it

    def told(self, head: int) -> None:
        """The mailbox has grown; called by the writer thread after the commit."""
        self._head_told = head
        self.wake()

    def acknowledged(self, sequence: int) -> None:
        """Everything up to ``sequence`` was acknowledged; called by the writer thread after the commit."""
        self._acknowledged = max(self._acknowledged, sequence)
        self.wake()

    def deleted(self) -> None:
        """A message of the mailbox was deleted; called by the writer thread after the commit, before the answer.

        When it returns, what was taken before is encoded, and what is taken from now on was read after the commit.
        """
        with self.giving:
            self._page.clear()

    @property
    def given(self) -> int:
        """The sequence up to which the client has everything, or was given it here."""
        return max(self._cursor, self._after)

    def take(self, n: int) -> Sequence[ReceiveMessagesResponse]:
        """The next messages, at most ``n``, as far as the window has room; empty when there is nothing to give now.

        The server calls it with ``giving`` held, and again until it gives nothing. So it may give fewer than there are:
        it reads the store only when all that was read before is given out.

        Raises:
            CallError: SIGNED_OUT; BAD_AFTER; STORE_FAILED, for a message that is damaged, too.
        """
        if self.owner.revoked:
            raise CallError(Status.UNAUTHENTICATED, "SIGNED_OUT", "this session has ended; log in again")
        if self._cursor < 0:
            self._open_locked()
        most = min(n, self._room_locked())
        if most <= 0:
            return ()
        items: list[ReceiveMessagesResponse] = []
        reads = most
        # What was deleted is passed over, so one read may find nothing to give though there is more.
        while not items and (self._page or self._read_locked(reads)):
            try:
                self._give_locked(items, most)
            except CallError:
                # The messages in front of a damaged one are given out; the next call begins with it, and fails.
                if not items:
                    raise
            reads = min(4 * max(reads, READ_AHEAD), LONGEST_READ)
        return items

    def keep(self, items: Sequence[ReceiveMessagesResponse]) -> Sequence[ReceiveMessagesResponse]:
        """Take messages back that found no room: what is deleted from now on must not come. They are read again."""
        first = items[0].sequence
        while self._unacknowledged and self._unacknowledged[-1] >= first:
            self._unacknowledged.pop()
        self._cursor = first - 1
        self._page.clear()
        return ()

    def _give_locked(self, items: list[ReceiveMessagesResponse], most: int) -> None:
        """Move what was read, up to so many, to where it is given from."""
        while self._page and len(items) < most:
            row = self._page[0]
            message = next_message(self.owner.account_id, row, self._cursor + 1)
            if message.body is not None:
                items.append(_item(message, self._names))
                self._unacknowledged.append(message.sequence)
            self._page.popleft()
            self._cursor = message.sequence

    def _room_locked(self) -> int:
        """How many more messages the window has room for."""
        while self._unacknowledged and self._unacknowledged[0] <= self._acknowledged:
            self._unacknowledged.popleft()
        return WINDOW - len(self._unacknowledged)

    def _read_locked(self, most: int) -> bool:
        """Read the next messages from the store, ``most`` or a few more; False when everything was given out."""
        head = max(self._head_read, self._head_told)
        if self._cursor >= head:
            return False
        store, most = self._store, max(most, READ_AHEAD)
        self._page.extend(store.raw(store.sql.messages_after, self.owner.account_id, self._cursor, most))
        if not self._page:
            # There must be one, unless the account was deleted just now.
            self._mailbox_locked()
            raise unreadable(self._cursor + 1)
        self._names = store.name_of([row[4] for row in self._page])
        return True

    def _mailbox_locked(self) -> Sequence[Any]:
        """The owner's mailbox, as of the last commit."""
        row = self._store.one(self._store.sql.mailbox_by_id, self.owner.account_id)
        if row is None:
            raise CallError(Status.UNAUTHENTICATED, "SIGNED_OUT", "this account was deleted")
        return row

    def close(self, reason: str) -> None:
        """The stream has ended; what was not acknowledged comes again on the next one."""
        self._page.clear()
        if self._streams.remove(self):
            note_seen(self._store, self.owner.account_id)

    def _open_locked(self) -> None:
        """Find out where the stream begins: behind ``after`` or behind the last acknowledgement, whichever is later."""
        _, head, acked, *_ = self._mailbox_locked()
        if not 0 <= self._after <= head:
            raise CallError(
                Status.OUT_OF_RANGE,
                "BAD_AFTER",
                f"after is {self._after}, but this mailbox has the sequences 1 to {head}; give 0 to get all that waits",
            )
        self._head_read = head
        self._cursor = max(acked, self._after)


def _item(message: StoredMessage, names: Mapping[int, str]) -> ReceiveMessagesResponse:
    """A message as the stream gives it.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: who sent it cannot be read.
    """
    sender = names.get(message.sender_id)
    if sender is None:
        raise unreadable(message.sequence)
    return ReceiveMessagesResponse(
        sequence=message.sequence,
        message_id=message.message_id,
        sender=sender,
        text=message.text,
        sent_at=moment(message.sent_at),
    )


class Streams:
    """The open streams by account. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced, never changed, so that the writer reads without the lock.
        self._open: dict[int, tuple[MailboxStream, ...]] = {}
        # What closed streams have given and nobody has acknowledged yet, by account.
        self._given: dict[int, int] = {}

    def add(self, stream: MailboxStream) -> None:
        """Register a stream, before anything is asked of it.

        Raises:
            CallError: TOO_MANY_STREAMS.
        """
        account_id = stream.owner.account_id
        with self._lock:
            others = self._open.get(account_id, ())
            if len(others) >= MAX_STREAMS:
                raise CallError(
                    Status.RESOURCE_EXHAUSTED,
                    "TOO_MANY_STREAMS",
                    f"this account has {MAX_STREAMS} streams open; close one first",
                )
            self._open[account_id] = (*others, stream)

    def remove(self, stream: MailboxStream) -> bool:
        """Forget a stream; whether it was the account's last one."""
        account_id = stream.owner.account_id
        with self._lock:
            self._given[account_id] = max(self._given.get(account_id, 0), stream.given)
            others = tuple(other for other in self._open.get(account_id, ()) if other is not stream)
            if others:
                self._open[account_id] = others
                return False
            return self._open.pop(account_id, None) is not None

    def online(self, account_id: int) -> bool:
        """Whether a message to this account would arrive now."""
        return account_id in self._open

    def tell(self, heads: Mapping[int, int]) -> None:
        """Mailboxes have grown: tell and wake their streams."""
        streams = self._open
        for account_id, head in heads.items():
            for stream in streams.get(account_id, ()):
                stream.told(head)

    def given(self, account_id: int) -> int:
        """The sequence up to which a mailbox was given out since the server started, or somebody said to have it."""
        with self._lock:
            streams = self._open.get(account_id, ())
            return max(self._given.get(account_id, 0), *(stream.given for stream in streams), 0)

    def acknowledged(self, account_id: int, sequence: int) -> None:
        """Tell the streams of an account that messages were acknowledged beside them."""
        if self._given.get(account_id, sequence + 1) <= sequence:
            with self._lock:
                self._given.pop(account_id, None)
        for stream in self._open.get(account_id, ()):
            stream.acknowledged(sequence)

    def deleted(self, account_id: int) -> None:
        """Tell the streams of an account that what they have read may hold a deleted message."""
        for stream in self._open.get(account_id, ()):
            stream.deleted()

    def wake(self, account_id: int) -> None:
        """Have the streams of an account look at their identity again."""
        for stream in self._open.get(account_id, ()):
            stream.wake()
