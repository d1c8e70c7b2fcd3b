"""The ground that codecs stand on: error translation, the limit on elements."""

from typing import Any

import pytest

from tests.codecs.everything import Leaf, Maps, Nothing, Three
from wireproto.codecs import PlainCodec
from wireproto.codecs.base import element_refusal, explain
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits

THREE = Three(sender="ann", text="hello", number=3)

TRANSLATED: list[tuple[Exception, str]] = [
    (ValueError("s3cret"), "is malformed (ValueError)"),
    (KeyError("s3cret"), "is malformed (KeyError)"),
    (RecursionError("s3cret"), "is nested too deeply"),
    (MemoryError("s3cret"), "does not fit in memory"),
    (UnicodeDecodeError("utf-8", b"s3cret", 0, 1, "s3cret"), "is not UTF-8"),
    (UnicodeEncodeError("utf-8", "s3cret", 0, 1, "s3cret"), "has a surrogate, which UTF-8 cannot write"),
    (EncodeError("Three.text", "is too long"), "is too long"),
]


@pytest.mark.parametrize(("error", "problem"), TRANSLATED, ids=lambda value: type(value).__name__)
def test_whatever_a_format_raises_is_translated(error: Exception, problem: str) -> None:
    """The functions of a codec may raise anything; what leaves its plan is one error without the other's text."""

    class Broken(PlainCodec):
        name, id = "broken", 200

        def dumps(self, value: list[Any]) -> bytes:
            raise error

        def loads(self, payload: bytes) -> object:
            raise error

    plan = Broken().plan(Three, 1, Limits())
    assert explain(error) == problem
    with pytest.raises(EncodeError) as encoding:
        plan.encode(THREE)
    assert encoding.value.problem == problem
    with pytest.raises(DecodeError) as decoding:
        plan.decode(b"")
    assert decoding.value.problem == problem
    assert "s3cret" not in f"{encoding.value}{decoding.value}"


def test_only_exceptions_are_translated() -> None:
    """What is no failure of the codec, like a time-out of the test or Ctrl-C, passes through."""

    class Interrupted(PlainCodec):
        name, id = "interrupted", 200

        def dumps(self, value: list[Any]) -> bytes:
            raise KeyboardInterrupt

        def loads(self, payload: bytes) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().plan(Three, 1, Limits()).encode(THREE)


def test_types_without_containers_need_no_refusal() -> None:
    """Nothing is counted where there is nothing to count."""
    assert element_refusal(Three, 1, 1) is None
    assert element_refusal(Nothing, 1, 1) is None
    assert element_refusal(Leaf, 1, 1) is not None


def test_a_refusal_of_elements_names_the_container() -> None:
    """The first container that is too long is named, in messages in maps, too."""
    refuse = element_refusal(Maps, 1, 1)
    assert refuse is not None
    empty: dict[str, Any] = {name: {} for name in Maps.__struct_fields__}
    refuse(Maps(**empty), EncodeError)
    cases: list[tuple[str, Any, str]] = [
        ("truths", {"a": True, "b": True}, "Maps.truths"),
        ("leaves", {1: Leaf(name="x", flags=[True, True])}, "Maps.leaves[#0].flags"),
    ]
    for name, value, path in cases:
        with pytest.raises(DecodeError, match="has more than 1 elements") as caught:
            refuse(Maps(**{**empty, name: value}), DecodeError)
        assert caught.value.path == path
