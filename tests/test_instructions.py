"""benchmarks/instructions.py: what it lets pass, what it writes, what it compares with, and that it counts."""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

PAIR = "cpython 3.11.7, msgspec 0.22.0"
OTHER = "cpython 3.12.1, msgspec 0.22.0"
BUILD = {"machine": "x86_64", "compiler": "GCC 12.2.0"}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("instructions", ROOT / "benchmarks" / "instructions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gate: Any = _load()


def kept(**paths: int) -> dict[str, Any]:
    return {"numbers": {PAIR: {"build": BUILD, "paths": paths}}, "changes": []}


# What passes.


@pytest.mark.parametrize(
    ("after", "passes", "words"),
    [
        (1000, True, ""),
        (1020, True, ""),
        (1021, False, "call: more than 2% dearer. Make it no slower, or write the new number beside its reason"),
        (980, True, ""),
        (979, True, "call: cheaper. The kept number can be lowered: make gate REASON='...'"),
    ],
)
def test_two_percent_is_the_limit(after: int, passes: bool, words: str) -> None:
    """Up to 2 % more passes in silence, more fails and says what to do; more than 2 % less is told."""
    passed, said = gate.verdict(gate.compare({"call": 1000, "item": 50}, {"call": after, "item": 50}))
    assert passed is passes
    assert (words in said[0]) if words else said == []
    assert "item" not in "".join(said)


@pytest.mark.parametrize(("before", "after"), [({"old": 5}, {}), ({}, {"new": 5})])
def test_a_path_without_two_numbers_fails(before: dict[str, int], after: dict[str, int]) -> None:
    """A path that is new or gone fails until its number is written."""
    passed, (line,) = gate.verdict(gate.compare({"call": 1000} | before, {"call": 1000} | after))
    assert not passed
    assert "a path that is new or gone. Write the numbers: make gate REASON='...'" in line


def test_numbers_are_of_one_pair_and_one_build() -> None:
    """Another pair has no numbers, and neither has another build of the same versions."""
    file = kept(call=1000)
    assert gate.numbers_of(file, PAIR, BUILD) == {"call": 1000}
    assert gate.numbers_of(file, OTHER, BUILD) is None
    assert gate.numbers_of(file, PAIR, BUILD | {"compiler": "Clang 17.0.6"}) is None


# What is written.


def test_a_reason_is_written_beside_its_numbers(tmp_path: Path) -> None:
    """What changed has its new number and a reason with the old one; what did not keeps its number, creep and all."""
    before = kept(call=1000, item=50_000)
    after = gate.with_reason(
        before, before, PAIR, BUILD, {"call": 1000, "item": 50_000}, {"call": 1100, "item": 50_100}, "Safer."
    )
    assert after["numbers"][PAIR] == {"build": BUILD, "paths": {"call": 1100, "item": 50_000}}
    assert after["changes"] == [{"reason": "Safer.", "pair": PAIR, "paths": {"call": [1000, 1100]}}]
    assert before == kept(call=1000, item=50_000)
    file = tmp_path / "instructions.json"
    gate.write(file, after)
    assert gate.read(file) == after
    assert '"call": [1000, 1100]' in file.read_text()


def test_a_reason_that_is_tried_twice_is_one() -> None:
    """Before it is committed, a second run with the same reason corrects the first one's number."""
    committed = kept(call=1000)
    first = gate.with_reason(committed, committed, PAIR, BUILD, {"call": 1000}, {"call": 1200}, "Safer.")
    again = gate.with_reason(first, committed, PAIR, BUILD, {"call": 1200}, {"call": 1100}, "Safer.")
    assert again["changes"] == [{"reason": "Safer.", "pair": PAIR, "paths": {"call": [1000, 1100]}}]
    later = gate.with_reason(again, again, PAIR, BUILD, {"call": 1100}, {"call": 1300}, "Safer.")
    assert [change["paths"] for change in later["changes"]] == [{"call": [1000, 1100]}, {"call": [1100, 1300]}]


def test_a_change_makes_other_pairs_unknown() -> None:
    """Numbers of other pairs go with a change, unless they were counted since the last commit; without a change they
    stay."""
    committed = kept(call=1000)
    committed["numbers"][OTHER] = {"build": BUILD, "paths": {"call": 900}}
    same = gate.with_reason(committed, committed, PAIR, BUILD, {"call": 1000}, {"call": 1001}, "-")
    assert same == committed
    changed = gate.with_reason(committed, committed, PAIR, BUILD, {"call": 1000}, {"call": 1100}, "Safer.")
    assert list(changed["numbers"]) == [PAIR]
    both = gate.with_reason(changed, committed, OTHER, BUILD, {"call": 900}, {"call": 990}, "Safer.")
    assert {pair: entry["paths"]["call"] for pair, entry in both["numbers"].items()} == {PAIR: 1100, OTHER: 990}


def test_first_numbers_need_no_explanation() -> None:
    """Where there was nothing to compare with, numbers are written and no change is listed."""
    assert gate.with_reason(gate.empty(), gate.empty(), PAIR, BUILD, None, {"call": 1000}, "-") == kept(call=1000)


def test_the_kept_file_is_well_formed() -> None:
    """Every pair of the kept file has the same paths, and every change has its reason."""
    file = gate.read(ROOT / gate.KEPT)
    paths = [list(entry["paths"]) for entry in file["numbers"].values()]
    assert all(each == paths[0] and len(each) == 10 for each in paths)
    assert all(change["reason"] and change["paths"] for change in file["changes"])
    assert list(file["numbers"]) == sorted(file["numbers"])


# What is compared with.


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A git repository in ``tmp_path``: commits its argument as the kept numbers, and a file that always changes."""
    if shutil.which("git") is None:
        pytest.skip("there is no git on this machine")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # the tests may run in a hook of git, where these name another repository
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / gate.PROGRAM).write_text("")
    _git(tmp_path, "init", "--quiet")
    for name, value in (("user.name", "a"), ("user.email", "a@b.example"), ("commit.gpgsign", "false")):
        _git(tmp_path, "config", name, value)

    def commit(numbers: str) -> str:
        (tmp_path / gate.KEPT).write_text(numbers)
        other = tmp_path / "other"
        other.write_text(f"{other.read_text()}." if other.exists() else "")
        _git(tmp_path, "add", ".")
        _git(tmp_path, "commit", "--quiet", "-m", "one")
        return _git(tmp_path, "rev-parse", "HEAD")

    return commit


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_base_is_the_last_commit_that_changed_the_numbers(tmp_path: Path, repository: Callable[[str], str]) -> None:
    """Commits that leave the numbers alone are passed over; numbers that are not committed yet take the last commit."""
    repository("1")
    second = repository("2")
    third = repository("2")
    assert gate.base_commit(tmp_path) == second
    (tmp_path / gate.KEPT).write_text("3")
    assert gate.base_commit(tmp_path) == third


def test_a_base_that_cannot_be_told_is_said(tmp_path: Path, repository: Callable[[str], str]) -> None:
    """A clone that begins after the numbers' last change, a folder without history and a history without a count say
    what is missing."""
    repository("1")
    repository("1")
    _git(tmp_path, "clone", "--quiet", "--depth=1", tmp_path.as_uri(), str(tmp_path / "shallow"))
    with pytest.raises(gate.CannotCompare, match=r"too shallow .* git fetch --unshallow"):
        gate.base_commit(tmp_path / "shallow")
    (tmp_path / "plain").mkdir()
    with pytest.raises(gate.CannotCompare, match="this is no git repository"):
        gate.base_commit(tmp_path / "plain")
    (tmp_path / gate.PROGRAM).unlink()
    repository("2")
    with pytest.raises(gate.CannotCompare, match="does not count instructions yet"):
        gate.base_commit(tmp_path)


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_nothing_to_compare_with_fails_where_nobody_reads(
    ci: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without numbers and without a history the gate says so, counts nothing, and fails only in CI."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(gate, "check_machine", lambda: None)
    monkeypatch.setattr(gate, "count", lambda root: pytest.fail("it counted"))
    assert gate.gate(tmp_path, "") == status
    assert capsys.readouterr().err.startswith("instructions are not compared: this is no git repository")


def test_a_pair_without_numbers_is_compared_with_the_base(
    tmp_path: Path,
    repository: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The base commit is counted for a pair that has no numbers; a reason then writes them and says from where."""
    monkeypatch.setattr(gate, "check_machine", lambda: None)
    monkeypatch.setattr(gate, "this_pair", lambda: PAIR)
    monkeypatch.setattr(gate, "this_build", lambda: BUILD)
    monkeypatch.setattr(gate, "count", lambda root: {"call": 1100})
    monkeypatch.setattr(gate, "count_commit", lambda root, commit: {"call": 1000})
    commit = repository(json.dumps({"numbers": {}, "changes": []}))
    assert gate.gate(tmp_path, "") == 1
    said = capsys.readouterr()
    assert f"in {commit[:8]}" in said.out
    assert "+10.00%" in said.out
    assert "make gate REASON='...'" in said.err
    assert gate.gate(tmp_path, "It's safer.") == 0
    assert gate.read(tmp_path / gate.KEPT) == {
        "numbers": {PAIR: {"build": BUILD, "paths": {"call": 1100}}},
        "changes": [{"reason": "It's safer.", "pair": PAIR, "paths": {"call": [1000, 1100]}}],
    }
    assert gate.gate(tmp_path, "") == 0


def test_a_machine_without_valgrind_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valgrind, and on a system for which there is none, the sentence names the package."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(gate.CannotCount, match="install the package valgrind"):
        gate.check_machine()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gate.sys, "platform", "darwin")
    with pytest.raises(gate.CannotCount, match="on Linux on x86_64 or aarch64"):
        gate.check_machine()


# Counting.

SLOWER = """
_call = Client.call

def _slower(self, *arguments, **named):
    for _ in range(200):
        pass
    return _call(self, *arguments, **named)

Client.call = _slower
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # 20 s on two processors at rest
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind on this machine")
def test_a_path_has_one_count_and_a_slower_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path counts the same in another checkout beside a busy neighbour, and a loop of 200 turns in it fails the
    gate."""
    copies = [tmp_path / "copy", tmp_path / "a-checkout-with-a-longer-name" / "slower"]
    for copy in copies:
        for part in ("wireproto", "benchmarks"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    slower = copies[1] / "wireproto" / "client" / "client.py"
    slower.write_text(slower.read_text() + SLOWER)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    with ThreadPoolExecutor(3) as threads:  # each is a neighbour of the others
        here, there, more = threads.map(lambda tree: gate.count(tree, ["client call"]), [ROOT, *copies])
    assert list(here) == ["client call"]
    assert there["client call"] == pytest.approx(here["client call"], rel=0.002)
    passed, said = gate.verdict(gate.compare(here, more))
    assert not passed
    assert said[0].startswith("client call: more than 2% dearer")
