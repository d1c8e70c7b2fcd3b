"""One unary call, the same work, over wireproto and over what a Python user would pick instead.

The work: request {recipient: str, text: 60 characters, nonce: int} -> reply {id: int, stamp: float}. Each server runs
in a process of its own pinned to CPU 0, the load in one process pinned to CPU 1. The floors are bare sockets that
parse a length and answer 16 bytes: no codec, no dispatch, no safety.

Two loads:

- ``raw`` (the default): one epoll client with prebuilt request bytes, so that the client costs the same for everybody.
Entries
  are interleaved round by round, and each figure is the median of the rounds, with its spread. Length-prefixed peers
  only.
- ``client``: each peer's own client library: 1 and 16 threads, and 64 calls in flight on one connection.

The figure that machine noise disturbs least is the server's CPU microseconds per call (user and system, from /proc).

    pip install grpcio grpcio-tools thriftpy2 Pyro5 rpyc          # whichever peers are wanted; missing ones are skipped
    python benchmarks/peers.py [--load raw|client] [--rounds 5] [--seconds 1.0] [--connections 1,16,256]
                               [--extra FILE.py] [--json FILE] [NAME ...]

FILE.py adds entries: ENTRIES = {name: Entry(...)}, with ``from load import Entry, Raw``.
"""

import argparse
import gc
import importlib.util
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import Call, Entry, Raw, client_load, combine, dial, raw_load, ready

HERE = Path(__file__).resolve()
TEXT = "x" * 60
PROTO = """syntax = "proto3"; package bench;
message Req { string recipient = 1; string text = 2; int64 nonce = 3; }
message Rep { int64 id = 1; double stamp = 2; }
service Bench { rpc Send(Req) returns (Rep); }
"""
THRIFT = """struct Req { 1: string recipient, 2: string text, 3: i64 nonce }
struct Rep { 1: i64 id, 2: double stamp }
service Bench { Rep Send(1: Req r) }
"""

# ------------------------------------------------------------------ the floors

FLOOR_REQUEST = struct.pack(">I", 90) + b"r" * 90
FLOOR_ANSWER = b"\0\0\0\x10" + b"y" * 16


def floor_server() -> None:
    """A thread per connection: what one recv, one length and one send cost."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    ready(listener.getsockname()[1])

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while data := sock.recv(65536):
            buffer += data
            while len(buffer) >= 4:
                length = int.from_bytes(buffer[:4], "big")
                if len(buffer) < 4 + length:
                    break
                buffer = buffer[4 + length :]
                sock.sendall(FLOOR_ANSWER)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def floor_epoll_server() -> None:
    """The same on one epoll loop: what a reactor thread could reach at best."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    ready(listener.getsockname()[1])
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = (sock, bytearray())
                poll.register(sock.fileno(), select.EPOLLIN)
                continue
            sock, buffer = connections[fd]
            data = sock.recv(65536)
            if not data:
                poll.unregister(fd)
                sock.close()
                del connections[fd]
                continue
            buffer += data
            answers = at = 0
            while len(buffer) - at >= 4:
                length = int.from_bytes(buffer[at : at + 4], "big")
                if len(buffer) - at < 4 + length:
                    break
                at += 4 + length
                answers += 1
            del buffer[:at]
            if answers:
                sock.sendall(FLOOR_ANSWER * answers)


def floor_call(port: int) -> Call:
    sock = dial(port)

    def call(n: int) -> None:
        sock.sendall(FLOOR_REQUEST)
        data = sock.recv(65536)
        while len(data) < 20:
            data += sock.recv(65536)

    return call


def floor_pipeline(port: int) -> Call:
    sock = dial(port)

    def batch(n: int) -> None:
        sock.sendall(FLOOR_REQUEST * n)
        need = 20 * n
        while need > 0:
            need -= len(sock.recv(262144))

    return batch


FLOOR_RAW = Raw(greet=lambda sock: None, request=lambda n: FLOOR_REQUEST)

# ------------------------------------------------------------------ wireproto


def bench_service() -> Any:
    from wireproto import Message, Method, Service

    class SendRequest(Message):
        recipient: str
        text: str
        nonce: int

    class SendResponse(Message):
        id: int
        stamp: float

    send = Method(opcode=1, name="Send", request=SendRequest, response=SendResponse)
    return Service("bench.v1.BenchService", version=1, methods=[send])


