"""Stubs that others make of the published .proto files import and work where this library is installed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.outside import buf, run
from wireproto.conformance.service import make_handlers
from wireproto.server.gateway import GrpcGateway

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"

BUF_GEN = """
version: v2
plugins:
  - protoc_builtin: python
    protoc_path: [{python}, -m, grpc_tools.protoc]
    out: {folder}
"""

PROGRAM = """
import sys
import grpc
import wireproto
from wirecontrol.v1 import control_pb2, control_pb2_grpc
from wireconformance.v1 import conformance_pb2, conformance_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    control = control_pb2_grpc.ControlServiceStub(channel)
    assert control.Check(control_pb2.CheckRequest()).health == control_pb2.HEALTH_SERVING
    kit = conformance_pb2_grpc.ConformanceServiceStub(channel)
    items = kit.Count(conformance_pb2.CountRequest(items=3))
    print([item.number for item in items], wireproto.__file__)
"""


def by_protoc(folder: Path, *made: str) -> None:
    """What `python -m grpc_tools.protoc` makes of the whole folder of files."""
    files = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *made, *files, cwd=folder)


def messages_by_protoc(folder: Path) -> None:
    by_protoc(folder, f"--python_out={folder}")


def messages_by_buf(folder: Path) -> None:
    template = folder / "buf.gen.yaml"
    template.write_text(BUF_GEN.format(python=sys.executable, folder=folder))
    run(buf(), "generate", "--template", str(template), str(PROTOS), cwd=folder)


@pytest.mark.parametrize("messages", [messages_by_protoc, messages_by_buf], ids=["protoc", "buf"])
def test_stubs_of_the_published_files_work_beside_the_library(messages: Callable[[Path], None], tmp_path: Path) -> None:
    """A program imports the stubs by their package, and the library, and calls a gateway with them."""
    messages(tmp_path)
    by_protoc(tmp_path, f"--grpc_python_out={tmp_path}")  # buf has no such plugin of its own
    with GrpcGateway(make_handlers(), port=0) as gateway:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(gateway.address)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[0, 1, 2] ")
    assert "wireproto" in done.stdout
