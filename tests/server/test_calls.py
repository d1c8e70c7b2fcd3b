"""Unary calls over a real socket: order, blocking handlers, deferred answers, cancel, deadline, errors."""

import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import (
    ADMIN,
    BLOCK,
    COUNT,
    DEFER,
    ECHO,
    FAIL,
    SERVICE,
    SIGN_IN,
    SIGN_OUT,
    STALL,
    WHO,
    AdminRequest,
    BlockRequest,
    CountRequest,
    CountResponse,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    EchoResponse,
    FailRequest,
    SignInRequest,
    SignOutRequest,
    Stage,
    StallRequest,
    WhoRequest,
)
from wireproto.answering.call import Call
from wireproto.answering.pace import PROVEN
from wireproto.control import CHECK, CONTROL, DESCRIBE, CheckRequest, DescribeRequest, Health
from wireproto.control import ECHO as ECHO_BYTES
from wireproto.control import EchoRequest as EchoBytesRequest
from wireproto.dispatch import Handlers
from wireproto.errors import DeclarationError
from wireproto.handling import Context
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.schema import Service
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.events import ErrorReceived, PongReceived, ResponseReceived
from wireproto.wire.metadata import Metadata


def test_a_call_is_answered(peer: Peer) -> None:
    """A request is answered by its handler's response."""
    assert peer.call(ECHO, EchoRequest(text="hi")).text == "hi"


def test_pipelined_calls_are_each_answered_once(peer: Peer) -> None:
    """A batch of requests in one write gets one answer each, whatever the turn's size."""
    ids = [peer.start(ECHO, EchoRequest(text=str(n))) for n in range(200)]
    answers = {}
    for _ in ids:
        event = peer.expect(ResponseReceived)
        answers[event.call_id] = peer.decode(ECHO, event.payload).text
    assert answers == {call_id: str(n) for n, call_id in enumerate(ids)}


@pytest.mark.parametrize("method", [BLOCK, STALL], ids=["declared", "unexpected"])
def test_a_blocked_handler_in_a_batch_holds_up_nobody(
    method: object, stage: Stage, server: Server, connect: Callable[..., Peer]
) -> None:
    """What is before and after a blocking call in one batch is answered while it blocks; so are other connections."""
    peer, other = connect(server), connect(server)
    first = peer.start(ECHO, EchoRequest(text="first"))
    blocked = (
        peer.start(BLOCK, BlockRequest(name="x")) if method is BLOCK else peer.start(STALL, StallRequest(name="x"))
    )
    last = peer.start(ECHO, EchoRequest(text="last"))
    got = {peer.expect(ResponseReceived).call_id, peer.expect(ResponseReceived).call_id}
    assert got == {first, last}
    assert other.call(ECHO, EchoRequest(text="other")).text == "other"
    stage.gate("x").set()
    assert peer.expect(ResponseReceived).call_id == blocked


