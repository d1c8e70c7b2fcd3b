"""ServerSuite fails where it should: a handler with a fault, or a framework with one, and the test that finds it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from calculator import ADD, CALCULATOR, AddRequest, AddResponse
from calculator import handlers as calculator
from hypothesis import Phase, settings
from hypothesis import strategies as st

from tests.server.service import COUNT, ECHO, SERVICE, CountRequest, EchoRequest, EchoResponse
from tests.testing.shelf import (
    FILL,
    FORGET,
    LIST,
    MERGE,
    PUT,
    SHELF,
    SUM_UP,
    SWAP,
    TAKE,
    FillResponse,
    MergeRequest,
    MergeResponse,
    PutRequest,
    Shelf,
    TakeRequest,
    TakeResponse,
)
from wireproto.answering.call import Call, OneWayCall
from wireproto.answering.intake import Intake, _ToIterator
from wireproto.answering.windows import Windows
from wireproto.dispatch import Entry, Handlers, Table
from wireproto.errors import CallError, DecodeError
from wireproto.handling import Context, Sink
from wireproto.schema import Message, Method, Service
from wireproto.server.session import Session
from wireproto.status import Retry, Status
from wireproto.testing import ServerSuite
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.examples import simplest
from wireproto.testing.standin import Stage
from wireproto.wire.connection import Connection
from wireproto.wire.frame import Credit


@pytest.fixture(autouse=True)
def _first_failure_only() -> Iterator[None]:
    """Failures are wanted here, not the smallest ones, and the same in each run."""
    before = settings.get_current_profile_name()
    quick = settings(phases=[Phase.generate], report_multiple_bugs=False, database=None, derandomize=True)
    settings.register_profile("faults", quick)
    settings.load_profile("faults")
    yield
    settings.load_profile(before)


def suite(**attributes: Any) -> ServerSuite:
    made = type("Suite", (ServerSuite,), attributes)()
    assert isinstance(made, ServerSuite)
    return made


SHELVES = suite(service=SHELF, application=lambda self: Shelf())


@contextlib.contextmanager
def staged(made: ServerSuite) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        yield Stage(made._service(), made._doors(), made._patient_limits(), stack)


# Faults of handlers


def adding(add: Callable[[AddRequest, Context], Any]) -> ServerSuite:
    """A suite of a calculator whose only handler is ``add``."""
    handlers = Handlers(CALCULATOR)
    handlers.register(ADD)(add)
    return suite(handlers=handlers)


def test_a_handler_that_raises_is_found() -> None:
    """The README's calculator adds any two numbers, and their sum may be too large to be one: the suite tells."""
    with pytest.raises(AssertionError, match="the handler of Add raised an exception for AddRequest") as caught:
        suite(handlers=calculator, max_examples=200).test_generated_requests_are_answered(MethodAt(ADD, 1), "pipe")
    assert any("AddRequest" in note for note in caught.value.__notes__)


def test_an_undeclared_reason_is_found() -> None:
    """A handler that aborts with a reason that its method does not declare fails the test."""

    def add(request: AddRequest, context: Context) -> AddResponse:
        context.abort(Status.ABORTED, "SURPRISE")

    with pytest.raises(AssertionError, match="the handler of Add raised"):
        adding(add).test_generated_requests_are_answered(MethodAt(ADD, 1), "msgpack")


def test_a_failure_that_state_hides_afterwards_is_found() -> None:
    """What fails once and never again is reported as what it was."""
    calls = iter(range(1_000_000))

    def add(request: AddRequest, context: Context) -> AddResponse:
        if next(calls) == 3:
            raise ValueError
        return AddResponse(total=0)

    with pytest.raises(AssertionError, match="the handler of Add raised") as caught:
        adding(add).test_generated_requests_are_answered(MethodAt(ADD, 1), "msgpack")
    assert any("it did not fail when it was tried again" in note for note in caught.value.__notes__)


