"""What strangers may do to the gRPC door, and what a good client beside them notices of it.

    python benchmarks/grpc_attacks.py                        every attack on both engines
    python benchmarks/grpc_attacks.py --engine core resets   one of them
    python benchmarks/grpc_attacks.py --scale 0.1 --json     a tenth of the size, for a program
    python benchmarks/grpc_attacks.py --engine core --minutes 60   one server, attacked for an hour

The server is a process of its own. The good client is grpcio's, and calls every two milliseconds; its 99th percentile
alone is taken before each attack and beside it. The attackers speak HTTP/2 from this file, on loopback only, all
of them from the same network as the good client, and each ends by itself after some seconds.
"""

import argparse
import gzip
import itertools
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from dataclasses import field as described
from pathlib import Path
from typing import Any

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW_SIZE = 4

SERVICE = "/attack.v1.AttackedService/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
WATCH = "/grpc.health.v1.Health/Watch"

SECONDS = 3.0
"""For how long the good client is measured beside each attack."""


# The server ---------------------------------------------------------------------------------------------------------


def serve(engine: Any) -> None:
    """Serve until standard input ends."""
    from wireproto import Context, Handlers, Message, Method, Service, StreamMethod
    from wireproto.server.gateway import GrpcGateway

    class Text(Message):
        text: str = ""

    class Answer(Message):
        text: str = ""

    echo = Method(opcode=1, name="Echo", request=Text, response=Answer)
    count = StreamMethod(opcode=2, name="Count", request=Text, response=Answer)
    handlers = Handlers(Service("attack.v1.AttackedService", methods=[echo, count]))

    @handlers.register(echo)
    def answer(request: Text, context: Context) -> Answer:
        return Answer(text=request.text)

    @handlers.register(count)
    def items(request: Text, context: Context) -> Iterator[Answer]:
        for _ in range(10_000):
            yield Answer(text="x" * 1000)

    with GrpcGateway(handlers, port=0, engine=engine) as gateway:
        print(gateway.address.port, flush=True)
        sys.stdin.read()


@dataclass
class Served:
    """The server under attack."""

    port: int
    pid: int

    def resident(self) -> float:
        """MiB of memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


@contextmanager
def serving(engine: str) -> Iterator[Served]:
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if "--quiet" in sys.argv else None,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Served(int(process.stdout.readline()), process.pid)
        finally:
            process.stdin.close()
            if process.wait(30):
                raise SystemExit(f"the server ended with status {process.returncode}")


# HTTP/2 -------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _length(number: int) -> bytes:
    if number < 127:
        return bytes((number,))
    rest, made = number - 127, b"\x7f"
    while rest >= 128:
        made += bytes((rest % 128 + 128,))
        rest //= 128
    return made + bytes((rest,))


def block(path: str, *more: tuple[str, str]) -> bytes:
    """Header fields, each spelt out (RFC 7541, 6.2.2)."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return b"".join(
        b"\0" + _length(len(name)) + name.encode() + _length(len(value)) + value.encode() for name, value in fields
    )


def message(payload: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


class Attacker:
    """A connection that sends what it likes and drops what it is sent."""

    def __init__(self, port: int, *, window: int | None = None, greet: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.stream = -1
        self.ended = False
        if greet:
            settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0))
        self.socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send all of it, and read meanwhile; quietly stop when the server has hung up."""
        view = memoryview(data)
        while view and not self.ended:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                self.drop()
                select.select([self.socket], [self.socket], [], 1.0)
            except OSError:
                self.ended = True

    def drop(self) -> None:
        """Read what is there."""
        try:
            while not self.ended:
                if not self.socket.recv(1 << 16):
                    self.ended = True
        except BlockingIOError:
            return
        except OSError:
            self.ended = True

    def headers(self, path: str, *more: tuple[str, str]) -> int:
        """Open a stream; its number."""
        self.stream += 2
        self.send(frame(HEADERS, END_HEADERS, self.stream, block(path, *more)))
        return self.stream

    def close(self) -> None:
        self.socket.close()


# The attacks --------------------------------------------------------------------------------------------------------

Attack = Callable[[Served, float, threading.Event], object]
"""Given the server, a scale, and what is set when it is to end; it holds on until then."""


def _held(attackers: Sequence[Attacker], over: threading.Event) -> int:
    """Keep connections open, reading; how many the server has ended."""
    while not over.wait(0.1):
        for each in attackers:
            each.drop()
    ended = sum(each.ended for each in attackers)
    for each in attackers:
        each.close()
    return ended


def half_calls(server: Served, scale: float, over: threading.Event) -> object:
    """Headers, and no message."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(16 * scale)))]
    for each in attackers:
        for _ in range(250):
            each.headers(SERVICE + "Echo")
    return _held(attackers, over)


