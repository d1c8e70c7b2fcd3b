"""The load behind ``wireproto bench --grpc``: the same calls through grpcio, a channel for each connection."""

import math
import queue
import time
from array import array
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from wireproto.address import Address
from wireproto.cli.load import PATIENCE, Asked, Sample
from wireproto.client.grpc import GrpcClient, connect
from wireproto.errors import ConfigError, ConnectionLost
from wireproto.schema import Method
from wireproto.status import Retry

__all__ = ["GrpcLoad"]


class GrpcLoad:
    """Connections to the gRPC door of one server, calling one method; the face of ``Load``.

    Args:
        address: of that door.
        asked: what each call is; a method with one answer.
        connections, pipeline: as for ``Load``.

    Raises:
        HandshakeError: the server has no such service.
        ConnectionLost: it cannot be reached.
        ConfigError: the method is a stream, of which each would take a thread here.
    """

    def __init__(self, address: Address, asked: Asked, *, connections: int, pipeline: int) -> None:
        if not isinstance(asked.method, Method):
            raise ConfigError(f"{asked.method.name} is a stream, which bench measures over TCP only; leave out --grpc")
        self._method = asked.method
        self._asked = asked
        self._pipeline = pipeline
        self._address = address
        self._clients: list[GrpcClient] = []
        self._ended: queue.SimpleQueue[tuple[GrpcClient, float, Future[Any]]] = queue.SimpleQueue()
        try:
            for _ in range(connections):
                self._clients.append(connect(address, asked.service, name="wireproto bench"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        while self._clients:
            self._clients.pop().close()

    def run(
        self, calls: int | None, seconds: float | None, progress: Callable[[float], None] = lambda share: None
    ) -> Sample:
        """Call until ``calls`` are answered or ``seconds`` have passed; see ``Load.run``."""
        clock = time.perf_counter
        own, began = time.process_time(), clock()
        until = began + seconds if calls is None and seconds is not None else math.inf
        left = math.inf if calls is None else calls
        waits = array("d")
        told = began
        waiting = 0
        for _ in range(self._pipeline):
            for client in self._clients:
                if left > 0:
                    self._call(client)
                    left -= 1
                    waiting += 1
        while waiting:
            try:
                client, took, future = self._ended.get(timeout=PATIENCE)
            except queue.Empty:
                problem = f"{self._address} answered nothing for {PATIENCE:g} s"
                raise ConnectionLost(problem, retry=Retry.MAYBE_PROCESSED) from None
            future.result()  # raises what the call did
            waits.append(took)
            waiting -= 1
            now = clock()
            if left > 0 and now < until:
                self._call(client)
                left -= 1
                waiting += 1
            if now - told > 0.1:
                told = now
                progress((now - began) / seconds if calls is None and seconds else len(waits) / (calls or 1))
        elapsed, own = clock() - began, time.process_time() - own
        progress(1.0)
        return Sample(len(waits), elapsed, array("d", sorted(waits)), None, None, own)

    def _call(self, client: GrpcClient) -> None:
        sent = time.perf_counter()
        future = client.start(self._method, self._asked.request, timeout=PATIENCE, metadata=self._asked.metadata)
        # On a thread of grpcio's, when the answer is there; what is behind it in the queue does not count.
        future.add_done_callback(lambda done: self._ended.put((client, time.perf_counter() - sent, done)))