def test_answers_that_differ_are_found() -> None:
    """A handler that looks at the codec answers differently through two doors."""

    def add(request: AddRequest, context: Context) -> AddResponse:
        return AddResponse(total=len(context.codec))

    with pytest.raises(AssertionError, match=r"Add\(AddRequest.*\) gave: answers .*\n through pipe"):
        adding(add).test_every_peer_is_answered_alike(Peers(1, 1))


class WeighRequest(Message):
    data: bytes


class WeighResponse(Message):
    size: int


WEIGH = Method(opcode=1, name="Weigh", request=WeighRequest, response=WeighResponse, max_request=20)


def test_a_request_that_one_codec_writes_at_too_great_length_is_not_compared() -> None:
    """Ten bytes or more are over 20 in pipe and under it in msgpack: that the doors differ there is no difference."""
    handlers = Handlers(Service("test.scales.v1.ScalesService", methods=[WEIGH]))
    handlers.register(WEIGH)(lambda request, context: WeighResponse(size=len(request.data)))
    drawn: set[int] = set()

    def requests(self: ServerSuite, method: Any, version: int) -> st.SearchStrategy[Any]:
        def noted(data: bytes) -> WeighRequest:
            drawn.add(len(data))
            return WeighRequest(data=data)

        return st.binary(min_size=9, max_size=12).map(noted)

    suite(handlers=handlers, requests=requests, max_examples=80).test_every_peer_is_answered_alike(Peers(1, 1))
    assert max(drawn) > 10


@pytest.mark.parametrize("varying", ["total", "Add"])
def test_what_varies_is_not_compared(varying: str) -> None:
    """Fields and methods that are said to vary may differ from door to door."""
    calls = iter(range(1_000_000))

    def add(request: AddRequest, context: Context) -> AddResponse:
        return AddResponse(total=next(calls))

    made = adding(add)
    type(made).varying = (varying,)
    made.test_every_peer_is_answered_alike(Peers(1, 1))


def test_streams_that_differ_are_found() -> None:
    """A stream that has more items through one door than through another is a difference."""
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[Any]:
        for n in range(2 if context.codec == "pipe" else 3):
            yield COUNT.response(n=n)

    made = suite(handlers=handlers, quiet=10.0)
    with pytest.raises(AssertionError, match=r"Count\(CountRequest"):
        made.test_every_peer_is_answered_alike(Peers(1, 1))


def test_a_thread_that_an_application_leaves_is_found() -> None:
    """What an application does not end is reported, with where it is."""
    stop = threading.Event()
    made = adding(lambda request, context: AddResponse(total=1))

    @contextlib.contextmanager
    def application(self: Any) -> Iterator[Any]:
        threading.Thread(target=stop.wait, name="forgotten", daemon=True).start()
        yield type(self)

    type(made).application = application  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wireproto.testing.serving.PATIENCE", 0.1)
        with pytest.raises(AssertionError, match=r"threads are left .* forgotten"):
            made.test_generated_requests_are_answered(MethodAt(ADD, 1), "pipe")
    stop.set()


def test_a_caller_who_may_not_is_found() -> None:
    """With an ``authenticate`` of its own a service needs a credential of its own, or nothing would be shown of it."""
    handlers = Shelf().handlers
    made = suite(handlers=handlers, authenticate=lambda metadata, peer: None, max_examples=3)
    with pytest.raises(AssertionError, match=r"Put was answered SIGN_IN_REQUIRED: override credential\(\)"):
        made.test_generated_requests_are_answered(MethodAt(PUT, 1), "pipe")
    made.test_generated_requests_are_answered(MethodAt(LIST, 1), "pipe")


def test_a_method_without_a_handler_is_expected_to_say_so() -> None:
    """A method that is declared and not served passes, being UNIMPLEMENTED."""
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        return EchoResponse(text="")

    made = suite(handlers=handlers, max_examples=3)
    made.test_generated_requests_are_answered(MethodAt(ECHO, 1), "pipe")
    made.test_generated_requests_are_answered(MethodAt(COUNT, 1), "pipe")


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
@pytest.mark.parametrize("method", [FILL, SUM_UP, SWAP, FORGET], ids=lambda method: method.name)
def test_a_handler_of_any_shape_that_raises_is_found(method: Any, door: str) -> None:
    """A handler that cannot do with any items, or one-way request, fails the test, told or not."""

    def failing(*arguments: Any) -> Any:
        raise ValueError

    with pytest.raises(AssertionError, match=f"the handler of {method.name} raised an exception for"):
        shelving(method, failing).test_generated_requests_are_answered(MethodAt(method, 3), door)


