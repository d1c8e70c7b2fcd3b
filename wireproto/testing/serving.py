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
from wireproto.limits import Limits
from wireproto.schema import Operation, Service, Shape
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.doors import GRPC, has_grpc, running, threads_end
from wireproto.testing.examples import meaning
from wireproto.testing.generators import messages
from wireproto.testing.handler_tests import HandlerTests
from wireproto.testing.item_tests import ItemTests
from wireproto.testing.outcome import Outcome, ended_in_time, told
from wireproto.testing.overheard import Heard, Overheard
from wireproto.testing.standin import EVERYBODY, PATIENCE, Stage, StandIn
from wireproto.testing.table_tests import TableTests
from wireproto.wire.frame import HEADER_AFTER_LENGTH

__all__ = ["Answering", "ServerSuite"]


class Answering(Protocol):
    """What ``ServerSuite.application`` gives; an ``authenticate`` that it has is used, too."""

    @property
    def handlers(self) -> Handlers:
        """To serve."""


class ServerSuite(HandlerTests, ItemTests, TableTests):
    """What a service's handlers answer and what its table declares, for every method, codec and version, and over gRPC.

        class TestCalculatorServer(ServerSuite):
            handlers = handlers

    Shown of the handlers: generated requests and items are answered, or refused with a reason that is declared, and
    never fail with an exception; who leaves in the middle of its items keeps no handler; and the same calls have the
    same answers through every door, and between a client and a server of any two versions. Shown of the table, with
    stand-ins for the handlers: payloads that were tampered with are refused and the connection goes on; an exception or
    an undeclared reason becomes an incident without its text; declared reasons and details arrive, and what is said
    beside answers; deadlines and cancelling are honoured, among items, too, of which a part is never the whole;
    ``requires``, ``timeout`` and ``max_request`` hold; items are sent within their credit, both ways, and up to an
    early answer; one-way calls all run; and a peer of another version has the methods and fields of that version.

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
        quiet: seconds without an item after which a stream is left, and a duplex call after fifty times as many.
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
            found = [MethodAt(method, version) for version in versions for method in cls._methods_at(version)]
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
            doors = [door for door in self._doors() if door != GRPC or name not in _NOT_OVER_GRPC]
            metafunc.parametrize("door", doors)

    # Parts of the tests.

    @classmethod
    def _methods_at(cls, version: int) -> list[Operation[Any, Any]]:
        """What a client may call in a version."""
        return list(cls._service().called_by("client", version).values())

    def _drawn(self, method: Operation[Any, Any], version: int, everywhere: bool = False) -> st.SearchStrategy[Any]:
        """What a call of the service's own handlers is made with: a request, or up to four items where items follow.

        Args:
            everywhere: only such as no codec writes at greater length than the method takes.
        """
        drawn = self._for_every_door(method, version) if everywhere else self.requests(method, version)
        return st.lists(drawn, max_size=4) if method.items_follow else drawn

    def _for_every_door(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        most = method.max_request
        if most is None:
            return self.requests(method, version)
        plans = [codec.plan(method.request, version, self.limits, request=True) for codec in self._doors().values()]
        return self.requests(method, version).filter(
            lambda request: all(len(plan.encode(request)) <= most for plan in plans)
        )

    def _same(self, method: Operation[Any, Any], one: Outcome, other: Outcome, version: int) -> bool:
        """Whether two calls had the same outcome. Of streams that were left, only what both gave can be compared."""
        if method.name in self.varying:
            return True
        if one.ended and other.ended and len(one.answers) != len(other.answers):
            return False
        if any(
            meaning(ours, version, self.varying) != meaning(theirs, version, self.varying)
            for ours, theirs in zip(one.answers, other.answers, strict=False)
        ):
            return False
        return not (one.ended and other.ended) or told(one.error) == told(other.error)

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
    def _world(self, peers: Peers, door: str) -> Iterator[tuple[BlockingClient, Handlers, Heard]]:
        """A client of fresh handlers, those, and what becomes of their calls."""
        heard = Heard()
        with threads_end(PATIENCE), self.application() as application:
            authenticate = getattr(application, "authenticate", None) or StandIn(self._service()).authenticate
            with running(
                Overheard(application.handlers.as_of(peers.server), heard),
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
                yield client, doors.handlers, heard


def _fits_a_frame(suite: type[ServerSuite], case: MethodAt) -> bool:
    most = case.method.max_request
    return most is not None and most + 1 + HEADER_AFTER_LENGTH <= suite.limits.max_frame


def _takes_one_by_one(case: MethodAt) -> bool:
    return case.method.items_follow and getattr(case.method, "collect", None) is None


def _lacks_methods(suite: type[ServerSuite], peers: Peers) -> bool:
    return any(not each.in_version(peers.spoken) for each in suite._service().methods if each.by == "client")


def _lacks_fields(suite: type[ServerSuite], peers: Peers) -> bool:
    return any(
        len(schema.fields(method.response)) > len(schema.fields(method.response, peers.spoken))
        for method in suite._methods_at(peers.spoken)
    )


# What a test can be about. One that nothing in a service is about is not there.
_WANTED: dict[str, Callable[[type[ServerSuite], Any], bool]] = {
    "test_answers_come_behind_the_end_of_items": lambda suite, case: case.method.shape is Shape.DUPLEX,
    "test_callers_without_the_capability_are_refused": lambda suite, case: case.method.requires is not None,
    "test_calls_that_are_left_end": lambda suite, case: case.method.items_follow,
    "test_cancelled_calls_are_let_go": lambda suite, case: case.method.shape in (Shape.UNARY, Shape.STREAM),
    "test_deadlines_are_kept": lambda suite, case: case.method.shape is not Shape.ONE_WAY,
    "test_declared_details_arrive": lambda suite, case: bool(case.method.errors),
    "test_declared_reasons_arrive": lambda suite, case: bool(case.method.reasons),
    "test_deadlines_among_items_are_kept": lambda suite, case: _takes_one_by_one(case),
    "test_early_answers_end_the_items": lambda suite, case: _takes_one_by_one(case),
    "test_errors_among_items_are_told": lambda suite, case: _takes_one_by_one(case),
    "test_items_are_sent_within_their_credit": lambda suite, case: case.method.items_follow,
    "test_items_that_are_left_are_no_whole": lambda suite, case: _takes_one_by_one(case),
    "test_larger_requests_are_refused": _fits_a_frame,
    "test_methods_of_other_versions_are_unimplemented": _lacks_methods,
    "test_newer_fields_stay_with_newer_peers": _lacks_fields,
    "test_one_way_calls_all_run": lambda suite, case: case.method.shape is Shape.ONE_WAY,
    "test_streams_send_within_their_credit": lambda suite, case: case.method.items_come_back,
    "test_the_timeout_is_the_methods": lambda suite, case: case.method.timeout is not None,
    "test_what_is_said_beside_answers_arrives": lambda suite, case: case.method.shape is not Shape.ONE_WAY,
}

# Tests whose parameter is a pair of versions; those for which one version of a method does for all.
_OF_PEERS = {
    "test_every_peer_is_answered_alike",
    "test_methods_of_other_versions_are_unimplemented",
    "test_newer_fields_stay_with_newer_peers",
}
_OF_METHODS = {
    "test_answers_come_behind_the_end_of_items",
    "test_cancelled_calls_are_let_go",
    "test_deadlines_among_items_are_kept",
    "test_deadlines_are_kept",
    "test_declared_details_arrive",
    "test_declared_reasons_arrive",
    "test_early_answers_end_the_items",
    "test_errors_among_items_are_told",
    "test_exceptions_become_incidents",
    "test_items_are_sent_within_their_credit",
    "test_items_that_are_left_are_no_whole",
    "test_one_way_calls_all_run",
    "test_the_timeout_is_the_methods",
    "test_what_is_said_beside_answers_arrives",
}
_NOT_OVER_GRPC = {"test_streams_send_within_their_credit"}  # there HTTP/2 says how far a server may send ahead
