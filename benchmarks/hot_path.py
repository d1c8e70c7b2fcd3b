"""What the server's own code costs per call, over sockets that cost nothing: no kernel, so no noise of its own.

A server that was never started is given sessions over fake sockets; each ``recv`` hands out the next requests and each
``send`` counts. What is left is the path from an event of the poller to the answer in ``send``, in the calling thread:
nanoseconds of CPU per call, the median of several turns with the least and the most, for one call in flight on each of
16 connections and for 64. Beside it, what the same codec, handler and header cost in a bare loop.

It also counts what the interpreter runs for one of those calls, function by function: calls of Python functions and
bytecodes, which depend on the version of Python and not on the machine.

    python benchmarks/hot_path.py [--quick] [--json FILE] [CODEC ...]
"""

import argparse
import gc
import json
import re
import statistics
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

from wireproto import Context, Handlers, Server, codecs
from wireproto.answering.pool import Worker
from wireproto.limits import Limits
from wireproto.poller import READ
from wireproto.server.session import Session
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import WelcomeReceived
from wireproto.wire.handshake import Hello

_GENERATED = re.compile(r"<wireproto (\w+) .*?(\w+) v1> (\w+)")  # the file name and function of a codec's plan

CONNECTIONS = 16
DEPTHS = (1, 64)
CALLS = 2048  # of each connection in one turn
COUNTED = 64  # ... when it is counted what they run


class FakeSocket:
    """Hands out what it was given, takes everything, and is no descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.coming: list[bytes] = []
        self.sent: list[bytes] | None = []
        self.sends = 0

    def fileno(self) -> int:
        return self.number

    def recv(self, size: int) -> bytes:
        return self.coming.pop()

    def send(self, data: bytes) -> int:
        if self.sent is not None:
            self.sent.append(data)
        self.sends += 1
        return len(data)


class Bench:
    """A server with its sessions after their handshakes, and the clients' connections that write the requests."""

    def __init__(self, codec: str, depth: int, calls: int = CALLS) -> None:
        service = peers.bench_service()
        (self.method,) = service.methods
        self.depth = depth
        self.turns = calls // depth
        self.calls = self.turns * depth * CONNECTIONS
        handlers = Handlers(service)
        handlers.register(self.method)(self.handle)
        self.server = Server(handlers, codecs=[codec])
        pool = self.server.pool
        pool.leader = self.worker = Worker(pool, 0)
        pool._parked.append(Worker(pool, 1))  # so that the first calls of a method may run on the leader
        chosen = codecs.get(codec)
        self.request_plan = chosen.plan(self.method.request, 1, Limits())
        self.response_plan = chosen.plan(self.method.response, 1, Limits(), request=False)
        self.payload = self.request_plan.encode(self.method.request(recipient="bob", text=peers.TEXT, nonce=7))
        hello = Hello(
            min_version=1,
            max_version=1,
            codecs=((chosen.id, chosen.name),),
            max_frame=1 << 20,
            service=service.full_name,
        )
        self.peers = [self.open(number, hello) for number in range(CONNECTIONS)]

    def handle(self, request: Any, context: Context | None) -> Any:
        return self.method.response(id=request.nonce, stamp=1.5)

    def open(self, number: int, hello: Hello) -> tuple[FakeSocket, Connection]:
        sock, client = FakeSocket(number), Connection(Role.CLIENT)
        session = Session(self.server, sock, "127.0.0.1", number)  # type: ignore[arg-type]
        session.transport.reading = True
        self.server.sessions[number] = session
        client.send_hello(hello)
        sock.coming = [client.data_to_send()]
        session.on_event(self.worker, READ)
        client.receive_data(b"".join(sock.sent or ()))
        assert isinstance(client.next_event(), WelcomeReceived)
        sock.sent = None
        return sock, client

    def refill(self) -> None:
        """Have each client write the next turn's requests."""
        for sock, client in self.peers:
            sock.sends = 0
            for _ in range(self.turns):
                for _ in range(self.depth):
                    client.send_request(self.method.opcode, self.payload)
                sock.coming.append(client.data_to_send())
            client._calls.clear()
            sock.coming.reverse()

    def run(self) -> int:
        """Serve one turn; how many calls that were."""
        events = [(number, READ) for number in range(CONNECTIONS)]
        serve, worker = self.server._on_events, self.worker
        for _ in range(self.turns):
            serve(worker, events)
        assert all(sock.sends == self.turns for sock, _ in self.peers)
        return self.calls

    def run_bare(self) -> int:
        """Decode, handle and encode as often, and read and write as many headers, with nothing around it."""
        header = struct.Struct(">IIHHI")
        frame = header.pack(12 + len(self.payload), 0x0300_0201, 1, 0, 7) + self.payload
        decode, encode, handle = self.request_plan.decode, self.response_plan.encode, self.handle
        for _ in range(self.calls):
            _, word, opcode, _, call_id = header.unpack_from(frame)
            answer = encode(handle(decode(frame[16:]), None))
            header.pack(12 + len(answer), word, opcode, 0, call_id) + answer
        return self.calls