def shelving(method: Any, handler: Any) -> ServerSuite:
    """A suite of a shelf one of whose methods has another handler; one that is a class makes sinks."""
    handlers = Handlers(SHELF)
    for each in SHELF.methods:
        given = handler if each is method else Shelf().handlers.handler(each)
        register: Any = handlers.sink if isinstance(given, type) or each is FILL is not method else handlers.register
        register(each)(given)
    return suite(handlers=handlers, max_examples=20)


def test_an_upload_with_another_answer_behind_one_door_is_found() -> None:
    """What is made of items is compared between the doors as what is made of one request."""

    def sum_up(items: list[MergeRequest], context: Context) -> MergeResponse:
        return MergeResponse(total=float(len(items) if context.codec == "protobuf" else 0))

    with pytest.raises(AssertionError, match=r"SumUp\(\[.*\) gave: answers"):
        shelving(SUM_UP, sum_up).test_every_peer_is_answered_alike(Peers(3, 3))


def test_a_one_way_call_with_another_effect_behind_one_door_is_found() -> None:
    """Nobody is told what a one-way call does; the calls behind it are answered otherwise where it did it."""

    class Forgetful(Shelf):
        def forget(self, request: TakeRequest, context: Context) -> None:
            if context.codec != "msgpack":
                self.values.clear()

    made = suite(service=SHELF, application=lambda self: Forgetful(), max_examples=40)
    with pytest.raises(AssertionError, match=r"through pipe, .*\n through msgpack"):
        made.test_every_peer_is_answered_alike(Peers(1, 1))


@pytest.mark.parametrize("door", ["pipe", "grpc"])
def test_a_handler_that_stays_when_its_caller_has_left_is_found(door: str) -> None:
    """One that takes no notice of what its items raise keeps a worker; it is named."""

    def fill(items: Iterator[PutRequest], context: Context) -> FillResponse:
        try:
            return FillResponse(count=len(list(items)))
        except CallError:
            threading.Event().wait(2.0)  # from here on, for the suite may take its time to come here
            raise

    made = shelving(FILL, fill)
    type(made).patience = 0.3
    with pytest.raises(AssertionError, match=r"^the handler of Fill still runs 0.3 s after its caller has left it"):
        made.test_calls_that_are_left_end(MethodAt(FILL, 3), door)


@pytest.mark.parametrize("door", ["pipe", "grpc"])
def test_a_handler_that_fails_when_its_caller_has_left_is_found(door: str) -> None:
    """Nobody is told any more what it raises then, but the suite hears of it: of iterators and of sinks."""

    def swap(items: Iterator[TakeRequest], context: Context) -> Iterator[TakeResponse]:
        try:
            for item in items:
                yield TakeResponse(value=item.key.encode())
        except CallError:
            raise KeyError("left") from None

    with pytest.raises(AssertionError, match=r"the handler of Swap raised KeyError\('left'\) when its caller had left"):
        shelving(SWAP, swap).test_calls_that_are_left_end(MethodAt(SWAP, 3), door)

    class Filler(Sink[PutRequest, FillResponse]):
        def __init__(self, context: Context) -> None:
            pass

        def receive(self, item: PutRequest) -> None:
            pass

        def finished(self) -> FillResponse:
            return FillResponse(count=1)

        def failed(self, error: CallError) -> None:
            raise KeyError("left")

    with pytest.raises(AssertionError, match=r"the handler of Fill raised KeyError\('left'\) when its caller had left"):
        shelving(FILL, Filler).test_calls_that_are_left_end(MethodAt(FILL, 3), door)


