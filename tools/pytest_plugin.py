"""What every test of this repository shares, as a plugin of pytest: profiles, ports, locks, and which skips CI may see.

``pyproject.toml`` loads it with ``-p``, so that tests in any folder have it without a ``conftest.py`` above them.
"""

import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tools import debug_locks, troubles

ACCEPTED_SKIPS: Final[dict[str, str]] = {}
"""Tests that may be skipped in CI: a pattern of node ids, and why nothing is lost.

A test that is skipped where it matters does not exist. So with ``CI`` in the environment a run fails on a skip that is
not listed here. What a developer's machine lacks (npm, a newer node) skips there and says so.
"""

# No deadlines: the machines are small and shared, and a slow example is no failure. `ci` is the profile of every
# full run; derandomized, so that a red run can be had again. `long` looks for what nobody has seen yet, within an hour
# or so on two processors, and `nightly` within days. `coverage` is for `make coverage`: the tracer is slow, and what
# only a rare example reaches wants a test of its own.
_UNTIMED = [HealthCheck.too_slow]
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=_UNTIMED)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_UNTIMED)
settings.register_profile("long", max_examples=500, deadline=None, suppress_health_check=_UNTIMED)
settings.register_profile("nightly", max_examples=20_000, deadline=None, suppress_health_check=_UNTIMED)
settings.register_profile("coverage", max_examples=5, deadline=None, derandomize=True, suppress_health_check=_UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# A server that a test starts as a program serves gRPC too, and must not want the port that another one has.
os.environ["WIREPROTO_SERVE_GRPC_PORT"] = "0"

# Where gRPC's core is told of forks it polls in the child, too, until that has become another program: a terminal's
# program that was started beside a channel died of it, since its descriptors are closed first.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


# Before any module of ours is imported.
debug_locks.install()


@pytest.fixture(autouse=True)
def _judged_locks() -> None:
    """Whoever calls a method that ends in ``_locked`` holds the lock, in every test."""
    debug_locks.judge_new_modules()


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A test leaves what signals do as it was: a child that a later test forks would inherit it, and not end by one."""
    before = _signals()
    yield
    assert _signals() == before, "a handler or a blocked signal is left"


def _signals() -> tuple[object, ...]:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    return (*handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@pytest.fixture
def run_in(tmp_path: Path) -> troubles.RunIn:
    """Runs a program while something is wrong around it; see ``tools/troubles.py``."""
    return functools.partial(troubles.run_in, tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked with samples, in which it takes ``sample`` and ``trouble``, for each pair of them."""
    for mark in metafunc.definition.iter_markers("samples"):
        samples = [troubles.Sample(**each) for each in mark.args[0]]
        pairs = [
            pytest.param(sample, trouble, id=name, marks=[] if ordinary else [pytest.mark.long])
            for name, ordinary, sample, trouble in troubles.cases(samples)
        ]
        metafunc.parametrize(("sample", "trouble"), pairs)


@pytest.fixture
def documented() -> Callable[[str, Sequence[int]], set[int]]:
    """Reads the exit statuses in a help text; see ``tools/troubles.py``."""
    return troubles.documented


class SkipJudge:
    """Collects the skips of a run, and fails the run for those that nobody accepted.

    Args:
        accepted: see ``ACCEPTED_SKIPS``.
    """

    def __init__(self, accepted: dict[str, str]) -> None:
        self._accepted = accepted
        self._unaccepted: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped; one that failed as expected is reported as skipped too, and is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped as a whole."""
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not any(fnmatchcase(report.nodeid, pattern) for pattern in self._accepted):
            place = report.longrepr  # of a skip: file, line and the reason
            self._unaccepted[report.nodeid] = place[2] if isinstance(place, tuple) else str(place)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Fail a run that was fine otherwise."""
        if self._unaccepted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name each of them, with what it said."""
        if self._unaccepted:
            terminalreporter.section("skips that CI does not accept", red=True)
            for test, reason in self._unaccepted.items():
                terminalreporter.line(f"{test}: {reason}")
            terminalreporter.line("Let them run, or list them with a reason in ACCEPTED_SKIPS, tools/pytest_plugin.py.")


def pytest_configure(config: pytest.Config) -> None:
    """Judge the skips in CI; with several processes in the one that gathers their reports."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore it, and commands that tests interrupt would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipJudge(ACCEPTED_SKIPS), "wireproto-skips")