def test_a_method_that_stalled_once_is_handed_over_until_it_is_quick_again(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A method seen to block runs on followers from then on, and on the leader again after it was quick."""
    server = serve()
    peer = connect(server)
    stage.gate("once").set()
    peer.call(STALL, StallRequest(name=""))
    call_id = peer.start(STALL, StallRequest(name="slow"))
    peer.flush()
    assert stage.inside("slow").wait(10)
    stage.gate("slow").set()
    assert peer.expect(ResponseReceived).call_id == call_id
    for _ in range(20):
        peer.call(STALL, StallRequest(name=""))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_short_turn_forgets_nothing(turn: int, serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """Requests that came at once and are more than a turn has are all answered, with nothing sent behind them."""
    peer = connect(serve(limits=Limits(turn_calls=turn)))
    for count in (1, 2, 3, 4, 7):
        ids = {peer.start(ECHO, EchoRequest(text=f"{number}")) for number in range(count)}
        peer.flush()
        assert {peer.expect(ResponseReceived).call_id for _ in range(count)} == ids


def test_deferred_answers_are_sent_when_they_are_there(stage: Stage, peer: Peer) -> None:
    """A handler that returns a future is answered on completion, in the order of completion."""
    ids = [peer.start(DEFER, DeferRequest(name=str(n))) for n in range(64)]
    peer.flush()
    for n in reversed(range(64)):
        stage.future(str(n)).set_result(DeferResponse(name=str(n)))
    answers = {}
    for _ in ids:
        event = peer.expect(ResponseReceived)
        answers[event.call_id] = peer.decode(DEFER, event.payload).name
    assert answers == {call_id: str(n) for n, call_id in enumerate(ids)}


def test_a_deferred_failure_is_an_incident(stage: Stage, peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """An exception set on a future is answered INTERNAL, without its text."""
    peer.start(DEFER, DeferRequest(name="f"))
    peer.flush()
    stage.future("f").set_exception(ValueError("secret"))
    error = peer.expect(ErrorReceived).error
    assert error.status is Status.INTERNAL
    assert "secret" not in str(error)
    assert "secret" in caplog.text


def test_cancelling_a_deferred_call_answers_it_and_cancels_its_future(stage: Stage, peer: Peer) -> None:
    """CANCEL of a deferred call is answered CANCELLED at once, and the future learns of it."""
    call_id = peer.start(DEFER, DeferRequest(name="c"))
    peer.flush()
    future = stage.future("c")
    peer.connection.send_cancel(call_id)
    peer.flush()
    until(future.cancelled, "the future is cancelled")
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def test_a_running_handler_sees_that_its_call_was_cancelled(stage: Stage, peer: Peer) -> None:
    """CANCEL reaches the context of a running handler; its answer is dropped and the connection lives."""
    call_id = peer.start(BLOCK, BlockRequest(name="c"))
    peer.flush()
    assert stage.inside("c").wait(10)
    peer.connection.send_cancel(call_id)
    peer.flush()
    until(lambda: stage.contexts["c"].cancelled, "the context is cancelled")
    stage.gate("c").set()
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def test_a_context_says_nothing_of_what_the_call_carries(stage: Stage, peer: Peer) -> None:
    """Handlers log their context: its repr names the call and no payload, metadata or identity."""
    peer.start(BLOCK, BlockRequest(name="secret"), Metadata(authorization="user:secret"))
    peer.flush()
    assert stage.inside("secret").wait(10)
    assert re.fullmatch(r"<Call \d+ of Block from 127\.0\.0\.1:\d+>", repr(stage.contexts["secret"]))
    context = stage.contexts["secret"]
    assert isinstance(context, Call)
    assert [name for name, _ in context.__rich_repr__()] == ["call_id", "method"]


def test_a_call_that_was_cancelled_before_its_turn_does_not_run(connect: Callable[..., Peer]) -> None:
    """A method with a record of being quick is not run for a REQUEST whose CANCEL came with it."""
    ran: list[str] = []
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        ran.append(request.text)
        return EchoResponse(text="")

    with Server(handlers, codecs=["msgpack"]) as server:
        peer = connect(server)
        for _ in range(2 * PROVEN):
            peer.call(ECHO, EchoRequest())
        ran.clear()
        for _ in range(20):
            peer.connection.send_cancel(peer.start(ECHO, EchoRequest(text="cancelled")))
            peer.call(ECHO, EchoRequest(text="wanted"))
    assert ran.count("wanted") == 20
    assert ran.count("cancelled") < 20  # those run whose CANCEL came in a later read, as grease may have it


def test_a_deadline_ends_a_call_that_is_running(stage: Stage, peer: Peer) -> None:
    """A call is answered DEADLINE_EXCEEDED while its handler is still at it."""
    peer.start(BLOCK, BlockRequest(name="d"), Metadata(deadline_ms=50))
    error = peer.expect(ErrorReceived).error
    assert (error.status, error.reason, error.retry) == (Status.DEADLINE_EXCEEDED, "DEADLINE", Retry.MAYBE_PROCESSED)
    assert stage.contexts["d"].remaining() == 0.0
    assert stage.contexts["d"].cancelled


def test_an_answer_does_not_wait_for_a_call_that_was_handed_over(stage: Stage, peer: Peer) -> None:
    """What was answered before a blocking call of the same read is sent while that one runs."""
    for number in range(5):  # more than once, for the peer greases now and then
        quick = peer.start(ECHO, EchoRequest())
        blocked = peer.start(BLOCK, BlockRequest(name=f"{number}"))
        assert peer.expect(ResponseReceived).call_id == quick
        assert stage.inside(f"{number}").wait(10)
        stage.gate(f"{number}").set()
        assert peer.expect(ResponseReceived).call_id == blocked


def test_a_quick_method_that_is_stuck_once_may_have_been_processed(stage: Stage, peer: Peer) -> None:
    """A method with a record of being quick is said to be begun, too, when its deadline ends it."""
    for _ in range(2 * PROVEN):
        peer.call(STALL, StallRequest(name=""))
    peer.start(STALL, StallRequest(name="x"), Metadata(deadline_ms=50))
    peer.flush()
    assert stage.inside("x").wait(10)
    error = peer.expect(ErrorReceived).error
    assert (error.reason, error.retry) == ("DEADLINE", Retry.MAYBE_PROCESSED)


def test_every_call_is_a_sign_of_life(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """A connection that only calls, one call at a time, is never silent."""
    server = serve(limits=Limits(idle_timeout=1e9, heartbeat=0))
    peer = connect(server)
    (session,) = server.sessions.values()
    for _ in range(20):  # more than once, for the peer greases now and then
        session.sweep(time.monotonic())
        session._liveness._heard_at = -1.0
        peer.call(ECHO, EchoRequest())
        session.sweep(time.monotonic())
        assert session._liveness._heard_at > 0.0


def test_a_deadline_that_passed_keeps_the_handler_from_starting(peer: Peer, stage: Stage) -> None:
    """A call whose deadline is over when its turn comes is refused, not processed."""
    error = peer.fail(BLOCK, BlockRequest(name="late"), Metadata(deadline_ms=0))
    assert (error.status, error.retry) == (Status.DEADLINE_EXCEEDED, Retry.NOT_PROCESSED)
    assert "late" not in stage.contexts


def test_unknown_opcodes_and_bad_payloads_fail_their_call_only(peer: Peer) -> None:
    """A call that cannot be understood is answered with a typed error, and the connection lives."""
    peer.connection.send_request(0x99, b"")
    error = peer.expect(ErrorReceived).error
    assert (error.status, error.reason) == (Status.UNIMPLEMENTED, "UNKNOWN_OPCODE")
    peer.connection.send_request(ECHO.opcode, b"\xff\xff")
    error = peer.expect(ErrorReceived).error
    assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_PAYLOAD")
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def test_too_many_errors_close_the_connection(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """A peer that sends only nonsense is closed, and told why."""
    peer = connect(serve(limits=Limits(errors_per_minute=3)))
    for _ in range(5):
        peer.connection.send_request(0x99, b"")
    error = peer.ended().error
    assert error is not None
    assert error.reason == "TOO_MANY_ERRORS"


def test_metadata_that_must_be_understood_fails_its_call(peer: Peer) -> None:
    """An unknown critical metadata key is answered UNIMPLEMENTED; the connection lives."""
    peer.connection.send_request(ECHO.opcode, b"", b"\xfe\x00\x00")
    assert peer.expect(ErrorReceived).error.reason == "UNKNOWN_METADATA"
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


@pytest.mark.parametrize("how", ["undeclared", "exit", "type", "raise"])
def test_handler_failures_are_incidents(how: str, peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a handler raises is INTERNAL with an incident number; the text stays in the log."""
    with caplog.at_level(logging.ERROR):
        error = peer.fail(FAIL, FailRequest(how=how))
    assert (error.status, error.reason) == (Status.INTERNAL, "INTERNAL")
    assert "secret" not in str(error)
    found = re.search(r"incident ([0-9a-f]{8})", error.message)
    assert found is not None
    assert found[1] in caplog.text
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def test_a_declared_abort_arrives_as_it_was_raised(peer: Peer) -> None:
    """Status, reason, message and retry advice of an abort reach the caller."""
    error = peer.fail(FAIL, FailRequest(how="declared"))
    assert (error.status, error.reason, error.message) == (Status.ABORTED, "DECLARED", "as told")
    assert (error.retry, error.retry_after_ms) == (Retry.NOT_PROCESSED, 7)


def test_requests_above_the_methods_limit_are_refused(peer: Peer) -> None:
    """A payload longer than max_request is RESOURCE_EXHAUSTED before it is decoded."""
    assert peer.fail(FAIL, FailRequest(how="x" * 2000)).reason == "REQUEST_TOO_LARGE"


def test_an_answer_above_the_peers_limit_is_an_error(peer: Peer) -> None:
    """A response longer than the peer accepts is answered RESPONSE_TOO_LARGE and never sent."""
    assert peer.fail(ECHO, EchoRequest(size=2 * 1024 * 1024)).reason == "RESPONSE_TOO_LARGE"
    assert peer.call(ECHO, EchoRequest(size=1000_000)).text == "x" * 1000_000


def test_identity_matrix(peer: Peer) -> None:
    """Own authorization, else the connection's identity, else none, against none, met and unmet ``requires``."""
    user, admin, bad = (Metadata(authorization=text) for text in ("user:ann", "admin:bob", "nonsense"))
    requests = {WHO: WhoRequest(), ADMIN: AdminRequest(), ECHO: EchoRequest()}

    def verdict(method: object, metadata: Metadata | None) -> str:
        request = requests[method]
        call_id = peer.start(method, request, metadata)  # type: ignore[arg-type]
        event = peer.event()
        assert isinstance(event, ResponseReceived | ErrorReceived)
        assert event.call_id == call_id
        if isinstance(event, ErrorReceived):
            return event.error.status.name
        return str(getattr(peer.decode(method, event.payload), "name", ""))  # type: ignore[arg-type]

    rows = [verdict(method, metadata) for method in requests for metadata in (None, user, admin, bad)]
    assert rows == [
        *("UNAUTHENTICATED", "ann", "PERMISSION_DENIED", "UNAUTHENTICATED"),
        *("UNAUTHENTICATED", "PERMISSION_DENIED", "bob", "UNAUTHENTICATED"),
        *("", "", "", ""),
    ]
    peer.call(SIGN_IN, SignInRequest(name="cat", capabilities=["user"]))
    rows = [verdict(method, metadata) for method in requests for metadata in (None, user, admin, bad)]
    assert rows == [
        *("cat", "ann", "PERMISSION_DENIED", "UNAUTHENTICATED"),
        *("PERMISSION_DENIED", "PERMISSION_DENIED", "bob", "UNAUTHENTICATED"),
        *("", "", "", ""),
    ]
    peer.call(SIGN_OUT, SignOutRequest())
    assert verdict(WHO, None) == "UNAUTHENTICATED"
    assert "send authorization" in peer.fail(WHO, WhoRequest()).message
    assert "not accepted here" in peer.fail(WHO, WhoRequest(), bad).message


def test_a_signed_in_connection_keeps_its_identity(peer: Peer, stage: Stage) -> None:
    """A second sign-in is refused while the first one lives, and accepted once it is revoked or signed out."""
    ann, bob = SignInRequest(name="ann", capabilities=["user"]), SignInRequest(name="bob", capabilities=["user"])
    peer.call(SIGN_IN, ann)
    assert peer.fail(SIGN_IN, bob).reason == "ALREADY_SIGNED_IN"
    assert peer.call(WHO, WhoRequest()).name == "ann"
    stage.identities["ann"].revoke()
    peer.call(SIGN_IN, bob)
    peer.call(SIGN_OUT, SignOutRequest())
    peer.call(SIGN_IN, ann)
    assert peer.call(WHO, WhoRequest()).name == "ann"


def test_a_quick_method_is_told_who_calls(peer: Peer) -> None:
    """Who signed in is known to a method with a record of being quick, from call to call until the sign-out."""
    peer.call(SIGN_IN, SignInRequest(name="ann", capabilities=["user"]))
    for _ in range(2 * PROVEN):
        assert peer.call(WHO, WhoRequest()).name == "ann"
    peer.call(SIGN_OUT, SignOutRequest())
    assert peer.fail(WHO, WhoRequest()).reason == "SIGN_IN_REQUIRED"


def test_a_revoked_identity_counts_as_none(stage: Stage, server: Server, connect: Callable[..., Peer]) -> None:
    """Revoking an identity signs out every connection that has it."""
    first, second = connect(server), connect(server)
    for each in (first, second):
        each.call(SIGN_IN, SignInRequest(name="dan", capabilities=["user"]))
    stage.identities["dan"].revoke()
    assert second.fail(WHO, WhoRequest()).status is Status.UNAUTHENTICATED
    assert first.call(WHO, WhoRequest()).name == "dan"


def test_what_is_no_handler_of_a_method_is_refused() -> None:
    """What nobody could call, or would never be awaited, is refused where it is declared, with what to write."""
    handlers = Handlers(SERVICE)

    async def later(request: EchoRequest, context: Context) -> EchoResponse:
        raise AssertionError

    async def items(request: CountRequest, context: Context) -> AsyncIterator[CountResponse]:
        yield CountResponse(n=1)

    with pytest.raises(DeclarationError, match="Echo is async; write a plain function"):
        handlers.register(ECHO)(later)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="Count is async"):
        handlers.register(COUNT)(items)  # type: ignore[arg-type]
    for wrong in ("Echo", later):
        with pytest.raises(DeclarationError, match=r"write @handlers.register\(METHOD\)"):
            handlers.register(wrong)  # type: ignore[call-overload]
    with pytest.raises(DeclarationError, match="handlers are of a Service, not of <"):
        Handlers(ECHO)  # type: ignore[arg-type]
    assert handlers.handler(ECHO) is None


