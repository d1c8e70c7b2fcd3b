"""What the tests of ServerSuite use of the suite that has them."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from hypothesis import strategies as st

from wireproto.client import BlockingClient
from wireproto.codecs import Codec
from wireproto.dispatch import Handlers
from wireproto.limits import Limits
from wireproto.schema import Operation, Service
from wireproto.testing.cases import Peers
from wireproto.testing.outcome import Outcome
from wireproto.testing.overheard import Heard

__all__ = ["SuiteParts"]


class SuiteParts(Protocol):
    """The part of ``ServerSuite`` that says what is tested, and with what."""

    # Properties, because a class variable of a suite is more than is needed here.

    @property
    def limits(self) -> Limits:
        """Of servers and clients."""

    @property
    def patience(self) -> float:
        """Seconds in which a handler must have answered."""

    @property
    def quiet(self) -> float:
        """Seconds without an item after which a stream is left."""

    def _service(self) -> Service:
        """The table."""

    def _doors(self) -> dict[str, Codec]:
        """A codec by the name of the door."""

    def _examples(self) -> int:
        """How many there are of each test."""

    def _methods_at(self, version: int) -> list[Operation[Any, Any]]:
        """What a client may call in a version."""

    def _drawn(self, method: Operation[Any, Any], version: int, everywhere: bool = False) -> st.SearchStrategy[Any]:
        """A call of the service's own handlers has: a request, or items; maybe such as fit every door."""

    def _world(self, peers: Peers, door: str) -> AbstractContextManager[tuple[BlockingClient, Handlers, Heard]]:
        """A client of fresh handlers, those, and what becomes of their calls."""

    def _same(self, method: Operation[Any, Any], one: Outcome, other: Outcome, version: int) -> bool:
        """Whether two calls of a method had the same outcome, as far as it is to be the same."""
