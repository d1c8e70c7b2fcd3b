"""What ServerSuite shows of what a table promises, with stand-ins for the handlers."""

from typing import Any

from hypothesis import strategies as st

from wireproto import schema
from wireproto.client import BlockingClient
from wireproto.errors import CallError, DecodeError
from wireproto.schema import Message, Operation, Shape
from wireproto.status import Retry, Status
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.doors import GRPC
from wireproto.testing.examples import for_all, meaning, simplest, widened
from wireproto.testing.generators import messages, mutated
from wireproto.testing.outcome import Outcome, outcome_of, told
from wireproto.testing.parts import SuiteParts
from wireproto.testing.payloads import as_bytes
from wireproto.testing.standin import EVERYBODY, NOBODY, PATIENCE, SECRET, Feed, Hang, Stage, failures, raising, saying

__all__ = ["TableTests"]

SAID = {"region": "eu", "traceparent": "00-ab", "who": "Zoë"}
"""Such as gRPC has as text, and such as it has as bytes."""

ROUNDING = 1.0
"""Seconds: gRPC rounds deadlines up, coarser the longer they are."""


def _outcome(stage: Stage, client: BlockingClient, method: Any, message: Any, timeout: float | None = None) -> Outcome:
    """What comes of one call with one message."""
    request = [message] if method.items_follow else message
    return outcome_of(client, method, request, timeout=timeout, heard=stage.heard)


