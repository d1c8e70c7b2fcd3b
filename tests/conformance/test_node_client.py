"""The client in JavaScript, written from the pages of the protocol alone, and judged as somebody else's."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from wireproto.conformance.case import Verdict
from wireproto.conformance.client import judge_client
from wireproto.conformance.runner import Selection

CLIENT = Path(__file__).parent.parent.parent / "examples" / "node-client"
PATIENCE = 30


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"the client wants Node 20 or newer; here is {version.strip()}")
    return found


def test_it_conforms(node: str) -> None:
    """It passes every case of the codec it has, in all versions; it has no digests that it could compare. That an early
    call is skipped for an older version can be shown of no client that speaks the oldest one only.
    """
    runs = judge_client([node, str(CLIENT / "conformance.mjs")], Selection(codecs=["pipe"]), jobs=2)
    skipped = {run.case.id for run in runs if "lists no methods" in run.detail}
    assert skipped == {"c3.49", "c3.50"}
    rest = [run for run in runs if run.case.id not in skipped and (run.case.id, run.version) != ("c3.91", 1)]
    assert [f"{run.name}: {run.detail}" for run in rest if run.verdict is not Verdict.PASSED] == []
    assert len({run.case.id for run in runs}) >= 150


def test_what_it_lacks_is_not_judged(node: str) -> None:
    """Cases of other codecs are said to be not implemented, and are no failures."""
    runs = judge_client([node, str(CLIENT / "conformance.mjs")], Selection(codecs=["msgpack"], cases=["4.01"]), jobs=1)
    assert {run.verdict for run in runs} == {Verdict.SKIPPED}
    assert "does not implement it: the codec msgpack" in runs[0].detail


def test_it_is_small_and_needs_nothing() -> None:
    """The client and its codec have under 520 lines, whatever is in them, and all that is imported is Node's own."""
    assert sum(len((CLIENT / f"{name}.mjs").read_text().splitlines()) for name in ("wireproto", "pipe")) < 520
    for path in CLIENT.glob("*.mjs"):
        imported = re.findall(r"^import .* from '(.*)'$", path.read_text(), re.MULTILINE)
        assert imported
        assert all(each.startswith(("node:", "./")) for each in imported), imported