def test_methods_of_any_shape_without_a_handler_are_expected_to_say_so() -> None:
    """Items without a handler are UNIMPLEMENTED, and of a one-way call nothing is heard: that passes."""
    made = suite(handlers=Handlers(SHELF), max_examples=3)
    for method in (FILL, SUM_UP, SWAP, FORGET):
        for door in ("pipe", "grpc"):
            made.test_generated_requests_are_answered(MethodAt(method, 3), door)
    made.test_every_peer_is_answered_alike(Peers(3, 3))


# Waits that have an end


@pytest.fixture
def shrinking() -> None:
    """With every phase of Hypothesis, as in a service's own tests: what hangs would hang for each smaller example."""
    settings.register_profile("shrinking", settings(database=None, derandomize=True))
    settings.load_profile("shrinking")


def unanswered(request: AddRequest, context: Context) -> Any:
    return Future[AddResponse]()


@pytest.mark.parametrize("door", ["pipe", "grpc"])
def test_a_call_that_is_never_answered_is_named(door: str, shrinking: None) -> None:
    """A future that nobody completes fails the test after the suite's patience, once, and in words."""
    calls: list[AddRequest] = []

    def add(request: AddRequest, context: Context) -> Any:
        calls.append(request)
        return Future[AddResponse]()

    made = adding(add)
    assert made.patience == 5.0
    type(made).patience = 0.3
    began = time.monotonic()
    with pytest.raises(AssertionError) as caught:
        made.test_generated_requests_are_answered(MethodAt(ADD, 1), door)
    assert str(caught.value) == (
        f"Add({calls[0]}) was not answered within 0.3 s: version 1, through {door}; give a method that takes longer "
        "more `patience`"
    )
    assert len(calls) == 1
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("door", ["pipe", "grpc"])
def test_an_upload_that_is_never_answered_is_named(door: str, shrinking: None) -> None:
    """... as well, though only its deadline can end it."""
    made = shelving(SUM_UP, lambda items, context: Future())
    type(made).patience = 0.3
    with pytest.raises(AssertionError, match=rf"^SumUp\(\[.*\]\) was not answered within 0.3 s: .* through {door}"):
        made.test_generated_requests_are_answered(MethodAt(SUM_UP, 3), door)


@pytest.mark.parametrize("door", ["pipe", "grpc"])
def test_a_one_way_call_that_never_ends_is_named(door: str, shrinking: None) -> None:
    """... as well, though its caller has long gone on."""
    may_end = threading.Event()

    def forget(request: TakeRequest, context: Context) -> None:
        may_end.wait(30)

    made = shelving(FORGET, forget)
    type(made).patience = 0.3
    threading.Timer(2.0, may_end.set).start()
    with pytest.raises(AssertionError, match=rf"^Forget\(.*\) was not answered within 0.3 s: .* through {door}"):
        made.test_generated_requests_are_answered(MethodAt(FORGET, 3), door)


def test_a_call_that_is_not_answered_through_one_door_is_named(shrinking: None) -> None:
    """Of several doors the one is named that did not answer."""

    def add(request: AddRequest, context: Context) -> Any:
        return Future[AddResponse]() if context.codec == "msgpack" else AddResponse(total=1)

    made = adding(add)
    type(made).patience = 0.3
    with pytest.raises(AssertionError, match=r"^Add\(AddRequest\(.*\)\) was not answered within 0.3 s: ") as caught:
        made.test_every_peer_is_answered_alike(Peers(1, 1))
    assert "version 1, through msgpack" in str(caught.value)


def test_a_handler_that_blocks_is_named(shrinking: None) -> None:
    """A handler that never returns fails the test in the same words, and the thread that it keeps is a note."""
    may_end = threading.Event()

    def add(request: AddRequest, context: Context) -> AddResponse:
        may_end.wait(30)
        return AddResponse(total=1)

    made = adding(add)
    type(made).patience = 0.3
    threading.Timer(2.0, may_end.set).start()
    with pytest.raises(AssertionError, match=r"^Add\(AddRequest\(.*\)\) was not answered within 0.3 s"):
        made.test_generated_requests_are_answered(MethodAt(ADD, 1), "pipe")


