"""What the suites of handlers have in common, whichever side calls: which tests there are, and with what they call."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from wireproto import codecs
from wireproto.codecs import Codec
from wireproto.dispatch import Handlers
from wireproto.limits import Limits
from wireproto.schema import By, Operation, Service
from wireproto.testing.cases import MethodAt, Peers
from wireproto.testing.doors import GRPC
from wireproto.testing.examples import meaning
from wireproto.testing.generators import messages
from wireproto.testing.handler_tests import HandlerTests
from wireproto.testing.outcome import Outcome, told

__all__ = ["Answering", "HandlerSuite", "Wanted"]

Wanted = Mapping[str, Callable[[Any, Any], bool]]
"""What a test can be about, by its name: asked with the suite and each case. What is not there can be about all."""


class Answering(Protocol):
    """What ``ServerSuite.application`` gives; an ``authenticate`` that it has is used, too."""

    @property
    def handlers(self) -> Handlers:
        """To serve."""


class HandlerSuite(HandlerTests):
    """The part of ``ServerSuite`` and ``AgentSuite`` that does not depend on which side calls.

    Attributes: those of ``ServerSuite``.
    """

    handlers: ClassVar[Handlers]
    service: ClassVar[Service]
    codecs: ClassVar[Sequence[str | Codec] | None] = None
    limits: ClassVar[Limits] = Limits()
    versions: ClassVar[Sequence[int] | None] = None
    max_examples: ClassVar[int | None] = None
    varying: ClassVar[Collection[str]] = ()
    quiet: ClassVar[float] = 0.02
    patience: ClassVar[float] = 5.0

    _by: ClassVar[By]  # the side that calls
    _wanted: ClassVar[Wanted]
    _of_peers: ClassVar[Collection[str]]  # tests whose parameter is a pair of versions
    _of_methods: ClassVar[Collection[str]]  # tests for which one version of a method does for all
    _not_over_grpc: ClassVar[Collection[str]] = ()
    _peers: ClassVar[type[Peers]] = Peers

    # What a service may need.

    def application(self) -> AbstractContextManager[Answering]:
        """A context manager that gives handlers with a state of their own. By default it gives ``handlers`` each time.

        The object it gives has ``handlers``, and may have ``authenticate``.
        """
        return contextlib.nullcontext(type(self))

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
        return {codec.name: codec for codec in codecs.select(cls.codecs)}

    @classmethod
    def _parameters(cls, test: str) -> list[Any]:
        """What a test is about: methods in every version, methods in their newest one, or pairs of versions."""
        service = cls._service()
        versions = service.versions if cls.versions is None else cls.versions
        found: list[Any]
        if test in cls._of_peers:
            found = [cls._peers(caller, answerer) for caller in versions for answerer in versions]
        else:
            found = [MethodAt(method, version) for version in versions for method in cls._methods_at(version)]
            if test in cls._of_methods:
                found = list({case.method.opcode: case for case in found}.values())
        wanted = cls._wanted.get(test)
        return found if wanted is None else [each for each in found if wanted(cls, each)]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest for each test of the class."""
        name = metafunc.definition.originalname
        for fixture in ("case", "peers"):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, self._parameters(name), ids=str)
        if "door" in metafunc.fixturenames:
            doors = [door for door in self._doors() if door != GRPC or name not in self._not_over_grpc]
            metafunc.parametrize("door", doors)

    # Parts of the tests.

    @classmethod
    def _methods_at(cls, version: int) -> list[Operation[Any, Any]]:
        """What the caller may call in a version."""
        return list(cls._service().called_by(cls._by, version).values())

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
