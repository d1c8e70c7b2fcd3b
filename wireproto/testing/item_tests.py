"""What ServerSuite shows of calls whose items follow, and of one-way calls, with stand-ins for the handlers."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wireproto.client import BlockingClient
from wireproto.errors import CallError
from wireproto.schema import Message, Operation
from wireproto.status import Retry, Status
from wireproto.testing.cases import Left, MethodAt
from wireproto.testing.doors import GRPC
from wireproto.testing.examples import Unanswered, simplest
from wireproto.testing.outcome import outcome_of, told
from wireproto.testing.parts import SuiteParts
from wireproto.testing.standin import PATIENCE, ItemTaker, Stage

__all__ = ["ItemTests"]

ENDLESS = 20_000
"""Items after which a caller who was answered long ago should have stopped sending: what windows hold is far less."""

PAUSE = 0.05
"""Seconds in which a caller who may send more than its credit would do so."""


class ItemTests:
    """The tests; ``ServerSuite`` says of which methods, and has what they use."""

    def test_items_are_sent_within_their_credit(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A handler that takes nothing stops the caller, and one that takes everything is given everything."""
        method, limits = case.method, stage.limits
        client = stage.client(door, case.version)
        most = getattr(method, "collect", None)  # a handler is asked when all is there: it stops nobody
        window = limits.window_items
        count = 2 * window + 1 if most is None else min(most, 2 * window + 1)
        go_on, full, excess = threading.Event(), threading.Event(), threading.Event()
        taker = stage.take(method, may_go_on=go_on if most is None else None)
        one = simplest(method.request, case.version)

        def items() -> Iterator[Message]:
            for number in range(1, count + 1):
                if number >= window:
                    full.set()
                if number > window + 1 and taker.count <= 1:
                    excess.set()
                yield one

        with ThreadPoolExecutor(1) as caller:
            sending = caller.submit(_send_all, client, method, items())
            try:
                if door != GRPC and most is None:  # HTTP/2 counts bytes, and its buffers are its own
                    assert taker.begun.wait(PATIENCE), "no item reached the handler"
                    full.wait(PAUSE)
                    assert not excess.wait(PAUSE), f"more than {window} items were taken that no handler has taken"
            finally:
                go_on.set()
            sending.result(PATIENCE)
        assert (taker.count, taker.complete) == (count, True)

    def test_early_answers_end_the_items(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """An answer ends the call though its caller would send for ever, and the connection goes on."""
        method, client = case.method, stage.client(door, case.version)
        for _ in range(3):
            stage.take(method, enough=1)
            items = _Endless(simplest(method.request, case.version))
            outcome = outcome_of(client, method, items, heard=stage.heard)
            assert outcome.error is None, outcome.error
            assert (len(outcome.answers), outcome.ended) == (1, True)
        _goes_on(stage, client, case)

    def test_errors_among_items_are_told(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A handler that has had enough and says so ends the call, behind what it answered, and the caller is told."""
        method, client = case.method, stage.client(door, case.version)
        refusal = CallError(Status.ABORTED, "", "as told", retry=Retry.NOT_PROCESSED, retry_after_ms=7)
        stage.take(method, enough=2, error=refusal)
        items = _Endless(simplest(method.request, case.version))
        outcome = outcome_of(client, method, items, heard=stage.heard)
        error = outcome.error
        assert error is not None, f"{method.name} was answered"
        assert (*told(error), error.message, error.retry_after_ms) == (*told(refusal), "as told", 7)
        assert len(outcome.answers) == (2 if method.items_come_back else 0)
        _goes_on(stage, client, case)

    def test_items_that_are_left_are_no_whole(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """When the caller leaves in the middle, the handler is told, and never that this was the end of the items."""
        method: Any = case.method
        client = stage.client(door, case.version)
        taker = stage.take(method)
        one = simplest(method.request, case.version)

        def items() -> Iterator[Message]:
            yield one
            assert taker.begun.wait(PATIENCE), "no item reached the handler"
            raise Left

        with contextlib.suppress(Left):
            if method.items_come_back:
                with client.duplex(method, timeout=PATIENCE) as both:
                    both.send(one, PATIENCE)
                    assert taker.begun.wait(PATIENCE), "no item reached the handler"
            else:
                client.upload(method, items(), timeout=PATIENCE)
        assert taker.ended.wait(PATIENCE), "the handler was not told that its caller has left"
        assert not taker.complete, "a part was taken for the whole"
        _goes_on(stage, client, case)

    def test_deadlines_among_items_are_kept(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A caller that is not done in time is told so, and so is the handler, and never that this was the end."""
        method, client = case.method, stage.client(door, case.version)
        one = simplest(method.request, case.version)
        for timeout in (0.05, 0.5, 5.0):
            taker = stage.take(method)
            late = time.monotonic() + 2 * timeout

            def items(taker: ItemTaker = taker, late: float = late) -> Iterator[Message]:
                yield one
                if taker.begun.wait(max(0.0, late - time.monotonic())):
                    assert taker.ended.wait(PATIENCE), "the server holds on to a call whose deadline passed"
                yield one

            error = outcome_of(client, method, items(), timeout=timeout, heard=stage.heard).error
            assert error is not None, "a call was answered whose time was up"
            assert error.status is Status.DEADLINE_EXCEEDED, error
            if taker.begun.is_set():
                assert taker.ended.wait(PATIENCE), "the server holds on to a call whose deadline passed"
                assert not taker.complete, "a part was taken for the whole"
                break  # on a machine that is very busy the time may be over before
        else:
            raise Unanswered(f"no item of {method.name} reached a handler within 5 s")
        _goes_on(stage, client, case)

    def test_answers_come_behind_the_end_of_items(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """Each half of a duplex call goes on by itself: answers come among the items, and behind the end of them."""
        method: Any = case.method
        client = stage.client(door, case.version)
        taker = stage.take(method)
        with client.duplex(method, timeout=PATIENCE) as both:
            for count in (1, 2, 3):
                both.send(simplest(method.request, case.version), PATIENCE)
                both.next(PATIENCE)
                assert (taker.count, taker.complete) == (count, False)
            both.finish()
            assert len(list(both)) == 1
        assert taker.complete

    def test_one_way_calls_all_run(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """More one-way calls than may be under way at once all reach their handler, each once."""
        method: Any = case.method
        client = stage.client(door, case.version)
        stage.answer(method)
        stage.heard.forget()
        count = 2 * stage.limits.one_way_calls + 1
        for _ in range(count):
            client.post(method, simplest(method.request, case.version), timeout=PATIENCE)
        for _ in range(count):
            error = stage.heard.one_way(PATIENCE)
            assert error is None, error
        client.ping(PATIENCE)
        assert len(stage.contexts) == count


def _send_all(client: BlockingClient, method: Any, items: Iterator[Message]) -> None:
    if method.items_come_back:
        for _ in client.duplex(method, items, timeout=PATIENCE):
            pass
    else:
        client.upload(method, items, timeout=PATIENCE)


def _goes_on(stage: Stage, client: BlockingClient, case: MethodAt) -> None:
    """The connection is the same as that of the calls before, and takes another one."""
    method: Operation[Any, Any] = case.method
    before = stage.contexts[0].peer
    stage.answer(method)
    one = simplest(method.request, case.version)
    outcome = outcome_of(client, method, [one] if method.items_follow else one, heard=stage.heard)
    assert outcome.error is None, outcome.error
    now = stage.contexts[0].peer
    assert now == before, f"the connection did not live: it was {before} and is {now}"


class _Endless(Iterator[Message]):
    """A caller that has always one item more, and does not stop by itself."""

    def __init__(self, item: Message) -> None:
        self._item = item
        self._count = 0

    def __next__(self) -> Message:
        self._count += 1
        assert self._count < ENDLESS, f"{ENDLESS} items were asked for of a call that was over"
        return self._item
