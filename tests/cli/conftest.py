"""Commands as processes: a server that is ready, and the environment they run in."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from wireproto.cli import root

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
"""Seconds for anything that takes a moment on a machine at rest."""


class Serving(NamedTuple):
    """A `wireproto serve` that has said it is ready."""

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
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "wireproto.cli", *words],
        cwd=ROOT,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def run(*words: str, stdin: str = "", **variables: str) -> Result:
    """Run the command inside this process: quicker, and as true where neither signals nor file descriptors matter."""
    return CliRunner(env=variables).invoke(
        root.wireproto, words, input=stdin, prog_name="wireproto", auto_envvar_prefix="WIREPROTO"
    )


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers on free ports, and ends those that the test left running."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, **variables: str) -> Serving:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "wireproto", "serve", *words, "--port", "0"],
                    cwd=ROOT,
                    env=environment(**variables),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                pytest.fail(f"not ready but {line!r}: {process.communicate(timeout=PATIENCE)[1]}")
            return Serving(process, dict(word.split("=", 1) for word in line.split()[1:]))

        yield start
