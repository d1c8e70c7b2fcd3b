"""What the server's own code costs per call, over sockets that cost nothing: no kernel, so no noise of its own.

A server that was never started is given sessions over fake sockets; each "recv" hands out the next request and each
"send" counts. What is left is the path from an event of the poller to the answer in ``send``, in the calling thread:
nanoseconds of CPU per call, the least of several turns, for one call in flight on each of 16 connections and for 64.

    python benchmarks/hot_path.py [--turns 15] [--bytecodes] [CODEC ...]

``--bytecodes`` counts instead what the interpreter runs: calls of Python functions and bytecodes per call, which do not
depend on the machine, and where they are.
"""

import argparse
import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

from wireproto import Context, Handlers, Server, codecs
from wireproto.connection import Connection, Role
from wireproto.events import WelcomeReceived
from wireproto.handshake import Hello
from wireproto.limits import Limits
from wireproto.server import session as session_module
from wireproto.server.poller import READ
from wireproto.server.pool import Worker
from wireproto.server.session import Session

CONNECTIONS = 16
CALLS = 2048  # of each connection in one turn


class FakeSocket:
    """Hands out what it was given, takes everything, and is no descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.coming: list[bytes] = []
        self.sent = 0

    def fileno(self) -> int:
        return self.number

    def recv(self, size: int) -> bytes:
        return self.coming.pop()

    def send(self, data: bytes) -> int:
        self.sent += 1
        return len(data)

    def close(self) -> None:
        pass


def server_of(codec: str) -> tuple[Server, Any]:
    service = peers.bench_service()
    (method,) = service.methods
    handlers = Handlers(service)

    @handlers.register(method)
    def send(request: Any, context: Context) -> Any:
        return method.response(id=request.nonce, stamp=1.5)

    return Server(handlers, codecs=[codec]), method


def opened(server: Server, codec: str, number: int) -> tuple[FakeSocket, Session, Connection]:
    """A session after its handshake, with the client's connection that will write the requests."""
    sock = FakeSocket(number)
    chosen = codecs.get(codec)
    client = Connection(Role.CLIENT)
    client.send_hello(
        Hello(
            min_version=1,
            max_version=1,
            codecs=((chosen.id, chosen.name),),
            max_frame=1 << 20,
            service=peers.bench_service().full_name,
        )
    )
    answers: list[bytes] = []
    sock.send = lambda data: answers.append(data) or len(data)  # type: ignore[method-assign, func-returns-value]
    session = Session(server, sock, "127.0.0.1", number)  # type: ignore[arg-type]
    session.transport.reading = True
    server.sessions[number] = session
    sock.coming = [client.data_to_send()]
    session.on_event(leader(server), READ)
    client.receive_data(b"".join(answers))
    assert isinstance(client.next_event(), WelcomeReceived)
    del sock.send  # type: ignore[method-assign]
    return sock, session, client


def leader(server: Server) -> Worker:
    pool = server.pool
    if pool.leader is None:
        pool.leader = pool._workers[0]
        pool._parked.append(pool._workers[1])  # so that the first calls of a method may run here
    return pool.leader


def turn(codec: str, depth: int) -> Callable[[], int]:
    """A function that serves one turn's calls and says how many; each time it is called the requests are new."""
    server, method = server_of(codec)
    limits = Limits()
    peers = [opened(server, codec, number) for number in range(CONNECTIONS)]
    request = method.request(recipient="bob", text="x" * 60, nonce=7)
    payload = codecs.get(codec).plan(method.request, 1, limits).encode(request)
    worker = leader(server)

    def refill() -> None:
        for sock, _, client in peers:
            for _ in range(CALLS // depth):
                for _ in range(depth):
                    client.send_request(method.opcode, payload)
                sock.coming.append(client.data_to_send())
            client._calls.clear()
            sock.coming.reverse()

    def run() -> int:
        events = [(number, READ) for number in range(CONNECTIONS)]
        serve = server._on_events
        for _ in range(CALLS // depth):
            serve(worker, events)
        return CALLS * CONNECTIONS

    refill()
    run()
    assert all(sock.sent == CALLS // depth for sock, _, _ in peers)
    run.refill = refill  # type: ignore[attr-defined]
    return run


def nanoseconds(codec: str, depth: int, turns: int) -> float:
    run = turn(codec, depth)
    gc.collect()
    gc.freeze()
    least = float("inf")
    for _ in range(turns):
        run.refill()  # type: ignore[attr-defined]
        began = time.thread_time()
        calls = run()
        least = min(least, (time.thread_time() - began) / calls * 1e9)
    return least


def count(codec: str, depth: int) -> tuple[Counter[str], Counter[str]]:
    """Calls of Python functions and bytecodes, by function, for one call."""
    session_module.SLOW = math.inf  # type: ignore[misc]  # nothing is quick while it is traced
    run = turn(codec, depth)
    run.refill()  # type: ignore[attr-defined]
    entered: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        name = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}"
        if event == "call":
            entered[name] += 1
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            codes[name] += 1
        return trace

    sys.settrace(trace)
    try:
        calls = run()
    finally:
        sys.settrace(None)
    for counter in (entered, codes):
        for name in counter:
            counter[name] = counter[name] / calls  # type: ignore[assignment]
    return entered, codes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("codecs", nargs="*")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--bytecodes", action="store_true")
    options = parser.parse_args()
    for codec in options.codecs or ["msgpack", "pipe", "protobuf"]:
        for depth in (1, 64):
            if not options.bytecodes:
                print(f"{codec:10} {depth:3} in flight  {nanoseconds(codec, depth, options.turns):8.0f} ns", flush=True)
                continue
            entered, codes = count(codec, depth)
            print(f"{codec} {depth} in flight: {sum(entered.values()):.1f} calls, {sum(codes.values()):.0f} bytecodes")
            for name, number in codes.most_common(30):
                if number >= 1:
                    print(f"  {number:7.1f}  {entered[name]:5.2f}  {name}")


if __name__ == "__main__":
    main()
