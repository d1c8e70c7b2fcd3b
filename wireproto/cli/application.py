"""What another distribution brings to the command line: an application that can be served, and how it is found.

A distribution declares one entry point of the group ``wireproto.applications`` for each application it has:

    [project.entry-points."wireproto.applications"]
    library = "library.application:LIBRARY_APPLICATION"

With it, ``wireproto serve``, ``ops`` and ``proto`` without an argument are about that application, and ``serve --help``
shows its options.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import click

    from wireproto.dispatch import Authenticate, Handlers
    from wireproto.schema import Service

__all__ = ["Application", "Open", "Served"]


@dataclass(frozen=True)
class Served:
    """What ``wireproto serve`` serves.

    Attributes:
        handlers: of one service, or of several that are hosted together.
        authenticate: asked about every call that brings a credential; None for an application without accounts.
        ready_words: ``name=value`` words at the end of the ready line, quoted as a shell wants them.
    """

    handlers: "Sequence[Handlers]"
    authenticate: "Authenticate | None" = None
    ready_words: tuple[str, ...] = ()


Open: TypeAlias = Callable[[Mapping[str, Any], Callable[[BaseException], None]], AbstractContextManager[Served]]
"""``open(settings, stop)`` of an application; see there."""


@dataclass(frozen=True)
class Application:
    """A service with all that it takes to serve it.

    Attributes:
        service: what it is about.
        open: ``open(settings, stop)`` gives a context manager; what it gives is served for as long as it is open.
            ``settings`` has the value of each of ``options`` by its name. ``stop(error)``, which may be called from any
            thread and at once, has the server drain and end with status 1, for something it cannot go on after. What
            ``open`` raises as ``wireproto.cli.command.Failure`` or as a ``ConfigError`` is shown as a sentence.
        options: options of click that ``serve`` takes for it, beside its own.
    """

    service: "Service"
    open: Open
    options: "Sequence[click.Option]" = field(default=())
