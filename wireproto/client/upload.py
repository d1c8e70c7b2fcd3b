"""An upload: many items out, one response back, all on the thread of the caller."""

from collections.abc import Callable
from typing import TypeVar

from wireproto.binding import Binding
from wireproto.client.calls import AnswerPacked, UploadCall
from wireproto.client.face import Answered
from wireproto.client.guard import inside
from wireproto.client.line import repeatable
from wireproto.client.link import Link
from wireproto.client.source import Source
from wireproto.schema import Message
from wireproto.wire.packing import Payload

__all__ = ["upload"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


def upload(
    begin: Callable[[], tuple[Link, Binding[Req, Resp], UploadCall]], source: Source[Req], deadline: float | None
) -> Answered[Resp]:
    """Make the call, again if the server certainly did not look at it and the items can be had again.

    Args:
        begin: sends the REQUEST, each time on a link that takes calls.
        source: of the items. Asking for one runs the caller's code, so only what lies between is marked as inside.
        deadline: point in time by ``time.monotonic``; None for none.

    Returns:
        The response, and what was said beside it.

    Raises:
        CallError, EncodeError, DecodeError, LocalProtocolError: see ``Client.upload``.
    """
    repeated = 0
    while True:
        link, binding, call = begin()
        try:
            _send(link, call, source, binding.encode, deadline)
        except BaseException:
            inside(link.cancel)(call)
            raise
        error = call.error
        if error is None:
            return Answered(binding.decode(call.payload), call.beside.metadata)
        if isinstance(error, AnswerPacked):
            return Answered(error.decode(binding.decode), call.beside.metadata)
        if not repeatable(error, repeated) or not source.begin_again():
            raise error
        repeated += 1


def _send(
    link: Link, call: UploadCall, source: Source[Req], encode: Callable[[Req], Payload], deadline: float | None
) -> None:
    """Send the items as the server takes them, until the call is over."""
    wait, send = inside(link.wait_to_send), inside(link.send_items)
    while not source.ended:
        room = wait(call, deadline)
        if not room.items:
            return
        payloads = source.pull(room, encode)
        send(call, payloads, source.ended)
    inside(link.wait_for_answer)(call, deadline)
