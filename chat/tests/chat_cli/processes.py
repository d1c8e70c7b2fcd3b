"""The commands as processes, and the environment they run in."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

PATIENCE = 30.0
"""Seconds for anything that takes a moment on a machine at rest."""


class Serving(NamedTuple):
    """A ``wireproto serve`` that has said it is ready."""

    process: "subprocess.Popen[str]"
    ready: dict[str, str]

    @property
    def address(self) -> str:
        return self.ready["tcp"]


Serve = Callable[..., Serving]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the settings of a developer's shell."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WIREPROTO_")}
    fixed = {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error", "WIREPROTO_SERVE_GRPC_PORT": "0"}
    return {**kept, **fixed, **variables}


def wireproto(*words: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run ``wireproto`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "wireproto", *words],
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
