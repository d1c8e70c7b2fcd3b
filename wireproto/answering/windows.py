"""How much the calls of one connection may send ahead of what their handlers have taken."""

from wireproto.limits import Limits
from wireproto.wire.frame import Credit

__all__ = ["Windows"]


class Windows:
    """Gives each call whose items follow a window, as long as all of them together stay within ``max_held``.

    Every call has its first credit, because that was told in the handshake. It has a whole window once it is admitted,
    unless there are too many bytes in windows by then; such a call goes on with its first credit. So no call waits for
    another one, and one connection holds at most ``max_held`` or the first credit of ``max_calls`` calls, whichever is
    more, and one frame for each call. Not thread-safe: its session holds a lock.
    """

    __slots__ = ("_first", "_held", "_most", "_of", "_whole")

    def __init__(self, limits: Limits) -> None:
        self._first = Credit(limits.first_items, limits.first_bytes)
        self._whole = Credit(limits.window_items, limits.window_bytes)
        self._most = limits.max_held
        self._held = 0
        self._of: dict[int, Credit] = {}

    def begin(self, call_id: int) -> None:
        """A call begins, with its first credit."""
        self._of[call_id] = self._first
        self._held += self._first.bytes

    def admit(self, call_id: int) -> Credit | None:
        """The call may run: what it may send beyond its first credit, if anything."""
        more = Credit(self._whole.items - self._first.items, self._whole.bytes - self._first.bytes)
        if call_id not in self._of or not any(more) or self._held + more.bytes > self._most:
            return None
        self._of[call_id] = self._whole
        self._held += more.bytes
        return more

    def is_due(self, call_id: int, items: int, size: int) -> bool:
        """Whether so much that was taken is to be returned: half of the window, in items or in bytes.

        Item by item it would be as right for the call. But a call that ends then leaves one frame for each item behind.
        """
        window = self._of.get(call_id)
        return window is not None and (items * 2 >= window.items or size * 2 >= window.bytes)

    def over(self, call_id: int) -> None:
        """The call is over."""
        window = self._of.pop(call_id, None)
        if window is not None:
            self._held -= window.bytes
