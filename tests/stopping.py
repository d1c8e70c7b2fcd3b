"""Programs that are stopped for a while, as a suspended machine stops them, and then go on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["program", "said", "stopped"]


@contextlib.contextmanager
def program(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """A program of this interpreter that is ended with the test, stopped or not."""
    with subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def said(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextlib.contextmanager
def stopped(process: "subprocess.Popen[str]", seconds: float) -> Iterator[None]:
    """Stop it for ``seconds`` at least; what is done in the block is done meanwhile."""
    os.kill(process.pid, signal.SIGSTOP)
    while not _is_stopped(process.pid):  # its threads stop one by one, a moment after the signal was sent
        time.sleep(0.001)
    until = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, until - time.monotonic()))
    os.kill(process.pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    stats = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)  # behind the name, which may hold anything
