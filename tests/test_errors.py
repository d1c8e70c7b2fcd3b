"""Every exception of the framework crosses processes and is copied whole; the test finds them by itself."""

import concurrent.futures
import copy
import importlib
import inspect
import multiprocessing
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import wireproto
from tests.copies import WAYS
from wireproto.errors import CallError, ConfigError, ConnectionLost, EncodeError, HandshakeError, WireprotoError
from wireproto.status import Retry, Status
from wireproto.wire.packing import Packed

SAMPLES: dict[object, object] = {
    str: "what a person reads",
    int: 7,
    Any: ("details", 7),
    Status: Status.ABORTED,
    Retry: Retry.NOT_PROCESSED,
    CallError: CallError(Status.NOT_FOUND, "NO_SUCH_ROOM"),
    Packed: Packed(1, b"\0\0\0\1x"),
}
"""One value for each type that an exception is made with."""


def modules() -> Iterator[str]:
    """Every module of the package that may be imported without running something."""
    for module in pkgutil.walk_packages(wireproto.__path__, "wireproto."):
        if not module.name.endswith("__main__"):
            yield module.name


def exceptions() -> list[type[BaseException]]:
    """Every public exception that a module of the package defines."""
    found = {
        value
        for name in modules()
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == name
    }
    return sorted((cls for cls in found if not cls.__name__.startswith("_")), key=lambda cls: cls.__qualname__)


def made(cls: type[BaseException]) -> BaseException:
    """One of them, with a value for every argument that it names, and what was learned about it later."""
    arguments: list[object] = []
    named: dict[str, object] = {}
    if not inspect.isfunction(cls.__init__):  # a builtin's, which takes whatever comes
        arguments = ["what a person reads", 7]
    else:
        hints = typing.get_type_hints(cls.__init__)
        for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
            value = SAMPLES[hints[name]]
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[name] = value
            else:
                arguments.append(value)
    error = cls(*arguments, **named)
    error.add_note("and what was noted on its way")
    error.learned_later = ["by whoever caught it"]  # type: ignore[attr-defined]
    return error


def test_there_are_all_of_them() -> None:
    """The search finds those that the package names, and those of its parts."""
    found = exceptions()
    public = {value for name in wireproto.__all__ if isinstance(value := getattr(wireproto, name), type)}
    assert {cls for cls in public if issubclass(cls, BaseException)} < set(found)
    assert {"Deviation", "PayloadTooLarge", "Failure"} <= {cls.__name__ for cls in found}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: cls.__name__)
def test_every_exception_is_copied_whole(cls: type[BaseException], way: str) -> None:
    """What comes out has the type, the text, the arguments, every field and every note of what went in."""
    error = made(cls)
    error.__cause__ = ValueError("which stays where it was")
    twin = WAYS[way](error)
    assert type(twin) is cls
    assert twin is not error
    assert (str(twin), repr(twin)) == (str(error), repr(error))
    assert _shown(vars(twin)) == _shown(vars(error))
    assert _shown(twin.args) == _shown(error.args)
    assert twin.__notes__ == ["and what was noted on its way"]


def _shown(value: object) -> str:
    """An exception equals itself only; its text says what is in it."""
    return repr(value)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"status": Status.OK}, ValueError, r"status is OK; .* answer"),
        ({"status": 5}, TypeError, r"status is 5; give a Status"),
        ({"status": 0}, TypeError, r"status is 0; give a Status"),
        ({"status": None}, TypeError, r"status is None; give a Status"),
        ({"reason": None}, TypeError, r"reason is None; give a str"),
        ({"message": ValueError("x")}, TypeError, r"message is ValueError\('x'\); give a str"),
        ({"retry": True}, TypeError, r"retry is True; give a Retry"),
        ({"retry_after_ms": 1.5}, TypeError, r"retry_after_ms is 1.5; give an int"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", [CallError, HandshakeError])
def test_a_failure_that_cannot_be_sent_is_not_made(
    cls: type[CallError], arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """A status of OK and an argument of another type are refused where the error is made, not where it is sent."""
    with pytest.raises(error, match=text):
        cls(**{"status": Status.ABORTED, **arguments})


def test_a_lost_connection_says_how_long_to_wait_in_milliseconds() -> None:
    """The subclass with arguments of its own refuses the same."""
    with pytest.raises(TypeError, match=r"retry_after_ms is 0\.5"):
        ConnectionLost("gone", retry_after_ms=0.5)  # type: ignore[arg-type]


class Refused(ConfigError):
    """An application's own, made with other arguments than it shows."""

    def __init__(self, *, door: str, number: int) -> None:
        super().__init__(f"{door} {number} is shut")
        self.number = number


@pytest.mark.parametrize("way", WAYS)
def test_an_applications_own_exception_is_copied_whole(way: str) -> None:
    """One that derives from ours needs nothing for it, whatever its constructor takes."""
    twin = WAYS[way](Refused(door="gate", number=3))
    assert isinstance(twin, Refused)
    assert (str(twin), twin.number) == ("gate 3 is shut", 3)


def test_a_copy_has_fields_of_its_own() -> None:
    """What is changed in a copy does not change the original."""
    error = CallError(Status.UNAVAILABLE, retry_after_ms=5)
    twin = copy.copy(error)
    twin.retry_after_ms = 9
    assert error.retry_after_ms == 5


# Across processes -------------------------------------------------------------------------------------------------

METHODS = ("fork", "spawn", "forkserver")

# From 3.12 on a fork in a process with threads is warned of, and the runner of the tests has some.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def fails(how: str) -> None:
    """What a task of another process raises."""
    raise {
        "lost": ConnectionLost("nobody listens there", retry=Retry.NOT_PROCESSED, retry_after_ms=40),
        "encode": EncodeError("Say.text", "it is no str"),
    }[how]


def check(error: WireprotoError) -> None:
    assert isinstance(error, ConnectionLost)
    assert (error.status, error.reason) == (Status.UNAVAILABLE, "CONNECTION_LOST")
    assert (error.message, error.retry, error.retry_after_ms) == ("nobody listens there", Retry.NOT_PROCESSED, 40)


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_of_processes_hands_the_error_over(method: str) -> None:
    """A ``ProcessPoolExecutor`` gives its caller the error of a task, and does the next task."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        lost, encode = pool.submit(fails, "lost"), pool.submit(fails, "encode")
        error = lost.exception(60)
        assert isinstance(error, WireprotoError)
        check(error)
        with pytest.raises(EncodeError, match=r"^Say\.text: it is no str$"):
            encode.result(60)


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_hands_the_error_over(method: str) -> None:
    """A ``multiprocessing.Pool``, whose collector died of an error that cannot be read, gives it to its caller."""
    with multiprocessing.get_context(method).Pool(1) as pool:
        with pytest.raises(ConnectionLost) as caught:
            pool.apply_async(fails, ("lost",)).get(60)
        check(caught.value)
        with pytest.raises(EncodeError):
            pool.apply_async(fails, ("encode",)).get(60)
        pool.close()  # to end by itself: a signal was not enough for a child of the runner's once
        pool.join()
