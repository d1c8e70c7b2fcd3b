"""ServerSuite: a service's own handlers, and what its table promises, tested through every door."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from wireproto import codecs, schema
from wireproto.client import BlockingClient
from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Handlers
from wireproto.schema import Shape
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.doors import GRPC, has_grpc, running, threads_end
from wireproto.testing.item_tests import ItemTests
from wireproto.testing.live import HandlerSuite, Wanted
from wireproto.testing.outcome import ended_in_time
from wireproto.testing.overheard import Heard, Overheard
from wireproto.testing.standin import EVERYBODY, PATIENCE, Stage, StandIn
from wireproto.testing.table_tests import TableTests
from wireproto.wire.frame import HEADER_AFTER_LENGTH

__all__ = ["ServerSuite"]


def _fits_a_frame(suite: type[HandlerSuite], case: MethodAt) -> bool:
    most = case.method.max_request
    return most is not None and most + 1 + HEADER_AFTER_LENGTH <= suite.limits.max_frame


def _takes_one_by_one(case: MethodAt) -> bool:
    return case.method.items_follow and getattr(case.method, "collect", None) is None


def _lacks_methods(suite: type[HandlerSuite], peers: Peers) -> bool:
    return any(not each.in_version(peers.spoken) for each in suite._service().methods if each.by == "client")


def _lacks_fields(suite: type[HandlerSuite], peers: Peers) -> bool:
    return any(
        len(schema.fields(method.response)) > len(schema.fields(method.response, peers.spoken))
        for method in suite._methods_at(peers.spoken)
    )


# What a test can be about. One that nothing in a service is about is not there.
_WANTED: Wanted = {
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


class ServerSuite(HandlerSuite, ItemTests, TableTests):
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

    authenticate: ClassVar[Authenticate | None] = None
    grpc: ClassVar[bool | None] = None

    _by = "client"
    _wanted = _WANTED
    _of_peers = _OF_PEERS
    _of_methods = _OF_METHODS
    _not_over_grpc = _NOT_OVER_GRPC

    # What a service may need.

    def credential(self, client: BlockingClient) -> str:
        """The ``authorization`` of a caller who may call every method.

        Called once for each application, with a client of it that has none yet: sign up or sign in with it. By default
        a credential that the suite's own ``authenticate`` knows.
        """
        return EVERYBODY

    @classmethod
    def _doors(cls) -> dict[str, Codec]:
        doors = super()._doors()
        if has_grpc() if cls.grpc is None else cls.grpc:
            doors[GRPC] = codecs.get("protobuf")
        return doors

    # How.

    @pytest.fixture(scope="class")
    @classmethod
    def stage(cls) -> Iterator[Stage]:
        """Stand-ins for the handlers, behind all doors."""
        with contextlib.ExitStack() as stack:
            yield Stage(cls._service(), cls._doors(), cls._patient_limits(), stack)

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
