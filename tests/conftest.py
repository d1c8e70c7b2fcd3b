"""What every test shares: the Hypothesis profiles, chosen by HYPOTHESIS_PROFILE."""

import os

from hypothesis import HealthCheck, settings

# No deadlines: the machines are small and shared, and a slow example is no failure. `ci` is the profile of every
# full run; derandomized, so that a red run can be had again. `nightly` looks for what nobody has seen yet. `coverage`
# is for `make coverage`: the tracer is slow, and what only a rare example reaches wants a test of its own.
_UNTIMED = [HealthCheck.too_slow]
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=_UNTIMED)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_UNTIMED)
settings.register_profile("nightly", max_examples=20_000, deadline=None, suppress_health_check=_UNTIMED)
settings.register_profile("coverage", max_examples=5, deadline=None, derandomize=True, suppress_health_check=_UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# A server that a test starts as a program serves gRPC too, and must not want the port that another one has.
os.environ["WIREPROTO_SERVE_GRPC_PORT"] = "0"
