"""What every gRPC server is expected to have beside its services: reflection, in both its versions, and health."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from wireproto.protos.reflected import ALPHA, STABLE, reflection_pool
from wireproto.schema import Service
from wireproto.server.gateway.pool import CountedPool

__all__ = ["Standard"]

PATIENCE = 1.0
"""Seconds that telling the watchers of the health may take; one that reads nothing must not hold the shutdown up."""


class Standard:
    """The handlers of reflection and health, which run in the pool of streams but for ``Check``.

    Args:
        services: what the gateway serves.
        streams: the pool that a stream belongs into, so that an idle one takes no unary call's thread.

    Attributes:
        methods: grpcio's handlers by path.
        streaming: the paths that count against the cap of streams.
    """

    def __init__(self, services: Sequence[Service], streams: CountedPool) -> None:
        names = [*(service.full_name for service in services), health.SERVICE_NAME]
        reflected = [*names, *(f"{package}.ServerReflection" for package in (ALPHA, STABLE))]
        pool = reflection_pool(services, health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb)
        self._reflection = reflection.ReflectionServicer(reflected, pool=pool)
        self._health = health.HealthServicer()
        for name in names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._lock = threading.Lock()
        self._watching: dict[grpc.ServicerContext, Callable[[Any], None]] = {}
        self._reflecting: set[grpc.ServicerContext] = set()
        reflect = grpc.stream_stream_rpc_method_handler(
            _in_pool(self._reflect, streams),
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        self.methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            f"/{health.SERVICE_NAME}/Check": grpc.unary_unary_rpc_method_handler(
                self._health.Check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            f"/{health.SERVICE_NAME}/Watch": grpc.unary_stream_rpc_method_handler(
                _in_pool(self._watch, streams, non_blocking=True),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            f"/{ALPHA}.ServerReflection/ServerReflectionInfo": reflect,
            f"/{STABLE}.ServerReflection/ServerReflectionInfo": reflect,
        }

    def leave(self) -> None:
        """Say NOT_SERVING from now on, and end the streams that would go on for ever."""
        telling = threading.Thread(target=self._tell, name="wireproto-grpc-health", daemon=True)
        telling.start()
        telling.join(PATIENCE)
        with self._lock:
            reflecting = list(self._reflecting)
        for context in reflecting:
            context.cancel()

    def _tell(self) -> None:
        self._health.enter_graceful_shutdown()
        with self._lock:
            watching = list(self._watching.items())
        for context, send in watching:
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("the server is shutting down")
            send(None)

    def _watch(self, request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        def forget() -> None:
            with self._lock:
                self._watching.pop(context, None)

        with self._lock:
            self._watching[context] = send
        if context.add_callback(forget):
            self._health.Watch(request, context, send)
        else:
            forget()

    def _reflect(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._lock:
            self._reflecting.add(context)
        try:
            yield from self._reflection.ServerReflectionInfo(requests, context)
        finally:
            with self._lock:
                self._reflecting.discard(context)


def _in_pool(method: Callable[..., Any], pool: CountedPool, *, non_blocking: bool = False) -> Callable[..., Any]:
    """``method`` with the attributes by which grpcio knows where, and how, to run it."""

    def behavior(*arguments: Any) -> Any:
        return method(*arguments)

    vars(behavior).update(experimental_thread_pool=pool, experimental_non_blocking=non_blocking)
    return behavior
