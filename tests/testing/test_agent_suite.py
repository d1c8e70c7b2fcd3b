"""AgentSuite with handlers of clients that are right, of several versions, and with those that are not."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import pytest
from hypothesis import Phase, settings

from tests.agents.conftest import Work
from tests.agents.service import AGENTS, NOTIFY, REPORT, RUN, SHELL, TAIL, Line, Order, Result
from wireproto import (
    Context,
    DuplexMethod,
    Handlers,
    Message,
    Method,
    OneWayMethod,
    Service,
    Since,
    Status,
    StreamMethod,
)
from wireproto.schema import Operation
from wireproto.testing import AgentSuite, ServerSuite
from wireproto.testing.cases import AgentPeers, MethodAt


class TestWork(AgentSuite):
    """Handlers of all shapes and forms."""

    service = AGENTS

    def application(self) -> AbstractContextManager[Work]:
        return nullcontext(Work())


class AskAgent(Message):
    """What a server asks, of which more since version 2."""

    number: int
    text: Annotated[str, Since(2)] = ""


class AgentAnswer(Message):
    """Half of it."""

    number: int
    text: Annotated[str, Since(2)] = ""


HALVE = Method(opcode=1, name="Halve", request=AskAgent, response=AgentAnswer, by="server", timeout=20)
DOWN = StreamMethod(opcode=2, name="Down", request=AskAgent, response=AgentAnswer, by="server", since=2)
BOTH = DuplexMethod(opcode=3, name="Both", request=AskAgent, response=AgentAnswer, by="server", until=2)
HEAR = OneWayMethod(opcode=4, name="Hear", request=AskAgent, by="server", since=3)
LATE = Method(opcode=5, name="Late", request=AskAgent, response=AgentAnswer, by="server", since=3)
GROWN = Service("example.v1.GrownService", version=3, methods=[HALVE, DOWN, BOTH, HEAR, LATE])

grown = Handlers(GROWN)


@grown.register(HALVE)
def halve(request: AskAgent, context: Context) -> AgentAnswer:
    return AgentAnswer(number=request.number // 2, text=request.text)


@grown.register(DOWN)
def down(request: AskAgent, context: Context) -> Iterator[AgentAnswer]:
    while True:
        yield AgentAnswer(number=request.number)


@grown.register(BOTH)
def both(items: Iterator[AskAgent], context: Context) -> Iterator[AgentAnswer]:
    for item in items:
        yield AgentAnswer(number=item.number, text=item.text)


@grown.register(HEAR)
def hear(request: AskAgent, context: Context) -> None:
    """What was heard is nobody's answer."""


class TestGrown(AgentSuite):
    """Methods and fields that came and went, and one that has no handler."""

    handlers = grown


def test_there_are_no_tests_of_what_clients_call() -> None:
    """Each suite has the methods of its own side alone, and none where there is nothing to be about."""

    class OfServers(ServerSuite):
        service = AGENTS

        def application(self) -> AbstractContextManager[Any]:
            raise NotImplementedError

    def methods(suite: Any, test: str) -> set[str]:
        return {case.method.name for case in suite._parameters(test)}

    assert methods(OfServers, "test_generated_requests_are_answered") == {"Enrol"}
    assert methods(TestWork, "test_generated_requests_are_answered") == {
        method.name for method in AGENTS.methods if method.by == "server"
    }
    assert methods(TestWork, "test_calls_that_are_left_end") == {"Report", "Collect", "Shell", "Convert"}
    assert [str(case) for case in TestGrown._parameters("test_every_peer_is_answered_alike")][:2] == [
        "server-v1-agent-v1",
        "server-v1-agent-v2",
    ]

    class OfNone(AgentSuite):
        service = Service(
            "example.v1.NoneService", methods=[Method(opcode=1, name="A", request=Order, response=Result)]
        )

    left: list[Any] = [OfNone.test_every_peer_is_answered_alike, OfNone.test_generated_requests_are_answered]
    assert left == [None, None]


# Broken agents, and what finds each.


