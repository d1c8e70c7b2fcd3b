"""The suite that shows, for every message of a service, that all codecs judge alike."""

from collections.abc import Mapping
from typing import ClassVar

from hypothesis import strategies as st

from wireproto import codecs
from wireproto.codecs import Codec
from wireproto.schema import Message
from wireproto.testing.differential import difference, expected, meaning, verdict
from wireproto.testing.examples import for_all
from wireproto.testing.foreign import WRITERS, Writer, loose
from wireproto.testing.generators import messages
from wireproto.testing.spoilt import spoil
from wireproto.testing.suites import MessageAt, MethodSuite

__all__ = ["DifferentialSuite"]


class DifferentialSuite(MethodSuite):
    """Every message of a service, right and nearly right, written by somebody else in every format: one verdict.

        class TestAgreement(DifferentialSuite):
            service = CALCULATOR

    A plain message is spoilt in one place (another type, out of range, a field less or more, text that is no UTF-8, a
    key twice, and so on) and written by encoders that share nothing with the codecs. All codecs must refuse it and name
    the same field, or read the same message; but for what ``docs/values.md`` lists under "Where the formats differ".

    Attributes:
        service: the opcode table.
        codecs: names or objects; None is every codec that somebody else writes here.
        limits: what codecs are made with.
        writers: the encoders by the codec's name. A codec of your own takes part with one of your own; it must then do
            what the rule says.
    """

    writers: ClassVar[Mapping[str, Writer]] = WRITERS

    def _codecs(self) -> list[Codec]:
        chosen = codecs.select(self.codecs)
        return chosen if self.codecs is not None else [codec for codec in chosen if codec.name in self.writers]

    def test_what_somebody_else_writes_is_read(self, sample: MessageAt, codec: Codec) -> None:
        """A message in another encoder's bytes is the message."""
        plan, write = self._plan(codec, sample), self.writers[codec.name]

        def holds(message: Message) -> None:
            tree = loose(message, sample.version)
            assert meaning(loose(plan.decode(write(tree)), sample.version)) == meaning(tree)

        for_all(messages(sample.message_type, sample.version), holds)

    def test_a_fault_gets_one_verdict(self, sample: MessageAt) -> None:
        """What is wrong in one place is refused there by every codec, or means the same to all."""
        plans = {codec.name: self._plan(codec, sample) for codec in self._codecs()}

        def holds(case: tuple[Message, int]) -> None:
            message, begin = case
            # At a few places, from all over the message.
            for fault in spoil(message, sample.version, begin=begin, step=11):
                for name, plan in plans.items():
                    found = verdict(fault, plan, self.writers[name], sample.version)
                    assert found in expected(fault, name), f"{name}: {fault} is {found}; {difference(fault)}"

        small = messages(sample.message_type, sample.version, most=2)
        for_all(st.tuples(small, st.integers(0, 10)), holds)
