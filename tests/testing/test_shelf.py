"""A service whose methods and fields came and went, between clients and servers of all its versions."""

from contextlib import AbstractContextManager
from typing import Any

from hypothesis import strategies as st

from tests.testing.shelf import SHELF, TAKE, Shelf, TakeRequest
from wireproto.schema import Operation
from wireproto.testing import ServerSuite


class TestShelfServer(ServerSuite):
    """The handlers, each time with an empty shelf."""

    service = SHELF

    def application(self) -> AbstractContextManager[Shelf]:
        return Shelf()

    def requests(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        every = super().requests(method, version)
        return every | st.builds(TakeRequest, key=st.sampled_from("0ab")) if method is TAKE else every
