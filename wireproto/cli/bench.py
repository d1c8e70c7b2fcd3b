"""``wireproto bench``: what a server does a second, how long it takes, and what a codec costs, like redis-benchmark."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import click

from wireproto import codecs
from wireproto.address import Address
from wireproto.cli.command import Command, Failure
from wireproto.cli.load import CONNECT_TIMEOUT, Asked, Load, Sample
from wireproto.cli.room import look_for_room
from wireproto.cli.units import TIMEOUT
from wireproto.cli.wanted import DATA, HEADER, SERVICE, Wanted, ask, declared, read_metadata, read_request
from wireproto.client import BlockingClient, connect
from wireproto.codecs import Codec
from wireproto.control import CONTROL, ECHO, EchoRequest
from wireproto.dispatch import Handlers
from wireproto.errors import HandshakeError
from wireproto.schema import Service

if TYPE_CHECKING:
    from wireproto.cli.load_grpc import GrpcLoad

__all__ = ["HANDLERS", "command"]

HANDLERS = Handlers(Service("wirebench.v1.BenchService", version=1, methods=[]))
"""What the command's own server hosts unless it is told: nothing, for the calls are of the framework's Echo."""

SIZE_OF_ECHO = 64
"""Bytes that Echo sends there and back when nobody says how many."""

GRPC = "grpc"
"""What the line of the gRPC door has in the column of codecs, of which that door has one."""

WARM_UP = 0.2
"""Seconds of load before the measured ones, so that first calls and first allocations are not counted."""

_MICRO = 1e6
_HEAD = ("codec", "calls/s", "avg us", "p50 us", "p95 us", "p99 us", "max us", "server CPU us", "bytes")


class _Result(NamedTuple):
    """One line: a codec's figures. Times are microseconds, CPU and bytes are those of one call."""

    codec: str
    calls: int
    seconds: float
    calls_per_second: float
    average_us: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: float
    server_cpu_us: float | None
    load_cpu_us: float
    bytes_per_call: float | None