def wrong(register: Callable[[Handlers], Any]) -> AgentSuite:
    """A suite of handlers with one fault."""
    made = Handlers(AGENTS)
    register(made)
    suite = type("Wrong", (AgentSuite,), {"handlers": made, "codecs": ["pipe", "msgpack"], "patience": 0.3})()
    assert isinstance(suite, AgentSuite)
    return suite


def raises(order: Any, context: Context) -> Any:
    raise ZeroDivisionError


def undeclared(order: Order, context: Context) -> Result:
    context.abort(Status.ABORTED, "SURPRISE", "nobody knows")


def never(order: Order, context: Context) -> Future[Result]:
    return Future()


def another_type(order: Order, context: Context) -> Any:
    return Line(text="x")


def by_codec(order: Order, context: Context) -> Result:
    return Result(text=context.codec)


def items_raise(order: Order, context: Context) -> Iterator[Line]:
    yield Line()
    raise ZeroDivisionError


def stays(items: Iterator[Line], context: Context) -> Iterator[Line]:
    """Takes what ends its items for a reason to go on."""
    for _ in range(10):
        try:
            yield from items
            return
        except Exception:  # noqa: BLE001 - it is the fault
            threading.Event().wait(0.2)


def fails_when_left(items: Iterator[Line], context: Context) -> Result:
    try:
        return Result(count=len(list(items)))
    except Exception as error:
        raise ZeroDivisionError from error


def case(method: Operation[Any, Any]) -> MethodAt:
    return MethodAt(method, 1)


FAULTS: list[tuple[str, Callable[[], None]]] = [
    (
        "raised an exception",
        lambda: wrong(lambda own: own.register(RUN)(raises)).test_generated_requests_are_answered(case(RUN), "pipe"),
    ),
    (
        "raised an exception",
        lambda: wrong(lambda own: own.register(NOTIFY)(raises)).test_generated_requests_are_answered(
            case(NOTIFY), "pipe"
        ),
    ),
    (
        "raised an exception",
        lambda: wrong(lambda own: own.register(TAIL)(items_raise)).test_generated_requests_are_answered(
            case(TAIL), "pipe"
        ),
    ),
    (
        "raised an exception",
        lambda: wrong(lambda own: own.register(RUN)(undeclared)).test_generated_requests_are_answered(
            case(RUN), "pipe"
        ),
    ),
    (
        "raised an exception",
        lambda: wrong(lambda own: own.register(RUN)(another_type)).test_generated_requests_are_answered(
            case(RUN), "pipe"
        ),
    ),
    (
        "was not answered within",
        lambda: wrong(lambda own: own.register(RUN)(never)).test_generated_requests_are_answered(case(RUN), "pipe"),
    ),
    (
        "gave: answers",
        lambda: wrong(lambda own: own.register(RUN)(by_codec)).test_every_peer_is_answered_alike(AgentPeers(1, 1)),
    ),
    (
        "still runs",
        lambda: wrong(lambda own: own.register(SHELL)(stays)).test_calls_that_are_left_end(case(SHELL), "pipe"),
    ),
    (
        "when its caller had left it",
        lambda: wrong(lambda own: own.register(REPORT)(fails_when_left)).test_calls_that_are_left_end(
            case(REPORT), "pipe"
        ),
    ),
]


@pytest.fixture
def first_failure_only() -> Iterator[None]:
    """Failures are wanted here, not the smallest ones, and the same in each run."""
    before = settings.get_current_profile_name()
    settings.register_profile(
        "broken agents", settings(phases=[Phase.generate], report_multiple_bugs=False, database=None, derandomize=True)
    )
    settings.load_profile("broken agents")
    yield
    settings.load_profile(before)


@pytest.mark.usefixtures("first_failure_only")
@pytest.mark.parametrize(("words", "run"), FAULTS)
def test_broken_agents_are_found(words: str, run: Callable[[], None]) -> None:
    """Each fault makes its test fail, with words that say what it is."""
    with pytest.raises(BaseException, match=words) as caught:
        run()
    assert caught.value is not None
