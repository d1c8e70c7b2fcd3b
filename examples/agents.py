"""A server that calls its clients: workers register, and the server gives them something to do.

python examples/agents.py
"""

import threading
from concurrent.futures import wait

from wireproto import (
    ConnectedClient,
    Context,
    Handlers,
    Message,
    Method,
    Server,
    Service,
    StreamMethod,
    connect,
)


class RegisterRequest(Message):
    """A worker says who it is."""

    name: str


class RegisterResponse(Message):
    """How many there are."""

    workers: int


class SquareRequest(Message):
    """A number to work on."""

    number: int


class SquareResponse(Message):
    """What came of it."""

    square: int


class WatchRequest(Message):
    """Asks for the log of a worker."""


class WatchResponse(Message):
    """A line of it."""

    text: str


REGISTER = Method(opcode=0x01, name="Register", request=RegisterRequest, response=RegisterResponse)
SQUARE = Method(opcode=0x02, name="Square", request=SquareRequest, response=SquareResponse, by="server", timeout=5)
WATCH = StreamMethod(opcode=0x03, name="Watch", request=WatchRequest, response=WatchResponse, by="server", timeout=5)
WORK = Service("example.v1.WorkService", version=1, methods=[REGISTER, SQUARE, WATCH])

# The server: it keeps whoever registers.

workers: dict[str, ConnectedClient] = {}
complete = threading.Event()
of_the_server = Handlers(WORK)


@of_the_server.register(REGISTER)
def register(request: RegisterRequest, context: Context) -> RegisterResponse:
    workers[request.name] = context.client

    def leave() -> None:
        workers.pop(request.name, None)

    context.client.on_close(leave)
    if len(workers) == 3:
        complete.set()
    return RegisterResponse(workers=len(workers))


# A worker: a client with handlers.


def worker_handlers(name: str) -> Handlers:
    of_a_worker = Handlers(WORK)

    @of_a_worker.register(SQUARE)
    def square(request: SquareRequest, context: Context) -> SquareResponse:
        return SquareResponse(square=request.number**2)

    @of_a_worker.register(WATCH)
    def watch(request: WatchRequest, context: Context) -> list[WatchResponse]:
        return [WatchResponse(text=f"{name} is up"), WatchResponse(text=f"{name} has worked")]

    return of_a_worker


with Server(of_the_server) as server:
    clients = []
    for name in ("ann", "bob", "cy"):
        client = connect(server.address, WORK, handlers=worker_handlers(name))
        client.call(REGISTER, RegisterRequest(name=name))
        clients.append(client)
    assert complete.wait(10)

    futures = [worker.start(SQUARE, SquareRequest(number=n)) for n, worker in enumerate(workers.values(), 1)]
    wait(futures)
    print(sum(future.result().square for future in futures))
    print([line.text for line in workers["bob"].stream(WATCH, WatchRequest())])

    for client in clients:
        client.close()
