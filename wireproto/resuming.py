"""Where a stream goes on: what a server looks at before the handler of a stream method runs, and says when it cannot.

A position is what a stranger wrote. It is judged like a payload, behind who calls and what the request says, so that
whoever may not begin a stream may not go on with one, either.
"""

from collections.abc import Callable
from typing import Any

from wireproto.errors import CallError, DecodeError
from wireproto.reasons import failure
from wireproto.schema import Message, Positions, StreamMethod

__all__ = ["position_lost", "resuming"]


def position_lost(message: str = "") -> CallError:
    """The error for a caller that asks to go on behind a position where the server cannot.

    Args:
        message: for people; "" for one that says what to do.
    """
    return failure("POSITION_LOST", message or "the stream cannot go on behind this position; begin it without one")


def resuming(
    method: StreamMethod[Any, Any], handler: Callable[..., Any], encode: Callable[[Message], bytes]
) -> tuple[Callable[..., Any], Callable[[Message], bytes]]:
    """The handler and the encoder of a stream method, with what has to be looked at before each.

    They take the place of the plain ones where the method is compiled, so that no other method pays for them.

    Returns:
        A handler that raises POSITION_LOST for a position that is none of the method's, and of a method that is
        resumable an encoder that raises EncodeError for an item that nobody could go on behind.
    """
    if method.resumable is None:

        def anew(request: Message, context: Any) -> Any:
            if context.metadata.resume_after:
                raise position_lost(f"the items of {method.name} have no positions; begin the stream without one")
            return handler(request, context)

        return anew, encode

    positions = Positions(method.response, method.resumable)

    def behind(request: Message, context: Any) -> Any:
        written = context.metadata.resume_after
        if written:
            try:
                positions.read(written)
            except DecodeError as error:
                raise position_lost(f"{error}; begin the stream without one") from None
        return handler(request, context)

    def encode_positioned(item: Message) -> bytes:
        payload = encode(item)
        positions.of(item)
        return payload

    return behind, encode_positioned
