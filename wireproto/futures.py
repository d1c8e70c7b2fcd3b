"""The future of a call that was begun: what the clients and a server's handle of a client have in common."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["CallFuture"]

T = TypeVar("T")


class CallFuture(Future[T]):
    """What ``start`` returns: a future of the response that also has what the answer said beside it.

    ``cancel`` tells the other side that nobody wants the answer any more; it may have run the call all the same.
    """

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the answer said beside itself, by name; empty before it is there, and for nothing. An error has its own
        ``metadata``.
        """
        raise NotImplementedError
