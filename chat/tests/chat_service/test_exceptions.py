"""Every exception of the chat crosses processes and is copied whole; the test finds them by itself."""

import copy
import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Iterator

import pytest

import wireproto_chat
from wireproto import CallError, ConnectionLost, Retry

SAMPLES: dict[object, object] = {
    str: "what a person reads",
    int: 7,
    CallError: ConnectionLost("connection reset", retry=Retry.NOT_PROCESSED, retry_after_ms=40),
}
"""One value for each type that an exception is made with."""


def modules() -> Iterator[str]:
    """Every module that may be imported without running something; the migrations are Alembic's to run."""
    for module in pkgutil.walk_packages(wireproto_chat.__path__, "wireproto_chat."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name:
            yield module.name


def exceptions() -> list[type[BaseException]]:
    """Every public exception that a module of the chat defines."""
    found = {
        value
        for name in modules()
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == name
    }
    return sorted((cls for cls in found if not cls.__name__.startswith("_")), key=lambda cls: cls.__qualname__)


def made(cls: type[BaseException]) -> BaseException:
    """One of them, with a value for every argument that it names, and what was learned about it later."""
    arguments: list[object] = ["what a person reads"]
    if cls.__init__ is not Exception.__init__:
        hints = typing.get_type_hints(cls.__init__)
        arguments = [SAMPLES[hints[name]] for name in list(inspect.signature(cls.__init__).parameters)[1:]]
    error = cls(*arguments)
    error.add_note("and what was noted on its way")
    return error


def test_there_are_some() -> None:
    """The search finds those that are known to be there."""
    assert {"Gone", "Misunderstood", "SessionEnded"} <= {cls.__name__ for cls in exceptions()}


@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: cls.__name__)
def test_every_exception_is_copied_whole(cls: type[BaseException], way: str) -> None:
    """What comes out has the type, the text, every field and every note of what went in."""
    error = made(cls)
    twin = {
        "pickle": lambda given: pickle.loads(pickle.dumps(given)),  # noqa: S301 - our own bytes
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }[way](error)
    assert type(twin) is cls
    assert (str(twin), repr(twin), repr(vars(twin))) == (str(error), repr(error), repr(vars(error)))
