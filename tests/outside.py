"""Programs nobody here wrote, which judge what is made here: found, or the test is skipped and says why.

``npm install --no-package-lock --prefix tests/node`` brings them; ``make setup`` runs that where there is npm.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"


def buf() -> str:
    """The path of ``buf``, which lints and builds .proto files and calls gRPC services."""
    found = shutil.which("buf", path=str(NODE_MODULES / ".bin")) or shutil.which("buf")
    if found is None:
        pytest.skip("buf is not installed: it comes with npm install --prefix tests/node, and with no Python package")
    return found


def run(*command: str, cwd: Path, ok: bool = True) -> str:
    """What a program writes to stdout, and its complaints; with ``ok`` it must end well within a minute."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    text = done.stdout + done.stderr
    assert not ok or done.returncode == 0, text
    return text
