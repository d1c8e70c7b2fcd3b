"""Programs nobody here wrote, which judge what is made here: found, or the test is skipped and says why.

``npm install --no-package-lock --prefix tests/node`` brings most; ``make setup`` runs that where there is npm. grpc-go
comes with Debian's packages ``golang-go`` and ``golang-google-grpc-dev``, which ``.ci/run`` installs.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
GO = Path(__file__).parent / "go"
GOPATH = Path("/usr/share/gocode")
"""Where Debian has the sources of Go's libraries."""


def buf() -> str:
    """The path of ``buf``, which lints and builds .proto files and calls gRPC services."""
    found = shutil.which("buf", path=str(NODE_MODULES / ".bin")) or shutil.which("buf")
    if found is None:
        pytest.skip("buf is not installed: it comes with npm install --prefix tests/node, and with no Python package")
    return found


def node(script: str) -> list[str]:
    """The command that runs one of the programs in ``tests/node``, which speaks gRPC by grpc-js."""
    found = shutil.which("node")
    if found is None or not (NODE_MODULES / "@grpc" / "grpc-js").is_dir():
        pytest.skip("grpc-js is not installed: it comes with npm install --prefix tests/node")
    return [found, str(NODE_MODULES.parent / script)]


def go(program: str, folder: Path) -> list[str]:
    """The command that runs one of the programs in ``tests/go``, which speaks gRPC by grpc-go; it is built there."""
    found = shutil.which("go")
    if found is None or not (GOPATH / "src" / "google.golang.org" / "grpc").is_dir():
        pytest.skip("grpc-go is not installed: on Debian it comes with golang-go and golang-google-grpc-dev")
    built = folder / program
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH)}
    source = str(GO / f"{program}.go")
    subprocess.run([found, "build", "-o", str(built), source], env=environment, timeout=300, check=True)
    return [str(built)]


def run(*command: str, cwd: Path, ok: bool = True) -> str:
    """What a program writes to stdout, and its complaints; with ``ok`` it must end well within a minute."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    text = done.stdout + done.stderr
    assert not ok or done.returncode == 0, text
    return text