def test_a_timeout_of_the_methods_own_is_an_answer() -> None:
    """A method that declares less time than the suite's patience may use it up."""
    slow = Method(opcode=1, name="Slow", request=AddRequest, response=AddResponse, timeout=0.05)
    handlers = Handlers(Service("test.slow.v1.SlowService", methods=[slow]))
    handlers.register(slow)(unanswered)
    suite(handlers=handlers, max_examples=3).test_generated_requests_are_answered(MethodAt(slow, 1), "pipe")


def test_a_credential_that_never_comes_is_named() -> None:
    """What ``credential`` calls and is not answered ends with a sentence that names it."""
    made = adding(unanswered)
    type(made).credential = lambda self, client: str(client.call(ADD, AddRequest(left=1, right=2)))  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wireproto.testing.outcome.PATIENCE", 0.3)
        with pytest.raises(AssertionError, match=r"^credential\(\) of Suite was not done within 0.3 s"):
            made.test_generated_requests_are_answered(MethodAt(ADD, 1), "pipe")


def test_a_server_that_does_not_answer_ends_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins, too, no call waits for longer than the suite's own time, whether or not it has a deadline."""
    monkeypatch.setattr("wireproto.testing.outcome.PATIENCE", 0.5)
    monkeypatch.setattr(Session, "settle", lambda self, call, outcome, last=False: None)
    with staged(SHELVES) as stage, pytest.raises(AssertionError, match=r"^Take\(.*\) was not answered within 0.5 s"):
        SHELVES.test_the_timeout_is_the_methods(MethodAt(TAKE, 2), "pipe", stage)
    with staged(SHELVES) as stage, pytest.raises(AssertionError, match=r"^Put\(b'.*\) was not answered within 0.5 s"):
        SHELVES.test_mutated_payloads_are_refused(MethodAt(PUT, 1), "pipe", stage)


