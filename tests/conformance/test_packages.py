"""The kit for authors of implementations runs where there is nothing but the library and the command."""

import subprocess
import sys
from pathlib import Path

import wireproto.conformance

FOLDER = Path(wireproto.conformance.__file__).parent
MODULES = [
    ".".join(["wireproto.conformance", *path.relative_to(FOLDER).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(FOLDER.rglob("*.py"))
]

BLOCKED = """
import importlib, sys
for name in ("hypothesis", "pytest", "_pytest"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_imports_without_pytest_and_hypothesis() -> None:
    """No module of the kit needs what only tests of services need."""
    assert len(MODULES) > 30
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *MODULES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