@click.command("bench", cls=Command)
@click.argument("words", nargs=-1, metavar="[HOST:PORT] [METHOD] [KEY=VALUE]...")
@click.option("-c", "--connections", type=click.IntRange(1, 10_000), default=16, show_default=True)
@click.option("-n", "--calls", type=click.IntRange(min=1), help="Calls in all, for each codec.")
@click.option(
    "-z",
    "--seconds",
    type=TIMEOUT,
    metavar="TIME",
    help="How long, for each codec.  [default: 3s, without -n]",
)
@click.option(
    "-P", "--pipeline", type=click.IntRange(1, 65_536), default=1, show_default=True, help="Calls in flight on each."
)
@click.option(
    "--codec", default="all", show_default=True, metavar="NAME", help="pipe, msgpack, protobuf, another, or all."
)
@click.option("--grpc", is_flag=True, help="Measure the gRPC door; HOST:PORT is that one's.")
@SERVICE
@DATA
@HEADER
@click.option("--handlers", metavar="MODULE:HANDLERS", help="What a server of its own hosts.  [default: nothing]")
@click.option(
    "--size", type=click.IntRange(0, 16 * 1024 * 1024), help=f"Bytes of each Echo.  [default: {SIZE_OF_ECHO}]"
)
@click.option(
    "--pid", type=click.IntRange(min=1), help="The process of the server at HOST:PORT: its CPU time per call."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per codec.")
def command(
    words: tuple[str, ...],
    connections: int,
    calls: int | None,
    seconds: float | None,
    pipeline: int,
    codec: str,
    grpc: bool,
    service: str | None,
    data: str | None,
    header: tuple[str, ...],
    handlers: str | None,
    size: int | None,
    pid: int | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Measure the server at HOST:PORT, or one of its own, codec by codec.

    Each call is of METHOD, with the request that KEY=VALUE words or --data make as for `wireproto call`; a stream is
    one call, too. Without a METHOD it is the framework's Echo, which every server answers: SIZE bytes there and back.

    Of a server of its own, or one on this machine whose --pid is given, the CPU time per call is shown. The load is one
    thread that keeps every connection busy; when it is busy all the time itself, a line on stderr says so, and calls/s
    tells of it and not of the server. Over gRPC it is grpcio's client, which is sooner busy.

    \b
    wireproto bench                                    every codec, a server of its own
    wireproto bench -c 1 -P 64 --codec msgpack         one connection, 64 calls in flight
    wireproto bench localhost:7411 -n 100000 --json
    wireproto bench localhost:7411 Add left=2 right=3
    wireproto bench localhost:50051 --grpc Add left=2 right=3
    wireproto bench --handlers calculator:handlers Add left=2 right=3
    wireproto bench localhost:7411 --pid 12345
    """
    given = _Words.of(words)
    if calls is not None and seconds is not None:
        raise click.UsageError("-n and -z both say when to stop; give one of them")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to print; give one of them")
    if pid is not None and given.address is None:
        raise click.UsageError("--pid goes with HOST:PORT; a server of bench's own shows its CPU time without it")
    if handlers is not None and given.address is not None:
        raise click.UsageError("--handlers are those of a server of bench's own; leave out HOST:PORT, or them")
    if grpc and codec != "all":
        raise click.UsageError("--codec is of the TCP door; gRPC has protobuf alone")
    if given.method is not None and size is not None:
        raise click.UsageError("--size is of Echo without a METHOD; give the request's fields, as KEY=VALUE or --data")
    if given.method is None and (data is not None or service is not None):
        raise click.UsageError("--data and --service go with a METHOD")
    if pid is not None and _cpu_time(pid) is None:
        raise Failure(f"process {pid} cannot be measured; give the number of one that runs on this machine")
    wanted = [] if grpc else [codecs.get(name) for name in (codecs.names() if codec == "all" else [codec])]
    metadata = read_metadata(header)
    if grpc:
        look_for_room()
    results: list[_Result] = []
    with contextlib.ExitStack() as stack:
        address = given.address
        if address is None:
            address, pid = stack.enter_context(_own_server(handlers, grpc=grpc))
        found = _method(given, address, service, wanted)
        payload = bytes(SIZE_OF_ECHO if size is None else size)
        request = (
            EchoRequest(payload=payload)
            if given.method is None
            else read_request(found.method.request, data, given.fields)
        )
        asked = Asked(found.service, found.method, request, metadata)
        for name, make in _loads(address, wanted, asked, connections, pipeline):
            try:
                load = make()
            except HandshakeError as error:
                if codec != "all" or error.reason != "UNSUPPORTED_CODEC":
                    raise
                click.echo(f"{name}: left out, the server does not speak it", err=True)
                continue
            with contextlib.closing(load):
                results.append(_measure(load, name, calls, seconds or 3.0, pid))
    if not results:
        raise Failure("the server speaks none of the codecs that are installed here")
    _print(results, as_csv, as_json)


class _Words(NamedTuple):
    """The words of the command line: an address has a colon, and nothing else at the beginning has one."""

    address: Address | None
    method: str | None
    fields: tuple[str, ...]

    @classmethod
    def of(cls, words: tuple[str, ...]) -> Self:
        address, rest = None, words
        if words and ":" in words[0]:
            address, rest = Address.parse(words[0]), words[1:]
        if rest and "=" in rest[0]:
            raise click.UsageError(f"{rest[0]!r} is a field of a request; name the METHOD before it")
        return cls(address, rest[0] if rest else None, rest[1:])


def _method(given: _Words, address: Address, service: str | None, wanted: Sequence[Codec]) -> Wanted:
    """What is called: a method that is declared here or described there, or Echo."""
    if given.method is None:
        return Wanted(CONTROL, ECHO)
    if service is not None:
        return declared(service, given.method)
    return ask(address, lambda: _control(address, wanted), given.method, CONNECT_TIMEOUT)


def _control(address: Address, wanted: Sequence[Codec]) -> AbstractContextManager[BlockingClient]:
    """A client of the control service in one of the codecs; over gRPC when there is none."""
    if wanted:
        return connect(address, CONTROL, codec=wanted)
    from wireproto.client.grpc import connect as connect_grpc

    return connect_grpc(address, CONTROL)


def _loads(
    address: Address, wanted: Sequence[Codec], asked: Asked, connections: int, pipeline: int
) -> Iterator[tuple[str, "Callable[[], Load | GrpcLoad]"]]:
    """A name and a load for each line; over gRPC, of which no codec is wanted, there is one."""
    for each in wanted:
        yield each.name, partial(Load, address, each, asked, connections=connections, pipeline=pipeline)
    if not wanted:
        from wireproto.cli.load_grpc import GrpcLoad

        yield GRPC, partial(GrpcLoad, address, asked, connections=connections, pipeline=pipeline)


def _measure(load: "Load | GrpcLoad", codec: str, calls: int | None, seconds: float, pid: int | None) -> _Result:
    load.run(None, WARM_UP)
    before = None if pid is None else _cpu_time(pid)
    with _progress(codec) as progress:
        sample = load.run(calls, seconds, progress)
    after = None if pid is None else _cpu_time(pid)
    if sample.own_cpu > 0.9 * sample.elapsed:
        click.echo(
            f"{codec}: the load was busy {sample.own_cpu / sample.elapsed:.0%} of the time: calls/s is its limit, "
            "not the server's",
            err=True,
        )
    spent = None if before is None or after is None else after.since(before) / sample.calls * _MICRO
    return _result(codec, sample, spent)


def _result(codec: str, sample: Sample, server_cpu_us: float | None) -> _Result:
    return _Result(
        codec=codec,
        calls=sample.calls,
        seconds=sample.elapsed,
        calls_per_second=sample.calls / sample.elapsed,
        average_us=sum(sample.waits) / sample.calls * _MICRO,
        p50_us=sample.percentile(0.5) * _MICRO,
        p95_us=sample.percentile(0.95) * _MICRO,
        p99_us=sample.percentile(0.99) * _MICRO,
        max_us=sample.waits[-1] * _MICRO,
        server_cpu_us=server_cpu_us,
        load_cpu_us=sample.own_cpu / sample.calls * _MICRO,
        bytes_per_call=_bytes(sample),
    )


def _bytes(sample: Sample) -> float | None:
    if sample.bytes_sent is None or sample.bytes_received is None:
        return None
    return (sample.bytes_sent + sample.bytes_received) / sample.calls


@contextlib.contextmanager
def _own_server(handlers: str | None, *, grpc: bool) -> Iterator[tuple[Address, int]]:
    """A ``wireproto serve`` of its own in another process: the address of one of its doors, and its process id."""
    words = ["-m", "wireproto", "serve", handlers or f"{__name__}:HANDLERS", "--port", "0"]
    words += ["--grpc-port", "0"] if grpc else ["--no-grpc"]
    # Not what a shell has set for a real server; only what this process found on its path.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WIREPROTO_")}
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=kept,
    ) as server:
        assert server.stdout is not None
        try:
            ready = server.stdout.readline()
            if not ready.startswith("ready "):
                server.kill()
                raise Failure(f"the server did not start:\n{server.communicate()[1]}")
            doors = dict(word.split("=", 1) for word in ready.split()[1:])
            yield Address.parse(doors["grpc" if grpc else "tcp"]), server.pid
        finally:
            server.terminate()
            server.communicate()


class _CpuTime(NamedTuple):
    """CPU time of a process so far, in seconds: in ticks of 10 ms, and of each of its threads to the nanosecond, where
    the kernel keeps that."""

    ticks: float
    threads: dict[str, float]

    def since(self, before: "_CpuTime") -> float:
        # A thread that ended took its time with it; the ticks have that, too.
        if self.threads and self.threads.keys() == before.threads.keys():
            return sum(self.threads.values()) - sum(before.threads.values())
        return self.ticks - before.ticks


def _cpu_time(pid: int) -> _CpuTime | None:
    """None where /proc has nothing about such a process."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    try:
        threads = {
            task.name: int((task / "schedstat").read_bytes().split()[0]) / 1e9 for task in (folder / "task").iterdir()
        }
    except OSError:
        threads = {}
    return _CpuTime(ticks, threads)


@contextlib.contextmanager
def _progress(codec: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr while somebody looks at it."""
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    with click.progressbar(length=100, label=f"{codec:9}", file=sys.stderr, show_eta=False) as bar:
        done = 0

        def progress(share: float) -> None:
            nonlocal done
            step = min(100, round(share * 100)) - done
            done += step
            bar.update(step)

        yield progress


def _print(results: list[_Result], as_csv: bool, as_json: bool) -> None:
    if as_json:
        for result in results:
            click.echo(json.dumps(result._asdict()))
    elif as_csv:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(_Result._fields)
        writer.writerows(results)
        click.echo(table.getvalue(), nl=False)
    else:
        rows = [_HEAD, *map(_row, results)]
        widths = [max(len(row[index]) for row in rows) for index in range(len(_HEAD))]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            click.echo("  ".join(cells))


def _row(result: _Result) -> tuple[str, ...]:
    return (
        result.codec,
        f"{result.calls_per_second:,.0f}",
        f"{result.average_us:.1f}",
        f"{result.p50_us:.1f}",
        f"{result.p95_us:.1f}",
        f"{result.p99_us:.1f}",
        f"{result.max_us:.1f}",
        "-" if result.server_cpu_us is None else f"{result.server_cpu_us:.1f}",
        "-" if result.bytes_per_call is None else f"{result.bytes_per_call:.0f}",
    )
