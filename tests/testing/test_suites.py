"""RoundTripSuite fails where it should: each codec here has one fault, and one test that finds it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.codecs.everything import ALL, EVERYTHING, GROWING, JSON, Grown, Nothing, Singles, TextMaps, Three
from tests.shapes import SHAPES
from wireproto.codecs import Codec, PlainCodec, Plan
from wireproto.limits import Limits
from wireproto.schema import Message, Service, from_plain, to_plain
from wireproto.testing import RoundTripSuite
from wireproto.testing.suites import MessageAt


@pytest.fixture(autouse=True)
def _first_failure_only() -> Iterator[None]:
    """Failures are wanted here, not the smallest ones, and the same in each run."""
    before = settings.get_current_profile_name()
    settings.register_profile(
        "faults", settings(phases=[Phase.generate], report_multiple_bugs=False, database=None, derandomize=True)
    )
    settings.load_profile("faults")
    yield
    settings.load_profile(before)


class Faulty(PlainCodec):
    """JSON, to be spoilt by subclasses."""

    name, id = "faulty", 240

    def dumps(self, value: list[Any]) -> bytes:
        assert isinstance(JSON, PlainCodec)
        return JSON.dumps(value)

    def loads(self, payload: bytes) -> object:
        assert isinstance(JSON, PlainCodec)
        return JSON.loads(payload)


class Rounds(Faulty):
    """Writes floats with three digits."""

    def dumps(self, value: list[Any]) -> bytes:
        return super().dumps([float(f"{each:.3g}") if type(each) is float else each for each in value])


class Unordered(Faulty):
    """Writes maps in the order they were filled."""

    def dumps(self, value: list[Any]) -> bytes:
        maps = [{"keys": [*each], "values": [*each.values()]} for each in value]
        return json.dumps(maps, ensure_ascii=False).encode()


class Swaps(Faulty):
    """Reads what it wrote, but gives neighbours each other's text."""

    def loads(self, payload: bytes) -> object:
        value: Any = super().loads(payload)
        return [value[1], value[0], value[2]] if len(value) == 3 else value


class Unchecked(Codec):
    """A plan of its own, without checks, errors translated, or versions."""

    name, id = "unchecked", 241

    def compile(self, message_type: type[Any], version: int, limits: Limits, *, request: bool) -> Plan[Any]:
        def encode(message: Message) -> bytes:
            return Faulty.dumps(Faulty(), to_plain(message))

        def decode(payload: bytes) -> Message:
            found: Message = from_plain(message_type, Faulty.loads(Faulty(), payload))
            return found

        return Plan(encode, decode)


def suite(service: Service, *codecs: Codec) -> RoundTripSuite:
    made = type("Suite", (RoundTripSuite,), {"service": service, "codecs": list(codecs)})()
    assert isinstance(made, RoundTripSuite)
    return made


def sample(message_type: type[Message], version: int = 1, *, request: bool = True) -> MessageAt:
    return MessageAt("Some", message_type, version, request)


FAULTS: list[tuple[str, Callable[[], None]]] = [
    ("assert", lambda: suite(EVERYTHING, Rounds()).test_decoding_gives_what_was_encoded(sample(Singles), Rounds())),
    ("order of a map", lambda: suite(GROWING).test_decoding_gives_what_was_encoded(sample(TextMaps), Unordered())),
    ("assert", lambda: suite(EVERYTHING, JSON, Swaps()).test_codecs_agree(sample(Three))),
    (
        "was encoded",
        lambda: suite(EVERYTHING, Unchecked()).test_undeclared_values_are_refused(sample(Three), Unchecked()),
    ),
    (
        "Error",
        lambda: suite(GROWING).test_mutated_bytes_give_a_message_or_decode_error(sample(Three), Unchecked()),
    ),
    (
        "assert",
        lambda: suite(GROWING).test_an_older_peer_gets_what_its_version_has(sample(Grown, request=False), Unchecked()),
    ),
    (
        "was encoded",
        lambda: suite(GROWING).test_an_older_peer_gets_what_its_version_has(sample(Grown), Unchecked()),
    ),
]


@pytest.mark.parametrize(("words", "run"), FAULTS)
def test_faults_are_found(words: str, run: Callable[[], None]) -> None:
    """Each fault makes its test fail."""
    with pytest.raises(Exception) as caught:
        run()
    assert words in f"{type(caught.value).__name__}: {caught.value}" or words == "assert"
    assert words != "assert" or isinstance(caught.value, AssertionError)


def test_a_codec_without_faults_passes() -> None:
    """The same tests are silent about a sound codec."""
    sound = suite(EVERYTHING, *ALL)
    for message_type in (Three, Nothing, Singles):
        sound.test_decoding_gives_what_was_encoded(sample(message_type), Faulty())
        sound.test_codecs_agree(sample(message_type))
        sound.test_mutated_bytes_give_a_message_or_decode_error(sample(message_type), Faulty())
        sound.test_undeclared_values_are_refused(sample(message_type), Faulty())
        sound.test_an_older_peer_gets_what_its_version_has(sample(message_type), Faulty())


def test_every_method_version_and_side_is_sampled() -> None:
    """No method is forgotten in any version that has it, and none appears in one that has not."""
    made = [str(each) for each in suite(GROWING)._samples()]
    assert made == [
        "Grow-request-v1",
        "Grow-response-v1",
        "Old-request-v1",
        "Old-response-v1",
        "Grow-request-v2",
        "Grow-response-v2",
        "New-request-v2",
        "New-response-v2",
        "Grow-request-v3",
        "Grow-response-v3",
        "New-request-v3",
        "New-response-v3",
    ]


class TestShapes(RoundTripSuite):
    """Messages of methods of every shape, items among them."""

    service = SHAPES


def test_a_one_way_method_has_one_side() -> None:
    """What is sent of an upload or a duplex call is a request, and what a one-way method does not answer is nothing."""
    made = [str(each) for each in suite(SHAPES)._samples() if each.version == 2]
    assert [name for name in made if "Beep" in name or "Reset" in name] == ["Beep-request-v2", "Reset-request-v2"]
    assert [name for name in made if "Store" in name] == ["Store-request-v2", "Store-response-v2"]
    assert len(made) == 2 * len(SHAPES.methods) - 2


def test_all_codecs_are_the_default() -> None:
    """A suite that names no codecs takes every one there is."""
    names = [codec.name for codec in type("Suite", (RoundTripSuite,), {"service": GROWING})()._codecs()]
    assert names[:3] == ["pipe", "msgpack", "protobuf"]
