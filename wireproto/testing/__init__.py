"""What a project imports in its own tests: values for every message it declares, and suites that test every method.

    from wireproto.testing import RoundTripSuite

    class TestCalculator(RoundTripSuite):
        service = CALCULATOR

That is a whole test file: pytest makes a test of it for every method, codec and version.

Each name is loaded when it is first used, so that the parts that need neither pytest nor hypothesis work without them.
"""

import importlib
from typing import TYPE_CHECKING

from wireproto.errors import ConfigError

if TYPE_CHECKING:
    from wireproto.testing.agents import AgentSuite
    from wireproto.testing.agreement import DifferentialSuite
    from wireproto.testing.bare import Answer, BareClient
    from wireproto.testing.cuts import chunked
    from wireproto.testing.doors import Running, running
    from wireproto.testing.faults import Bandwidth, Cut, Fault, Flip, Latency, Reset, Slicer, Stall
    from wireproto.testing.generators import messages, mutated, strategies, values, wrong_values
    from wireproto.testing.grease import greasing
    from wireproto.testing.proxy import FaultProxy, ProxyEvent, ProxyStats
    from wireproto.testing.serving import ServerSuite
    from wireproto.testing.suites import RoundTripSuite
    from wireproto.testing.wire import Pair, pair

__all__ = [
    "AgentSuite",
    "Answer",
    "Bandwidth",
    "BareClient",
    "Cut",
    "DifferentialSuite",
    "Fault",
    "FaultProxy",
    "Flip",
    "Latency",
    "Pair",
    "ProxyEvent",
    "ProxyStats",
    "Reset",
    "RoundTripSuite",
    "Running",
    "ServerSuite",
    "Slicer",
    "Stall",
    "chunked",
    "greasing",
    "messages",
    "mutated",
    "pair",
    "running",
    "strategies",
    "values",
    "wrong_values",
]

# No module here may be called like one of the names: importing it would put it in that name's place.
_LAZY = {
    "AgentSuite": "wireproto.testing.agents",
    "Answer": "wireproto.testing.bare",
    "Bandwidth": "wireproto.testing.faults",
    "BareClient": "wireproto.testing.bare",
    "Cut": "wireproto.testing.faults",
    "DifferentialSuite": "wireproto.testing.agreement",
    "Fault": "wireproto.testing.faults",
    "FaultProxy": "wireproto.testing.proxy",
    "Flip": "wireproto.testing.faults",
    "Latency": "wireproto.testing.faults",
    "Pair": "wireproto.testing.wire",
    "ProxyEvent": "wireproto.testing.proxy",
    "ProxyStats": "wireproto.testing.proxy",
    "Reset": "wireproto.testing.faults",
    "RoundTripSuite": "wireproto.testing.suites",
    "Running": "wireproto.testing.doors",
    "ServerSuite": "wireproto.testing.serving",
    "Slicer": "wireproto.testing.faults",
    "Stall": "wireproto.testing.faults",
    "chunked": "wireproto.testing.cuts",
    "greasing": "wireproto.testing.grease",
    "messages": "wireproto.testing.generators",
    "mutated": "wireproto.testing.generators",
    "pair": "wireproto.testing.wire",
    "running": "wireproto.testing.doors",
    "strategies": "wireproto.testing.generators",
    "values": "wireproto.testing.generators",
    "wrong_values": "wireproto.testing.generators",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in ("hypothesis", "pytest"):
            raise
        raise ConfigError(f"{error.name} is not installed; run: pip install 'wireproto[testing]'") from error
    except AttributeError as error:  # or an import statement takes it for a name that is not there
        raise ImportError(f"{__name__}.{name} cannot be loaded: {error}") from error
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
