"""The messages that a method declares for the details of its errors."""

import zlib
from typing import Any

import pytest

from wireproto.errors import DeclarationError
from wireproto.schema import Message, Method, OneWayMethod, Service, message_types


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


class Second(Message):
    number: int


class First(Message):
    text: str


def add(**declared: Any) -> Method[AddRequest, AddResponse]:
    return Method(opcode=16, name="Add", request=AddRequest, response=AddResponse, **declared)


def test_errors_join_the_digest_by_their_names() -> None:
    """Behind the two digests stand a mark and those of the errors, ascending by name, whatever order they have."""
    first, second = zlib.crc32(b"1:STR"), zlib.crc32(b"1:INT")
    expected = zlib.crc32(f"16 unary 2da0e8a1 b8423fc7 ! {first:08x} {second:08x}".encode())
    for errors in ([First, Second], [Second, First]):
        service = Service("example.v1.CalculatorService", methods=[add(errors=errors)])
        assert service.digests(1) == {16: expected}
    assert Service("example.v1.CalculatorService", methods=[add()]).digests(1) == {16: 0xD648EBF0}


def test_errors_are_messages_of_the_service() -> None:
    """What reaches them finds them: the .proto, descriptions, and the suites of tests."""
    service = Service("example.v1.CalculatorService", methods=[add(errors=[First])])
    assert message_types(service) == (AddRequest, AddResponse, First)
    assert add(errors=[First]).errors == (First,)


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        (First, r"errors is First; write errors=\[First\]"),
        (7, "errors is 7"),
        ([7], "list classes that derive from Message"),
        ([Message], "list classes that derive from Message"),
        ([First, First], "listed twice"),
    ],
)
def test_what_is_no_list_of_messages_is_refused(errors: Any, problem: str) -> None:
    """The text says what to write."""
    with pytest.raises(DeclarationError, match=problem):
        add(errors=errors)


def test_a_one_way_method_has_no_errors() -> None:
    """Nobody would be told."""
    with pytest.raises(DeclarationError, match="answers no error"):
        OneWayMethod(opcode=1, name="Post", request=First, errors=[Second])
