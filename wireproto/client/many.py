"""Many calls of one method, pipelined: responses in the order of the requests."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Self, TypeVar

from wireproto.client.calls import AnswerPacked, PreparedCall
from wireproto.client.face import Answered, deadline_after
from wireproto.client.guard import inside, refuse_interrupter
from wireproto.client.line import Line, repeatable
from wireproto.client.link import Link
from wireproto.errors import WireprotoError
from wireproto.schema import Message, Method
from wireproto.uncopied import Uncopied
from wireproto.wire.answers import NOTHING_BESIDE

__all__ = ["Responses"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

_SLICE_BYTES = 256 * 1024
"""A slice of requests ends once it has this many bytes: all of it is encoded before the first byte is sent."""


class _OrderedCall(PreparedCall, Generic[Req]):
    """One request of the window, until its response is handed out.

    Attributes:
        message: kept because it may have to be sent again, on a connection that speaks another version.
        link: where it was sent; None while it was not.
        decode: what reads its response, as that link speaks.
        deadline: of its own, counted from when it was sent.
        failure: what is raised in its place, because it never became a call.
    """

    link: Link | None = None
    decode: Callable[[bytes], Any] | None = None
    deadline: float | None = None
    failure: Exception | None = None

    def __init__(self, message: Req | None) -> None:
        self.message = message


class Responses(Uncopied, Generic[Req, Resp]):
    """The iterator of ``Client.call_many``. One thread at a time.

    The window holds the requests that were read and whose response was not handed out: at most as many as the server
    takes at a time. Requests are read, encoded and sent in slices, and only when a response is wanted that is not
    there yet, so that nothing is written without somebody reading.

    Args:
        line: where to send.
        method: of all the calls.
        requests: read lazily.
        timeout: seconds, for each call by itself; None for none.
        wait: as for ``Line.link``.
        metadata: makes the block of metadata of calls that are sent now.
        repeat: makes a single call, for one that the server certainly did not look at.
    """

    def __init__(
        self,
        line: Line,
        method: Method[Req, Resp],
        requests: Iterable[Req],
        timeout: float | None,
        wait: bool,
        metadata: Callable[[], bytes],
        repeat: Callable[[Req], Answered[Resp]],
    ) -> None:
        self._line = line
        self._method = method
        self._source = iter(requests)
        self._timeout = timeout
        self._patient = wait
        self._metadata = metadata
        self._repeat = repeat
        self._exhausted = False
        self._window: deque[_OrderedCall[Req]] = deque()
        self._unsent: deque[_OrderedCall[Req]] = deque()  # the last ones of the window, encoded for ``_link``
        self._link: Link | None = None
        self._beside: Mapping[str, str] = NOTHING_BESIDE.metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the answer said beside itself whose response was handed out last, by name; empty for nothing."""
        return self._beside

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Resp:
        refuse_interrupter()  # before anything is changed, for this may be the iterator that was interrupted
        window = self._window
        try:
            while not (window and window[0].done):
                self._fill()
                if not window:
                    raise StopIteration
                if not window[0].done:
                    self._wait(window[0])
            return self._open(window.popleft())
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    @inside
    def close(self) -> None:
        """Give up what is in flight; nothing more comes."""
        self._exhausted = True
        self._unsent.clear()
        entries = list(self._window)
        self._window.clear()
        for link in {entry.link for entry in entries if entry.link is not None}:
            link.cancel_all([entry for entry in entries if entry.link is link])

    def __del__(self) -> None:
        # Finalizers may run anywhere, so this one takes no lock.
        for entry in getattr(self, "_window", ()):
            if entry.link is not None and not entry.done:
                entry.link.abandon(entry)

    def _open(self, entry: _OrderedCall[Req]) -> Resp:
        """The response, or what is raised in its place."""
        if entry.failure is not None:
            raise entry.failure
        if entry.error is None:
            assert entry.decode is not None
            self._beside = entry.beside.metadata
            response: Resp = entry.decode(entry.payload)
            return response
        if isinstance(entry.error, AnswerPacked):
            assert entry.decode is not None
            self._beside = entry.beside.metadata
            unpacked: Resp = entry.error.decode(entry.decode)
            return unpacked
        if entry.message is not None and repeatable(entry.error, 0):
            answer, self._beside = self._repeat(entry.message)
            return answer
        raise entry.error

    @inside
    def _wait(self, head: _OrderedCall[Req]) -> None:
        """Wait for the first entry; something may have happened to it on return."""
        if head.link is None:
            # Encoded, and it found no place although nothing else of ours is in flight: stand in line for one.
            assert self._link is not None
            self._unsent.popleft()
            self._sent([head], self._link)
            self._link.begin(head, head.opcode, head.request, head.metadata, head.deadline)
            return
        head.link.wait(head, head.deadline)
        if not head.done:
            head.link.expire(head)

    def _fill(self) -> None:
        """Read a slice, and send what there are places for."""
        if self._exhausted and not self._unsent:
            return
        try:
            link = self._usable_link()
            # A quarter of the window at least: one send for each response would cost as much as calls one by one.
            room = link.most_calls - len(self._window)
            if room >= max(1, link.most_calls // 4):
                self._read(link, room)
            self._sent(self._begin_some(link), link)
        except WireprotoError as failure:
            # No connection, no such method in its version, a request too large: for the first one that is not sent.
            self._fail(failure)

    @inside
    def _begin_some(self, link: Link) -> list[_OrderedCall[Req]]:
        return link.begin_some(self._unsent)

    @inside
    def _usable_link(self) -> Link:
        link = self._link
        if link is None or not link.usable:
            link = self._link = self._line.link(deadline_after(self._timeout), self._patient)
            binding = link.dialect.bind(self._method)
            for entry in self._unsent:
                if entry.message is not None:
                    entry.request = binding.encode(entry.message)
        return link

    def _read(self, link: Link, room: int) -> None:
        """Read and encode at most ``room`` requests."""
        binding = link.dialect.bind(self._method)
        metadata = self._metadata()
        size = 0
        while room and size < _SLICE_BYTES and not self._exhausted:
            try:
                message = next(self._source)
                request = binding.encode(message)
            except StopIteration:
                self._exhausted = True
                return
            except Exception as failure:  # noqa: BLE001 - whatever the caller's iterator raises is raised in its place
                self._exhausted = True
                self._window.append(_failed(failure))
                return
            entry = _OrderedCall(message)
            entry.opcode = binding.opcode
            entry.request = request
            entry.metadata = metadata
            self._window.append(entry)
            self._unsent.append(entry)
            size += len(request)
            room -= 1

    def _sent(self, entries: list[_OrderedCall[Req]], link: Link) -> None:
        deadline = deadline_after(self._timeout)
        decode = link.dialect.bind(self._method).decode if entries else None
        for entry in entries:
            entry.link = link
            entry.decode = decode
            entry.deadline = deadline

    def _fail(self, failure: Exception) -> None:
        """Have the first request that was not sent raise; what is in flight before it is still handed out."""
        self._exhausted = True
        if self._unsent:
            entry = self._unsent[0]
            entry.failure = failure
            entry.done = True
            self._unsent.clear()
        else:
            self._window.append(_failed(failure))


def _failed(failure: Exception) -> _OrderedCall[Req]:
    entry: _OrderedCall[Req] = _OrderedCall(None)
    entry.failure = failure
    entry.done = True
    return entry
