"""What other distributions bring, found by their entry points: commands, and applications to serve.

One that cannot be loaded costs a line on stderr that names its distribution, and never another command.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeVar

import click

from wireproto.cli.application import Application
from wireproto.cli.command import Failure

T = TypeVar("T")

__all__ = ["applications", "commands", "only_application"]

COMMANDS: Final = "wireproto.commands"
"""A mapping of command names to (module, line of help), one entry point a distribution.

The line stands there because an entry point carries no help text, and ``--help`` must not import the module to get it.
"""

APPLICATIONS: Final = "wireproto.applications"
"""An ``Application``, under the name by which a command line may name it."""


def commands(ours: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The commands of other distributions, by name. One with a name of ``ours`` is left out, and a line says so."""
    found: dict[str, tuple[str, str]] = {}
    for entry in entry_points(group=COMMANDS):
        brought: Mapping[str, tuple[str, str]] | None = _load(entry, Mapping)  # type: ignore[type-abstract]
        for name, place in ({} if brought is None else brought).items():
            if name in ours or name in found:
                _complain(entry, f"its command {name!r} is left out, for there is one of that name already")
            elif _is_place(place):
                found[name] = place
            else:
                _complain(entry, f"its command {name!r} is left out, for {place!r} is not (module, line of help)")
    return found


def _is_place(place: object) -> bool:
    return isinstance(place, tuple) and len(place) == 2 and all(isinstance(each, str) for each in place)


def applications(reserved: Iterable[click.Parameter] = ()) -> dict[str, Application]:
    """The applications that are installed, by the name of their entry point.

    Args:
        reserved: options that no application may bring: those of the command, when it takes theirs beside its own.
    """
    found: dict[str, Application] = {}
    taken = _flags(reserved)
    for entry in entry_points(group=APPLICATIONS):
        application = _load(entry, Application)
        if application is None:
            continue
        flags = _flags(application.options)
        if entry.name in found:
            _complain(entry, f"its application {entry.name!r} is left out, for there is one of that name already")
        elif flags & taken:
            clash = ", ".join(sorted(flags & taken))
            _complain(entry, f"its application {entry.name!r} is left out, for {clash} means something else already")
        else:
            found[entry.name] = application
            taken |= flags
    return found


def _flags(options: Iterable[click.Parameter]) -> set[str]:
    """How options are written, and the names that their values have."""
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts, option.name or "")}


def only_application(found: Mapping[str, Application], command: str, argument: str) -> tuple[str, Application]:
    """The one application that is installed, and its name: what a command is about that names nothing.

    Raises:
        Failure: there is none, or there are several; the text says what to name.
    """
    if len(found) == 1:
        ((name, application),) = found.items()
        return name, application
    broken = [entry.name for entry in entry_points(group=APPLICATIONS)]
    if not found and broken:
        raise Failure(f"the application {broken[0]} is installed and cannot be served; the line above says why", 2)
    if not found:
        raise Failure(
            f"no application is installed that could be meant; name your own, wireproto {command} {argument}, "
            "or install one: pip install wireproto-chat (in a clone of wireproto: pip install ./chat)",
            2,
        )
    listed = ", ".join(f"{name} ({application.service.full_name})" for name, application in sorted(found.items()))
    raise Failure(f"several applications are installed: {listed}; name one: wireproto {command} {min(found)}", 2)


def _load(entry: EntryPoint, kind: type[T]) -> T | None:
    """What an entry point stands for; None, and a line on stderr, when it cannot be had or is of another type."""
    if entry.pattern.match(entry.value) is None:
        _complain(entry, f"{entry.value!r} is not MODULE:NAME")
        return None
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # somebody else's module may raise anything when imported
        _complain(entry, f"{entry.value} cannot be loaded: {type(error).__name__}: {error}")
        return None
    if not isinstance(found, kind):
        wanted = "a mapping" if kind is Mapping else f"an {kind.__name__}"
        _complain(entry, f"{entry.value} is of type {type(found).__name__}, and is to be {wanted}")
        return None
    return found


def _complain(entry: EntryPoint, sentence: str) -> None:
    source = "an installed distribution" if entry.dist is None else f"the distribution {entry.dist.name}"
    click.echo(f"wireproto: {source}: {' '.join(sentence.split())}", err=True)
