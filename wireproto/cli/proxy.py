"""``wireproto proxy``: a network with faults between a client and a server, for whoever wants to see what they do."""

import dataclasses
import math
import queue
import sys
from typing import Any, TypeAlias

import click

from wireproto.cli.command import Command, Failure
from wireproto.cli.ending import asked_to_end
from wireproto.cli.text import check_host
from wireproto.cli.units import SECONDS, SIZE
from wireproto.cli.values import dumps
from wireproto.errors import ConfigError
from wireproto.testing.faults import Bandwidth, Cut, Fault, Flip, Latency, Reset, Slicer, Stall
from wireproto.testing.proxy import FaultProxy, ProxyEvent, ProxyStats

__all__ = ["command"]

Told: TypeAlias = ProxyEvent | int
"""What the main thread waits for: something that happened, or the number of a signal."""

LOOK = 1.0
"""Seconds between two looks at whether the proxy is still there."""

_COLORS = {"open": "green", "refused": "red", "fault": "yellow", "close": "bright_black"}


@click.command("proxy", cls=Command)
@click.argument("listen", metavar="LISTEN")
@click.argument("upstream", metavar="UPSTREAM")
@click.option("--latency", type=SECONDS, metavar="TIME", help="Bytes come so much later.")
@click.option("--jitter", type=SECONDS, metavar="TIME", default=0.0, help="... and at most so much more or less.")
@click.option("--bandwidth", type=SIZE, metavar="SIZE", help="So many bytes a second.")
@click.option("--slice", "size", type=SIZE, metavar="SIZE", help="Bytes come in pieces of so many.")
@click.option("--slice-delay", type=SECONDS, metavar="TIME", default=0.001, help="... so far apart.  [default: 1ms]")
@click.option("--cut-at", type=SIZE, metavar="SIZE", help="End the connection behind so many bytes.")
@click.option("--reset-at", type=SIZE, metavar="SIZE", help="Reset it behind so many bytes.")
@click.option("--flip-bit", type=click.IntRange(0), metavar="N", help="Turn bit N over, counted from 0.")
@click.option("--stall-at", type=SIZE, metavar="SIZE", help="Hold everything back behind so many bytes.")
@click.option("--stall-for", type=SECONDS, metavar="TIME", help="... for so long.  [default: without end]")
@click.option(
    "--direction",
    type=click.Choice(["up", "down", "both"]),
    default="both",
    show_default=True,
    help="Where the faults are: up is to the server.",
)
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Leave the first N connections alone.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Have faults in N connections only.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same jitter.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each event, a line each.")
def command(
    listen: str,
    upstream: str,
    direction: str,
    seed: int,
    as_json: bool,
    **faults: Any,
) -> None:
    """Listen on LISTEN and pass what comes to UPSTREAM, both HOST:PORT, with the faults that are asked for.

    \b
    wireproto proxy :7500 127.0.0.1:7411 --latency 20ms --jitter 5ms
    wireproto proxy :0 :7411 --cut-at 1234 --direction down --count 1

    One line on stdout says where it listens, and then one for each connection that is opened, touched by a fault, and
    closed; SIGINT or SIGTERM ends it with status 0 and the sums on stderr. Cuts, resets, flips and stalls are at the
    same byte each time, in each connection; bytes are counted for each direction by itself.
    """
    both = _faults(**faults)
    check_host(listen)
    check_host(upstream)
    told: queue.SimpleQueue[Told] = queue.SimpleQueue()
    proxy = FaultProxy(
        upstream,
        listen=listen,
        up=both if direction != "down" else (),
        down=both if direction != "up" else (),
        seed=seed,
        observe=told.put,
    )
    with asked_to_end(told.put), proxy:
        names = sorted({fault.name for fault in both})
        if as_json:
            _line({"kind": "ready", "listen": str(proxy.address), "upstream": upstream, "faults": names, "seed": seed})
        else:
            click.echo(f"ready listen={proxy.address} upstream={upstream} faults={','.join(names) or '-'} seed={seed}")
        try:
            _tell(proxy, told, as_json)
        finally:
            try:
                proxy.close()
            except OSError as error:
                raise Failure(f"the proxy stopped by itself: {error}") from error
    while not told.empty():
        _show(told.get(), as_json)
    _sums(proxy.stats, as_json)


def _faults(
    *,
    latency: float | None,
    jitter: float,
    bandwidth: int | None,
    size: int | None,
    slice_delay: float,
    cut_at: int | None,
    reset_at: int | None,
    flip_bit: int | None,
    stall_at: int | None,
    stall_for: float | None,
    skip: int,
    count: int | None,
) -> list[Fault]:
    """The faults in the order in which a network would have them: what ends the connection comes last.

    Raises:
        ConfigError: two options do not go together, or a number makes no sense.
    """
    if stall_for is not None and stall_at is None:
        raise ConfigError("--stall-for says how long; give --stall-at, too, 0 for the first byte")
    if jitter and latency is None:
        raise ConfigError("--jitter changes a latency; give --latency, too")
    which: dict[str, Any] = {"skip": skip, "count": count}
    made: list[Fault] = []
    try:
        if flip_bit is not None:
            made.append(Flip(flip_bit, **which))
        if bandwidth is not None:
            made.append(Bandwidth(bandwidth, **which))
        if latency is not None:
            made.append(Latency(latency, jitter, **which))
        if stall_at is not None:
            made.append(Stall(stall_at, math.inf if stall_for is None else stall_for, **which))
        if size is not None:
            made.append(Slicer(size, delay=slice_delay, **which))
        if cut_at is not None:
            made.append(Cut(cut_at, **which))
        if reset_at is not None:
            made.append(Reset(reset_at, **which))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return made


def _tell(proxy: FaultProxy, told: "queue.SimpleQueue[Told]", as_json: bool) -> None:
    """Print what happens, until a signal comes or the proxy ends."""
    while True:
        try:
            event = told.get(timeout=LOOK)
        except queue.Empty:
            if proxy.wait(0.0):
                return
            continue
        if isinstance(event, int):
            return
        _show(event, as_json)


def _show(event: Told, as_json: bool) -> None:
    if isinstance(event, int):
        return
    if as_json:
        _line(dataclasses.asdict(event))
        return
    passed = f"  (up {event.up} B, down {event.down} B)" if event.kind != "open" else ""
    where = f"{event.direction} " if event.direction else ""
    kind = click.style(f"{event.kind:<7}", fg=_COLORS[event.kind])
    click.echo(f"{event.seconds:10.3f}  #{event.connection:<4} {kind} {where}{event.detail}{passed}")


def _sums(stats: ProxyStats, as_json: bool) -> None:
    if as_json:
        _line({"kind": "end", **dataclasses.asdict(stats), "faults": dict(sorted(stats.faults.items()))})
        return
    faults = ", ".join(f"{name} {count}" for name, count in sorted(stats.faults.items())) or "none"
    passed = f"{stats.up} bytes up, {stats.down} bytes down"
    connections = f"{stats.connections} connection{'s' * (stats.connections != 1)}"
    click.echo(f"{connections}, {passed}, faults: {faults}", file=sys.stderr)


def _line(value: dict[str, Any]) -> None:
    click.echo(dumps(value))
