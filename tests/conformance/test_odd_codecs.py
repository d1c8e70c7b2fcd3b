"""The kit where other codecs are installed: what it asks for is sized by the codec, whatever that makes of a byte."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import QUICK
from wireproto import codecs
from wireproto.conformance.case import Run, Verdict
from wireproto.conformance.client import judge_client
from wireproto.conformance.runner import Selection
from wireproto.conformance.server import judge_server
from wireproto.conformance.service import authenticate, make_handlers
from wireproto.server import Server

ROOT = Path(__file__).parents[2]
ODD = ["hexed", "squeezed", "stuffed"]
# In the one that compresses, lengths are hardest to have; the other two are run with the long tests.
EACH = pytest.mark.parametrize(
    "codec", [pytest.param(name, marks=[] if name == "squeezed" else [pytest.mark.long]) for name in ODD]
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the entry points of the three codecs, which is searched."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "odd_codecs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-codecs\nVersion: 1.0\n")
    module = "tests.conformance.odd_codecs"
    points = {"hexed": "HexCodec", "squeezed": "SqueezedCodec", "stuffed": "StuffedCodec"}
    lines = "".join(f"{name} = {module}:{target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[wireproto.codecs]\n{lines}")
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in ODD:
            codecs._loaded.pop(name, None)


def failed(runs: list[Run]) -> list[str]:
    return [f"{run.name}: {run.case.text}\n    {run.detail}" for run in runs if run.verdict is Verdict.FAILED]


def judged(runs: list[Run]) -> set[str]:
    return {run.case.id for run in runs if run.verdict is Verdict.PASSED}


@EACH
def test_our_server_conforms_in_a_codec_of_others(codec: str, installed: Path) -> None:
    """Our server passes every case that can be judged in the codec."""
    with Server(make_handlers(), port=0, authenticate=authenticate, limits=QUICK) as server:
        runs = judge_server((server.address.host, server.address.port), Selection(codecs=[codec], versions=[2]))
    assert failed(runs) == []
    assert len(judged(runs)) > 200
    lengths = {"s2.07", "s3.50", "s9.08", "s9.09", "s9.10", "s9.11"}
    # Zeros that are compressed away make no long answer, and some lengths cannot be had.
    impossible = {"hexed": set(), "squeezed": {"s9.10", "s9.11"}, "stuffed": {"s9.08", "s9.09"}}
    assert lengths - judged(runs) == impossible[codec]


@EACH
def test_our_client_conforms_in_a_codec_of_others(codec: str, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our client passes every case that can be judged in the codec."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), str(ROOT)]))
    ours = [sys.executable, "-m", "wireproto.conformance.adapter"]
    runs = judge_client(ours, Selection(codecs=[codec], versions=[2]), jobs=3)
    assert failed(runs) == []
    # In a codec whose shortest payload is beyond what Short takes, what needs a call of it cannot be judged.
    assert len(judged(runs)) > (20 if codec == "stuffed" else 100)
