"""Whether an installed Python package hides the stubs that protoc makes of a service."""

import importlib.util
from collections.abc import Iterable

import click

from wireproto.schema import Service

__all__ = ["shadowed", "warn_of_shadows"]


def shadowed(service: Service) -> str:
    """A sentence that says what is hidden and how to mend it; "" when nothing is.

    The stubs of ``shop.v1.ShopService`` are modules ``shop.v1.shop_pb2``, which import each other by that name. Where a
    package or module ``shop`` can be imported, and is no namespace package, Python looks for ``shop.v1`` inside of it
    and nowhere else. Nothing is imported to find that out.
    """
    first, _, rest = service.package.partition(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return ""  # a module made by hand, which has no place: nothing that is installed
    if spec is None or spec.origin is None:
        return ""
    better = f"{first}api.{rest}" if rest else f"{first}api"
    return (
        f"the Python package {first!r} hides the stubs that protoc makes of the proto package {service.package!r}: "
        "they could not be imported where both are there. Call the proto package otherwise, such as "
        f"{better!r}: Service('{better}.{service.name}', ...)"
    )


def warn_of_shadows(services: Iterable[Service]) -> None:
    """Say on stderr which of the services have stubs that could not be imported here."""
    for service in services:
        if sentence := shadowed(service):
            click.echo(f"wireproto: warning: {sentence}", err=True)
