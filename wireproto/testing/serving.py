"""ServerSuite: a service's own handlers, and what its table promises, tested through every door."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from wireproto import codecs, schema
from wireproto.client import BlockingClient
from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import CallError, ConnectionLost, DecodeError
from wireproto.limits import Limits
from wireproto.reasons import REASONS
from wireproto.schema import Message, Operation, Service
from wireproto.status import Retry, Status
from wireproto.testing.cases import LIVE, MethodAt, Peers
from wireproto.testing.doors import GRPC, has_grpc, running, threads_end
from wireproto.testing.examples import for_all, meaning, simplest, widened
from wireproto.testing.generators import messages, mutated
from wireproto.testing.outcome import Outcome, ended_in_time, outcome_of, told
from wireproto.testing.paired_tests import PairedTests
from wireproto.testing.payloads import as_bytes
from wireproto.testing.standin import (
    EVERYBODY,
    NOBODY,
    PATIENCE,
    SECRET,
    Feed,
    Hang,
    Stage,
    StandIn,
    failures,
    raising,
)
from wireproto.wire.frame import HEADER_AFTER_LENGTH

__all__ = ["Answering", "ServerSuite"]

ROUNDING = 1.0
"""Seconds: gRPC rounds deadlines up, coarser the longer they are."""


class Answering(Protocol):
    """What ``ServerSuite.application`` gives; an ``authenticate`` that it has is used, too."""

    @property
    def handlers(self) -> Handlers:
        """To serve."""


class ServerSuite(PairedTests):
    """What a service's handlers answer and what its table declares, for every method, codec and version, and over gRPC.

        class TestCalculatorServer(ServerSuite):
            handlers = handlers

    Shown of the handlers: generated requests are answered, or refused with a reason that is declared, and never fail
    with an exception; and the same calls have the same answers through every door, and between a client and a server of
    any two versions. Shown of the table, with stand-ins for the handlers: payloads that were tampered with are refused
    and the connection goes on; an exception or an undeclared reason becomes an incident without its text; declared
    reasons arrive; deadlines and cancelling are honoured; ``requires``, ``timeout`` and ``max_request`` hold; streams
    send within their credit; and a peer of another version has the methods and fields of that version.

    Handlers with state, or that want callers they know, get it by overriding ``application``, ``credential`` and
    ``requests``. Each test begins with an application of its own.

    Attributes:
        handlers: what is tested.
        service: its table; needed only where ``application`` makes the handlers.
        authenticate: as for ``Server``; None for one that lets the suite's own caller do everything.
        codecs: names or objects; None is every codec there is.
        grpc: whether to go through the gateway; None if its packages are installed.
        limits: of servers and clients.
        versions: those of clients and servers that are tried; None is every one.
        max_examples: of each test; None for a fifth of what the Hypothesis profile in force says.
        varying: names of fields whose values are others each time, such as a time or a token, and names of methods
            whose answers are.
        quiet: seconds without an item after which a stream is left.
        patience: seconds in which a handler must have answered a call, if the method declares no less.
    """

    handlers: ClassVar[Handlers]
    service: ClassVar[Service]
    authenticate: ClassVar[Authenticate | None] = None
    codecs: ClassVar[Sequence[str | Codec] | None] = None
    grpc: ClassVar[bool | None] = None
    limits: ClassVar[Limits] = Limits()
    versions: ClassVar[Sequence[int] | None] = None
    max_examples: ClassVar[int | None] = None
    varying: ClassVar[Collection[str]] = ()
    quiet: ClassVar[float] = 0.02
    patience: ClassVar[float] = 5.0

    # What a service may need.

    def application(self) -> AbstractContextManager[Answering]:
        """A context manager that gives handlers with a state of their own. By default it gives ``handlers`` each time.

        The object it gives has ``handlers``, and may have ``authenticate``.
        """
        return contextlib.nullcontext(type(self))

    def credential(self, client: BlockingClient) -> str:
        """The ``authorization`` of a caller who may call every method.

        Called once for each application, with a client of it that has none yet: sign up or sign in with it. By default
        a credential that the suite's own ``authenticate`` knows.
        """
        return EVERYBODY

    def requests(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        """A Hypothesis strategy of requests to the handlers; by default of every message that is declared.

        Override it where few of those mean something: ``st.sampled_from([...]) | super().requests(method, version)``.
        """
        return messages(method.request, version)

    # Which tests there are.

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls._known() is None:
            return
        for name in [name for name in dir(cls) if name.startswith("test_")]:
            if not cls._parameters(name):
                setattr(cls, name, None)  # pytest would count it as skipped

    @classmethod
    def _known(cls) -> Service | None:
        handlers = getattr(cls, "handlers", None)
        service: Service | None = getattr(cls, "service", handlers.service if handlers is not None else None)
        return service

    @classmethod
    def _service(cls) -> Service:
        service = cls._known()
        if service is None:
            raise pytest.UsageError(f"{cls.__name__} says neither handlers= nor service=; give one")
        return service

    @classmethod
    def _doors(cls) -> dict[str, Codec]:
        doors = {codec.name: codec for codec in codecs.select(cls.codecs)}
        if has_grpc() if cls.grpc is None else cls.grpc:
            doors[GRPC] = codecs.get("protobuf")
        return doors

    @classmethod
    def _parameters(cls, test: str) -> list[Any]:
        """What a test is about: methods in every version, methods in their newest one, or pairs of versions."""
        service = cls._service()
        versions = service.versions if cls.versions is None else cls.versions
        found: list[Any]
        if test in _OF_PEERS:
            found = [Peers(client, server) for client in versions for server in versions]
        else:
            live = test not in _THROUGH_PAIRS
            found = [
                MethodAt(method, version)
                for version in versions
                for method in service.called_by("client", version).values()
                if (method.shape in LIVE) == live
            ]
            if test in _OF_METHODS:
                found = list({case.method.opcode: case for case in found}.values())
        wanted = _WANTED.get(test)
        return found if wanted is None else [each for each in found if wanted(cls, each)]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest for each test of the class."""
        name = metafunc.definition.originalname
        for fixture in ("case", "peers"):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, self._parameters(name), ids=str)
        if "door" in metafunc.fixturenames:
            without_grpc = name in _NOT_OVER_GRPC or name in _THROUGH_PAIRS
            doors = [door for door in self._doors() if door != GRPC or not without_grpc]
            metafunc.parametrize("door", doors)

    # The service's own handlers.

    def test_generated_requests_are_answered(self, case: MethodAt, door: str) -> None:
        """Any request is answered or refused with a declared reason; no handler fails with an exception."""
        method = case.method
        with self._world(Peers(case.version, self._service().version), door) as (client, handlers, _):
            served = method not in handlers.missing()
            reasons: list[str] = []

            def holds(request: Message) -> None:
                outcome = outcome_of(client, method, request, within=self.patience, quiet=self.quiet)
                error = outcome.error
                reasons.append("" if error is None else error.reason)
                if error is None:
                    assert all(type(each) is method.response for each in outcome.answers)
                    return
                assert not isinstance(error, ConnectionLost), f"{method.name}({request}) cost the connection: {error}"
                assert error.status is not Status.INTERNAL, (
                    f"the handler of {method.name} raised an exception for {request}; the log has it as {error.message}"
                )
                known = not error.reason or error.reason in method.reasons or error.reason in REASONS
                assert known, f"{method.name} does not declare the reason of {error}"
                assert served == (error.reason != "NO_HANDLER"), error

            for_all(self.requests(method, case.version), holds, max_examples=self._examples(), remembers=True)
            # Later on it may: a call may sign its caller out.
            assert reasons[0] not in ("SIGN_IN_REQUIRED", "NOT_PERMITTED"), (
                f"{method.name} was answered {reasons[0]}: override credential(), which is to be of a caller who may"
            )

    def test_every_peer_is_answered_alike(self, peers: Peers) -> None:
        """The same calls have the same answers through every door, as a client and a server of today would give."""
        version = peers.spoken
        every = [method for method in self._live_at(version) for _ in range(2)]
        requests = st.tuples(*(self._for_every_door(method, version) for method in every))
        calls = st.tuples(requests, st.permutations(range(len(every))))
        doors = list(self._doors())
        worlds = [(door, peers) for door in doors]
        today = Peers(version, self._service().version)
        if today != peers:
            worlds.append((doors[0], today))

        def holds(example: tuple[Sequence[Message], Sequence[int]]) -> None:
            requests, order = example
            found = []
            for door, among in worlds:
                with self._world(among, door) as (client, _, _):
                    found.append(
                        [
                            outcome_of(client, every[index], requests[index], within=self.patience, quiet=self.quiet)
                            for index in order
                        ]
                    )
            for (door, among), theirs in zip(worlds[1:], found[1:], strict=True):
                for index, one, other in zip(order, found[0], theirs, strict=True):
                    method = every[index]
                    same = method.name in self.varying or self._same(one, other, version)
                    assert same, (
                        f"{method.name}({requests[index]}) gave: {one}\n through {doors[0]}, {peers}, "
                        f"and: {other}\n through {door}, {among}"
                    )

        for_all(calls, holds, max_examples=max(2, self._examples() // 4), remembers=True)

    @classmethod
    def _live_at(cls, version: int) -> list[Operation[Any, Any]]:
        """The methods of a version that are called through every door."""
        return [method for method in cls._service().called_by("client", version).values() if method.shape in LIVE]

    def _for_every_door(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        """Requests that no codec writes at greater length than the method takes."""
        most = method.max_request
        if most is None:
            return self.requests(method, version)
        plans = [codec.plan(method.request, version, self.limits, request=True) for codec in self._doors().values()]
        return self.requests(method, version).filter(
            lambda request: all(len(plan.encode(request)) <= most for plan in plans)
        )

    def _same(self, one: Outcome, other: Outcome, version: int) -> bool:
        """Whether two calls had the same outcome. Of streams that were left, only what both gave can be compared."""
        if one.ended and other.ended and len(one.answers) != len(other.answers):
            return False
        if any(
            meaning(ours, version, self.varying) != meaning(theirs, version, self.varying)
            for ours, theirs in zip(one.answers, other.answers, strict=False)
        ):
            return False
        return not (one.ended and other.ended) or told(one.error) == told(other.error)

    # What the table promises.

    def test_mutated_payloads_are_refused(self, case: MethodAt, door: str, stage: Stage) -> None:
        """Bytes that are no request are INVALID_ARGUMENT and reach no handler, and the connection goes on."""
        method = case.method
        client = stage.client(door, case.version)
        plan = self._doors()[door].plan(method.request, case.version, self.limits, request=True)
        stage.answer(method)
        raw = as_bytes(client, method)
        right = plan.encode(simplest(method.request, case.version))
        outcome_of(client, raw, right)
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
            error = outcome_of(client, raw, payload).error
            assert (error.reason if error is not None else "") == expected, f"{payload!r} gave {error}"
            if expected:
                assert len(stage.contexts) == calls, f"a handler has seen {payload!r}, which is {expected}"
            if error is not None and expected == "BAD_PAYLOAD":
                assert error.status is Status.INVALID_ARGUMENT
                assert error.message.startswith(method.request.__name__), error

        payloads = messages(method.request, case.version).map(plan.encode)
        for_all(mutated(payloads) | st.binary(max_size=64), holds, max_examples=self._examples())
        outcome_of(client, raw, right)
        now = stage.contexts[-1].peer
        assert now == first.peer, f"the connection did not live: it was {first.peer} and is {now}"

    def test_exceptions_become_incidents(self, case: MethodAt, door: str, stage: Stage) -> None:
        """Whatever a handler raises or answers wrong, the caller learns an incident's number and no text."""
        method = case.method
        client = stage.client(door, case.version)
        right = simplest(method.response, case.version)
        for way in failures(method, right):
            stage.behave = way
            outcome = outcome_of(client, method, simplest(method.request, case.version))
            error = outcome.error
            assert error is not None, f"{way.__name__} was answered"
            assert (error.status, error.reason) == (Status.INTERNAL, "INTERNAL"), f"{way.__name__}: {error}"
            assert "incident" in error.message
            assert SECRET not in f"{error!r} {error}", f"{way.__name__}: the exception's text got out"

    def test_declared_reasons_arrive(self, case: MethodAt, door: str, stage: Stage) -> None:
        """A reason that the method declares reaches the caller, with status, text and advice."""
        client = stage.client(door, case.version)
        for reason in case.method.reasons:
            refusal = CallError(Status.ABORTED, reason, "as told", retry=Retry.NOT_PROCESSED, retry_after_ms=7)
            stage.behave = raising(refusal)
            error = outcome_of(client, case.method, simplest(case.method.request, case.version)).error
            assert error is not None
            assert (*told(error), error.message, error.retry_after_ms) == (*told(refusal), "as told", 7)

    def test_deadlines_are_kept(self, case: MethodAt, door: str, stage: Stage) -> None:
        """A call that takes too long is DEADLINE_EXCEEDED; its handler knew, and what it waits for is let go."""
        client = stage.client(door, case.version)
        request = simplest(case.method.request, case.version)
        stage.behave = hang = Hang()
        for timeout in (0.05, 0.5, 5.0):
            error = outcome_of(client, case.method, request, timeout=timeout).error
            assert error is not None, "a call was answered that nobody answered"
            assert error.status is Status.DEADLINE_EXCEEDED, error
            if hang.begun.is_set():
                break  # on a machine that is very busy the time may be over before
        assert hang.let_go.wait(PATIENCE), "the server holds on to a call whose deadline passed"
        assert stage.contexts[0].deadline is not None, "the handler was not told the deadline"

    def test_cancelled_calls_are_let_go(self, case: MethodAt, door: str, stage: Stage) -> None:
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
        assert outcome_of(client, method, request).error is None
        now = stage.contexts[0].peer
        assert now == before, f"the connection did not live: it was {before} and is {now}"

    def test_callers_without_the_capability_are_refused(self, case: MethodAt, door: str, stage: Stage) -> None:
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
            error = outcome_of(client, method, request).error
            client.authorization = EVERYBODY
            assert error is not None, f"{method.name} was answered to somebody without {method.requires}"
            assert (error.status, error.reason) == (status, reason), error
        assert stage.contexts == []
        assert outcome_of(client, method, request).error is None

    def test_the_timeout_is_the_methods(self, case: MethodAt, door: str, stage: Stage) -> None:
        """A caller that sets no deadline, or a later one, has the one that the method declares."""
        method = case.method
        timeout = method.timeout
        assert timeout is not None
        client = stage.client(door, case.version)
        stage.answer(method)
        outcome_of(client, method, simplest(method.request, case.version))
        plan = self._doors()[door].plan(method.request, case.version, self.limits, request=True)
        payload = plan.encode(simplest(method.request, case.version))
        for given in (None, 2 * timeout):  # the server's own
            outcome_of(client, as_bytes(client, method), payload, timeout=given)
        for remaining in stage.remaining:
            assert remaining is not None, f"{method.name} has no deadline; it declares {timeout} s"
            assert 0 <= remaining <= timeout + ROUNDING, f"{remaining} s are left of the {timeout} s of {method.name}"

    def test_larger_requests_are_refused(self, case: MethodAt, door: str, stage: Stage) -> None:
        """A request of ``max_request`` bytes is looked at; one byte more is RESOURCE_EXHAUSTED, REQUEST_TOO_LARGE."""
        method, most = case.method, case.method.max_request
        assert most is not None
        client = stage.client(door, case.version)
        stage.answer(method)
        raw = as_bytes(client, method)
        error = outcome_of(client, raw, bytes(most)).error
        assert error is None or error.reason == "BAD_PAYLOAD", error
        seen = len(stage.contexts)
        error = outcome_of(client, raw, bytes(most + 1)).error
        assert error is not None, f"{most + 1} bytes were taken"
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"), error
        assert len(stage.contexts) == seen

    def test_streams_send_within_their_credit(self, case: MethodAt, door: str, stage: Stage) -> None:
        """Nothing is pulled that the caller has not granted credit for, and everything comes in the end."""
        method: Any = case.method
        client = stage.client(door, case.version)
        item = simplest(method.response, case.version)
        stage.behave = feed = Feed(item, 10)
        taken = 0
        request = simplest(method.request, case.version)
        with client.stream(method, request, timeout=PATIENCE, credit=2, batch=1) as stream:
            for found in stream:
                taken += 1
                client.ping(PATIENCE)  # the server has seen all that was sent before
                assert feed.given <= taken + 1, f"{feed.given} items were pulled with credit for {taken + 1}"
                assert meaning(found, case.version) == meaning(item, case.version)
        assert taken == 10

    def test_methods_of_other_versions_are_unimplemented(self, peers: Peers, door: str, stage: Stage) -> None:
        """A method outside ``since`` and ``until`` is UNIMPLEMENTED, by the client and by the server."""
        service = self._service()
        client = stage.client(door, peers.client, peers.server)
        assert client.version == peers.spoken
        stage.behave = raising(AssertionError("a handler ran"))
        present = service.at(peers.spoken)
        for method in service.methods:
            if method.opcode in present or method.shape not in LIVE or method.by == "server":
                continue
            if method in client.service.methods:
                error = outcome_of(client, method, simplest(method.request, method.since)).error
                assert error is not None
                assert (error.status, error.retry) == (Status.UNIMPLEMENTED, Retry.NEVER), error
            error = outcome_of(client, as_bytes(client, method), b"").error
            assert error is not None, f"{method.name} was answered"
            assert (error.status, error.retry) == (Status.UNIMPLEMENTED, Retry.NEVER), error
            assert not stage.contexts, f"{method.name} reached a handler"
        for method in self._live_at(peers.spoken):
            stage.answer(method)
            request = simplest(method.request, peers.spoken)
            assert outcome_of(client, method, request).error is None, f"{method.name} is in version {peers.spoken}"

    def test_newer_fields_stay_with_newer_peers(self, peers: Peers, door: str, stage: Stage) -> None:
        """What a handler sets in newer fields is not there for an older peer, and does not harm the rest."""
        version = peers.spoken
        client = stage.client(door, peers.client, peers.server)
        for method in self._live_at(version):
            newer = schema.fields(method.response)[len(schema.fields(method.response, version)) :]
            if not newer:
                continue

            # Found before: Hypothesis refuses to look for a message within a test that it drives.
            request = simplest(method.request, version)

            def holds(answer: Message, method: Operation[Any, Any] = method, request: Message = request) -> None:
                stage.answer(method, answer)
                outcome = outcome_of(client, method, request)
                assert outcome.error is None, outcome
                (found,) = outcome.answers
                assert meaning(found, version) == meaning(answer, version)
                for field in newer:  # noqa: B023 - it is called before the next turn
                    assert getattr(found, field.name) == field.default, f"{field.path} is newer than {version}"

            for_all(widened(method.response, version), holds, max_examples=self._examples())

    # How.

    @pytest.fixture(scope="class")
    @classmethod
    def stage(cls) -> Iterator[Stage]:
        """Stand-ins for the handlers, behind all doors."""
        with contextlib.ExitStack() as stack:
            yield Stage(cls._service(), cls._doors(), cls._patient_limits(), stack)

    @classmethod
    def _patient_limits(cls) -> Limits:
        """What tests do many times over, bad payloads and streams that are left, is no attack."""
        often = 1_000_000
        return dataclasses.replace(
            cls.limits,
            errors_per_minute=often,
            cancels_per_second=often,
            cancel_burst=often,
            pings_per_second=often,
            ping_burst=often,
        )

    @classmethod
    def _examples(cls) -> int:
        return cls.max_examples or max(1, settings().max_examples // 5)

    @contextlib.contextmanager
    def _world(self, peers: Peers, door: str) -> Iterator[tuple[BlockingClient, Handlers, Authenticate]]:
        """A client of fresh handlers, those, and who judges its credential."""
        with threads_end(PATIENCE), self.application() as application:
            authenticate = getattr(application, "authenticate", None) or StandIn(self._service()).authenticate
            with running(
                application.handlers.as_of(peers.server),
                codecs=[self._doors()[door]],
                grpc=door == GRPC,
                service=self._service().as_of(peers.client),
                authenticate=authenticate,
                limits=self._patient_limits(),
                leaks=False,  # the application may end some of its own threads after that
            ) as doors:
                client = doors[door]
                with ended_in_time(client, f"credential() of {type(self).__name__}"):
                    client.authorization = self.credential(client)
                yield client, doors.handlers, authenticate


def _fits_a_frame(suite: type[ServerSuite], case: MethodAt) -> bool:
    most = case.method.max_request
    return most is not None and most + 1 + HEADER_AFTER_LENGTH <= suite.limits.max_frame


def _lacks_methods(suite: type[ServerSuite], peers: Peers) -> bool:
    return any(
        not each.in_version(peers.spoken)
        for each in suite._service().methods
        if each.shape in LIVE and each.by == "client"
    )


def _lacks_fields(suite: type[ServerSuite], peers: Peers) -> bool:
    return any(
        len(schema.fields(method.response)) > len(schema.fields(method.response, peers.spoken))
        for method in suite._live_at(peers.spoken)
    )


# What a test can be about. One that nothing in a service is about is not there.
_WANTED: dict[str, Callable[[type[ServerSuite], Any], bool]] = {
    "test_callers_without_the_capability_are_refused": lambda suite, case: case.method.requires is not None,
    "test_items_come_within_their_credit": lambda suite, case: case.method.items_follow,
    "test_items_of_strangers_are_refused": lambda suite, case: case.method.requires is not None,
    "test_declared_reasons_arrive": lambda suite, case: bool(case.method.reasons),
    "test_larger_items_are_refused": _fits_a_frame,
    "test_larger_requests_are_refused": _fits_a_frame,
    "test_methods_of_other_versions_are_unimplemented": _lacks_methods,
    "test_newer_fields_stay_with_newer_peers": _lacks_fields,
    "test_streams_send_within_their_credit": lambda suite, case: case.method.items_come_back,
    "test_the_timeout_is_the_methods": lambda suite, case: case.method.timeout is not None,
}

# Tests whose parameter is a pair of versions; those for which one version of a method does for all.
_OF_PEERS = {
    "test_every_peer_is_answered_alike",
    "test_methods_of_other_versions_are_unimplemented",
    "test_newer_fields_stay_with_newer_peers",
}
_OF_METHODS = {
    "test_cancelled_calls_are_let_go",
    "test_deadlines_are_kept",
    "test_declared_reasons_arrive",
    "test_exceptions_become_incidents",
    "test_the_timeout_is_the_methods",
}
_THROUGH_PAIRS = {name for name in vars(PairedTests) if name.startswith("test_")}
_NOT_OVER_GRPC = {"test_streams_send_within_their_credit"}  # there HTTP/2 says how far a server may send ahead
