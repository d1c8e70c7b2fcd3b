"""What becomes of calls where nobody tells their caller: of one-way calls, and of those that were left."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Entry, Handlers, Outcome, Table
from wireproto.errors import CallError
from wireproto.handling import Context, Subscription
from wireproto.limits import Limits
from wireproto.schema import Shape
from wireproto.schema.services import By
from wireproto.wire.packing import Payload

__all__ = ["Heard", "Overheard"]


class Heard:
    """What was overheard, of any number of servers. Any thread.

    Attributes:
        opcodes: of the methods that are served.
        incidents: what handlers raised that they may not raise, and wrong answers, in order.
    """

    def __init__(self) -> None:
        self.opcodes: set[int] = set()
        self.incidents: list[BaseException] = []
        self._news = threading.Condition()
        self._one_way: deque[CallError | None] = deque()
        self._running = 0

    def forget(self) -> None:
        """Begin anew with the one-way calls and the incidents."""
        with self._news:
            self._one_way.clear()
            self.incidents.clear()

    def one_way(self, within: float) -> CallError | None:
        """What the next one-way call failed with, once it is over; None when it did not fail.

        Raises:
            TimeoutError: it is not over ``within`` seconds from now.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._one_way, within):
                raise TimeoutError
            return self._one_way.popleft()

    def idle(self, within: float) -> bool:
        """Whether no handler iterates, or is iterated over; waits up to ``within`` seconds for it."""
        with self._news:
            return self._news.wait_for(lambda: not self._running, within)

    def one_way_over(self, outcome: Outcome) -> None:
        with self._news:
            self._one_way.append(outcome if isinstance(outcome, CallError) else None)
            self._news.notify_all()

    def incident(self, error: BaseException) -> None:
        with self._news:
            self.incidents.append(error)

    def began(self) -> None:
        with self._news:
            self._running += 1

    def ended(self) -> None:
        with self._news:
            self._running -= 1
            self._news.notify_all()


class Overheard(Handlers):
    """The same functions as other handlers have, with what becomes of their calls told to ``heard``, too."""

    def __init__(self, handlers: Handlers, heard: Heard) -> None:
        super().__init__(handlers.service)
        self._handlers = dict(handlers._handlers)  # noqa: SLF001 - it is the same class
        self._sinks = set(handlers._sinks)  # noqa: SLF001
        self._heard = heard

    def table(
        self,
        codec: Codec,
        version: int,
        limits: Limits,
        authenticate: Authenticate | None = None,
        *,
        by: By = "client",
        packing: int = 0,
    ) -> Table:
        """See ``Handlers.table``."""
        table = super().table(codec, version, limits, authenticate, by=by, packing=packing)
        self._heard.opcodes.update(table.entries)
        entries = {opcode: _OverheardEntry(entry, self._heard) for opcode, entry in table.entries.items()}
        return Table(self.service, table.version, entries, "server" if by == "client" else "client")


class _OverheardEntry(Entry):
    """The same as another entry is."""

    __slots__ = ("_heard",)

    def __init__(self, entry: Entry, heard: Heard) -> None:
        for name in Entry.__slots__:
            setattr(self, name, getattr(entry, name))
        self._heard = heard

    def run(self, payload: Payload, context: Context) -> Outcome:
        outcome = super().run(payload, context)
        if self.shape is Shape.ONE_WAY:
            self._heard.one_way_over(outcome)
        return outcome

    def run_items(self, items: Iterator[Any], context: Context) -> Outcome:
        self._heard.began()
        try:
            return super().run_items(items, context)
        finally:
            self._heard.ended()

    def incident(self, error: BaseException) -> CallError:
        self._heard.incident(error)
        return super().incident(error)

    def _source(self, answer: object) -> "CallError | Subscription[Any] | Iterator[Any]":
        source = super()._source(answer)
        return _Overheard(source, self._heard) if isinstance(source, Generator) else source


class _Overheard(Generator[Any, None, None]):
    """A generator that is a handler, which runs from its first item to its end."""

    def __init__(self, source: Generator[Any, Any, Any], heard: Heard) -> None:
        self._source = source
        self._heard = heard
        self._runs = self._over = False

    def send(self, value: None) -> Any:
        """As of a generator."""
        if not self._runs and not self._over:
            self._runs = True
            self._heard.began()
        try:
            return next(self._source)
        except BaseException:
            self._end()
            raise

    def throw(self, *error: Any) -> Any:
        """As of a generator; its end is by ``close``, or by what it raises itself."""
        return self._source.throw(*error)

    def close(self) -> None:
        """As of a generator."""
        try:
            self._source.close()
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        if self._runs:
            self._runs = False
            self._heard.ended()