def nanoseconds(codec: str, depth: int, turns: int) -> dict[str, float]:
    """The server's path and the bare loop, in turns."""
    bench = Bench(codec, depth)
    bench.refill()
    bench.run()
    gc.collect()
    gc.freeze()  # as `wireproto serve` does
    ours, bare = [], []
    for _ in range(turns):
        bench.refill()
        began = time.thread_time()
        calls = bench.run()
        ours.append((time.thread_time() - began) / calls * 1e9)
        began = time.thread_time()
        calls = bench.run_bare()
        bare.append((time.thread_time() - began) / calls * 1e9)
    gc.unfreeze()
    return {
        "ns": statistics.median(ours),
        "ns_low": min(ours),
        "ns_high": max(ours),
        "bare_ns": statistics.median(bare),
        "ratio": statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
        "ratio_low": min(a / b for a, b in zip(ours, bare, strict=True)),
        "ratio_high": max(a / b for a, b in zip(ours, bare, strict=True)),
    }


def count(codec: str, depth: int) -> dict[str, Any]:
    """Calls of Python functions and bytecodes of one call, in all and by file and function."""
    bench = Bench(codec, depth, COUNTED)
    bench.refill()
    bench.run()
    bench.refill()
    entered: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        name = f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_qualname}"
        if event == "call":
            entered[name] += 1
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            codes[name] += 1
        return trace

    sys.settrace(trace)
    try:
        calls = bench.run()
    finally:
        sys.settrace(None)
    ours = [name for name in codes if not name.startswith("hot_path.py")]
    return {
        "calls": sum(entered[name] for name in ours) / calls,
        "bytecodes": sum(codes[name] for name in ours) / calls,
        "functions": {
            _GENERATED.sub(r"\1 \2.\3", name): [entered[name] / calls, codes[name] / calls]
            for name in sorted(ours, key=codes.__getitem__, reverse=True)
            if codes[name] / calls >= 1
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("codecs", nargs="*", default=["msgpack", "pipe", "protobuf"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, dict[str, Any]] = {}
    for codec in options.codecs:
        for depth in DEPTHS:
            one = nanoseconds(codec, depth, 5 if options.quick else 15) | count(codec, depth)
            result.setdefault(codec, {})[str(depth)] = one
            print(
                f"{codec:9} {depth:3} in flight: {one['ns']:6.0f} ns, least {one['ns_low']:.0f}, "
                f"bare {one['bare_ns']:.0f}, {one['calls']:.1f} calls of {one['bytecodes']:.0f} bytecodes",
                flush=True,
            )
    for name, (calls, codes) in result[options.codecs[0]]["1"]["functions"].items():
        print(f"  {codes:7.1f} {calls:6.2f}  {name}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