def half_streams(server: Served, scale: float, over: threading.Event) -> object:
    """The same for a stream."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(16 * scale)))]
    for each in attackers:
        for _ in range(250):
            each.headers(SERVICE + "Count")
    return _held(attackers, over)


def half_messages(server: Served, scale: float, over: threading.Event) -> object:
    """All but the end of a large message, as far as the window lets."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(10 * scale)))]
    size = 900_000
    for each in attackers:
        for _ in range(100):
            stream = each.headers(SERVICE + "Echo")
            each.send(frame(DATA, 0, stream, message(b"x" * 7000, length=size)))
    for _ in range(size // 8000):
        for each in attackers:
            for stream in range(1, each.stream + 1, 2):
                if over.is_set():
                    return _held(attackers, over)
                each.send(frame(DATA, 0, stream, b"x" * 8000))
    return _held(attackers, over)


def dripping(server: Served, scale: float, over: threading.Event) -> object:
    """A byte each half second."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(16 * scale)))]
    for each in attackers:
        for _ in range(100):
            each.send(frame(DATA, 0, each.headers(SERVICE + "Echo"), message(b"", length=1000)))
    while not over.wait(0.5):
        for each in attackers:
            each.drop()
            each.send(b"".join(frame(DATA, 0, stream, b"x") for stream in range(1, each.stream + 1, 2)))
    return _held(attackers, over)


def watchers(server: Served, scale: float, over: threading.Event) -> object:
    """Reflection and health, open and silent."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(8 * scale)))]
    for each in attackers:
        for number in range(250):
            stream = each.headers(WATCH if number % 2 else REFLECTION)
            if number % 2:
                each.send(frame(DATA, END_STREAM, stream, message(b"")))
    return _held(attackers, over)


def readers(server: Served, scale: float, over: threading.Event) -> object:
    """Streams, and unary calls, of which nothing is taken."""
    attackers = [Attacker(server.port, window=0) for _ in range(max(1, int(4 * scale)))]
    for each in attackers:
        for number in range(250):
            stream = each.headers(SERVICE + ("Count" if number % 2 else "Echo"))
            each.send(frame(DATA, END_STREAM, stream, message(b"\n\x01x")))
    return _held(attackers, over)


def silent(server: Served, scale: float, over: threading.Event) -> object:
    """Connections that say nothing."""
    attackers: list[Attacker] = []
    with suppress(OSError):
        attackers.extend(Attacker(server.port, greet=False) for _ in range(max(1, int(4000 * scale))))
    return _held(attackers, over)


def resets(server: Served, scale: float, over: threading.Event) -> object:
    """Whole calls that are cancelled in the same breath."""
    sent = 0
    attackers = [Attacker(server.port) for _ in range(4)]
    while sent < 80_000 * scale and not over.is_set():
        for each in attackers:
            if each.ended:
                each.close()
                attackers[attackers.index(each)] = Attacker(server.port)
                continue
            burst = b""
            for _ in range(100):
                each.stream += 2
                burst += (
                    frame(HEADERS, END_HEADERS, each.stream, block(SERVICE + "Echo"))
                    + frame(DATA, END_STREAM, each.stream, message(b"\n\x01x"))
                    + frame(RST_STREAM, 0, each.stream, struct.pack(">I", 8))
                )
            each.send(burst)
            each.drop()
            sent += 100
    _held(attackers, over)
    return sent


def header_bombs(server: Served, scale: float, over: threading.Event) -> object:
    """Headers without an end, and headers that are larger than may be."""
    sent = 0
    while not over.is_set() and sent < 200 * scale:
        each = Attacker(server.port)
        each.stream += 2
        each.send(frame(HEADERS, 0, each.stream, block(SERVICE + "Echo")))
        for number in range(200):
            each.send(
                frame(
                    CONTINUATION, 0, each.stream, b"\0" + _length(8) + b"x%07d" % number + _length(8000) + b"y" * 8000
                )
            )
            if each.ended:
                break
        each.drop()
        each.close()
        sent += 1
    over.wait()
    return sent


def gzip_bombs(server: Served, scale: float, over: threading.Event) -> object:
    """A megabyte that unpacks to a gigabyte."""
    bomb = gzip.compress(b"\0" * (1 << 28), 9)
    sent = 0
    while not over.is_set() and sent < 40 * scale:
        each = Attacker(server.port)
        stream = each.headers(SERVICE + "Echo", ("grpc-encoding", "gzip"))
        data = message(bomb, compressed=True)
        for begin in range(0, len(data), 8000):
            each.send(frame(DATA, 0, stream, data[begin : begin + 8000]))
            each.drop()
        each.send(frame(DATA, END_STREAM, stream))
        over.wait(0.05)
        each.drop()
        each.close()
        sent += 1
    over.wait()
    return sent


def floods(server: Served, scale: float, over: threading.Event) -> object:
    """PING and SETTINGS, as fast as they are taken."""
    attackers = [Attacker(server.port) for _ in range(max(1, int(4 * scale)))]
    ping = frame(PING, 0, 0, b"12345678") * 100
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 100
    sent = 0
    while not over.is_set() and sent < 200_000 * scale:
        for number, each in enumerate(attackers):
            each.send(settings if number % 2 else ping)
            each.drop()
            if each.ended:
                each.close()
                attackers[number] = Attacker(server.port)
            sent += 100
    _held(attackers, over)
    return sent


ATTACKS: dict[str, Attack] = {
    "half-calls": half_calls,
    "half-streams": half_streams,
    "half-messages": half_messages,
    "dripping": dripping,
    "watchers": watchers,
    "readers": readers,
    "silent": silent,
    "resets": resets,
    "header-bombs": header_bombs,
    "gzip-bombs": gzip_bombs,
    "floods": floods,
}


# The good client ----------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What came of one attack; milliseconds and MiB.

    Attributes:
        failed: calls of the good client that were not answered.
        grown: memory of the server, at most, beyond what it had before.
        left: ... and some time after the attack, two seconds at most.
        resident: memory of the server then.
        threads: of the server at most, beyond what it had before.
    """

    engine: str
    attack: str
    alone_p99: float
    beside_p99: float
    calls: int
    failed: int
    grown: float
    left: float
    resident: float
    threads: int
    outcome: object
    errors: dict[str, int] = described(default_factory=dict)


def latencies(port: int, seconds: float) -> tuple[list[float], dict[str, int]]:
    """One call each two milliseconds, on a connection of its own: how long each took, and what failed."""
    import grpc

    took: list[float] = []
    errors: dict[str, int] = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(SERVICE + "Echo")
        grpc.channel_ready_future(channel).result(timeout=10)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                call(b"\n\x01x", timeout=10)
            except grpc.RpcError as error:
                told = f"{error.code().name}: {error.details()}"[:100]
                errors[told] = errors.get(told, 0) + 1
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.002)
    return took, errors


def p99(took: Sequence[float]) -> float:
    return statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]


def measure(engine: str, name: str, server: Served, scale: float, seconds: float) -> Measured:
    alone, _ = latencies(server.port, min(seconds, 2.0))
    before, threads = server.resident(), server.threads()
    over = threading.Event()
    outcome: list[object] = []
    attack = threading.Thread(target=lambda: outcome.append(ATTACKS[name](server, scale, over)))
    attack.start()
    most = {"grown": 0.0, "threads": 0.0}
    measuring = threading.Event()

    def look() -> None:
        while not measuring.wait(0.02):
            most["grown"] = max(most["grown"], server.resident() - before)
            most["threads"] = max(most["threads"], server.threads() - threads)

    looking = threading.Thread(target=look)
    looking.start()
    time.sleep(0.3)
    took, errors = latencies(server.port, seconds)
    over.set()
    attack.join()
    measuring.set()
    looking.join()
    time.sleep(min(2.0, seconds))
    left = server.resident() - before
    return Measured(
        engine,
        name,
        round(p99(alone), 2),
        round(p99(took), 2),
        len(took),
        sum(errors.values()),
        round(most["grown"], 1),
        round(left, 1),
        round(server.resident(), 1),
        int(most["threads"]),
        outcome[0] if outcome else None,
        errors,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("attacks", nargs="*", help=f"of {', '.join(ATTACKS)}; all of them without")
    parser.add_argument("--engine", choices=["core", "public"], help="one engine only")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument(
        "--minutes", type=float, help="attack one server in turn for so long, and not one for each attack"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="without the server's log")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.serve:
        serve(wanted.serve)
        return
    for unknown in set(wanted.attacks) - set(ATTACKS):
        parser.error(f"there is no attack {unknown}; there are: {', '.join(ATTACKS)}")
    names = wanted.attacks or list(ATTACKS)
    for engine in [wanted.engine] if wanted.engine else ["core", "public"]:
        if wanted.minutes is None:
            for name in names:
                with serving(engine) as server:
                    show(measure(engine, name, server, wanted.scale, wanted.seconds), as_json=wanted.json)
        else:
            until = time.monotonic() + 60 * wanted.minutes
            with serving(engine) as server:
                for name in itertools.cycle(names):
                    if time.monotonic() > until:
                        break
                    show(measure(engine, name, server, wanted.scale, wanted.seconds), as_json=wanted.json)


def show(found: Measured, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found)), flush=True)
        return
    print(
        f"{found.engine:7} {found.attack:14} p99 alone {found.alone_p99:6.2f} ms, beside {found.beside_p99:7.2f} ms; "
        f"{found.failed} of {found.calls} failed; memory +{found.grown:.1f} MiB, left {found.left:+.1f}, "
        f"in all {found.resident:.1f}; threads +{found.threads} {found.errors or ''}",
        flush=True,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
