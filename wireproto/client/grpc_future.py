"""The future of a call over gRPC."""

from collections.abc import Mapping
from typing import Any, TypeVar

from wireproto.client.grpc_answers import read_trailers
from wireproto.client.guard import inside, refuse_interrupter
from wireproto.futures import CallFuture
from wireproto.schema import Message
from wireproto.wire.answers import NOTHING_BESIDE

__all__ = ["GrpcFuture"]

Resp = TypeVar("Resp", bound=Message)


class GrpcFuture(CallFuture[Resp]):
    """The future of a call over gRPC.

    Attributes:
        rpc: grpcio's; None for a call that was not made.
    """

    rpc: Any = None

    @property
    def metadata(self) -> Mapping[str, str]:
        return read_trailers(self.rpc).metadata if self.rpc is not None and self.done() else NOTHING_BESIDE.metadata

    @inside
    def result(self, timeout: float | None = None) -> Resp:
        return super().result(timeout)

    @inside
    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(timeout)

    def cancel(self) -> bool:
        refuse_interrupter()
        cancelled = super().cancel()
        if cancelled and self.rpc is not None:
            self.rpc.cancel()
        return cancelled
