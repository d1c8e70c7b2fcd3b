"""Nothing may be left behind: after each test the threads and descriptors are those from before."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import grpc as stock
import pytest

from tests.client.service import SERVICE
from tests.testing.greasing import grease_everything
from wireproto import ClientState, Handlers
from wireproto.client import grpc
from wireproto.server.gateway import GrpcGateway


def _open_descriptors() -> dict[str, str]:
    """Number of each descriptor, and what it is of."""
    found: dict[str, str] = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder, and what another thread closes
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@pytest.fixture(autouse=True, scope="session")
def _grpcio_awake() -> Iterator[None]:
    """gRPC's core has pollers of its own for as long as anything of it is there; they are no test's.

    A channel that nobody uses keeps them: without it they go when a test's last channel does, and come with the next.
    """
    with stock.insecure_channel("127.0.0.1:1"):
        with GrpcGateway(Handlers(SERVICE), port=0) as gateway, grpc.connect(gateway.address, SERVICE) as client:
            client.ping()
            assert client.state is ClientState.READY
        yield


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    descriptors = _open_descriptors()
    yield
    deadline = time.monotonic() + 5
    pause = threading.Event()
    while True:
        left = set(threading.enumerate()) - threads
        now = _open_descriptors()
        if not left and len(now) <= len(descriptors):
            return
        if time.monotonic() > deadline:
            new = sorted(now.items() - descriptors.items())
            pytest.fail(f"left behind: threads {left}, {len(now) - len(descriptors)} descriptors of these: {new}")
        pause.wait(0.01)  # threads end on their own time; nothing tells when


@pytest.fixture(autouse=True)
def _greased(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers say what nobody knows beside what they mean, unless a test is about what exactly they say."""
    # Not versions: older clients and newer servers meet here, and digests are compared.
    if request.node.get_closest_marker("plain") is None:
        grease_everything(monkeypatch, request.node.name, versions=False)
