"""gRPC over the same handlers: ``GrpcGateway(handlers, port=0)`` beside ``Server(handlers)``.

Importing it without the extra ``grpc`` raises ``ConfigError``, which says what to install.
"""

from wireproto.errors import ConfigError

try:
    from wireproto.server.gateway.gateway import GrpcGateway
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("google", "grpc", "grpc_health", "grpc_reflection", "grpc_status"):
        raise
    raise ConfigError(f"{error.name} is not installed; run: pip install 'wireproto[grpc]'") from error

__all__ = ["GrpcGateway"]
