"""The items of a call on the client's side of a pair, on their way to the server's."""

from collections.abc import Callable, Iterable
from typing import Any

from wireproto.wire.connection import Connection

__all__ = ["Outgoing"]


class Outgoing:
    """The items of a call on the client's side: sent as far as the credit goes, with one held for which there is none.

    So the end of the items is seen, and told, without credit for another one.
    """

    def __init__(self, client: Connection, call_id: int, encode: Callable[[Any], bytes], items: Iterable[Any]) -> None:
        self.complete = False
        self._client = client
        self._call_id = call_id
        self._encode = encode
        self._items = iter(items)
        self._held: bytes | None = None

    def send(self, most: int) -> bool:
        """Send up to ``most`` items, or that there are no more; whether anything was sent."""
        client = self._client
        for sent in range(most):
            if self._held is None:
                try:
                    self._held = self._encode(next(self._items))
                except StopIteration:
                    self.complete = True
                    client.send_end(self._call_id)
                    return True
            if not client.may_send_item(self._call_id):
                return sent > 0
            client.send_item(self._call_id, self._held)
            self._held = None
        return True
