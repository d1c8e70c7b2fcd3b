"""How a call ends over HTTP/2: the code, the text and the trailers, within what clients take of them."""

import functools
from collections.abc import Mapping
from typing import Final, NamedTuple

from wireproto.errors import CallError, PackedDetails
from wireproto.protos.status import MAX_MESSAGE, to_rpc_status
from wireproto.status import Retry, Status
from wireproto.wire.answers import MAX_ANSWER, pack_answer
from wireproto.wire.frame import pack_details
from wireproto.wire.metadata import as_header, header_size

__all__ = ["RpcEnd", "tell", "trailers"]

_STATUS: Final = "grpc-status-details-bin"

_MOST: Final = 8192
"""Bytes of trailers that clients of gRPC take if they are told nothing else, each header counted with 32 more."""

_FEW: Final = 64
"""Bytes of the status itself, ``grpc-status``."""

Trailers = tuple[tuple[str, str | bytes], ...]


class RpcEnd(NamedTuple):
    """How a call ends.

    Attributes:
        code: gRPC's, which is ours.
        message: for people.
        trailers: beside them.
    """

    code: int
    message: str
    trailers: Trailers


def trailers(said: Mapping[str, str]) -> Trailers:
    """What an answer says beside its messages, as headers."""
    return tuple(as_header(name, value) for name, value in said.items())


def tell(error: CallError, said: Mapping[str, str]) -> RpcEnd:
    """An error with what it says beside itself. Never fails: what does not fit is cut or left out, details first."""
    packed = error.packed_details
    if not said and packed is None:
        text = error.message[:MAX_MESSAGE]  # no more of it is sent, and what is given is kept
        return _plain(error.status, error.reason, text, error.retry, error.retry_after_ms)
    beside = trailers(said)
    size = _FEW + sum(header_size(name, value) for name, value in beside)
    if packed is not None and not _fits(packed, said):
        packed = None
    ways = ((packed, MAX_MESSAGE), (packed, MAX_MESSAGE // 4), (None, MAX_MESSAGE), (None, MAX_MESSAGE // 4))
    made = (_made(error, details, most) for details, most in ways)
    told = next((each for each in made if size + each.size <= _MOST), None) or _made(error, None, 0)
    return RpcEnd(told.code, told.message, ((_STATUS, told.status), *beside))


def _fits(packed: PackedDetails, said: Mapping[str, str]) -> bool:
    """Whether the details would go along over TCP."""
    details = pack_details(packed)
    return bool(details) and len(details) + len(pack_answer(said)) <= MAX_ANSWER


class _Made(NamedTuple):
    code: int
    message: str
    status: bytes

    @property
    def size(self) -> int:
        """Bytes of its headers. In the text most bytes that are not ASCII take three."""
        text = sum(1 if " " <= each <= "~" and each != "%" else 3 * len(each.encode()) for each in self.message)
        return header_size("grpc-message", "") + text + header_size(_STATUS, self.status)


def _made(error: CallError, details: PackedDetails | None, most: int) -> _Made:
    status = to_rpc_status(error, details, most)
    return _Made(status.code, status.message, status.SerializeToString())


@functools.lru_cache(64)
def _plain(status: Status, reason: str, message: str, retry: Retry, retry_after_ms: int) -> RpcEnd:
    """Refusals are alike, and come when there is no time to spell each out."""
    made = _made(CallError(status, reason, message, retry=retry, retry_after_ms=retry_after_ms), None, MAX_MESSAGE)
    return RpcEnd(made.code, made.message, ((_STATUS, made.status),))
