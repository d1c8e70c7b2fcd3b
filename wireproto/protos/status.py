"""A failed call as ``google.rpc.Status``, which is how gRPC's stock clients read more than a code and a sentence.

The reason and the retry advice travel in ``google.rpc.ErrorInfo``, how long to wait in ``google.rpc.RetryInfo`` as
well: some clients obey it by themselves. Needs the package googleapis-common-protos, which the extra ``grpc`` brings.
"""

from google.protobuf.message import DecodeError as BrokenMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from wireproto.errors import CallError, PackedDetails
from wireproto.status import Retry, Status
from wireproto.wire.frame import U32_MAX, read_reason

__all__ = ["DOMAIN", "MAX_MESSAGE", "BrokenMessage", "from_rpc_status", "to_rpc_status"]

_TYPE_URL = "type.googleapis.com/"
_GOOGLE = "google."
DOMAIN = "wireproto"
"""``ErrorInfo.domain``: whose reasons these are."""

MAX_MESSAGE = 1024
"""Bytes of UTF-8 of a message; longer ones are cut. It travels twice, once with three characters for most bytes, and
clients take no more than 8 KiB of trailers."""


def to_rpc_status(error: CallError, packed: PackedDetails | None = None, most: int = MAX_MESSAGE) -> RpcStatus:
    """``error`` as stock clients read it. Never fails: what cannot be said is cut or left out.

    Args:
        error: of the call.
        packed: its details, in protobuf; None to leave them out.
        most: bytes of the message.
    """
    text = error.message.encode("utf-8", "backslashreplace")[:most].decode("utf-8", "ignore")
    made = RpcStatus(code=int(error.status), message=text)
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata["retry"] = error.retry.name
    if error.retry_after_ms > 0:
        after = min(error.retry_after_ms, U32_MAX)
        info.metadata["retry_after_ms"] = str(after)
        made.details.add().Pack(info)
        advice = RetryInfo()
        advice.retry_delay.FromMilliseconds(after)
        made.details.add().Pack(advice)
    else:
        made.details.add().Pack(info)
    if packed is not None:
        made.details.add(type_url=_TYPE_URL + packed.name, value=packed.payload)
    return made


def from_rpc_status(received: RpcStatus) -> CallError:
    """The error that ``to_rpc_status`` was given, but for a message that was cut.

    What others than this package have made is read as far as it can be, by the rules of an ERROR: a code that is none
    of the seventeen is UNKNOWN, an unknown advice NEVER, and a reason outside its alphabet stands in the message alone.
    An ``ErrorInfo`` of another domain gives its reason and no retry advice. The first detail of a type that is not
    Google's is kept as ``packed_details``.
    """
    status = Status(received.code) if received.code in _ERRORS else Status.UNKNOWN
    reason, message, retry, after = "", received.message, Retry.NEVER, 0
    packed: PackedDetails | None = None
    for detail in received.details:
        info, advice = ErrorInfo(), RetryInfo()
        # A detail of a type that is not known here, or whose bytes are broken, says nothing.
        try:
            if detail.Unpack(info):
                reason, message = read_reason(info.reason.encode(), received.message)
                if info.domain == DOMAIN:
                    retry = Retry.__members__.get(info.metadata.get("retry", ""), Retry.NEVER)
                    after = _milliseconds(info.metadata.get("retry_after_ms", "")) or after
            elif detail.Unpack(advice):
                after = after or max(0, min(advice.retry_delay.ToMilliseconds(), U32_MAX))
            elif packed is None and not (name := detail.TypeName()).startswith(_GOOGLE) and name:
                packed = PackedDetails(name, detail.value)
        except (BrokenMessage, ValueError):
            continue
    error = CallError(status, reason, message, retry=retry, retry_after_ms=after)
    if packed is not None:
        error.packed_details = packed
    return error


_ERRORS = frozenset(int(status) for status in Status) - {Status.OK}


def _milliseconds(text: str) -> int:
    return min(int(text), U32_MAX) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
