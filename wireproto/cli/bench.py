"""``wireproto bench``: what a server does a second, how long it takes, and what a codec costs, like redis-benchmark."""

import contextlib
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from wireproto import codecs
from wireproto.address import Address
from wireproto.cli.command import Command, Failure
from wireproto.cli.load import Load, Sample
from wireproto.cli.units import TIMEOUT
from wireproto.dispatch import Handlers
from wireproto.errors import HandshakeError
from wireproto.schema import Service

__all__ = ["HANDLERS", "command"]

HANDLERS = Handlers(Service("wirebench.v1.BenchService", version=1, methods=[]))
"""What the command's own server hosts: nothing, for the calls are of the framework's Echo."""

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
    bytes_per_call: float


@click.command("bench", cls=Command)
@click.argument("address", required=False, metavar="[HOST:PORT]")
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
@click.option(
    "--size", type=click.IntRange(0, 16 * 1024 * 1024), default=64, show_default=True, help="Bytes of each message."
)
@click.option(
    "--pid", type=click.IntRange(min=1), help="The process of the server at HOST:PORT: its CPU time per call."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per codec.")
def command(
    address: str | None,
    connections: int,
    calls: int | None,
    seconds: float | None,
    pipeline: int,
    codec: str,
    size: int,
    pid: int | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Measure the server at HOST:PORT, or one of its own, codec by codec.

    Each call is the framework's Echo, which every server answers: SIZE bytes there and back. Of a server of its own, or
    one on this machine whose --pid is given, the CPU time per call is shown. The load is one thread that keeps every
    connection busy; when it is busy all the time itself, a line on stderr says so, and calls/s tells of it and not of
    the server.

    \b
    wireproto bench                                    every codec, a server of its own
    wireproto bench -c 1 -P 64 --codec msgpack         one connection, 64 calls in flight
    wireproto bench localhost:7411 -n 100000 --json
    wireproto bench localhost:7411 --pid 12345
    """
    if calls is not None and seconds is not None:
        raise click.UsageError("-n and -z both say when to stop; give one of them")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to print; give one of them")
    if pid is not None and address is None:
        raise click.UsageError("--pid goes with HOST:PORT; a server of bench's own shows its CPU time without it")
    if pid is not None and _cpu_time(pid) is None:
        raise Failure(f"process {pid} cannot be measured; give the number of one that runs on this machine")
    wanted = [codecs.get(name) for name in (codecs.names() if codec == "all" else [codec])]
    results: list[_Result] = []
    with contextlib.ExitStack() as stack:
        if address is None:
            target, pid = stack.enter_context(_own_server())
        else:
            target = Address.parse(address)
        for each in wanted:
            try:
                load = Load(target, each, connections=connections, pipeline=pipeline, size=size)
            except HandshakeError as error:
                if codec != "all" or error.reason != "UNSUPPORTED_CODEC":
                    raise
                click.echo(f"{each.name}: left out, the server does not speak it", err=True)
                continue
            with contextlib.closing(load):
                results.append(_measure(load, each.name, calls, seconds or 3.0, pid))
    if not results:
        raise Failure("the server speaks none of the codecs that are installed here")
    _print(results, as_csv, as_json)


def _measure(load: Load, codec: str, calls: int | None, seconds: float, pid: int | None) -> _Result:
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
        bytes_per_call=(sample.bytes_sent + sample.bytes_received) / sample.calls,
    )


@contextlib.contextmanager
def _own_server() -> Iterator[tuple[Address, int]]:
    """A ``wireproto serve`` of its own in another process: its address and process id."""
    words = ["-m", "wireproto", "serve", f"{__name__}:HANDLERS", "--port", "0", "--no-grpc"]
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
            address = next(word[4:] for word in ready.split() if word.startswith("tcp="))
            yield Address.parse(address), server.pid
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
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_Result._fields)
        writer.writerows(results)
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
        f"{result.bytes_per_call:.0f}",
    )
