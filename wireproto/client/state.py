"""What state a client's way to its server is in, and who is told when it changes."""

import enum
import threading
from collections.abc import Callable
from functools import partial

from wireproto.client.keeper import Keeper

__all__ = ["ClientState", "Listeners", "StateListener"]


class ClientState(enum.Enum):
    """What a call meets that is made now."""

    IDLE = "idle"
    """There is no connection. The next call opens one."""
    CONNECTING = "connecting"
    """A connection is being opened. Calls wait for the outcome."""
    READY = "ready"
    """There is a connection that takes calls."""
    BACKING_OFF = "backing off"
    """The last attempt failed, and the next one has not begun. Until the pause is over, calls fail at once or wait."""
    CLOSED = "closed"
    """``close`` was called. Nothing can be called any more."""


StateListener = Callable[[ClientState], None]


class Listeners:
    """Those who are told of each change, in the order of the changes, on the keeper's thread. Thread-safe.

    Args:
        keeper: whose thread runs them.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._listeners: list[StateListener] = []
        self._told: ClientState | None = None

    def add(self, listener: StateListener, state: ClientState) -> Callable[[], None]:
        """Tell ``listener`` the present state and each that follows. Returns what takes the listener out."""

        def remove() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        with self._lock:
            self._listeners.append(listener)
            self._told = state
            self._keeper.run(partial(listener, state))
        return remove

    def tell(self, state: Callable[[], ClientState]) -> None:
        """Something has changed: look at the state, and tell it if it is another than the one told last."""
        if not self._listeners:
            return
        with self._lock:
            now = state()
            if now is not self._told:
                self._told = now
                for listener in self._listeners:
                    self._keeper.run(partial(listener, now))
