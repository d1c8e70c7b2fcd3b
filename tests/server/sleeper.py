"""A server in a process of its own, for tests that stop it: ``python -m tests.server.sleeper LIMITS``, as JSON.

It prints its port. On a line of its input it shuts down, with two seconds for what is in flight; it prints when it
begins, and then who was left.
"""

import json
import sys
import time
from concurrent.futures import Future

from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Service
from wireproto.server import Server

GRACE = 2.0
STEP = 0.02


class WorkRequest(Message):
    ms: int


class WorkResponse(Message):
    ms: int


class FillRequest(Message):
    size: int


class FillResponse(Message):
    octets: bytes


WORK = Method(opcode=1, name="Work", request=WorkRequest, response=WorkResponse, blocking=True)
WAIT = Method(opcode=2, name="Wait", request=WorkRequest, response=WorkResponse)
FILL = Method(opcode=3, name="Fill", request=FillRequest, response=FillResponse)
SLEEPER = Service("tests.v1.SleeperService", methods=[WORK, WAIT, FILL])


def make_handlers() -> Handlers:
    handlers = Handlers(SLEEPER)
    kept: list[Future[WorkResponse]] = []

    @handlers.register(WORK)
    def work(request: WorkRequest, context: Context) -> WorkResponse:
        """Takes so many milliseconds in which the process runs: a stop does no work."""
        for _ in range(round(request.ms / 1000 / STEP)):
            time.sleep(STEP)
        return WorkResponse(ms=request.ms)

    @handlers.register(WAIT)
    def wait(request: WorkRequest, context: Context) -> Future[WorkResponse]:
        """Never answers."""
        kept.append(Future())
        return kept[-1]

    @handlers.register(FILL)
    def fill(request: FillRequest, context: Context) -> FillResponse:
        return FillResponse(octets=bytes(request.size))

    return handlers


def main() -> None:
    server = Server(make_handlers(), codecs=["msgpack"], workers=4, limits=Limits(**json.loads(sys.argv[1])))
    server.start()
    print(server.address.port, flush=True)
    sys.stdin.readline()
    print("shutting down", flush=True)
    print(server.shutdown(GRACE), flush=True)


if __name__ == "__main__":
    main()