def test_a_stream_that_stops_ends_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends no items though there is credit for them is found, and not waited for."""
    monkeypatch.setattr("wireproto.testing.table_tests.PATIENCE", 0.5)
    monkeypatch.setattr(Session, "room_locked", lambda self: 0)
    with staged(SHELVES) as stage, pytest.raises(CallError, match="DEADLINE"):
        SHELVES.test_streams_send_within_their_credit(MethodAt(LIST, 3), "pipe", stage)


# Faults of a framework, or of what is put between it and the handlers


ENTRY, TABLE = Entry.__init__, Table.__init__


def leaking(self: Entry, error: BaseException) -> CallError:
    """Tell the caller what went wrong."""
    return CallError(Status.INTERNAL, "INTERNAL", f"incident 1: {error}", retry=Retry.MAYBE_PROCESSED)


def trusting(self: Entry, error: CallError) -> CallError:
    """Let any reason out."""
    return error


def forgetful(self: Entry, error: CallError) -> CallError:
    """Lose the reason."""
    return CallError(error.status, "", error.message)


def bare(self: Entry, error: CallError) -> CallError:
    """Lose the details."""
    return CallError(error.status, error.reason, error.message)


def silent(self: Call, name: str, value: str) -> None:
    """Say nothing beside an answer."""


def gossiping(self: Call, name: str, value: str) -> None:
    """Say it beside another name."""
    SET_METADATA(self, f"x-{name}", value)


def generous(self: Entry, context: Context) -> None:
    """Let everybody in."""


def boundless(self: Any, *arguments: Any, **more: Any) -> None:
    """Forget timeout and size."""
    ENTRY(self, *arguments, **more)
    self.timeout, self.max_request = None, 1 << 30


def credulous(self: Any, *arguments: Any, **more: Any) -> None:
    """Take any bytes for a request."""
    ENTRY(self, *arguments, **more)
    self._decode = lambda payload: None


def timeless(self: Table, service: Any, version: int, entries: Any, side: Any = "server") -> None:
    """Have every method in every version."""
    TABLE(self, service, version, dict.fromkeys(range(16), next(iter(entries.values()))), side)


def clinging(self: Any) -> None:
    """Hold on to a call that nobody waits for, or to what it held."""


def endless(self: Connection, call_id: int) -> Credit:
    """Send whatever there is, whatever the credit."""
    much = Credit(64, 1 << 20)
    halves = self._calls_of(call_id).halves[call_id]
    halves.items_to_send, halves.bytes_to_send = much
    return much


def newest(self: Handlers, codec: Any, version: int, limits: Any, authenticate: Any = None, **more: Any) -> Table:
    """Speak the newest version to everybody."""
    return TABLES(self, codec, self.service.version, limits, authenticate, **more)


def lenient(self: Entry, payload: bytes) -> Any:
    """Take what is none for something else."""
    try:
        return READ(self, payload)
    except CallError:
        return simplest(self.method.request, 3)


def talkative(self: Entry, answer: object, wanted: str) -> CallError:
    """Tell the caller what was wrong with an answer."""
    return CallError(Status.INTERNAL, "INTERNAL", f"incident 1: {answer}")


def lavish(self: Windows, call_id: int) -> Credit:
    """Let a caller send whatever it has."""
    return Credit(1_000_000, 1 << 30)


def stingy(self: Windows, call_id: int, items: int, size: int) -> bool:
    """Give no credit back."""
    return False


def late(self: Entry, items: Iterator[Any], context: Context) -> Any:
    """Have all items come, whenever the handler answers."""
    outcome = RUN_ITEMS(self, items, context)
    for _ in items:
        pass
    return outcome


def trustful(self: _ToIterator) -> Any:
    """Take whatever has come for everything."""
    try:
        return NEXT(self)
    except CallError:
        raise StopIteration from None


def curt(self: Intake) -> None:
    """End a call at the end of its items."""
    self.end_locked(CallError(Status.CANCELLED, "CANCELLED", ""))


def twice(self: Entry, payload: bytes, context: Context) -> Any:
    """Run a handler again."""
    RUN(self, payload, context)
    return RUN(self, payload, context)


def careless(self: Session, call: OneWayCall, worker: Any) -> None:
    """Lose the one-way calls that come."""
    self.one_way_over(call, None)


READ, RUN, RUN_ITEMS, NEXT = Entry.read, Entry.run, Entry.run_items, _ToIterator.__next__
SET_METADATA, TABLES = Call.set_metadata, Handlers.table
FAULTS: list[tuple[Any, str, Any, str, MethodAt | Peers, str]] = [
    (Entry, "incident", leaking, "test_exceptions_become_incidents", MethodAt(PUT, 3), "pipe"),
    (Entry, "incident", leaking, "test_exceptions_become_incidents", MethodAt(LIST, 3), "grpc"),
    (Entry, "_checked", trusting, "test_exceptions_become_incidents", MethodAt(MERGE, 3), "msgpack"),
    (Entry, "_checked", forgetful, "test_declared_reasons_arrive", MethodAt(TAKE, 2), "msgpack"),
    (Entry, "_with_details", bare, "test_declared_details_arrive", MethodAt(MERGE, 3), "msgpack"),
    (Entry, "_with_details", bare, "test_declared_details_arrive", MethodAt(SWAP, 2), "grpc"),
    (Call, "set_metadata", silent, "test_what_is_said_beside_answers_arrives", MethodAt(LIST, 3), "pipe"),
    (Call, "set_metadata", silent, "test_what_is_said_beside_answers_arrives", MethodAt(FILL, 3), "grpc"),
    (Call, "set_metadata", gossiping, "test_what_is_said_beside_answers_arrives", MethodAt(PUT, 3), "msgpack"),
    (Entry, "_judge", generous, "test_callers_without_the_capability_are_refused", MethodAt(PUT, 1), "pipe"),
    (Entry, "__init__", boundless, "test_the_timeout_is_the_methods", MethodAt(TAKE, 2), "pipe"),
    (Entry, "__init__", boundless, "test_larger_requests_are_refused", MethodAt(PUT, 1), "protobuf"),
    (Entry, "__init__", credulous, "test_mutated_payloads_are_refused", MethodAt(PUT, 1), "pipe"),
    (Table, "__init__", timeless, "test_methods_of_other_versions_are_unimplemented", Peers(3, 1), "pipe"),
    (Call, "drop_future_locked", clinging, "test_deadlines_are_kept", MethodAt(PUT, 3), "pipe"),
    (Call, "drop_future_locked", clinging, "test_cancelled_calls_are_let_go", MethodAt(PUT, 3), "pipe"),
    (Connection, "credit", endless, "test_streams_send_within_their_credit", MethodAt(LIST, 3), "pipe"),
    (Handlers, "table", newest, "test_newer_fields_stay_with_newer_peers", Peers(1, 3), "msgpack"),
    # Items
    (Entry, "incident", leaking, "test_exceptions_become_incidents", MethodAt(FILL, 3), "msgpack"),
    (Entry, "incident", leaking, "test_exceptions_become_incidents", MethodAt(SWAP, 2), "grpc"),
    (Entry, "_judge", generous, "test_callers_without_the_capability_are_refused", MethodAt(FILL, 1), "grpc"),
    (Entry, "read", lenient, "test_mutated_payloads_are_refused", MethodAt(FILL, 1), "msgpack"),
    (Entry, "read", lenient, "test_mutated_payloads_are_refused", MethodAt(SWAP, 3), "grpc"),
    (Entry, "__init__", boundless, "test_larger_requests_are_refused", MethodAt(FILL, 1), "pipe"),
    (Connection, "credit", endless, "test_streams_send_within_their_credit", MethodAt(SWAP, 2), "protobuf"),
    (Call, "drop_future_locked", clinging, "test_deadlines_are_kept", MethodAt(FILL, 3), "pipe"),
    (Windows, "admit", lavish, "test_items_are_sent_within_their_credit", MethodAt(FILL, 3), "pipe"),
    (Windows, "admit", lavish, "test_items_are_sent_within_their_credit", MethodAt(SWAP, 2), "msgpack"),
    (Windows, "is_due", stingy, "test_items_are_sent_within_their_credit", MethodAt(FILL, 3), "msgpack"),
    (Entry, "run_items", late, "test_early_answers_end_the_items", MethodAt(FILL, 3), "pipe"),
    (Entry, "run_items", late, "test_early_answers_end_the_items", MethodAt(FILL, 3), "grpc"),
    (Entry, "_checked", forgetful, "test_errors_among_items_are_told", MethodAt(FILL, 3), "protobuf"),
    (Entry, "_checked", forgetful, "test_errors_among_items_are_told", MethodAt(SWAP, 2), "grpc"),
    (_ToIterator, "__next__", trustful, "test_items_that_are_left_are_no_whole", MethodAt(FILL, 3), "pipe"),
    (_ToIterator, "__next__", trustful, "test_items_that_are_left_are_no_whole", MethodAt(FILL, 3), "grpc"),
    (_ToIterator, "__next__", trustful, "test_deadlines_among_items_are_kept", MethodAt(FILL, 3), "msgpack"),
    (_ToIterator, "__next__", trustful, "test_deadlines_among_items_are_kept", MethodAt(SWAP, 2), "protobuf"),
    (Intake, "complete_locked", curt, "test_answers_come_behind_the_end_of_items", MethodAt(SWAP, 2), "pipe"),
    (Intake, "complete_locked", curt, "test_answers_come_behind_the_end_of_items", MethodAt(SWAP, 2), "grpc"),
    # One-way calls
    (Entry, "_wrong_answer", talkative, "test_exceptions_become_incidents", MethodAt(FORGET, 1), "pipe"),
    (Entry, "_judge", generous, "test_callers_without_the_capability_are_refused", MethodAt(FORGET, 3), "msgpack"),
    (Entry, "__init__", credulous, "test_mutated_payloads_are_refused", MethodAt(FORGET, 1), "protobuf"),
    (Entry, "__init__", credulous, "test_mutated_payloads_are_refused", MethodAt(FORGET, 1), "grpc"),
    (Entry, "run", twice, "test_one_way_calls_all_run", MethodAt(FORGET, 3), "pipe"),
    (Entry, "run", twice, "test_one_way_calls_all_run", MethodAt(FORGET, 3), "grpc"),
    (Session, "_run_one_way", careless, "test_one_way_calls_all_run", MethodAt(FORGET, 3), "msgpack"),
    (Session, "_return_one_way_credit_locked", clinging, "test_one_way_calls_all_run", MethodAt(FORGET, 3), "pipe"),
    (Table, "__init__", timeless, "test_methods_of_other_versions_are_unimplemented", Peers(1, 2), "grpc"),
]


@pytest.mark.parametrize(("owner", "name", "fault", "test", "about", "door"), FAULTS)
def test_faults_of_the_framework_are_found(
    owner: Any, name: str, fault: Any, test: str, about: Any, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the framework does not do what the table says, the test that is about it fails."""
    run = getattr(SHELVES, test)
    for module in ("item_tests", "outcome", "table_tests"):
        monkeypatch.setattr(f"wireproto.testing.{module}.PATIENCE", 2.0)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fault)
        with staged(SHELVES) as stage, pytest.raises((AssertionError, CallError, DecodeError, TimeoutError)):
            run(about, door, stage)
    with staged(SHELVES) as stage:
        run(about, door, stage)


