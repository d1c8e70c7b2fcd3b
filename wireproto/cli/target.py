"""``package.module:NAME`` on the command line: imported, checked, and explained when it is wrong."""

import difflib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

from wireproto.cli.plugins import applications, only_application
from wireproto.errors import ConfigError, WireprotoError
from wireproto.schema import Service

__all__ = ["named_services", "resolve"]

T = TypeVar("T")


def resolve(target: str, kind: type[T]) -> T:
    """The object of type ``kind`` that ``target`` names. The working directory is searched first, as by ``python -m``.

    Raises:
        ConfigError: there is none; the text says what there is instead.
    """
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or os.sep in name:
        dotted = name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise ConfigError(f"{target!r} is a path; write the module's name: {dotted}:{attribute or 'NAME'}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{target!r} names no module; write package.module:NAME")
    module = _import(name)
    found = getattr(module, attribute, None) if attribute else None
    if isinstance(found, kind):
        return found
    there = [key for key, value in vars(module).items() if isinstance(value, kind) and key[0] != "_"]
    if not attribute:
        problem = f"{target!r} does not say which {kind.__name__}"
    elif found is None:
        problem = f"{name} has no {attribute!r}"
    else:
        problem = f"{target} is of type {type(found).__name__}, not {kind.__name__}"
    if not there:
        raise ConfigError(f"{problem}; the module has no {kind.__name__} at all")
    choices = ", ".join(f"{name}:{key}" for key in there)
    raise ConfigError(f"{problem}; {_did_you_mean(attribute, there, f'{name}:') or f'it has {choices}'}")


def named_services(targets: tuple[str, ...], command: str) -> list[Service]:
    """The services that a command line names, by MODULE:SERVICE or as an application; none means the only one.

    Raises:
        Failure: nothing is named, and there is not exactly one application.
        ConfigError: something is named that is not there.
    """
    if not targets:
        return [only_application(applications(), command, "MODULE:SERVICE")[1].service]
    return [_service(target) for target in targets]


def _service(target: str) -> Service:
    if ":" not in target and (application := applications().get(target)) is not None:
        return application.service
    return resolve(target, Service)


def _import(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, "")  # an installed command has its own folder there instead
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise ConfigError(f"{name} cannot be imported: it needs {missing}, which is not installed") from error
        hint = _did_you_mean(missing, _neighbours(missing.rpartition(".")[0]))
        raise ConfigError(
            f"there is no module {missing!r}; {hint or f'it was looked for in {os.getcwd()} and in {sys.prefix}'}"
        ) from error
    except WireprotoError as error:
        raise ConfigError(f"{name} cannot be imported: {error}") from error
    except Exception as error:  # a user's module may raise anything while it is imported
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{name} cannot be imported: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        ) from error


def _neighbours(package: str) -> list[str]:
    """The modules inside ``package``, or in the working directory when there is none."""
    if not package:
        return [module.name for module in pkgutil.iter_modules([os.getcwd()])]
    paths: Iterable[str] = getattr(sys.modules.get(package), "__path__", ())
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths)]


def _did_you_mean(wrong: str, there: list[str], prefix: str = "") -> str:
    folded = {name.casefold(): name for name in there}
    close = difflib.get_close_matches(wrong.casefold(), folded, n=1)
    return f"did you mean {prefix}{folded[close[0]]}?" if close else ""
