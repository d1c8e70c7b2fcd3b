"""What came of one call: its answers, how it ended, and what of that must be the same through every door."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wireproto.client import BlockingClient
from wireproto.errors import CallError, LocalProtocolError
from wireproto.schema import Shape
from wireproto.testing.examples import Unanswered
from wireproto.testing.standin import PATIENCE
from wireproto.testing.wire import Pair
from wireproto.wire.metadata import Metadata

__all__ = ["Outcome", "ended_in_time", "outcome_of", "paired_outcome", "told"]

ENOUGH = 5
"""Items taken of a stream of the service's own, which may have no end."""


@dataclass
class Outcome:
    """How a call ended.

    Attributes:
        answers: the response, or items.
        error: what ended it; None for an answer, for the end of a stream, and for one that was left.
        ended: whether it ended by itself.
    """

    answers: list[Any]
    error: CallError | None
    ended: bool

    def __str__(self) -> str:
        return str(self.error) if self.error is not None else f"answers {self.answers!r}"


def outcome_of(
    client: BlockingClient,
    method: Any,
    request: Any,
    *,
    timeout: float | None = None,
    within: float | None = None,
    quiet: float | None = None,
) -> Outcome:
    """One call, with all that may come of it. A stream is left after a few items.

    Args:
        timeout: what the caller allows; None for what the method declares.
        within: seconds in which there must be an answer, or an item; None for ``PATIENCE``.
        quiet: seconds without an item after which a stream is left before that.

    Raises:
        Unanswered: there was neither an answer nor an error in time.
    """
    longer = "" if within is None else "; give a method that takes longer more `patience`"
    within = PATIENCE if within is None else within
    answers: list[Any] = []
    try:
        if not method.items_come_back:
            future = client.start(method, request, timeout=timeout)
            try:
                answers.append(future.result(within))
            except TimeoutError:
                future.cancel()
                raise
            return Outcome(answers, None, True)
        with client.stream(method, request, timeout=timeout) as stream:
            while len(answers) < ENOUGH:
                answers.append(stream.next(within if quiet is None else quiet))
    except CallError as error:
        return Outcome(answers, error, True)
    except StopIteration:
        return Outcome(answers, None, True)
    except TimeoutError:
        if quiet is None or not method.items_come_back:
            raise Unanswered(
                f"{method.name}({request!r}) was not answered within {within:g} s: version {client.version}, "
                f"through {client.codec}{longer}"
            ) from None
    return Outcome(answers, None, False)


def paired_outcome(link: Pair, method: Any, request: Any, *, authorization: str = "") -> Outcome:
    """One call of any shape through a pair; what only another thread could move on is left, as a stream that pauses is.

    Args:
        request: where items follow, all of them.
        authorization: of the caller.
    """
    metadata = Metadata(authorization=authorization)
    answers: list[Any] = []
    try:
        if method.shape is Shape.ONE_WAY:
            before = len(link.untold)
            link.post(method, request, metadata=metadata)
            return Outcome([], next(iter(link.untold[before:]), None), True)
        if not method.items_come_back:
            call: Any = link.upload if method.items_follow else link.call
            return Outcome([call(method, request, metadata=metadata)], None, True)
        stream: Any = link.duplex if method.items_follow else link.stream
        with contextlib.closing(stream(method, request, metadata=metadata)) as items:
            for item in items:
                answers.append(item)
                if len(answers) == ENOUGH:
                    break
    except CallError as error:
        return Outcome(answers, error, True)
    except LocalProtocolError:
        pass  # a future is not done; what there was so far is the outcome
    return Outcome(answers, None, False)


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
