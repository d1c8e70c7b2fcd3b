"""What ServerSuite shows of uploads, duplex calls and one-way calls, through pairs in every codec."""

import dataclasses
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hypothesis import strategies as st

from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import CallError, DecodeError
from wireproto.limits import Limits
from wireproto.reasons import REASONS
from wireproto.schema import Operation, Service, Shape
from wireproto.status import Status
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.examples import for_all, simplest
from wireproto.testing.generators import messages, mutated
from wireproto.testing.outcome import paired_outcome
from wireproto.testing.standin import EVERYBODY, NOBODY, SECRET, StandIn, answering, failures
from wireproto.testing.wire import Pair, pair
from wireproto.wire.events import ErrorReceived
from wireproto.wire.metadata import Metadata, pack_metadata

if TYPE_CHECKING:
    from wireproto.client import BlockingClient

__all__ = ["PairedTests"]

FIRST_ITEMS = 2
"""So few that a few items need credit that returns."""


class SuiteParts(Protocol):
    """What these tests use of the suite that has them."""

    limits: ClassVar[Limits]

    def requests(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        """Requests, or items, to the handlers."""

    def _service(self) -> Service:
        """The table."""

    def _doors(self) -> dict[str, Codec]:
        """A codec by its name."""

    def _examples(self) -> int:
        """How many there are of each test."""

    def _world(
        self, peers: Peers, door: str
    ) -> "AbstractContextManager[tuple[BlockingClient, Handlers, Authenticate]]":
        """A client of fresh handlers, those, and who judges its credential."""


class _Told:
    """Stand-ins behind a pair, and all that a test needs of them."""

    def __init__(self, service: Service, codec: Codec, case: MethodAt, limits: Limits) -> None:
        self.standin = StandIn(service)
        self.link: Pair = pair(
            self.standin.handlers,
            codec=codec,
            service=service.as_of(case.version),
            limits=limits,
            authenticate=self.standin.authenticate,
        )
        self.method = case.method
        self.one = simplest(case.method.request, case.version)
        self.right = simplest(case.method.response, case.version)

    def answer(self) -> None:
        """Have calls answered as their shape wants it."""
        self.standin.behave = answering(self.right)

    def error(self, authorization: str = EVERYBODY, items: int = 1) -> CallError | None:
        """What one call fails with, of so many items where it has items."""
        request = [self.one] * items if self.method.items_follow else self.one
        return paired_outcome(self.link, self.method, request, authorization=authorization).error

    def error_of(self, payload: bytes) -> CallError | None:
        """... of one message that nobody encoded."""
        metadata = Metadata(authorization=EVERYBODY)
        client, flags = self.link.client, self.method.shape.flags
        if self.method.shape is Shape.ONE_WAY:
            before = len(self.link.untold)
            client.send_flagged_request(flags, self.method.opcode, payload, pack_metadata(metadata))
            self.link.exchange()
            return next(iter(self.link.untold[before:]), None)
        call_id = self.link.start(self.method, metadata=metadata)
        client.send_item(call_id, payload)
        client.send_end(call_id)
        return next((event.error for event in self.link.exchange() if isinstance(event, ErrorReceived)), None)


class PairedTests:
    """The tests; ``ServerSuite`` says of which methods, and has what they use."""

    def test_generated_items_are_answered(self: SuiteParts, case: MethodAt, door: str) -> None:
        """Any items, or one-way requests, are taken or refused with a declared reason; no handler fails."""
        method = case.method
        strategy = self.requests(method, case.version)
        with self._world(Peers(case.version, self._service().version), door) as (client, handlers, authenticate):

            def holds(request: Any) -> None:
                link = pair(
                    handlers,
                    codec=self._doors()[door],
                    service=client.service,
                    limits=self.limits,
                    authenticate=authenticate,
                )
                outcome = paired_outcome(link, method, request, authorization=client.authorization)
                error = outcome.error
                if error is None:
                    assert all(type(each) is method.response for each in outcome.answers)
                    return
                assert error.status is not Status.INTERNAL, (
                    f"the handler of {method.name} raised an exception for {request}; the log has it as {error.message}"
                )
                known = not error.reason or error.reason in method.reasons or error.reason in REASONS
                assert known, f"{method.name} does not declare the reason of {error}"

            many = st.lists(strategy, max_size=4) if method.items_follow else strategy
            for_all(many, holds, max_examples=self._examples(), remembers=True)

    def test_mutated_items_are_refused(self: SuiteParts, case: MethodAt, door: str) -> None:
        """Bytes that are no message are INVALID_ARGUMENT and mean nothing to a handler, and the connection goes on."""
        method, told = case.method, _Told(self._service(), self._doors()[door], case, self.limits)
        plan = self._doors()[door].plan(method.request, case.version, self.limits, request=True)
        told.answer()

        def holds(payload: bytes) -> None:
            expected = ""
            if method.max_request is not None and len(payload) > method.max_request:
                expected = "REQUEST_TOO_LARGE"
            else:
                try:
                    plan.decode(payload)
                except DecodeError:
                    expected = "BAD_PAYLOAD"
            calls = len(told.standin.contexts)
            error = told.error_of(payload)
            assert (error.reason if error is not None else "") == expected, f"{payload!r} gave {error}"
            assert len(told.standin.contexts) == calls + (not expected), f"{payload!r}: {expected or 'not seen'}"

        payloads = messages(method.request, case.version).map(plan.encode)
        for_all(mutated(payloads) | st.binary(max_size=64), holds, max_examples=self._examples())
        assert told.error() is None, "the connection did not live"

    def test_failures_with_items_become_incidents(self: SuiteParts, case: MethodAt, door: str) -> None:
        """Whatever a handler raises or answers wrong, there is an incident's number of it and no text."""
        told = _Told(self._service(), self._doors()[door], case, self.limits)
        for way in failures(case.method, told.right):
            told.standin.behave = way
            error = told.error()
            assert error is not None, f"{way.__name__} was answered"
            assert (error.status, error.reason) == (Status.INTERNAL, "INTERNAL"), f"{way.__name__}: {error}"
            assert "incident" in error.message
            assert SECRET not in f"{error!r} {error}", f"{way.__name__}: the exception's text got out"

    def test_items_of_strangers_are_refused(self: SuiteParts, case: MethodAt, door: str) -> None:
        """Without the capability nothing of a call reaches a handler, with it everything."""
        told = _Told(self._service(), self._doors()[door], case, self.limits)
        told.answer()
        for credential, reason in (("", "SIGN_IN_REQUIRED"), (NOBODY, "NOT_PERMITTED")):
            error = told.error(credential)
            assert error is not None, f"{case.method.name} was open to somebody without {case.method.requires}"
            assert error.reason == reason, error
        assert told.standin.contexts == []
        assert told.error() is None

    def test_larger_items_are_refused(self: SuiteParts, case: MethodAt, door: str) -> None:
        """A message of ``max_request`` bytes is looked at; one byte more is RESOURCE_EXHAUSTED, REQUEST_TOO_LARGE."""
        most = case.method.max_request
        assert most is not None
        told = _Told(self._service(), self._doors()[door], case, self.limits)
        told.answer()
        error = told.error_of(bytes(most))
        assert error is None or error.reason == "BAD_PAYLOAD", error
        seen = len(told.standin.contexts)
        error = told.error_of(bytes(most + 1))
        assert error is not None, f"{most + 1} bytes were taken"
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"), error
        assert len(told.standin.contexts) == seen

    def test_items_come_within_their_credit(self: SuiteParts, case: MethodAt, door: str) -> None:
        """More items than there is credit for at first all come, in the end; as many as the method collects, if so."""
        most = getattr(case.method, "collect", None)
        count = 5 * FIRST_ITEMS if most is None else min(most, 5 * FIRST_ITEMS)
        limits = dataclasses.replace(self.limits, first_items=FIRST_ITEMS)
        told = _Told(self._service(), self._doors()[door], case, limits)
        told.answer()
        assert told.error(items=count) is None
        assert [len(items) for items in told.standin.requests] == [count]
