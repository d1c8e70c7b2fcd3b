"""The example's calculator under the suites, as its user would have it."""

from typing import Any

from calculator import CALCULATOR, AddRequest, handlers
from hypothesis import strategies as st

from wireproto.schema import Operation
from wireproto.testing import RoundTripSuite, ServerSuite

NUMBERS = st.integers(-(2**62), 2**62 - 1)


class TestCalculator(RoundTripSuite):
    """The messages."""

    service = CALCULATOR


class TestCalculatorServer(ServerSuite):
    """The handlers, with numbers whose sum is one: without that, the suite finds that it need not be."""

    handlers = handlers

    def requests(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[AddRequest]:
        return st.builds(AddRequest, left=NUMBERS, right=NUMBERS)
