"""Suites: test classes that make themselves from a service's opcode table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from hypothesis import strategies as st

from wireproto import codecs, schema
from wireproto.codecs import Codec, Plan
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Message, Service
from wireproto.testing.examples import for_all, meaning, widened
from wireproto.testing.generators import messages, mutated, wrong_values

if TYPE_CHECKING:
    import pytest

__all__ = ["MethodSuite", "RoundTripSuite", "MessageAt"]


@dataclass(frozen=True)
class MessageAt:
    """One side of a method in one version: what travels under that opcode in that direction."""

    method: str
    message_type: type[Message]
    version: int
    request: bool

    def __str__(self) -> str:
        return f"{self.method}-{'request' if self.request else 'response'}-v{self.version}"


class MethodSuite:
    """Tests that pytest makes for every method, version and codec of a service."""

    service: ClassVar[Service]
    codecs: ClassVar[Sequence[str | Codec] | None] = None
    limits: ClassVar[Limits] = Limits()

    def pytest_generate_tests(self, metafunc: "pytest.Metafunc") -> None:
        """Called by pytest for each test of the class."""
        if "sample" in metafunc.fixturenames:
            samples = self._samples()
            metafunc.parametrize("sample", samples, ids=[str(sample) for sample in samples])
        if "codec" in metafunc.fixturenames:
            chosen = self._codecs()
            metafunc.parametrize("codec", chosen, ids=[codec.name for codec in chosen])

    def _samples(self) -> list[MessageAt]:
        return [
            MessageAt(method.name, message_type, version, request)
            for version in self.service.versions
            for method in self.service.at(version).values()
            # Of a one-way method the first alone; behind the first two stand the details of its errors.
            for message_type, request in zip(
                method.messages, (True, False, *(False for _ in method.errors)), strict=False
            )
        ]

    def _codecs(self) -> list[Codec]:
        return codecs.select(self.codecs)

    def _plan(self, codec: Codec, sample: MessageAt) -> Plan[Message]:
        return codec.plan(sample.message_type, sample.version, self.limits, request=sample.request)


class RoundTripSuite(MethodSuite):
    """Every method of a service, in every codec and version, without a test written for it.

        class TestCalculator(RoundTripSuite):
            service = CALCULATOR

    Shown for each: decoding what was encoded gives the same value; equal values have equal bytes; all codecs agree on
    what a message is; bytes that were tampered with give a message or `DecodeError`; values that are not declared give
    `EncodeError` with the field's path; and a peer of an older version gets what its version has. There are as many
    examples as the Hypothesis profile in force says.

    Attributes:
        service: the opcode table.
        codecs: names or objects; None is every codec there is.
        limits: what codecs are made with.
    """

    def test_decoding_gives_what_was_encoded(self, sample: MessageAt, codec: Codec) -> None:
        """decode(encode(x)) is x, and encoding it again gives the same bytes."""
        plan = self._plan(codec, sample)

        def holds(message: Message) -> None:
            payload = plan.encode(message)
            assert type(payload) is bytes, f"encode gave {type(payload).__name__}, not bytes"
            found = plan.decode(payload)
            assert meaning(found, sample.version) == meaning(message, sample.version)
            assert plan.encode(found) == payload, "decoded and encoded again, the bytes are others"
            assert plan.encode(_turned(message, sample.version)) == payload, "the order of a map is to be seen"

        for_all(messages(sample.message_type, sample.version), holds)

    def test_codecs_agree(self, sample: MessageAt) -> None:
        """A message that went through one codec has the same bytes in every other as before."""
        plans = {codec.name: self._plan(codec, sample) for codec in self._codecs()}

        def holds(message: Message) -> None:
            canonical = {name: plan.encode(message) for name, plan in plans.items()}
            for name, plan in plans.items():
                found = plan.decode(canonical[name])
                for other, other_plan in plans.items():
                    assert other_plan.encode(found) == canonical[other], f"{name} and {other} do not agree"

        for_all(messages(sample.message_type, sample.version), holds)

    def test_mutated_bytes_give_a_message_or_decode_error(self, sample: MessageAt, codec: Codec) -> None:
        """Bytes that nobody encoded are refused with DecodeError, or mean a message that can be encoded."""
        plan = self._plan(codec, sample)
        payloads = messages(sample.message_type, sample.version).map(plan.encode)

        def holds(payload: bytes) -> None:
            try:
                message = plan.decode(payload)
            except DecodeError as error:
                _assert_path(error, sample.message_type)
                return
            canonical = plan.encode(message)
            assert plan.encode(plan.decode(canonical)) == canonical

        for_all(mutated(payloads) | st.binary(max_size=64), holds)

    def test_undeclared_values_are_refused(self, sample: MessageAt, codec: Codec) -> None:
        """A value that is nearly of a field's type is refused with EncodeError, whose path names the field."""
        plan = self._plan(codec, sample)
        declared = schema.fields(sample.message_type, sample.version)
        wrong = [(field.name, value) for field in declared for value in wrong_values(field.type)]
        if not wrong:
            return

        def holds(case: tuple[Message, tuple[str, Any]]) -> None:
            message, (name, value) = case
            _expect_refusal(plan, msgspec.structs.replace(message, **{name: value}), sample, name)

        for_all(st.tuples(messages(sample.message_type, sample.version), st.sampled_from(wrong)), holds)

    def test_an_older_peer_gets_what_its_version_has(self, sample: MessageAt, codec: Codec) -> None:
        """Fields newer than the version are left out of responses; a request refuses to lose a value."""
        plan = self._plan(codec, sample)
        present = {field.name for field in schema.fields(sample.message_type, sample.version)}
        newer = [field for field in schema.fields(sample.message_type) if field.name not in present]
        if not newer:
            return

        def holds(message: Message) -> None:
            changed = [each for each in newer if getattr(message, each.name) != each.default and not each.ignorable]
            if sample.request and changed:
                _expect_refusal(plan, message, sample, *(each.name for each in changed))
                return
            found = plan.decode(plan.encode(message))
            assert meaning(found, sample.version) == meaning(message, sample.version)
            assert all(getattr(found, field.name) == field.default for field in newer)

        for_all(widened(sample.message_type, sample.version), holds)


def _expect_refusal(plan: Plan[Message], message: Message, sample: MessageAt, *names: str) -> None:
    paths = [f"{sample.message_type.__name__}.{name}" for name in names]
    try:
        plan.encode(message)
    except EncodeError as error:
        found = error.path
    else:
        raise AssertionError(f"a wrong value of {' or '.join(paths)} was encoded")
    assert any(found.startswith(path) for path in paths), f"{found} is not {' or '.join(paths)}"


def _assert_path(error: EncodeError | DecodeError, message_type: type[Message]) -> None:
    assert error.path.partition(".")[0] == message_type.__name__, f"{error.path} is not in {message_type.__name__}"


def _turned(message: Message, version: int) -> Message:
    """The same message, made again, with its maps filled the other way round."""
    return schema.from_plain(type(message), _reversed(schema.to_plain(message, version)), version)


def _reversed(value: Any) -> Any:
    if isinstance(value, list):
        return [_reversed(each) for each in value]
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return value
