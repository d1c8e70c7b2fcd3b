"""Declarations and messages that were copied, or came through a pickle: they mean what they meant."""

import concurrent.futures
import dataclasses
import multiprocessing
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.everything import EVERYTHING, GROWING, Color
from tests.copies import WAYS
from tests.shapes import AVERAGE, SHAPES
from wireproto import codecs
from wireproto.limits import Limits
from wireproto.schema import Bounds, Message, Method, Operation, Service, Since, StreamMethod, fields, message_types
from wireproto.testing import messages

SERVICES = [EVERYTHING, GROWING, SHAPES]
METHODS = [(service, method) for service in SERVICES for method in service.methods]
MESSAGES = [cls for service in SERVICES for cls in message_types(service)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda given: getattr(given, "name", ""))
def test_a_copied_method_is_the_services_own(service: Service, method: Method[Message, Message], way: str) -> None:
    """A service knows a method of its own by what it says, whichever way it came; in one process a copy is the same."""
    twin = WAYS[way](method)
    assert service.own(twin) is service.own(method) is method
    assert (twin is method) == ("copy" in way)
    assert vars(twin) == vars(method)


def test_a_method_that_says_anything_else_is_not_the_services_own() -> None:
    """Each field counts, and so does the shape: a method of another service, or of another release, is not taken."""
    method = EVERYTHING.by_name("Single")
    changes = {
        "opcode": 9, "name": "Simple", "request": method.response, "response": method.request, "since": 2, "until": 9,
        "requires": "a", "reasons": ["A"], "idempotent": True, "blocking": True, "timeout": 1.0, "max_request": 9,
        "doc": "Says it.", "errors": (method.request,), "by": "server", "outlives_identity": True, "compress": True,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(Operation)}
    for name, value in changes.items():
        assert EVERYTHING.own(dataclasses.replace(method, **{name: value})) is None, name  # type: ignore[arg-type]
    assert EVERYTHING.own(dataclasses.replace(method)) is method
    said = {name: value for name, value in vars(method).items() if name in changes}
    assert EVERYTHING.own(StreamMethod(**said)) is None
    assert GROWING.own(method) is None
    assert SHAPES.own(dataclasses.replace(AVERAGE)) is AVERAGE
    assert SHAPES.own(dataclasses.replace(AVERAGE, collect=4)) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("service", [*SERVICES, GROWING.as_of(2)], ids=lambda service: service.name)
def test_a_copied_service_serves_the_same(service: Service, way: str) -> None:
    """It has the same table in every version, and takes the methods of the first for its own."""
    twin: Service = WAYS[way](service)
    assert repr(twin) == repr(service)
    for version in range(1, service.version + 1):
        assert twin.digests(version) == service.digests(version)
        assert repr(twin.as_of(version)) == repr(service.as_of(version))
    for method in service.methods:
        own = twin.own(method)
        assert own is not None
        assert service.own(own) is method
        assert twin.by_name(method.name) is own


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_copied_message_is_equal(cls: type[Message], data: st.DataObject) -> None:
    """Every message is copied with all its fields, whichever way."""
    message = data.draw(messages(cls))
    encode = codecs.get("msgpack").plan(cls, 3, Limits()).encode
    for copied in WAYS.values():
        twin = copied(message)
        assert type(twin) is cls
        assert encode(twin) == encode(
            message
        )  # not repr: older pickles drop the fold of a datetime, which says nothing


@pytest.mark.parametrize("way", WAYS)
def test_what_declarations_are_made_of_is_copied(way: str) -> None:
    """Marks, members and fields are equal to what they were copied from."""
    for value in (Bounds(ge=0), Since(2, ignorable=True), Color.BLUE, *fields(MESSAGES[0])):
        assert WAYS[way](value) == value


def answers(method: Operation[Message, Message]) -> tuple[str, bool]:
    """What a task of another process makes of a method that it is handed."""
    return method.name, EVERYTHING.own(method) is EVERYTHING.by_name(method.name)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_a_method_may_be_handed_to_another_process(how: str) -> None:
    """A task of a process pool takes it for the method of the service that it has itself."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(how)) as pool:
        assert pool.submit(answers, EVERYTHING.by_name("Many")).result(60) == ("Many", True)


def test_a_pickle_of_a_method_names_its_messages() -> None:
    """Messages are found by their module, so a class that nobody can import is refused when it is written."""

    class HiddenRequest(Message):
        pass

    hidden = Method(opcode=1, name="Hide", request=HiddenRequest, response=HiddenRequest)
    with pytest.raises((pickle.PicklingError, AttributeError), match="HiddenRequest"):
        pickle.dumps(hidden)