def wireproto_server(codec: str, connections: int = 10_000) -> Callable[[], None]:
    def serve() -> None:
        from wireproto import Context, Handlers, Limits, Server

        sys.setswitchinterval(0.0005)  # this and the frozen collector below as `wireproto serve` has them
        service = bench_service()
        (method,) = service.methods
        handlers = Handlers(service)

        def send(request: Any, context: Context) -> Any:
            return method.response(id=request.nonce, stamp=time.time())

        handlers.register(method)(send)
        server = Server(handlers, codecs=[codec], limits=Limits(max_connections=connections))
        server.start()
        gc.collect()
        gc.freeze()
        ready(server.address.port)
        server.wait()

    return serve


def wireproto_call(codec: str) -> Callable[[int], Call]:
    def make(port: int) -> Call:
        from wireproto import connect

        service = bench_service()
        (method,) = service.methods
        client = connect(("127.0.0.1", port), service, codec=codec)
        request = method.request

        def call(n: int) -> None:
            assert client.call(method, request(recipient="bob", text=TEXT, nonce=n)).id == n

        return call

    return make


def wireproto_pipeline(codec: str) -> Callable[[int], Call]:
    def make(port: int) -> Call:
        from wireproto import connect

        service = bench_service()
        (method,) = service.methods
        client = connect(("127.0.0.1", port), service, codec=codec)
        request = method.request

        def batch(n: int) -> None:
            for _ in client.call_many(method, [request(recipient="bob", text=TEXT, nonce=i) for i in range(n)]):
                pass

        return batch

    return make


def wireproto_raw(codec: str) -> Raw:
    header = struct.Struct(">IBBBBHHI")
    payloads: list[tuple[int, bytes]] = []

    def greet(sock: socket.socket) -> None:
        from wireproto import codecs
        from wireproto.limits import Limits
        from wireproto.wire.connection import Connection, Role
        from wireproto.wire.events import WelcomeReceived
        from wireproto.wire.handshake import Hello

        service = bench_service()
        chosen = codecs.get(codec)
        connection = Connection(Role.CLIENT)
        connection.send_hello(
            Hello(
                min_version=1,
                max_version=1,
                codecs=((chosen.id, chosen.name),),
                max_frame=1 << 20,
                service=service.full_name,
            )
        )
        sock.sendall(connection.data_to_send())
        while not isinstance(event := connection.next_event(), WelcomeReceived):
            assert not connection.error, event
            connection.receive_data(sock.recv(4096))
        if not payloads:
            request = service.methods[0].request(recipient="bob", text=TEXT, nonce=7)
            payloads.append((chosen.id, chosen.plan(type(request), 1, Limits()).encode(request)))

    def request(n: int) -> bytes:
        number, payload = payloads[0]
        return header.pack(12 + len(payload), 3, 0, number, 1, 1, 0, n) + payload

    return Raw(greet=greet, request=request)


def wireproto(codec: str) -> Entry:
    return Entry(
        serve=wireproto_server(codec),
        call=wireproto_call(codec),
        pipeline=wireproto_pipeline(codec),
        raw=wireproto_raw(codec),
    )


# ------------------------------------------------------------------ the others


