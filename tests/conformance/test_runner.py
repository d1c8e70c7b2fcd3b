"""Running cases: whatever comes of one is said of it in the report, and nothing keeps the report back."""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from wireproto.conformance.case import Case, Deviation, Needs, NotJudged, Over, Verdict
from wireproto.conformance.plain import from_json
from wireproto.conformance.report import Known, Report
from wireproto.conformance.runner import judge
from wireproto.conformance.service import MirrorRequest
from wireproto.errors import ConfigError


def raising(error: Exception) -> Callable[[Any], None]:
    def run(bench: Any) -> None:
        raise error

    return run


def unpacking(bench: Any) -> None:
    (_,) = list(bench)[:0]


def endless(bench: Any) -> None:
    endless(bench)


def test_every_exception_of_a_case_is_that_cases_failure() -> None:
    """A case that ends with an exception has failed; what and where is said, and all other cases are judged."""
    runs: dict[str, Callable[[Any], None]] = {
        "s1.01": lambda bench: None,
        "s1.02": unpacking,
        "s1.03": raising(KeyError("missing")),
        "s1.04": raising(AssertionError()),
        "s1.05": endless,
        "s1.06": raising(MemoryError()),
        "s1.07": raising(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")),
        "s1.08": raising(ConnectionRefusedError(111, "refused")),
        "s1.09": raising(TimeoutError("too late")),
        "s1.10": raising(Deviation("a rule was broken")),
        "s1.11": raising(NotJudged("it lacks that")),
    }
    cases = [Case(number, f"Rule {number}.", run, Over.ONCE) for number, run in runs.items()]
    told: list[str] = []
    found = {
        run.case.id: run
        for run in judge(
            cases, ["pipe"], [1], lambda case, codec, version: codec, progress=lambda run, of: told.append(run.case.id)
        )
    }
    assert {number: run.verdict for number, run in found.items()} == {
        **dict.fromkeys(runs, Verdict.FAILED),
        "s1.01": Verdict.PASSED,
        "s1.11": Verdict.SKIPPED,
    }
    assert sorted(told) == sorted(runs)
    problem, _, place = found["s1.02"].detail.partition(", in ")
    assert problem == (
        "the kit met what it did not expect: ValueError: not enough values to unpack (expected 1, got 0)"
    )
    assert place.startswith("unpacking (test_runner.py:")
    assert "KeyError: 'missing'" in found["s1.03"].detail
    assert "AssertionError, in run (" in found["s1.04"].detail
    assert "RecursionError" in found["s1.05"].detail
    assert found["s1.08"].detail == "no connection could be had: [Errno 111] refused"
    report = Report("a server", list(found.values()), Known("", {}))
    assert len(report.unexpected) == 9
    assert any("ValueError" in line for _, line in report.lines())


def test_a_case_that_cannot_be_bound_is_its_own_failure() -> None:
    """What a case is run with is made for it: an exception there is told like one of the case."""

    def bind(case: Case[Any], codec: str, version: int) -> Any:
        raise RuntimeError("no more programs")

    (run,) = judge([Case("s1.01", "A rule.", unpacking, Over.ONCE)], ["pipe"], [1], bind)
    assert run.verdict is Verdict.FAILED
    assert "RuntimeError: no more programs" in run.detail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_the_kits_own_want_is_no_verdict(number: int) -> None:
    """No descriptor or no memory is nobody's deviation: the run ends with a sentence that says what to do."""

    def starving(bench: Any) -> None:
        raise OSError(number, os.strerror(number))

    case = Case("s1.01", "A rule.", starving, Over.ONCE)
    with pytest.raises(ConfigError, match=r"gives the kit no more: .*; give fewer --jobs, or allow more open files"):
        judge([case], ["pipe"], [1], lambda case, codec, version: codec)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_an_instant_that_no_codec_has_is_a_value_error(text: str) -> None:
    """A peer's line may hold any text."""
    with pytest.raises(ValueError, match="outside of the years 1 to 9999 in UTC"):
        from_json(MirrorRequest, {"moment": text})


def test_an_interrupt_ends_it_without_the_cases_that_have_not_begun() -> None:
    """Whoever stops the kit waits for the cases that run, and not for all others."""
    begun: list[str] = []
    may_end = threading.Event()

    def case(bench: Any) -> None:
        begun.append("")
        may_end.wait(10)

    def stop(run: Any, of: int) -> None:
        raise KeyboardInterrupt

    cases = [Case(f"s1.{number:02}", "A rule.", case, Over.ONCE) for number in range(1, 60)]
    cases.insert(0, Case("s1.00", "A rule.", lambda bench: None, Over.ONCE))
    threading.Timer(0.2, may_end.set).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        judge(cases, ["pipe"], [1], lambda case, codec, version: codec, jobs=2, progress=stop)
    assert len(begun) <= 4
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("versions", "run_in"), [([1, 2, 3], [3]), ([3], [3]), ([1, 2], [2])], ids=str)
def test_a_case_about_shapes_is_run_where_there_are_methods_of_them(versions: list[int], run_in: list[int]) -> None:
    """A case whose methods came with a version is run from it on; where none has them, once, which binding refuses."""
    case: Case[Any] = Case("s1.100", "A rule.", lambda bench: None, needs=Needs.SHAPES)
    runs = judge([case, Case("s1.01", "A rule.", lambda bench: None)], ["pipe"], versions, lambda *bound: None)
    assert [run.version for run in runs if run.case is case] == run_in
    assert [run.version for run in runs if run.case is not case] == versions
    assert [run.case.id for run in runs][-1] == "s1.100"