def test_a_handler_that_needs_nobody_does_not_see_a_revoked_identity(connect: Callable[..., Peer]) -> None:
    """A revoked identity counts as none for methods without ``requires``, too."""
    seen: list[Identity | None] = []
    identity = Identity("alice")
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        seen.append(context.identity)
        if request.text == "in":
            context.sign_in(identity)
        return EchoResponse(text="")

    with Server(handlers, codecs=["msgpack"]) as server:
        peer = connect(server)
        peer.call(ECHO, EchoRequest(text="in"))
        peer.call(ECHO, EchoRequest())
        identity.revoke()
        peer.call(ECHO, EchoRequest())
    assert seen == [None, identity, None]


def test_a_method_without_handler_is_unimplemented(
    connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """A declared method that has no handler is answered so, and the server says so when it starts."""
    with Server(Handlers(SERVICE), codecs=["msgpack"]) as server:
        assert "Echo has no handler" in caplog.text
        assert connect(server).fail(ECHO, EchoRequest()).reason == "NO_HANDLER"


def test_saturation_by_blocked_handlers(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """With every follower blocked and the run queue full, PINGs, refusals and quick calls are still answered."""
    peer = connect(serve(limits=Limits(run_queue=5), workers=4))
    for _ in range(20):
        peer.call(ECHO, EchoRequest())
    blocked = [peer.start(BLOCK, BlockRequest(name="s")) for _ in range(12)]
    refused = [peer.expect(ErrorReceived) for _ in range(12 - 2 - 5)]
    assert {event.error.reason for event in refused} == {"SERVER_BUSY"}
    assert {event.error.retry for event in refused} == {Retry.NOT_PROCESSED}
    peer.connection.send_ping(b"12345678")
    assert peer.expect(PongReceived).data == b"12345678"
    assert peer.call(ECHO, EchoRequest(text="quick")).text == "quick"
    stage.gate("s").set()
    answered = {peer.expect(ResponseReceived).call_id for _ in range(7)}
    assert answered == set(blocked) - {event.call_id for event in refused}


def test_a_queued_call_whose_deadline_passes_is_refused_unprocessed(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A call that waits for a worker beyond its deadline is answered, and its handler never runs."""
    peer = connect(serve(workers=2))
    peer.start(BLOCK, BlockRequest(name="first"))
    peer.flush()
    assert stage.inside("first").wait(10)
    late = peer.start(BLOCK, BlockRequest(name="second"), Metadata(deadline_ms=20))
    event = peer.expect(ErrorReceived)
    assert (event.call_id, event.error.reason) == (late, "DEADLINE")
    stage.gate("first").set()
    peer.expect(ResponseReceived)
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"
    assert "second" not in stage.contexts


def test_handlers_run_beside_each_other(stage: Stage, server: Server, connect: Callable[..., Peer]) -> None:
    """Blocking calls of one connection run on several workers at once."""
    peer = connect(server)
    for n in range(5):
        peer.start(BLOCK, BlockRequest(name=str(n)))
    peer.flush()
    assert all(stage.inside(str(n)).wait(10) for n in range(5))
    stage.open_gates()
    assert len({peer.expect(ResponseReceived).call_id for _ in range(5)}) == 5


def test_stream_methods_do_not_mix_with_unary_answers(peer: Peer) -> None:
    """A stream method called without credit is idle and holds no worker; cancelling it is enough."""
    call_id = peer.start(COUNT, CountRequest(upto=3), Metadata(credit=window(0)))
    assert peer.call(ECHO, EchoRequest(text="beside")).text == "beside"
    peer.connection.send_cancel(call_id)
    assert peer.call(ECHO, EchoRequest(text="after")).text == "after"


def test_threads_of_one_process_share_a_connection_safely(server: Server, connect: Callable[..., Peer]) -> None:
    """Many connections, each on its own thread, get their own answers."""
    failures: list[str] = []

    def work(name: str) -> None:
        peer = connect(server)
        for n in range(200):
            if peer.call(ECHO, EchoRequest(text=f"{name}{n}")).text != f"{name}{n}":
                failures.append(name)

    threads = [threading.Thread(target=work, args=(f"t{n}-",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []


@pytest.mark.parametrize("service", [SERVICE, CONTROL], ids=["beside the service", "alone"])
def test_framework_opcodes_belong_to_every_connection(service: Service, stage: Stage) -> None:
    """Health, reflection and echo are answered on every connection, and to a client that knows no service."""
    with Server(stage.handlers, codecs=["msgpack"], name="tested") as server, Peer(server, service) as peer:
        assert peer.call(ECHO_BYTES, EchoBytesRequest(payload=b"\0\xff")).payload == b"\0\xff"
        assert peer.call(CHECK, CheckRequest(service=SERVICE.full_name)).health is Health.SERVING
        assert peer.fail(CHECK, CheckRequest(service="other")).reason == "UNKNOWN_SERVICE"
        answer = peer.call(DESCRIBE, DescribeRequest())
        assert answer.server == "tested"
        assert [each.full_name for each in answer.services] == [SERVICE.full_name]
        assert {each.name for each in answer.services[0].methods} == {each.name for each in SERVICE.methods}
