"""Nothing may be left behind: after each test the threads and descriptors are those from before."""

import os
import threading
import time
from collections.abc import Iterator

import pytest


def _open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    descriptors = _open_descriptors()
    yield
    deadline = time.monotonic() + 5
    pause = threading.Event()
    while True:
        left = set(threading.enumerate()) - threads
        more = len(_open_descriptors()) - len(descriptors)
        if not left and more <= 0:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: threads {left}, {more} descriptors")
        pause.wait(0.01)  # threads end on their own time; nothing tells when
