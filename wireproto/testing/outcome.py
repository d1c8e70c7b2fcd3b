"""What came of one call: its answers, how it ended, and what of that must be the same through every door."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wireproto.client import BlockingClient
from wireproto.client.face import Answered
from wireproto.errors import CallError
from wireproto.schema import Shape
from wireproto.testing.examples import Unanswered
from wireproto.testing.overheard import Heard
from wireproto.testing.standin import PATIENCE

__all__ = ["Outcome", "ended_in_time", "outcome_of", "told"]

ENOUGH = 5
"""Items taken of a stream of the service's own, which may have no end."""

LONGER = 50
"""How many times as long as for a stream is waited for an item of a duplex call. If one was left whose handler still
takes items, what it does to a state would be up to the clock."""


@dataclass
class Outcome:
    """How a call ended.

    Attributes:
        answers: the response, or items.
        error: what ended it; None for an answer, for the end of a stream, and for one that was left.
        ended: whether it ended by itself.
        said: what an answer, or the end of a stream, said beside itself; an error has its own.
    """

    answers: list[Any]
    error: CallError | None
    ended: bool
    said: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.error) if self.error is not None else f"answers {self.answers!r}"


def outcome_of(
    client: BlockingClient,
    method: Any,
    request: Any,
    *,
    heard: Heard,
    timeout: float | None = None,
    within: float | None = None,
    quiet: float | None = None,
) -> Outcome:
    """One call of any shape, with all that may come of it. What has items to give is left after a few.

    Args:
        request: where items follow, all of them.
        heard: of the servers, where the outcome of a one-way call is to be had.
        timeout: what the caller allows; None for what the method declares.
        within: seconds in which there must be an answer, or an item; None for ``PATIENCE``.
        quiet: seconds without an item after which a stream is left before that, and a duplex call after many times as
            many: its handler is given the items first.

    Raises:
        Unanswered: there was neither an answer nor an error in time.
    """
    longer = "" if within is None else "; give a method that takes longer more `patience`"
    within = PATIENCE if within is None else within
    answers: list[Any] = []
    try:
        if method.shape is Shape.ONE_WAY:
            return _posted(client, method, request, timeout, within, heard)
        if method.shape is Shape.UPLOAD:
            answered = _uploaded(client, method, request, timeout, within)
            return Outcome([answered.message], None, True, answered.metadata)
        if method.shape is Shape.UNARY:
            future: Any = client.start(method, request, timeout=timeout)
            try:
                answers.append(future.result(within))
            except TimeoutError:
                future.cancel()
                raise
            return Outcome(answers, None, True, future.metadata)
        begin: Any = client.duplex if method.items_follow else client.stream
        patience = within if quiet is None else min(within, quiet * LONGER) if method.items_follow else quiet
        with begin(method, request, timeout=timeout) as stream:
            while len(answers) < ENOUGH:
                try:
                    answers.append(stream.next(patience))
                except StopIteration:
                    return Outcome(answers, None, True, stream.metadata)
    except CallError as error:
        return Outcome(answers, error, True)
    except TimeoutError:
        if quiet is None or not method.items_come_back:
            raise Unanswered(
                f"{method.name}({request!r}) was not answered within {within:g} s: version {client.version}, "
                f"through {client.codec}{longer}"
            ) from None
    return Outcome(answers, None, False)


def _posted(
    client: BlockingClient, method: Any, request: Any, timeout: float | None, within: float, heard: Heard
) -> Outcome:
    """A one-way call: its caller is told nothing, so what became of it is overheard.

    Raises:
        CallError: it was refused.
        TimeoutError: its handler did not return in time.
    """
    heard.forget()
    try:
        client.post(method, request, timeout=timeout)
    except CallError as error:
        if error.reason != "NO_HANDLER":
            raise
        # Over gRPC that is told, and otherwise nothing.
    if method.opcode not in heard.opcodes:
        client.ping(within)  # the server has seen it, and goes on
        return Outcome([], None, True)
    return Outcome([], heard.one_way(within), True)


def _uploaded(client: BlockingClient, method: Any, items: Any, timeout: float | None, within: float) -> Answered[Any]:
    """The answer to an upload. Nobody but its own deadline can end one whose caller waits for the answer.

    Raises:
        CallError: it was refused, or its own deadline has passed.
        TimeoutError: it was not answered in time.
    """
    allowed = method.timeout if timeout is None else timeout
    if allowed is not None and allowed <= within:
        return client.upload_with_metadata(method, items, timeout=timeout)
    began = time.monotonic()
    try:
        return client.upload_with_metadata(method, items, timeout=within)
    except CallError as error:
        if error.reason == "DEADLINE" and time.monotonic() - began >= within:
            raise TimeoutError from None
        raise


@contextlib.contextmanager
def ended_in_time(client: BlockingClient, what: str) -> Iterator[None]:
    """Close a client whose user calls it without a deadline, when that takes longer than ``PATIENCE``.

    Args:
        what: the user does; a failure names it.

    Raises:
        Unanswered: it took longer, and what it waited for has failed.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        client.close()

    alarm = threading.Timer(PATIENCE, end)
    alarm.start()
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise Unanswered(f"{what} was not done within {PATIENCE:g} s: {error}") from error
        raise
    finally:
        alarm.cancel()
        alarm.join()


def told(error: CallError | None) -> tuple[object, ...]:
    """What of an error must be the same through every door. Texts may name a size or a time."""
    return () if error is None else (error.status, error.reason, error.retry)
