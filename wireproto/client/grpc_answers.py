"""What answers over gRPC say beside their messages: trailing metadata, read by the rules of the other client."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, Self, TypeVar

from wireproto.uncopied import Uncopied
from wireproto.wire.answers import NOTHING_BESIDE, TRACEPARENT_NAME, Beside
from wireproto.wire.frame import U32_MAX
from wireproto.wire.metadata import DROPPED_HEADER, is_reserved

__all__ = ["GrpcResponses", "read_trailers"]

Req = TypeVar("Req")
Resp = TypeVar("Resp")

_BINARY: Final = "-bin"


def read_trailers(rpc: Any) -> Beside:
    """What stands beside the answer of a call that is over. What gRPC or some proxy has added is left out.

    Args:
        rpc: grpcio's object of the call, or of its error.
    """
    metadata: dict[str, str] = {}
    dropped = 0
    for name, value in rpc.trailing_metadata() or ():
        if name == DROPPED_HEADER:
            dropped = min(int(value), U32_MAX) if value.isascii() and value.isdigit() and len(value) <= 10 else 0
            continue
        if isinstance(value, bytes):
            try:
                name, value = name.removesuffix(_BINARY), value.decode()
            except UnicodeDecodeError:
                continue  # some proxy's own
        if name == TRACEPARENT_NAME or not is_reserved(name):
            metadata[name] = f"{metadata[name]}, {value}" if name in metadata else value
    return Beside(metadata, dropped) if metadata or dropped else NOTHING_BESIDE


class GrpcResponses(Uncopied, Generic[Req, Resp]):
    """The iterator of ``GrpcClient.call_many``; the face of ``Responses``.

    Args:
        start: begins a call; gives its future.
        requests: read lazily.
        most: calls in flight.
    """

    def __init__(self, start: Callable[[Req], Any], requests: Iterable[Req], most: int) -> None:
        self._start = start
        self._source: Iterator[Req] = iter(requests)
        self._most = most
        self._window: deque[Any] = deque()
        self._metadata: Mapping[str, str] = NOTHING_BESIDE.metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the answer said beside itself whose response was handed out last, by name; empty for nothing."""
        return self._metadata

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Resp:
        window = self._window
        try:
            while len(window) < self._most:
                try:
                    request = next(self._source)
                except StopIteration:
                    break
                window.append(self._start(request))
            if not window:
                raise StopIteration
            future = window.popleft()
            response: Resp = future.result()
            self._metadata = future.metadata
            return response
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up what is in flight; nothing more comes."""
        self._source = iter(())
        while self._window:
            self._window.popleft().cancel()

    def __del__(self) -> None:
        for future in getattr(self, "_window", ()):
            future.cancel()
