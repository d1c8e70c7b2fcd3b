"""What ServerSuite shows of a service's own handlers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from wireproto.client import BlockingClient
from wireproto.errors import ConnectionLost, WireprotoError
from wireproto.reasons import REASONS
from wireproto.schema import Message, Operation, Shape
from wireproto.status import Status
from wireproto.testing.cases import Left, MethodAt, Peers
from wireproto.testing.examples import Unanswered, for_all
from wireproto.testing.outcome import Outcome, outcome_of
from wireproto.testing.parts import SuiteParts

__all__ = ["HandlerTests"]


class HandlerTests:
    """The tests; ``ServerSuite`` says of which methods, and has what they use."""

    def test_generated_requests_are_answered(self: SuiteParts, case: MethodAt, door: str) -> None:
        """Any request, or items, are answered or refused with a declared reason; no handler fails with an exception."""
        method = case.method
        with self._world(Peers(case.version, self._service().version), door) as (client, handlers, heard):
            served = method not in handlers.missing(method.by)
            reasons: list[str] = []

            def holds(request: Any) -> None:
                outcome = outcome_of(client, method, request, within=self.patience, quiet=self.quiet, heard=heard)
                reasons.append("" if outcome.error is None else outcome.error.reason)
                _is_declared(method, request, outcome)
                if method.shape is not Shape.ONE_WAY:  # of which nobody would be told
                    assert served or outcome.error is not None, f"{method.name} is answered, and has no handler"
                assert not served or reasons[-1] != "NO_HANDLER", outcome.error

            for_all(self._drawn(method, case.version), holds, max_examples=self._examples(), remembers=True)
            # Later on it may: a call may sign its caller out.
            assert reasons[0] not in ("SIGN_IN_REQUIRED", "NOT_PERMITTED"), (
                f"{method.name} was answered {reasons[0]}: override credential(), which is to be of a caller who may"
            )

    def test_every_peer_is_answered_alike(self: SuiteParts, peers: Peers) -> None:
        """The same calls have the same answers through every door, as a client and a server of today would give."""
        version = peers.spoken
        every = [method for method in self._methods_at(version) for _ in range(2)]
        requests = st.tuples(*(self._drawn(method, version, everywhere=True) for method in every))
        calls = st.tuples(requests, st.permutations(range(len(every))))
        doors = list(self._doors())
        worlds = [(door, peers) for door in doors]
        today = Peers(version, self._service().version)
        if today != peers:
            worlds.append((doors[0], today))

        def holds(example: tuple[Sequence[Any], Sequence[int]]) -> None:
            requests, order = example
            found = []
            for door, among in worlds:
                with self._world(among, door) as (client, _, heard):
                    found.append(
                        [
                            outcome_of(
                                client,
                                every[index],
                                requests[index],
                                within=self.patience,
                                quiet=self.quiet,
                                heard=heard,
                            )
                            for index in order
                        ]
                    )
            for (door, among), theirs in zip(worlds[1:], found[1:], strict=True):
                for index, one, other in zip(order, found[0], theirs, strict=True):
                    method = every[index]
                    assert self._same(method, one, other, version), (
                        f"{method.name}({requests[index]}) gave: {one}\n through {doors[0]}, {peers}, "
                        f"and: {other}\n through {door}, {among}"
                    )

        for_all(calls, holds, max_examples=max(2, self._examples() // 4), remembers=True)

    def test_calls_that_are_left_end(self: SuiteParts, case: MethodAt, door: str) -> None:
        """A caller that leaves in the middle of its items costs no worker and no exception; the next one is served."""
        method = case.method
        with self._world(Peers(case.version, self._service().version), door) as (client, _, heard):

            def holds(example: tuple[list[Message], int]) -> None:
                items, count = example
                heard.forget()
                sent = items[:count]
                _leave(client, method, sent, self.patience)
                if not heard.idle(self.patience):
                    raise Unanswered(
                        f"the handler of {method.name} still runs {self.patience:g} s after its caller has left it "
                        f"behind {sent}: version {client.version}, through {client.codec}; what the items raise is to "
                        "end it"
                    )
                outcome = outcome_of(client, method, items, within=self.patience, quiet=self.quiet, heard=heard)
                _is_declared(method, items, outcome)
                assert not heard.incidents, (
                    f"the handler of {method.name} raised {heard.incidents[0]!r} when its caller had left it behind "
                    f"{sent}"
                )

            examples = st.tuples(self._drawn(method, case.version), st.integers(0, 4))
            for_all(examples, holds, max_examples=self._examples(), remembers=True)


def _is_declared(method: Operation[Any, Any], request: Any, outcome: Outcome) -> None:
    """Hold what came of a call to what its table says of answers and reasons."""
    error = outcome.error
    assert all(type(each) is method.response for each in outcome.answers)
    if error is None:
        return
    assert not isinstance(error, ConnectionLost), f"{method.name}({request}) cost the connection: {error}"
    assert error.status is not Status.INTERNAL, (
        f"the handler of {method.name} raised an exception for {request}; the log has it as {error.message}"
    )
    known = not error.reason or error.reason in method.reasons or error.reason in REASONS
    assert known, f"{method.name} does not declare the reason of {error}"


def _leave(client: BlockingClient, method: Any, items: list[Message], within: float) -> None:
    """Begin a call, send some items of it, and be gone; unless it is over before."""

    def some() -> Iterator[Message]:
        yield from items
        raise Left

    with contextlib.suppress(Left, WireprotoError, TimeoutError):
        if not method.items_come_back:
            client.upload(method, some(), timeout=within)
            return
        with client.duplex(method, timeout=within) as both:
            for item in items:
                both.send(item, within)
