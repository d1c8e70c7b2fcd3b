"""What a project imports in its own tests: values for every message it declares, and suites that test every method.

    from wireproto.testing import RoundTripSuite

    class TestCalculator(RoundTripSuite):
        service = CALCULATOR

That is a whole test file: pytest makes a test of it for every method, codec and version. It takes the packages
pytest and hypothesis.
"""

from wireproto.errors import ConfigError

try:
    from wireproto.testing.strategies import messages, mutated, strategies, values, wrong_values
    from wireproto.testing.suites import RoundTripSuite
except ModuleNotFoundError as error:
    if error.name not in ("hypothesis", "pytest"):
        raise
    raise ConfigError(f"{error.name} is not installed; run: pip install 'wireproto[testing]'") from error

__all__ = ["RoundTripSuite", "messages", "mutated", "strategies", "values", "wrong_values"]
