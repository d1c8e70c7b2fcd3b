"""What one signed-in account has received: which messages were shown, and how the server comes to know.

A message is acknowledged by Acknowledge once it was shown; several that come together are acknowledged together.
"""

import threading
from collections.abc import Iterator

from wireproto import CallError, CodecError, LocalProtocolError
from wireproto_chat.client.reconnect import ChatClient, Messages, Tries
from wireproto_chat.opcodes import ACKNOWLEDGE, AcknowledgeRequest, ReceiveMessagesResponse

__all__ = ["Inbox", "ShownMessages"]

QUIET = 0.01
"""Seconds without a further message after which those shown are acknowledged together."""

BATCH = 32
"""Messages shown after which they are acknowledged even if more are there; half the server's window."""

AGAIN = 5.0
"""Seconds after which an acknowledgement that failed is tried again, if nothing else comes."""


class ShownMessages:
    """Which sequence numbers of one account were shown. The stream and PopUndelivered may bring the same ones."""

    def __init__(self) -> None:
        self.streamed = 0  # every number up to this one came by the stream, which keeps order
        self.popped: set[int] = set()  # numbers beyond it that PopUndelivered brought first

    def __contains__(self, sequence: int) -> bool:
        return sequence <= self.streamed or sequence in self.popped

    def take_streamed(self, sequence: int) -> bool:
        """Note a number from the stream; whether it is new."""
        new = sequence not in self
        self.popped.discard(sequence)
        self.streamed = max(self.streamed, sequence)
        return new

    def take_popped(self, sequence: int) -> bool:
        """Note a number from PopUndelivered; whether it is new."""
        new = sequence not in self
        if new:
            self.popped.add(sequence)
        return new

    def forget(self) -> None:
        """Begin anew: the server has a mailbox without these numbers."""
        self.streamed = 0
        self.popped.clear()


class Inbox:
    """The stream of messages of one log-in, over as many connections as it takes.

    Its thread and the session's owner use it; what both change is guarded by the session's lock.
    """

    def __init__(self, client: ChatClient, user: str, shown: ShownMessages, backlog: int) -> None:
        self.user = user
        self.shown = shown
        self.backlog = backlog  # messages that waited at log-in and have not come yet
        self.awaited = 0  # a sequence number known to come: this account wrote to itself
        self.dismissed = False  # the session ended it: its end is no news
        self.ended = False
        self.error: CallError | CodecError | None = None  # why it ended
        self.era = 0  # of the connection that the stream was opened on
        self.tries = Tries()  # to open it again, since a message came
        self.thread: threading.Thread | None = None
        self._client = client
        self._acknowledging = threading.Lock()  # held over each Acknowledge and what is concluded from it
        self._shown_through = 0  # every number up to this one was shown, and up to the next one acknowledged
        self._acknowledged_through = 0
        self._failed = False  # the last acknowledgement did, and nothing was shown since

    @property
    def owes(self) -> bool:
        """Whether messages are known to be on their way."""
        return not self.ended and (self.backlog > 0 or self.awaited not in self.shown)

    @property
    def after(self) -> int:
        """Where a stream has to begin: behind what was shown, whether it was acknowledged or not."""
        return self.shown.streamed

    def messages(self, stream: Messages[ReceiveMessagesResponse]) -> Iterator[ReceiveMessagesResponse]:
        """The messages of ``stream``; one counts as shown when the next one is asked for."""
        with self._acknowledging:
            # What was shown over an earlier connection; that it was acknowledged there is not known.
            self._shown_through, self._acknowledged_through, self._failed = self.shown.streamed, 0, False
        while True:
            patience = None if self._shown_through <= self._acknowledged_through else AGAIN if self._failed else QUIET
            try:
                message = stream.next(patience)
            except TimeoutError:
                self.acknowledge()
                continue
            except StopIteration:
                return
            yield message
            self._shown_through = max(self._shown_through, message.sequence)
            self._failed = False
            if self._shown_through - self._acknowledged_through >= BATCH:
                self.acknowledge()

    def acknowledge(self) -> None:
        """Have the server know what was shown, if it does not yet. From any thread."""
        with self._acknowledging:
            shown = self._shown_through
            if shown <= self._acknowledged_through:
                return
            try:
                self._client.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=shown))
            except (CallError, CodecError, LocalProtocolError):
                # Nothing is lost: it is said again. If the connection is gone the stream will tell.
                self._failed = True
                return
            self._acknowledged_through = shown
