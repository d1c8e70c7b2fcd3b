"""Which engine serves: the quick one where it may, and otherwise, with a line in the log, the one of public names."""

import logging
from typing import Literal, TypeAlias

from wireproto.address import Address
from wireproto.errors import ConfigError
from wireproto.server.gateway.public import PublicEngine
from wireproto.server.gateway.seam import Engine

__all__ = ["EngineName", "make_engine"]

log = logging.getLogger("wireproto.gateway")

EngineName: TypeAlias = Literal["auto", "core", "public"]


def make_engine(wanted: EngineName, where: Address, options: list[tuple[str, int]]) -> Engine:
    """An engine that listens nowhere yet.

    Args:
        wanted: ``core`` for the loop over gRPC's core, ``public`` for ``grpc.aio``; ``auto`` for the first where this
            grpcio is one that it was tried with.
        where: the address to listen on, which is free or has port 0.
        options: channel arguments of grpcio.

    Raises:
        ConfigError: there is no such engine, or the one that was asked for cannot run here.
    """
    if wanted not in ("auto", "core", "public"):
        raise ConfigError(f"engine is {wanted!r}; give 'auto', 'core' or 'public'")
    if wanted == "public":
        return PublicEngine(where, options)
    problem = _core_problem()
    if not problem:
        from wireproto.server.gateway.core import CoreEngine

        return CoreEngine(where, options)
    if wanted == "core":
        raise ConfigError(f"the engine 'core' cannot run: {problem}; give engine='auto'")
    log.warning("gRPC is served by its public interface, with more CPU for each call: %s", problem)
    return PublicEngine(where, options)


def _core_problem() -> str:
    """Why the loop over gRPC's core cannot be used; empty when it can. All that may be amiss is amiss in here."""
    try:
        from wireproto.server.gateway.core import problem
    except (ImportError, AttributeError) as error:
        return f"this grpcio lacks what it needs ({error})"
    return problem()
