"""Quick calls beside slow ones: the latency of one connection that makes quick calls, alone and in bad company.

The server has a process of its own, pinned to CPU 0, with the switch interval of ``wireproto serve``; the load runs on
CPU 1. Beside the quick calls, either twenty connections keep a handler busy that sleeps 5 ms (it is not declared as
blocking: the server has to find out), or two keep one busy that computes for 20 ms.

    python benchmarks/mixed.py [--quick] [--json FILE]
"""

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import load

from wireproto import Context, Handlers, Message, Method, Server, Service, codecs
from wireproto.limits import Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import WelcomeReceived
from wireproto.wire.frame import HEADER
from wireproto.wire.handshake import Hello

SLEEP = 0.005
BURN = 0.020


class Question(Message):
    number: int


class Answer(Message):
    number: int


QUICK = Method(opcode=1, name="Quick", request=Question, response=Answer)
SLEEPS = Method(opcode=2, name="Sleeps", request=Question, response=Answer)
BURNS = Method(opcode=3, name="Burns", request=Question, response=Answer)
SERVICE = Service("bench.v1.MixedService", version=1, methods=[QUICK, SLEEPS, BURNS])
COMPANY = {"alone": (0, QUICK), "beside 20 of 5 ms": (20, SLEEPS), "beside 2 that compute": (2, BURNS)}


def serve() -> None:
    sys.setswitchinterval(0.0005)
    handlers = Handlers(SERVICE)

    @handlers.register(QUICK)
    def quick(request: Question, context: Context) -> Answer:
        return Answer(number=request.number)

    @handlers.register(SLEEPS)
    def sleeps(request: Question, context: Context) -> Answer:
        time.sleep(SLEEP)
        return Answer(number=request.number)

    @handlers.register(BURNS)
    def burns(request: Question, context: Context) -> Answer:
        until = time.thread_time() + BURN
        while time.thread_time() < until:
            sum(range(200))
        return Answer(number=request.number)

    server = Server(handlers, port=0, codecs=["msgpack"])
    server.start()
    load.ready(server.address.port)
    server.wait()


class Caller:
    """One connection that makes one call after the other."""

    def __init__(self, port: int, method: Method[Question, Answer]) -> None:
        codec = codecs.get("msgpack")
        self.sock = load.dial(port)
        connection = Connection(Role.CLIENT)
        connection.send_hello(
            Hello(
                min_version=1,
                max_version=1,
                codecs=((codec.id, codec.name),),
                max_frame=4096,
                service=SERVICE.full_name,
            )
        )
        self.sock.sendall(connection.data_to_send())
        while not isinstance(connection.next_event(), WelcomeReceived):
            connection.receive_data(self.sock.recv(4096))
        self._head = (3, 0, codec.id, 1, method.opcode, 0)
        self._payload = codec.plan(Question, 1, Limits()).encode(Question(number=7))
        self._call_id = 0
        self.sent = 0.0

    def call(self) -> None:
        self._call_id += 1
        header = HEADER.pack(12 + len(self._payload), *self._head, self._call_id)
        self.sent = time.perf_counter()
        self.sock.sendall(header + self._payload)


def waits(port: int, company: int, method: Method[Question, Answer], seconds: float) -> list[float]:
    """The latencies of the quick caller, in seconds, ascending; the first half second is not counted."""
    quick = Caller(port, QUICK)
    others = [Caller(port, method) for _ in range(company)]
    poll = select.epoll()
    by_fd = {caller.sock.fileno(): caller for caller in (quick, *others)}
    for fd, caller in by_fd.items():
        poll.register(fd, select.EPOLLIN)
        caller.call()
    found: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds + 0.5:
        for fd, _ in poll.poll():
            caller = by_fd[fd]
            caller.sock.recv(4096)
            if caller is quick and now > began + 0.5:
                found.append(time.perf_counter() - caller.sent)
            caller.call()
    poll.close()
    for caller in by_fd.values():
        caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        caller.sock.close()
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMPANY}
    for _ in range(1 if options.quick else 5):
        for name, (company, method) in COMPANY.items():
            command = ["taskset", "-c", "0", sys.executable, __file__, "--serve"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
            try:
                assert server.stdout is not None
                found = waits(int(server.stdout.readline().split()[1]), company, method, 1.5)
            finally:
                server.kill()
                server.wait()
            rounds[name].append((found[len(found) // 2] * 1e3, found[int(len(found) * 0.99)] * 1e3))
    result: dict[str, Any] = {}
    for name, pairs in rounds.items():
        p99 = [pair[1] for pair in pairs]
        result[name] = {
            "p50_ms": statistics.median(pair[0] for pair in pairs),
            "p99_ms": statistics.median(p99),
            "p99_low_ms": min(p99),
            "p99_high_ms": max(p99),
        }
        print(name, {key: round(value, 3) for key, value in result[name].items()})
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
