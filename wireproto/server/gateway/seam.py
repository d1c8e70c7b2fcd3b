"""Where an engine ends and the door begins: whole messages come in, outcomes go out.

An engine is what speaks HTTP/2: it has a call's headers, reads its messages when it is asked to, and sends what it is
given. The door decides everything else, alike for every engine, and holds no thread for a call that nothing moves in.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from wireproto.answering.pool import Waits, Worker
from wireproto.errors import CallError

__all__ = ["Begin", "Engine", "Headers", "CallEvents", "Wire"]

Headers: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Names in lower case; values are bytes where the name ends in ``-bin``."""


class Wire(Protocol):
    """One call, as its engine has it.

    Whatever is asked of it is begun and not waited for. It never fails: of a call that has ended nothing comes but its
    ``on_over``. One thread at a time: whoever asks holds the lock of what takes the call's events.

    Attributes:
        path: ``/package.Service/Method``.
        peer: the caller's address, ``host:port``.
        headers: what came with the call.
    """

    path: str
    peer: str
    headers: Headers

    def remaining(self) -> float | None:
        """Seconds until the deadline that the caller has set, or None."""

    def receive(self) -> None:
        """Read the next message: ``on_message`` or ``on_complete``. Not again before that, nor behind the latter."""

    def watch(self) -> None:
        """Tell of the caller's end when it comes, and not only with ours: the call is not answered at once."""

    def open(self) -> None:
        """Send the headers now and not with the first message, so that the caller knows that it was heard."""

    def send(self, payload: bytes, more: bool) -> None:
        """Send one message: ``on_sent``. Not again before that. It may wait for the next one, if there are ``more``."""

    def answer(self, payload: bytes, said: Mapping[str, str]) -> None:
        """Send the only message, and end the call well, with what it says beside that."""

    def end(self, error: CallError | None, said: Mapping[str, str]) -> None:
        """End the call, well or with an error, and with what it says beside that."""

    def reset(self, error: CallError) -> None:
        """End the call though a message waits to be taken. The error's details may be lost, and that message, too; with
        an engine that can do no better, the connection of who takes nothing.
        """


class CallEvents(Protocol):
    """What an engine tells of a call, on a thread of its own, where nothing may block.

    ``worker`` is the engine's thread if that leads the pool, so that a quick handler may run there.
    """

    def on_message(self, worker: Worker | None, payload: bytes) -> None:
        """A message is there whole."""

    def on_complete(self) -> None:
        """The caller sends no more. Of a call that is watched it is certain that it has not failed before that; of
        another one this may be how its failure is told.
        """

    def on_sent(self) -> None:
        """A message that was sent has left, or the call is over."""

    def on_over(self) -> None:
        """The call is over: the caller has its end, has cancelled it, or is gone. Comes once, and nothing behind it
        but what was read meanwhile.
        """


Begin: TypeAlias = Callable[[Wire], CallEvents | None]
"""Called by an engine with each new call; what it gives is told of the call's events from then on. None: the call is
dropped, and nobody wants to hear of it any more."""


class Engine(Protocol):
    """HTTP/2 and gRPC's framing of messages.

    Attributes:
        name: for logs.
        poller: what the leader of the door's pool waits on.
    """

    name: str

    @property
    def poller(self) -> Waits:
        """What the leader of the door's pool waits on."""

    def on_events(self, worker: Worker, events: list[Any]) -> None:
        """What the poller gave; called by the leader."""

    def listen(self, begin: Begin, one_answer: Container[str], hang_up: Callable[[str], None]) -> int:
        """Take the address; the port. Calls come from ``start`` on.

        Args:
            begin: told of each call.
            one_answer: paths of which a call has one answer or an error; an engine may be quicker for it.
            hang_up: ends the connection of a peer, for an engine that cannot end a call otherwise. Any thread.

        Raises:
            ConfigError: it cannot be had.
        """

    def start(self) -> None:
        """Take calls. The pool runs."""

    def drain(self) -> None:
        """Take no connections any more, and tell those there are to go."""

    def stop(self, deadline: float) -> None:
        """End what is left, and wait until ``deadline``, by ``time.monotonic``, for it to have ended. The pool runs."""

    def close(self) -> None:
        """Give everything back; the pool has ended."""
