"""The items that a caller gives to be sent, asked for one by one and only when they may be sent."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from wireproto.schema import Message
from wireproto.wire.frame import Credit
from wireproto.wire.packing import Payload

__all__ = ["Source"]

Req = TypeVar("Req", bound=Message)

_WRITE = 65_536
"""Bytes of items after which no more go into the same write: all of them are encoded before the first byte is sent."""


class Source(Generic[Req]):
    """The caller's items. One thread at a time.

    Asking for one may run the caller's code, which may take its time, raise, or use a client. So it is asked for
    without any lock, outside of every method of a client, and when what came before is on its way. A list or a tuple
    has its items at hand: several of them go in one write.

    Args:
        items: any iterable.

    Attributes:
        ended: there are no more.

    Raises:
        TypeError: they cannot be iterated over.
    """

    def __init__(self, items: Iterable[Req]) -> None:
        self.ended = False
        self._items = items
        self._iterator = iter(items)
        self._at_hand = isinstance(items, list | tuple)
        self._asked = False

    def pull(self, room: Credit, encode: Callable[[Req], Payload]) -> list[Payload]:
        """The payloads of the next items, of which one at least may be sent.

        Args:
            room: how many may be, and how many bytes; the last one may go beyond those.
            encode: request to payload.

        Raises:
            EncodeError, CallError: an item cannot be sent; and whatever the caller's iterator raises.
        """
        payloads: list[Payload] = []
        items, size = room.items, min(room.bytes, _WRITE)
        self._asked = True
        while items > 0 and size > 0:
            try:
                item = next(self._iterator)
            except StopIteration:
                self.ended = True
                break
            payload = encode(item)
            payloads.append(payload)
            if not self._at_hand:
                break
            items -= 1
            size -= len(payload)
        return payloads

    def begin_again(self) -> bool:
        """Be at the first item again; False when that is not possible."""
        if self._asked and not self._at_hand:
            return False
        if self._at_hand:
            self._iterator = iter(self._items)
            self.ended = False
        return True