class TableTests:
    """The tests; ``ServerSuite`` says of which methods, and has what they use."""

    def test_mutated_payloads_are_refused(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """Bytes that are no request are INVALID_ARGUMENT and reach no handler, and the connection goes on."""
        method = case.method
        client = stage.client(door, case.version)
        plan = self._doors()[door].plan(method.request, case.version, self.limits, request=True)
        stage.answer(method)
        raw = as_bytes(client, method)
        right = plan.encode(simplest(method.request, case.version))
        _outcome(stage, client, raw, right)
        (first,) = stage.contexts

        def holds(payload: bytes) -> None:
            expected = ""
            if method.max_request is not None and len(payload) > method.max_request:
                expected = "REQUEST_TOO_LARGE"
            else:
                try:
                    plan.decode(payload)
                except DecodeError:
                    expected = "BAD_PAYLOAD"
            calls = len(stage.contexts)
            error = _outcome(stage, client, raw, payload).error
            assert (error.reason if error is not None else "") == expected, f"{payload!r} gave {error}"
            if expected:
                assert len(stage.contexts) == calls, f"a handler has seen {payload!r}, which is {expected}"
            if error is not None and expected == "BAD_PAYLOAD":
                assert error.status is Status.INVALID_ARGUMENT
                assert error.message.startswith(method.request.__name__), error

        payloads = messages(method.request, case.version).map(plan.encode)
        for_all(mutated(payloads) | st.binary(max_size=64), holds, max_examples=self._examples())
        _outcome(stage, client, raw, right)
        now = stage.contexts[-1].peer
        assert now == first.peer, f"the connection did not live: it was {first.peer} and is {now}"

    def test_exceptions_become_incidents(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """Whatever a handler raises or answers wrong, the caller learns an incident's number and no text."""
        method = case.method
        client = stage.client(door, case.version)
        right = simplest(method.response, case.version)
        for way in failures(method, right):
            stage.behave = way
            outcome = _outcome(stage, client, method, simplest(method.request, case.version))
            error = outcome.error
            assert error is not None, f"{way.__name__} was answered"
            assert (error.status, error.reason) == (Status.INTERNAL, "INTERNAL"), f"{way.__name__}: {error}"
            assert "incident" in error.message
            assert SECRET not in f"{error!r} {error}", f"{way.__name__}: the exception's text got out"

    def test_declared_reasons_arrive(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A reason that the method declares reaches the caller, with status, text and advice."""
        client = stage.client(door, case.version)
        for reason in case.method.reasons:
            refusal = CallError(Status.ABORTED, reason, "as told", retry=Retry.NOT_PROCESSED, retry_after_ms=7)
            stage.behave = raising(refusal)
            error = _outcome(stage, client, case.method, simplest(case.method.request, case.version)).error
            assert error is not None
            assert (*told(error), error.message, error.retry_after_ms) == (*told(refusal), "as told", 7)

    def test_declared_details_arrive(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A message that the method declares for its errors reaches the caller, with the error that has it."""
        client = stage.client(door, case.version)
        for declared in case.method.errors:
            details = simplest(declared, case.version)
            stage.behave = raising(CallError(Status.ABORTED, "", "as told", details=details))
            error = _outcome(stage, client, case.method, simplest(case.method.request, case.version)).error
            assert error is not None
            assert (error.status, error.message) == (Status.ABORTED, "as told"), error
            assert type(error.details) is declared, f"the details came as {error.details!r}"
            assert meaning(error.details, case.version) == meaning(details, case.version)

    def test_what_is_said_beside_answers_arrives(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """What a handler says beside its answer, or beside its error, reaches the caller, and no other one."""
        client = stage.client(door, case.version)
        request = simplest(case.method.request, case.version)
        stage.answer(case.method)
        plain = stage.behave
        for said in (SAID, {}):
            stage.behave = saying(said, plain)
            answered = _outcome(stage, client, case.method, request)
            assert answered.error is None, answered.error
            assert dict(answered.said) == said
            stage.behave = saying(said, raising(CallError(Status.ABORTED, "", "as told")))
            error = _outcome(stage, client, case.method, request).error
            assert error is not None
            assert dict(error.metadata) == said

    def test_deadlines_are_kept(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A call that takes too long is DEADLINE_EXCEEDED; its handler knew, and what it waits for is let go."""
        client = stage.client(door, case.version)
        request = simplest(case.method.request, case.version)
        stage.behave = hang = Hang()
        for timeout in (0.05, 0.5, 5.0):
            error = _outcome(stage, client, case.method, request, timeout=timeout).error
            assert error is not None, "a call was answered that nobody answered"
            assert error.status is Status.DEADLINE_EXCEEDED, error
            if hang.begun.is_set():
                break  # on a machine that is very busy the time may be over before
        assert hang.let_go.wait(PATIENCE), "the server holds on to a call whose deadline passed"
        assert stage.contexts[0].deadline is not None, "the handler was not told the deadline"

    def test_cancelled_calls_are_let_go(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """When the caller cancels, what the call waits for is let go, and the connection takes further calls."""
        method: Any = case.method
        client = stage.client(door, case.version)
        stage.behave = hang = Hang()
        request = simplest(method.request, case.version)
        if method.items_come_back:
            with client.stream(method, request):
                assert hang.begun.wait(PATIENCE)
        else:
            future = client.start(method, request)
            assert hang.begun.wait(PATIENCE)
            future.cancel()
        assert hang.let_go.wait(PATIENCE), "the server holds on to a call that was cancelled"
        before = stage.contexts[0].peer
        stage.answer(method)
        assert _outcome(stage, client, method, request).error is None
        now = stage.contexts[0].peer
        assert now == before, f"the connection did not live: it was {before} and is {now}"

    def test_callers_without_the_capability_are_refused(
        self: SuiteParts, case: MethodAt, door: str, stage: Stage
    ) -> None:
        """Without an identity a method that requires one is UNAUTHENTICATED, with another one PERMISSION_DENIED."""
        method = case.method
        request = simplest(method.request, case.version)
        client = stage.client(door, case.version)
        stage.answer(method)
        for credential, status, reason in (
            ("", Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED"),
            (NOBODY, Status.PERMISSION_DENIED, "NOT_PERMITTED"),
        ):
            client.authorization = credential
            error = _outcome(stage, client, method, request).error
            client.authorization = EVERYBODY
            assert error is not None, f"{method.name} was answered to somebody without {method.requires}"
            assert (error.status, error.reason) == (status, reason), error
        assert stage.contexts == []
        assert _outcome(stage, client, method, request).error is None

    def test_the_timeout_is_the_methods(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A caller that sets no deadline, or a later one, has the one that the method declares."""
        method = case.method
        timeout = method.timeout
        assert timeout is not None
        client = stage.client(door, case.version)
        stage.answer(method)
        _outcome(stage, client, method, simplest(method.request, case.version))
        plan = self._doors()[door].plan(method.request, case.version, self.limits, request=True)
        payload = plan.encode(simplest(method.request, case.version))
        for given in (None, 2 * timeout):  # the server's own
            _outcome(stage, client, as_bytes(client, method), payload, timeout=given)
        for remaining in stage.remaining:
            assert remaining is not None, f"{method.name} has no deadline; it declares {timeout} s"
            assert 0 <= remaining <= timeout + ROUNDING, f"{remaining} s are left of the {timeout} s of {method.name}"

    def test_larger_requests_are_refused(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """A request of ``max_request`` bytes is looked at; one byte more is RESOURCE_EXHAUSTED, REQUEST_TOO_LARGE."""
        method, most = case.method, case.method.max_request
        assert most is not None
        client = stage.client(door, case.version)
        stage.answer(method)
        raw = as_bytes(client, method)
        error = _outcome(stage, client, raw, bytes(most)).error
        assert error is None or error.reason == "BAD_PAYLOAD", error
        seen = len(stage.contexts)
        error = _outcome(stage, client, raw, bytes(most + 1)).error
        assert error is not None, f"{most + 1} bytes were taken"
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"), error
        assert len(stage.contexts) == seen

    def test_streams_send_within_their_credit(self: SuiteParts, case: MethodAt, door: str, stage: Stage) -> None:
        """Nothing is pulled that the caller has not granted credit for, and everything comes in the end."""
        method: Any = case.method
        client: Any = stage.client(door, case.version)
        item = simplest(method.response, case.version)
        stage.behave = feed = Feed(item, 10)
        taken = 0
        request = simplest(method.request, case.version)
        begin, given = (client.duplex, [request]) if method.items_follow else (client.stream, request)
        with begin(method, given, timeout=PATIENCE, credit=2, batch=1) as stream:
            for found in stream:
                taken += 1
                client.ping(PATIENCE)  # the server has seen all that was sent before
                assert feed.given <= taken + 1, f"{feed.given} items were pulled with credit for {taken + 1}"
                assert meaning(found, case.version) == meaning(item, case.version)
        assert taken == 10

    def test_methods_of_other_versions_are_unimplemented(
        self: SuiteParts, peers: Peers, door: str, stage: Stage
    ) -> None:
        """A method outside ``since`` and ``until`` is UNIMPLEMENTED, by the client and by the server."""
        service = self._service()
        client = stage.client(door, peers.client, peers.server)
        assert client.version == peers.spoken
        stage.behave = raising(AssertionError("a handler ran"))
        present = service.at(peers.spoken)
        for method in service.methods:
            if method.opcode in present or method.by == "server":
                continue
            if method in client.service.methods:
                error = _outcome(stage, client, method, simplest(method.request, method.since)).error
                assert error is not None
                assert (error.status, error.retry) == (Status.UNIMPLEMENTED, Retry.NEVER), error
            if method.shape is Shape.ONE_WAY and door != GRPC:
                client.post(as_bytes(client, method), b"")
                client.ping(PATIENCE)  # nobody is told; but the server has seen it by now
            else:
                error = _outcome(stage, client, as_bytes(client, method), b"").error
                assert error is not None, f"{method.name} was answered"
                assert (error.status, error.retry) == (Status.UNIMPLEMENTED, Retry.NEVER), error
            assert not stage.contexts, f"{method.name} reached a handler"
        for method in self._methods_at(peers.spoken):
            stage.answer(method)
            request = simplest(method.request, peers.spoken)
            assert _outcome(stage, client, method, request).error is None, f"{method.name} is in version {peers.spoken}"

    def test_newer_fields_stay_with_newer_peers(self: SuiteParts, peers: Peers, door: str, stage: Stage) -> None:
        """What a handler sets in newer fields is not there for an older peer, and does not harm the rest."""
        version = peers.spoken
        client = stage.client(door, peers.client, peers.server)
        for method in self._methods_at(version):
            newer = schema.fields(method.response)[len(schema.fields(method.response, version)) :]
            if not newer:
                continue

            # Found before: Hypothesis refuses to look for a message within a test that it drives.
            request = simplest(method.request, version)

            def holds(answer: Message, method: Operation[Any, Any] = method, request: Message = request) -> None:
                stage.answer(method, answer)
                outcome = _outcome(stage, client, method, request)
                assert outcome.error is None, outcome
                (found,) = outcome.answers
                assert meaning(found, version) == meaning(answer, version)
                for field in newer:  # noqa: B023 - it is called before the next turn
                    assert getattr(found, field.name) == field.default, f"{field.path} is newer than {version}"

            for_all(widened(method.response, version), holds, max_examples=self._examples())
