"""A connection that outlives its losses: it is opened again, signed in again by token, and calls are repeated.

``wireproto.client.Client`` opens a lost connection again with the next call, but the new one is nobody's. Here whoever
sees the loss first, a command or the thread that receives, gets the connection back for all of them: with back-off and
jitter, in at most 10 tries or 2 minutes. A call is sent a second time only where that is safe: it was not processed, or
its caller says that a repetition does no harm (it only reads, or carries an idempotency key).
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from wireproto import (
    Backoff,
    CallError,
    CodecError,
    ConnectionLost,
    HandshakeError,
    LocalProtocolError,
    Metadata,
    Retry,
    Status,
)
from wireproto.schema import Message, Method, StreamMethod
from wireproto_chat.opcodes import LOG_IN, LogInRequest

__all__ = ["PATIENCE", "TRIES", "ChatClient", "Gone", "Lasting", "Messages", "SessionEnded", "Tries", "is_lost"]

TRIES = 10
"""How often at most a connection is tried again, or a call without a certain answer repeated."""

PATIENCE = 120.0
"""Seconds that this may take in all."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds: the pause before a try is a random part of a ceiling that doubles from the one to the other. The first try
has a pause, too: after a restart everybody comes back."""

STEADY = 30.0
"""Seconds after which a connection that was got back is taken to hold; one lost sooner goes on with its tries."""

PING = 10.0
"""Seconds within which a server that is there answers."""

_PASSING = frozenset({"STORE_FAILED", "SERVER_BUSY"})  # reasons that pass, with the connection there all the while

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message, covariant=True)


class Messages(Protocol[Item]):
    """What is needed of ``wireproto.client.Stream``."""

    def next(self, timeout: float | None = None) -> Item: ...


class ChatClient(Protocol):
    """What is needed of ``wireproto.client.Client``."""

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp: ...

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = ..., batch: int = ...
    ) -> Messages[Resp]: ...

    def ping(self, timeout: float | None = None) -> float: ...

    def close(self, *, drain: float = 0.0) -> None: ...


class Gone(Exception):
    """The server did not come back in time, or nobody wants it back any more.

    Attributes:
        error: why it was not there the last time.
    """

    def __init__(self, error: CallError) -> None:
        super().__init__(error)
        self.error = error


class SessionEnded(Exception):
    """The connection is back, but the token is not good any more: nobody is signed in."""


def is_lost(error: BaseException | None) -> bool:
    """Whether ``error`` means that there is no connection any more, or will not be in a moment."""
    if isinstance(error, ConnectionLost | HandshakeError):
        return True
    return isinstance(error, CallError) and error.reason == "SHUTTING_DOWN"


class Tries:
    """How often something was tried in vain of late, and how long to wait before the next try. Not thread-safe.

    Args:
        chance: a function of random numbers from 0 to 1.

    Attributes:
        made: tries made since the last ``reset``.
    """

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self.made = 0
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, chance=chance)

    def next(self) -> float:
        """Count one more try; the seconds to wait before it."""
        self.made += 1
        self._backoff.failed()
        return self._backoff.remaining()

    def reset(self) -> None:
        """It worked: begin anew."""
        self.made = 0
        self._backoff.reset()


class Lasting:
    """A connection, and who is signed in on it. Any thread may call any method.

    Args:
        client: the connection; it must open itself again with the next call.
        told: called with False when the connection is found lost, with True when it is back; by the thread that got it
            back, and for each loss once.
        patience: seconds that getting it back, or repeating a call, may take; 0 to do neither.
    """

    def __init__(self, client: ChatClient, told: Callable[[bool], None], *, patience: float = PATIENCE) -> None:
        self.client = client
        self._told = told
        self._patience = patience
        # Held by the one thread that gets the connection back; guards the four that follow.
        self._restoring = threading.Lock()
        self._era = 0
        self._gone: CallError | None = None
        self._tries = Tries()  # begins anew once a connection has held
        self._held_from = 0.0
        # Guards the three that follow; notified when there is less time, or none.
        self._changed = threading.Condition()
        self._limit: float | None = None  # the point in time after which nothing is tried any more
        self._user = ""
        self._token = ""

    @property
    def era(self) -> int:
        """Which connection this is; to be read before a call or stream whose loss is then reported."""
        return self._era

    @property
    def down(self) -> bool:
        """Whether the connection is lost, and somebody is getting it back."""
        return self._restoring.locked()

    def signed_in(self, user: str, token: str) -> None:
        """Sign in as ``user`` by ``token`` whenever the connection had to be opened again."""
        with self._changed:
            self._user, self._token = user, token

    def signed_out(self) -> None:
        """Forget the token."""
        self.signed_in("", "")

    def hurry(self, seconds: float) -> None:
        """Try for at most so many seconds more, now and later: somebody is about to leave."""
        with self._changed:
            limit = time.monotonic() + seconds
            self._limit = limit if self._limit is None else min(limit, self._limit)
            self._changed.notify_all()

    def close(self, *, drain: float = 0.0) -> None:
        """End the connection for good, as ``Client.close``. Nothing is got back from here on."""
        self.hurry(0)
        self.client.close(drain=drain)

    def call(
        self, method: Method[Req, Resp], request: Req, *, metadata: Metadata | None = None, repeat: bool = False
    ) -> Resp:
        """Call a method, again if need be.

        Args:
            method, request, metadata: as for ``Client.call``.
            repeat: whether the call may be sent again although the server may have processed it.

        Raises:
            Gone: there is no server any more.
            SessionEnded: the connection was lost and is back, but nobody is signed in.
            CallError: what the server answered; a loss after which the connection is back, when it is not known whether
                the call was processed, and ``repeat`` was not given.
            CodecError, LocalProtocolError: as ``Client.call``.
        """
        deadline = time.monotonic() + self._patience
        tries = Tries()
        while True:
            era = self._era
            try:
                return self.client.call(method, request, metadata=metadata)
            except CallError as error:
                pause = tries.next()
                safe = repeat or error.retry is Retry.NOT_PROCESSED
                if is_lost(error):
                    self.restore(era, error)
                elif error.reason == "SIGN_IN_REQUIRED" and self._token:
                    # The client opened another connection by itself. The call was refused, so was not processed.
                    self.restore(era, error)
                    safe = True
                elif error.retry is Retry.MAYBE_PROCESSED and repeat and self._patience:
                    self._wait(pause, error.retry_after_ms, deadline)
                else:
                    raise
                if not safe or tries.made == TRIES or time.monotonic() >= self._until(deadline):
                    raise

    def rest(self, tries: Tries, error: CallError) -> bool:
        """Wait before what the server could not do just now is asked for again; whether to ask."""
        if not self._patience or error.reason not in _PASSING or error.status is Status.DATA_LOSS:
            return False
        if tries.made == TRIES:
            return False
        return self._wait(tries.next(), error.retry_after_ms, time.monotonic() + self._patience)

    def restore(self, era: int, error: CallError) -> None:
        """Get the connection of ``era`` back, whose loss ``error`` has shown; at once if another thread has done so.

        Raises:
            Gone: it could not be had.
            SessionEnded: the token was refused, now or when another thread got the connection back.
        """
        with self._restoring:
            if self._gone is not None:
                raise Gone(self._gone)
            if self._era == era:
                self._restore_locked(error)
            elif error.reason == "SIGN_IN_REQUIRED" and not self._token:
                raise SessionEnded

    def _restore_locked(self, error: CallError) -> None:
        needs_sign_in = error.reason == "SIGN_IN_REQUIRED"
        now = time.monotonic()
        deadline = now + self._patience
        if not self._patience or now >= self._until(deadline):
            if needs_sign_in:
                raise SessionEnded
            self._gone = error
            raise Gone(error)
        if now - self._held_from > STEADY:
            self._tries.reset()
        self._told(False)
        while self._tries.made < TRIES:
            pause = self._tries.next()
            # Refused for want of a sign-in: then the connection is there already.
            hasty, needs_sign_in = needs_sign_in and self._tries.made == 1, False
            if not hasty and not self._wait(pause, error.retry_after_ms, deadline):
                break
            try:
                self._sign_in_locked()
            except CallError as caught:
                error = caught
                if isinstance(error, HandshakeError):
                    if error.retry is Retry.NEVER and error.status is not Status.RESOURCE_EXHAUSTED:
                        break  # another server stands there now, and will not change its mind
                elif error.status is Status.UNAUTHENTICATED:
                    self.signed_out()
                    self._back_locked()
                    raise SessionEnded from None
            except (CodecError, LocalProtocolError):
                break
            else:
                self._back_locked()
                return
        self._gone = error
        raise Gone(error)

    def _back_locked(self) -> None:
        self._era += 1
        self._held_from = time.monotonic()
        self._told(True)

    def _sign_in_locked(self) -> None:
        """Find out that the server is there, as whoever is signed in."""
        with self._changed:
            user, token = self._user, self._token
        if not token:
            self.client.ping(PING)
            return
        try:
            answer = self.client.call(LOG_IN, LogInRequest(username=user, token=token))
        except CallError as error:
            # Where each call carries the token, the log-in does, too.
            if error.reason != "ALREADY_SIGNED_IN":
                raise
            return
        with self._changed:
            if self._token == token:  # else somebody signed out, or in, meanwhile
                self._token = answer.token

    def _wait(self, pause: float, at_least_ms: int, deadline: float) -> bool:
        """Wait so many seconds before the next try, and as long as the server said; False when there is no time."""
        end = time.monotonic() + max(pause, at_least_ms / 1000)
        with self._changed:
            while (now := time.monotonic()) < (until := min(end, self._until(deadline))):
                self._changed.wait(until - now)
        in_time: bool = end <= self._until(deadline)
        return in_time

    def _until(self, deadline: float) -> float:
        limit = self._limit
        return deadline if limit is None else min(limit, deadline)
