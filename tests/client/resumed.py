"""A service of resumable streams, one for each type of position, and what is behind them: a log that grows."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from wireproto import Context, Handlers, Message, Service, StreamMethod, Subscription, UInt64


class LogRequest(Message):
    upto: int
    """The stream ends behind this number; 0 for never."""


class Numbered(Message):
    cursor: int
    text: str = ""


class Counted(Message):
    cursor: UInt64


class Named(Message):
    text: str
    cursor: str


class Marked(Message):
    cursor: bytes


NUMBERED = StreamMethod(opcode=1, name="ReadNumbered", request=LogRequest, response=Numbered, resumable="cursor")
COUNTED = StreamMethod(opcode=2, name="ReadCounted", request=LogRequest, response=Counted, resumable="cursor")
NAMED = StreamMethod(opcode=3, name="ReadNamed", request=LogRequest, response=Named, resumable="cursor")
MARKED = StreamMethod(opcode=4, name="ReadMarked", request=LogRequest, response=Marked, resumable="cursor")
PLAIN = StreamMethod(opcode=5, name="ReadPlain", request=LogRequest, response=Numbered)
LOGS = Service("test.v1.LogService", methods=[NUMBERED, COUNTED, NAMED, MARKED, PLAIN])

UPPER = 2**64 - 1

ITEMS: dict[StreamMethod[LogRequest, Any], Callable[[int], Any]] = {
    NUMBERED: lambda n: Numbered(cursor=n - 3),
    COUNTED: lambda n: Counted(cursor=UPPER - n),
    NAMED: lambda n: Named(text=f"|{n}", cursor=f"é|\0{n}"),
    MARKED: lambda n: Marked(cursor=bytes([255, 0, n])),
}
"""The item of each number, for each method. Its positions ascend, descend, or are no numbers at all."""


class Log:
    """Items 1 to ``end``, of which those up to ``forgotten`` are not kept; it may grow.

    Attributes:
        begun: the ``resume_after`` of each call, in order.
    """

    def __init__(self, end: int, *, forgotten: int = 0) -> None:
        self.end = end
        self.forgotten = forgotten
        self.begun: list[object] = []
        self._readers: list[_Reader] = []
        self._lock = threading.Lock()

    def grow(self, end: int) -> None:
        with self._lock:
            self.end = end
            readers = tuple(self._readers)
        for each in readers:
            each.wake()

    def forget(self, upto: int) -> None:
        """As a server that was restarted: items up to this one are gone, and the streams of before get nothing more."""
        with self._lock:
            self.forgotten = upto
            self._readers.clear()

    def read(self, method: StreamMethod[LogRequest, Any], request: LogRequest, context: Context) -> "_Reader":
        after = context.resume_after
        item = ITEMS[method]
        with self._lock:
            self.begun.append(after)
            at = self.forgotten
            if after is not None:
                known = [n for n in range(self.forgotten, self.end + 1) if item(n).cursor == after]
                if not known:
                    context.position_lost()
                (at,) = known
            reader = _Reader(self, item, at, request.upto)
            self._readers.append(reader)
        return reader

    def handlers(self) -> Handlers:
        handlers = Handlers(LOGS)
        for method in ITEMS:
            handlers.register(method)(partial(self.read, method))

        @handlers.register(PLAIN)
        def plain(request: LogRequest, context: Context) -> Iterator[Numbered]:
            assert context.resume_after is None
            return (Numbered(cursor=n) for n in range(1, request.upto + 1))

        return handlers


class _Reader(Subscription[Any]):
    def __init__(self, log: Log, item: Callable[[int], Any], at: int, upto: int) -> None:
        self._log = log
        self._item = item
        self._at = at
        self._upto = upto

    def take(self, n: int) -> Sequence[Any]:
        end = min(self._log.end, self._upto or self._log.end)
        if self._upto and self._at >= self._upto:
            raise StopIteration
        taken = range(self._at + 1, min(end, self._at + n) + 1)
        self._at += len(taken)
        return [self._item(each) for each in taken]
