"""Handlers of the framework's own opcodes, which every connection has beside its service's."""

from collections.abc import Callable, Sequence

from wireproto.control import (
    CHECK,
    CONTROL,
    DESCRIBE,
    ECHO,
    CheckRequest,
    CheckResponse,
    DescribeRequest,
    DescribeResponse,
    EchoRequest,
    EchoResponse,
    Health,
    ServiceDescription,
    describe,
)
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.schema import Service
from wireproto.status import Status

__all__ = ["control_handlers"]


def control_handlers(services: Sequence[Service], name: str, serving: Callable[[], bool]) -> Handlers:
    """The control service of a server.

    Args:
        services: those it hosts.
        name: what it calls itself.
        serving: whether it takes calls; false from the moment it begins to drain.
    """
    handlers = Handlers(CONTROL)
    hosted = {service.full_name: service for service in [*services, CONTROL]}
    described: dict[str, ServiceDescription] = {}

    def known(full_name: str, context: Context) -> Service:
        if full_name not in hosted:
            context.abort(
                Status.NOT_FOUND,
                "UNKNOWN_SERVICE",
                f"there is no service {full_name!r} here; this server hosts: {', '.join(sorted(hosted))}",
            )
        return hosted[full_name]

    @handlers.register(CHECK)
    def check(request: CheckRequest, context: Context) -> CheckResponse:
        if request.service:
            known(request.service, context)
        return CheckResponse(health=Health.SERVING if serving() else Health.NOT_SERVING, server=name)

    @handlers.register(DESCRIBE)
    def describe_services(request: DescribeRequest, context: Context) -> DescribeResponse:
        wanted = [known(request.service, context)] if request.service else list(services)
        for service in wanted:
            if service.full_name not in described:
                described[service.full_name] = describe(service)
        return DescribeResponse(server=name, services=[described[service.full_name] for service in wanted])

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        return EchoResponse(payload=request.payload)

    return handlers