def grpc_stubs() -> Any:
    folder = Path(tempfile.gettempdir()) / "wireproto-bench-grpc"
    folder.mkdir(exist_ok=True)
    if not (folder / "bench_pb2_grpc.py").exists():
        from grpc_tools import protoc

        (folder / "bench.proto").write_text(PROTO, "utf-8")
        arguments = [f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main(["", *arguments, str(folder / "bench.proto")]) == 0
    sys.path.insert(0, str(folder))
    return importlib.import_module("bench_pb2"), importlib.import_module("bench_pb2_grpc")


def grpc_sync_server() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    messages, services = grpc_stubs()

    class Servicer(services.BenchServicer):  # type: ignore[misc, name-defined]
        def Send(self, request: Any, context: Any) -> Any:  # noqa: N802 - the stub's name
            return messages.Rep(id=request.nonce, stamp=time.time())

    server = grpc.server(ThreadPoolExecutor(16))
    services.add_BenchServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ready(port)
    server.wait_for_termination()


def grpc_aio_server() -> None:
    import asyncio

    import grpc.aio

    messages, services = grpc_stubs()

    class Servicer(services.BenchServicer):  # type: ignore[misc, name-defined]
        async def Send(self, request: Any, context: Any) -> Any:  # noqa: N802 - the stub's name
            return messages.Rep(id=request.nonce, stamp=time.time())

    async def main() -> None:
        server = grpc.aio.server()
        services.add_BenchServicer_to_server(Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready(port)
        await server.wait_for_termination()

    asyncio.run(main())


def grpc_call(port: int) -> Call:
    import grpc

    messages, services = grpc_stubs()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    stub = services.BenchStub(channel)

    def call(n: int) -> None:
        assert stub.Send(messages.Req(recipient="bob", text=TEXT, nonce=n)).id == n

    return call


def grpc_pipeline(port: int) -> Call:
    import grpc

    messages, services = grpc_stubs()
    stub = services.BenchStub(grpc.insecure_channel(f"127.0.0.1:{port}"))

    def batch(n: int) -> None:
        futures = [stub.Send.future(messages.Req(recipient="bob", text=TEXT, nonce=i)) for i in range(n)]
        for future in futures:
            future.result()

    return batch


def thrift_module() -> Any:
    import thriftpy2

    path = Path(tempfile.gettempdir()) / "wireproto_bench.thrift"
    path.write_text(THRIFT, "utf-8")
    return thriftpy2.load(str(path), module_name="wireproto_bench_thrift")


def thrift_server() -> None:
    from thriftpy2.protocol import TCyBinaryProtocolFactory
    from thriftpy2.server import TThreadedServer
    from thriftpy2.thrift import TProcessor
    from thriftpy2.transport import TCyFramedTransportFactory, TServerSocket

    module = thrift_module()

    class Handler:
        def Send(self, r: Any) -> Any:  # noqa: N802 - the interface's name
            return module.Rep(id=r.nonce, stamp=time.time())

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    transport = TServerSocket("127.0.0.1", port, client_timeout=None)
    server = TThreadedServer(
        TProcessor(module.Bench, Handler()),
        transport,
        iprot_factory=TCyBinaryProtocolFactory(),
        itrans_factory=TCyFramedTransportFactory(),
    )

    def announce() -> None:
        while True:
            try:
                dial(port).close()
            except ConnectionRefusedError:
                continue
            ready(port)
            return

    threading.Thread(target=announce, daemon=True).start()
    server.serve()


def thrift_call(port: int) -> Call:
    from thriftpy2.protocol import TCyBinaryProtocolFactory
    from thriftpy2.rpc import make_client
    from thriftpy2.transport import TCyFramedTransportFactory

    module = thrift_module()
    client = make_client(
        module.Bench,
        "127.0.0.1",
        port,
        proto_factory=TCyBinaryProtocolFactory(),
        trans_factory=TCyFramedTransportFactory(),
        timeout=None,
    )

    def call(n: int) -> None:
        assert client.Send(module.Req(recipient="bob", text=TEXT, nonce=n)).id == n

    return call


def thrift_request(n: int) -> bytes:
    """A framed call of Send in Thrift's strict binary protocol."""

    def text(number: int, value: str) -> bytes:
        return struct.pack(">bhI", 11, number, len(value)) + value.encode()

    struct_ = text(1, "bob") + text(2, TEXT) + struct.pack(">bhq", 10, 3, n) + b"\0"
    body = struct.pack(">II", 0x8001_0001, 4) + b"Send" + struct.pack(">i", n) + b"\x0c\0\1" + struct_ + b"\0"
    return struct.pack(">I", len(body)) + body


def pyro_server() -> None:
    import Pyro5.api
    from Pyro5 import config

    config.SERIALIZER = "msgpack"

    @Pyro5.api.expose
    class Bench:
        def send(self, recipient: str, text: str, nonce: int) -> tuple[int, float]:
            return (nonce, time.time())

    daemon = Pyro5.api.Daemon("127.0.0.1", 0)
    daemon.register(Bench, "bench")
    ready(int(daemon.locationStr.rsplit(":", 1)[1]))
    daemon.requestLoop()


def pyro_call(port: int) -> Call:
    import Pyro5.api
    from Pyro5 import config

    config.SERIALIZER = "msgpack"
    local = threading.local()

    def call(n: int) -> None:
        if getattr(local, "proxy", None) is None:
            local.proxy = Pyro5.api.Proxy(f"PYRO:bench@127.0.0.1:{port}")
        assert local.proxy.send("bob", TEXT, n)[0] == n

    return call


def rpyc_server() -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Bench(rpyc.Service):  # type: ignore[misc]
        def exposed_send(self, recipient: str, text: str, nonce: int) -> tuple[int, float]:
            return (nonce, time.time())

    server = ThreadedServer(Bench, hostname="127.0.0.1", port=0)
    ready(server.port)
    server.start()


def rpyc_call(port: int) -> Call:
    import rpyc

    send = rpyc.connect("127.0.0.1", port).root.send

    def call(n: int) -> None:
        assert send("bob", TEXT, n)[0] == n

    return call


ENTRIES: dict[str, Entry] = {
    "floor": Entry(floor_server, floor_call, floor_pipeline, FLOOR_RAW),
    "floor-epoll": Entry(floor_epoll_server, floor_call, floor_pipeline, FLOOR_RAW),
    "wireproto-msgpack": wireproto("msgpack"),
    "wireproto-pipe": wireproto("pipe"),
    "wireproto-protobuf": wireproto("protobuf"),
    "grpc-sync": Entry(grpc_sync_server, grpc_call, grpc_pipeline, needs=("grpc", "grpc_tools")),
    "grpc-aio": Entry(grpc_aio_server, grpc_call, grpc_pipeline, needs=("grpc", "grpc_tools")),
    "thriftpy2": Entry(thrift_server, thrift_call, raw=Raw(lambda sock: None, thrift_request), needs=("thriftpy2",)),
    "pyro5": Entry(pyro_server, pyro_call, needs=("Pyro5", "msgpack")),
    "rpyc": Entry(rpyc_server, rpyc_call, needs=("rpyc",)),
}

# ------------------------------------------------------------------ measuring


class Running:
    """A peer's server in a process of its own, pinned to CPU 0."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        command = ["taskset", "-c", "0", sys.executable, str(HERE), *arguments, "--serve", name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("READY"):
            raise SystemExit(f"{name}: the server did not start")
        self.port = int(line.split()[1])
        self.pid = self.process.pid

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(name: str, kind: str, arguments: list[str], options: list[str]) -> dict[str, float]:
    """One fresh server, one load process; its figures."""
    server = Running(name, arguments)
    try:
        load = ["taskset", "-c", "1", sys.executable, str(HERE), *arguments, *options]
        load += ["--against", f"{name}:{kind}:{server.port}:{server.pid}"]
        done = subprocess.run(load, capture_output=True, encoding="utf-8", timeout=300, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures
    finally:
        server.stop()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--load", choices=["raw", "client"], default="raw")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", default="1,16,256")
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--against", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    sys.path.insert(0, str(HERE.parent))
    if options.extra is not None:
        spec = importlib.util.spec_from_file_location("extra", options.extra)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        ENTRIES.update(module.ENTRIES)
    if options.serve:
        ENTRIES[options.serve].serve()
        return
    counts = [int(count) for count in options.connections.split(",")]
    if options.against:
        name, kind, port, pid = options.against.split(":")
        entry = ENTRIES[name]
        if kind == "raw":
            assert entry.raw is not None
            found: dict[str, float] = {}
            for count in counts:
                one = raw_load(entry.raw, int(port), int(pid), count, options.seconds)
                found.update({f"c{count}_{key}": value for key, value in one.items()})
        else:
            found = client_load(entry, int(port), int(pid), options.seconds)
        print(json.dumps(found), flush=True)
        os._exit(0)  # some clients keep threads of their own
    names = options.names or list(ENTRIES)
    chosen = []
    for name in names:
        entry = ENTRIES[name]
        if missing := [need for need in entry.needs if importlib.util.find_spec(need) is None]:
            print(f"{name}: skipped, {', '.join(missing)} is not installed", file=sys.stderr)
        elif options.load == "client" or entry.raw is not None:
            chosen.append(name)
    arguments = ["--extra", str(options.extra.resolve())] if options.extra else []
    passed = ["--seconds", str(options.seconds), "--connections", options.connections]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for number in range(options.rounds):
        for name in chosen:
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            rounds[name].append(measure(name, options.load, arguments, passed))
    results = {name: combine(found) for name, found in rounds.items()}
    keys = sorted({key for figures in results.values() for key in figures})
    for key in keys:
        print(f"\n{key}")
        for name, figures in results.items():
            if key in figures:
                one = figures[key]
                ratio = f"{one['median'] / results['floor'][key]['median']:6.2f} x floor" if "floor" in results else ""
                print(f"  {name:20} {one['median']:12.1f}  ({one['low']:.1f} to {one['high']:.1f}) {ratio}")
    if options.json:
        options.json.write_text(json.dumps({**results, "rounds": rounds}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
