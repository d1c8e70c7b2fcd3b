"""``grpc.health.v1.Health``: whether the gateway serves, and who wants to be told.

Its messages are declared in our own way, which over protobuf is the same bytes; so it is dispatched as any method is.
"""

import enum
import threading
from collections import Counter
from collections.abc import Sequence

from wireproto import codecs
from wireproto.answering.refusals import busy, shutting_down
from wireproto.dispatch import Entry
from wireproto.handling import Context, Subscription
from wireproto.limits import Limits
from wireproto.schema import Message, Method, StreamMethod
from wireproto.server.gateway.halves import network_of
from wireproto.status import Retry, Status

__all__ = ["HEALTH", "HealthChecks"]

HEALTH = "grpc.health.v1.Health"


class ServingStatus(enum.IntEnum):
    """``grpc.health.v1.HealthCheckResponse.ServingStatus``, but for UNKNOWN, which nobody is told."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class HealthCheckRequest(Message):
    """Which service; the empty name is the server itself."""

    service: str = ""


class HealthCheckResponse(Message):
    """How it is."""

    status: ServingStatus


CHECK = Method(opcode=1, name="Check", request=HealthCheckRequest, response=HealthCheckResponse)
WATCH = StreamMethod(opcode=2, name="Watch", request=HealthCheckRequest, response=HealthCheckResponse, drains=True)


WATCHERS = 1024
"""Who may watch of one network: each holds a call, and some 5 KiB."""


class _Watching(Subscription[HealthCheckResponse]):
    """One who watches: told how it is at once, and that it ends."""

    def __init__(self, checks: "HealthChecks", network: str, known: bool) -> None:
        self._checks = checks
        self.network = network
        self._known = known
        self._told: ServingStatus | None = None

    def take(self, n: int) -> Sequence[HealthCheckResponse]:
        """See ``Subscription``."""
        serving = self._checks.serving
        status = ServingStatus.SERVICE_UNKNOWN if not self._known else _status(serving)
        if status is not self._told:
            self._told = status
            return [HealthCheckResponse(status=status)]
        if not serving:
            raise shutting_down(Retry.MAYBE_PROCESSED)
        return []

    def close(self, reason: str) -> None:
        """See ``Subscription``."""
        self._checks.forget(self)


class HealthChecks:
    """The handlers, and the one thing they tell. Thread-safe.

    Args:
        names: of the services that are served.
        limits: the gateway's.

    Attributes:
        serving: what is told of each; ``leave`` ends it.
        entries: what answers, by the method's name.
    """

    def __init__(self, names: Sequence[str], limits: Limits) -> None:
        self.serving = True
        self._names = {"", *names}
        self._lock = threading.Lock()
        self._watching: set[_Watching] = set()
        self._networks: Counter[str] = Counter()
        codec = codecs.get("protobuf")
        self.entries = {
            CHECK.name: Entry(CHECK, self._check, codec, 1, limits, None),
            WATCH.name: Entry(WATCH, self._watch, codec, 1, limits, None),
        }

    def leave(self) -> None:
        """Say NOT_SERVING from now on, and end the streams of those who watch."""
        self.serving = False
        with self._lock:
            watching = list(self._watching)
        for each in watching:
            each.wake()

    def forget(self, watching: _Watching) -> None:
        """Somebody watches no more."""
        with self._lock:
            if watching in self._watching:
                self._watching.discard(watching)
                self._networks[watching.network] -= 1
                if not self._networks[watching.network]:
                    del self._networks[watching.network]

    def _check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._names:
            context.abort(Status.NOT_FOUND, "", f"there is no service {request.service[:256]!r} here")
        return HealthCheckResponse(status=_status(self.serving))

    def _watch(self, request: HealthCheckRequest, context: Context) -> Subscription[HealthCheckResponse]:
        watching = _Watching(self, network_of(context.peer), request.service in self._names)
        with self._lock:
            if self._networks[watching.network] >= WATCHERS:
                raise busy(f"{WATCHERS} calls of your network watch already; watch once for all that want to know")
            self._networks[watching.network] += 1
            self._watching.add(watching)
        return watching


def _status(serving: bool) -> ServingStatus:
    return ServingStatus.SERVING if serving else ServingStatus.NOT_SERVING
