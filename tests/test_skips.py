"""A skip that CI does not know of fails the run, whatever else passed."""

from pathlib import Path

import pytest

from tools.pytest_plugin import ACCEPTED_SKIPS, SkipJudge

ROOT = Path(__file__).parent.parent

pytest_plugins = ["pytester"]

SKIPPED = """
    import pytest

    def test_of_this_machine():
        pytest.skip("no such program here")

    @pytest.mark.xfail(reason="a fault that is known")
    def test_that_fails():
        raise ValueError

    def test_that_passes():
        pass
"""


def test_a_skip_fails_the_run_and_is_named(pytester: pytest.Pytester) -> None:
    """The run ends as failed, and says which test and why; a failure that was expected is no skip."""
    pytester.makepyfile(SKIPPED)
    done = pytester.inline_run("-p", "no:cacheprovider", plugins=[SkipJudge({})])
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    judge = SkipJudge({})
    result = pytester.inline_run("-p", "no:cacheprovider", plugins=[judge])
    assert result.countoutcomes() == [1, 2, 0]
    assert list(judge._unaccepted.items()) == [
        (
            "test_a_skip_fails_the_run_and_is_named.py::test_of_this_machine",
            "Skipped: no such program here",
        )
    ]


def test_a_skip_that_is_listed_is_accepted(pytester: pytest.Pytester) -> None:
    """A pattern of the list lets a test be skipped."""
    pytester.makepyfile(SKIPPED)
    done = pytester.inline_run("-p", "no:cacheprovider", plugins=[SkipJudge({"*::test_of_this_machine": "why"})])
    assert done.ret == pytest.ExitCode.OK


def test_a_module_that_is_skipped_fails_the_run(pytester: pytest.Pytester) -> None:
    """``importorskip`` at the top of a module hides all its tests, and is seen all the same."""
    pytester.makepyfile("import pytest\npytest.importorskip('no_such_module')\ndef test_hidden():\n    pass\n")
    pytester.makepyfile(test_other="def test_that_passes():\n    pass\n")
    done = pytester.inline_run("-p", "no:cacheprovider", plugins=[SkipJudge({})])
    assert done.ret == pytest.ExitCode.TESTS_FAILED


def test_skips_are_judged_across_processes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several processes, as ``make check`` runs, and as CI turns it on: by the environment, through ``-p``."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(SKIPPED)
    done = pytester.runpytest_subprocess("-p", "tools.pytest_plugin", "-n", "2", "-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "*skips that CI does not accept*",
            "*::test_of_this_machine: Skipped: no such program here",
            "*ACCEPTED_SKIPS*",
        ]
    )
    monkeypatch.delenv("CI")
    done = pytester.runpytest_subprocess("-p", "tools.pytest_plugin", "-n", "2", "-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.OK


def test_the_list_names_tests_that_are_there() -> None:
    """Each entry of the list has a file, a test in it, and a reason."""
    for pattern, reason in ACCEPTED_SKIPS.items():
        file, _, test = pattern.partition("::")
        name = test.split("[")[0].split("::")[-1]
        assert f"def {name}" in (ROOT / file).read_text("utf-8")
        assert reason