# Which tests there are


def names(made: type[ServerSuite]) -> set[str]:
    return {name for name in dir(made) if name.startswith("test_") and getattr(made, name) is not None}


def test_a_service_has_the_tests_that_can_be_about_it() -> None:
    """What no method declares has no test, so that none is skipped."""
    plain, full = names(type(suite(handlers=calculator))), names(type(SHELVES))
    assert plain < full == names(ServerSuite)
    assert full - plain == {
        "test_answers_come_behind_the_end_of_items",
        "test_callers_without_the_capability_are_refused",
        "test_calls_that_are_left_end",
        "test_deadlines_among_items_are_kept",
        "test_declared_details_arrive",
        "test_declared_reasons_arrive",
        "test_early_answers_end_the_items",
        "test_errors_among_items_are_told",
        "test_items_are_sent_within_their_credit",
        "test_items_that_are_left_are_no_whole",
        "test_larger_requests_are_refused",
        "test_methods_of_other_versions_are_unimplemented",
        "test_newer_fields_stay_with_newer_peers",
        "test_one_way_calls_all_run",
        "test_streams_send_within_their_credit",
        "test_the_timeout_is_the_methods",
    }


def test_every_method_version_and_pair_has_its_tests() -> None:
    """Parameters are every method in every version, or in its newest one, and every pair of versions."""
    every = [str(each) for each in SHELVES._parameters("test_generated_requests_are_answered")]
    assert every == [
        "Put-v1", "Count-v1", "List-v1", "Fill-v1", "Forget-v1",
        "Put-v2", "List-v2", "Take-v2", "Fill-v2", "Swap-v2", "Forget-v2",
        "Put-v3", "List-v3", "Merge-v3", "Fill-v3", "SumUp-v3", "Swap-v3", "Forget-v3",
    ]  # fmt: skip
    newest = [str(each) for each in SHELVES._parameters("test_deadlines_are_kept")]
    assert sorted(newest) == ["Count-v1", "Fill-v3", "List-v3", "Merge-v3", "Put-v3", "SumUp-v3", "Swap-v3", "Take-v2"]
    one_by_one = [str(each) for each in SHELVES._parameters("test_early_answers_end_the_items")]
    assert one_by_one == ["Fill-v3", "Swap-v3"]
    credited = [str(each) for each in SHELVES._parameters("test_items_are_sent_within_their_credit")]
    assert sorted(credited) == ["Fill-v3", "SumUp-v3", "Swap-v3"]
    assert [str(each) for each in SHELVES._parameters("test_one_way_calls_all_run")] == ["Forget-v3"]
    pairs = [str(each) for each in SHELVES._parameters("test_every_peer_is_answered_alike")]
    assert len(pairs) == 9
    assert "client-v3-server-v1" in pairs
    some = suite(service=SHELF, versions=[1, 3])
    assert len(some._parameters("test_every_peer_is_answered_alike")) == 4


def test_a_suite_without_a_service_says_so() -> None:
    """A class that names neither handlers nor a service is told what to give."""
    with pytest.raises(pytest.UsageError, match="says neither handlers= nor service="):
        suite()._service()
