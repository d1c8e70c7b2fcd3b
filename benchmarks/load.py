"""What ``peers.py`` measures with: what a peer is, the raw load, the threads of a client's own, and /proc."""

import os
import select
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Call",
    "Entry",
    "Raw",
    "client_load",
    "combine",
    "dial",
    "raw_load",
    "ready",
    "resident_mb",
]

Call = Callable[[int], None]


@dataclass(frozen=True)
class Raw:
    """How the raw load speaks to a peer whose answers begin with their length, four bytes, big endian.

    Attributes:
        greet: does the handshake on a blocking socket.
        request: the bytes of the n-th request of a connection, from 1.
    """

    greet: Callable[[socket.socket], None]
    request: Callable[[int], bytes]


@dataclass(frozen=True)
class Entry:
    """One peer.

    Attributes:
        serve: prints ``READY port`` and serves until killed.
        call: ``call(port)`` gives a function that makes the n-th call on a connection of its own.
        pipeline: ``pipeline(port)`` gives a function that has n calls in flight at once; None where there is none.
        raw: for the raw load; None where the peer is not length-prefixed.
        needs: modules without which the entry is skipped.
    """

    serve: Callable[[], None]
    call: Callable[[int], Call]
    pipeline: Callable[[int], Call] | None = None
    raw: Raw | None = None
    needs: tuple[str, ...] = ()


def ready(port: int) -> None:
    print(f"READY {port}", flush=True)


def dial(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def precise_cpu(pid: int) -> float:
    """Seconds from the scheduler, in nanoseconds per thread, where the kernel keeps them; ticks of 10 ms elsewhere."""
    try:
        total = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text("utf-8").split()[0])
    except OSError:
        return cpu(pid)
    return total / 1e9


def kernel_share(pid: int) -> "Callable[[], float]":
    """A function that gives the kernel's share of the CPU time that the process took since then, in ticks of 10 ms."""

    def ticks() -> tuple[int, int]:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(") ", 1)[1].split()
        return int(fields[11]), int(fields[12])

    before = ticks()

    def share() -> float:
        user, system = (now - then for now, then in zip(ticks(), before, strict=True))
        return system / max(1, user + system)

    return share


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def raw_load(raw: Raw, port: int, pid: int, connections: int, seconds: float) -> dict[str, float]:
    """One epoll client, one call in flight on each connection."""
    poll = select.epoll()
    socks: dict[int, list[Any]] = {}  # fd -> [socket, calls, bytes of the answer still missing, when it was sent]
    for _ in range(connections):
        sock = dial(port)
        raw.greet(sock)
        poll.register(sock.fileno(), select.EPOLLIN)
        socks[sock.fileno()] = [sock, 1, -1, 0.0]
    clock = time.perf_counter
    for entry in socks.values():
        entry[3] = clock()
        entry[0].sendall(raw.request(1))
    request = raw.request
    unpack = struct.Struct(">I").unpack_from
    waits: list[float] = []
    calls = 0
    size = 0
    warm = clock() + 0.2
    measuring = False
    began = spent = 0.0
    in_kernel = kernel_share(pid)
    while True:
        now = clock()
        if not measuring and now > warm:
            measuring, calls, began, spent = True, 0, now, precise_cpu(pid)
            in_kernel = kernel_share(pid)
            waits.clear()
        elif measuring and now > began + seconds:
            break
        for fd, _ in poll.poll():
            entry = socks[fd]
            sock = entry[0]
            data = sock.recv(65536)
            missing = entry[2] - len(data) if entry[2] >= 0 else 4 + unpack(data)[0] - len(data)
            if missing > 0:
                entry[2] = missing
                continue
            entry[2] = -1
            then = entry[3]
            entry[1] += 1
            calls += 1
            message = request(entry[1])
            size = len(message) + len(data)
            sent = entry[3] = clock()
            waits.append(sent - then)
            sock.send(message)
    elapsed = clock() - began
    spent, kernel = precise_cpu(pid) - spent, in_kernel()
    for entry in socks.values():
        # Take the last answer first: closing on it would be a reset, which servers report.
        entry[0].settimeout(1.0)
        entry[0].recv(65536)
        entry[0].close()
    waits.sort()
    return {
        "calls_per_s": calls / elapsed,
        "server_cpu_us": spent / calls * 1e6,
        "server_kernel_us": kernel * spent / calls * 1e6,
        "p50_us": waits[len(waits) // 2] * 1e6,
        "p99_us": waits[int(len(waits) * 0.99)] * 1e6,
        "bytes_per_call": size,
    }


def threads_load(calls: list[Call], seconds: float) -> tuple[int, float, list[float]]:
    """As many threads as calls; how many were made, in what time, and each one's duration when there is one thread."""
    stop = time.perf_counter() + seconds
    counts = [0] * len(calls)
    waits: list[float] = []

    def work(number: int) -> None:
        call, clock, n = calls[number], time.perf_counter, 0
        while (then := clock()) < stop:
            n += 1
            call(n)
            if len(calls) == 1:
                waits.append(clock() - then)
        counts[number] = n

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.perf_counter() - began, waits


def client_load(entry: Entry, port: int, pid: int, seconds: float) -> dict[str, float]:
    """The peer's own client: 1 and 16 threads, then 64 in flight."""
    result: dict[str, float] = {}
    for count in (1, 16):
        calls = [entry.call(port) for _ in range(count)]
        for call in calls:
            for n in range(1, 301 if count == 1 else 2):
                call(n)
        spent, own = precise_cpu(pid), time.process_time()
        made, elapsed, waits = threads_load(calls, seconds)
        own = time.process_time() - own
        result[f"c{count}_calls_per_s"] = made / elapsed
        result[f"c{count}_server_cpu_us"] = (precise_cpu(pid) - spent) / made * 1e6
        result[f"c{count}_client_cpu_us"] = own / made * 1e6
        if waits:
            waits.sort()
            result["c1_p50_us"] = waits[len(waits) // 2] * 1e6
            result["c1_p99_us"] = waits[int(len(waits) * 0.99)] * 1e6
    if entry.pipeline is not None:
        batch = entry.pipeline(port)
        batch(64)
        made = 0
        spent, own, began = precise_cpu(pid), time.process_time(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            batch(64)
            made += 64
        result["p64_calls_per_s"] = made / (time.perf_counter() - began)
        result["p64_server_cpu_us"] = (precise_cpu(pid) - spent) / made * 1e6
        result["p64_client_cpu_us"] = (time.process_time() - own) / made * 1e6
    result["server_rss_mb"] = resident_mb(pid)
    return result


def combine(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and spread of each figure over the rounds."""
    return {
        key: {
            "median": statistics.median(one[key] for one in rounds),
            "low": min(one[key] for one in rounds),
            "high": max(one[key] for one in rounds),
        }
        for key in rounds[0]
    }
