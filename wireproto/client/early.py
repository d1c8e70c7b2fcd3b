"""A call that goes together with HELLO, by whoever finds no connection: a round trip less.

It is written for what the server will choose if it is as new as this client: the newest version, the first codec. If it
chooses otherwise it does not look at the call, which is then sent as any other. Nobody knows yet who the server is, so
a credential goes along only where that is certain beforehand, which it is over verified TLS alone; there is none yet.
"""

from collections.abc import Callable
from typing import TypeVar

from wireproto.binding import Binding, Dialect
from wireproto.client.calls import AnswerPacked, EarlyCall
from wireproto.client.face import Answered
from wireproto.client.line import Line, repeatable
from wireproto.errors import CallError
from wireproto.schema import Message, Method
from wireproto.wire.frame import FIRST_FRAMEWORK_OPCODE

__all__ = ["call_early"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


def call_early(
    line: Line,
    method: Method[Req, Resp],
    request: Req,
    block: Callable[[], bytes],
    deadline: float | None,
    wait: bool,
) -> Answered[Resp] | None:
    """Open a link with a unary call in front, and wait for its answer.

    Args:
        line: opens the link.
        method, request: the call.
        block: makes the block of metadata, without a credential. The time that it tells is what is left when it is
            sent, and a connection may have been waited for until then.
        deadline, wait: as for ``Line.link``.

    Returns:
        The response, and what was said beside it. None if the call is to be sent as any other now, over the link there
        is: another thread was faster, or the server has not looked at it.

    Raises:
        CallError, EncodeError, DecodeError: as of any call.
    """
    binding = _written(line.offered, method)
    if binding is None:
        return None
    payload = binding.encode(request)
    assert type(payload) is bytes, payload  # the dialect has no algorithm
    block()  # what cannot be written is said before anybody is connected to
    call = EarlyCall(binding.opcode, payload, block)
    link = line.link(deadline, wait, call)
    if not call.call_id:
        return None
    link.wait_for_early(call, deadline)
    if call.error is None:
        return Answered(binding.decode(call.payload), call.beside.metadata)
    if isinstance(call.error, AnswerPacked):
        return Answered(call.error.decode(binding.decode), call.beside.metadata)
    if _said_before_welcome(call.error) or repeatable(call.error, 0):
        return None
    raise call.error


def _written(dialect: Dialect, method: Method[Req, Resp]) -> Binding[Req, Resp] | None:
    """How to write the call; None if the newest version lacks the method, which an older server may have, and for the
    framework's own, whose version is not that of the service.
    """
    if method.opcode >= FIRST_FRAMEWORK_OPCODE:
        return None
    try:
        return dialect.bind(method)
    except CallError:
        return None


def _said_before_welcome(error: Exception) -> bool:
    """Whether the call was refused for a number that its caller could not know before WELCOME."""
    return isinstance(error, CallError) and error.reason == "TOO_MANY_CALLS"
