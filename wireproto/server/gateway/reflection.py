"""gRPC's reflection, in both its versions: a message in, a message out, for as long as the caller has questions."""

import math
import threading
import time
from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from wireproto.answering.pool import Worker
from wireproto.answering.refusals import busy, shutting_down
from wireproto.errors import CallError
from wireproto.identity import Identity
from wireproto.protos.reflected import ALPHA, STABLE, parsed, reflection_pool
from wireproto.reasons import failure
from wireproto.schema import Service
from wireproto.server.gateway.health import HEALTH
from wireproto.server.gateway.rpc import RpcOwner, half, untaken
from wireproto.server.gateway.seam import Wire
from wireproto.status import Retry

__all__ = ["Reflection", "ReflectionCall"]


class Reflection:
    """What is told of the services.

    Args:
        services: those that are served.

    Attributes:
        paths: of its methods.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        names = [*(service.full_name for service in services), HEALTH]
        reflected = [*names, *(f"{package}.ServerReflection" for package in (ALPHA, STABLE))]
        pool = reflection_pool(services, health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb)
        self._servicer = reflection.ReflectionServicer(reflected, pool=pool)
        self.paths = [f"/{package}.ServerReflection/ServerReflectionInfo" for package in (ALPHA, STABLE)]

    def answer(self, payload: bytes) -> bytes:
        """The response to one request. Any thread.

        Raises:
            CallError: it is no request.
        """
        try:
            request = parsed(reflection_pb2.ServerReflectionRequest, payload)
        except ValueError as error:
            raise failure("BAD_PAYLOAD", f"that is no ServerReflectionRequest: {error}") from error
        (response,) = self._servicer.ServerReflectionInfo(iter([request]), None)
        answer: bytes = response.SerializeToString()
        return answer


class ReflectionCall:
    """One caller with questions; see ``seam.CallEvents`` and ``rpc.Live``. Between two of them it holds no thread.

    Args:
        door: whose call it is.
        wire: what the engine has of it.
        reflection: who answers.
    """

    def __init__(self, door: RpcOwner, wire: Wire, reflection: Reflection) -> None:
        self._door = door
        self._wire = wire
        self.peer = wire.peer
        self._reflection = reflection
        self._lock = threading.Lock()
        self._over = False
        self._question: bytes | None = None
        self._sending = False
        self._answered = False
        self._moved = time.monotonic()

    def ask(self) -> None:
        """See ``rpc.Live``."""
        with self._lock:
            if not self._over:
                self._wire.watch()
        self._door.questions.enter(self)

    def read(self) -> None:
        """See ``halves.Half``."""
        with self._lock:
            if not self._over:
                self._wire.receive()

    def on_message(self, worker: Worker | None, payload: bytes) -> None:
        """See ``seam.CallEvents``."""
        self._door.questions.leave(self, whole=True)
        self._question = payload
        if not self._door.pool.submit(self):
            self._end(busy())

    def on_complete(self) -> None:
        """See ``seam.CallEvents``."""
        self._door.questions.leave(self)
        self._end(None)

    def run_blocking(self) -> None:
        """Answer; called by the pool, for the first answers of a service take their time."""
        question, self._question = self._question, None
        try:
            answer = self._reflection.answer(question or b"")
        except CallError as error:
            self._end(error)
            return
        with self._lock:
            if not self._over:
                self._sending = self._answered = True
                self._moved = time.monotonic()
                self._wire.send(answer, False)

    def on_sent(self) -> None:
        """See ``seam.CallEvents``."""
        with self._lock:
            self._sending = False
            self._moved = time.monotonic()
            if self._over:
                return
            if self._door.draining:
                self._over = True
                self._wire.end(self._shutting_down(), {})
                return
        self.ask()

    def on_over(self) -> None:
        """See ``seam.CallEvents``."""
        with self._lock:
            if not self._over:
                self._door.conduct.note(self.peer, "cancels")
            self._over = True
        self._door.questions.leave(self)
        self._door.forget(self)

    def refuse(self, error: CallError) -> None:
        """See ``rpc.Live``."""
        self._end(error)

    def sweep(self, now: float) -> None:
        """See ``rpc.Live``. It has as long for each question as a call has for its message."""
        with self._lock:
            waited = now - self._moved
            if self._over:
                return
            if self._sending:
                if waited > self._door.limits.write_timeout:
                    self._over = True
                    self._wire.reset(untaken(waited))
            elif self._question is None and waited > self._door.patience:
                self._over = True
                self._wire.end(half(waited), {})

    def expire(self, now: float) -> float:
        """See ``rpc.Live``: what a caller has set for its questions ends them at its own side."""
        return math.inf

    def drain(self) -> None:
        """See ``rpc.Live``."""
        self._end(self._shutting_down())

    def revoke(self, identity: Identity) -> None:
        """See ``rpc.Live``: reflection asks nobody who they are."""

    def dismiss(self) -> None:
        """See ``rpc.Live``: it has ended with ``drain``, or does once its answer is sent."""

    def cut(self) -> None:
        """See ``rpc.Live``."""
        self._end(self._shutting_down())
        with self._lock:
            if not self._over:
                self._over = True
                self._wire.reset(self._shutting_down())

    def _shutting_down(self) -> CallError:
        return shutting_down(Retry.MAYBE_PROCESSED if self._answered else Retry.NOT_PROCESSED)

    def _end(self, error: CallError | None) -> None:
        with self._lock:
            if not self._over and not self._sending:
                self._over = True
                self._wire.end(error, {})
