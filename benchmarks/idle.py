"""What an idle connection costs a server: memory, threads, and a busy neighbour's latency.

The servers and the client run in processes of their own. Each connection has done its handshake and one call. The
neighbour's latency is measured in turns, on the server with the connections and on one without any.

    python benchmarks/idle.py [--connections 1000] [--rounds 5] [--json FILE]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import load
import peers

SETTLED = 3
"""Readings of the server's memory that must agree before it counts."""


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def settled_kib(pid: int) -> float:
    """Resident KiB once they no longer change."""
    readings: list[float] = []
    while len(readings) < SETTLED or len(set(readings[-SETTLED:])) > 1:
        time.sleep(0.3)
        readings.append(load.resident_mb(pid) * 1024)
    return readings[-1]


def latency_us(port: int, calls: int = 5000) -> tuple[float, float]:
    """p50 and p99 of one busy connection, one call at a time."""
    raw = peers.wireproto_raw("msgpack")
    sock = load.dial(port)
    raw.greet(sock)
    waits = []
    for n in range(1, calls + 1):
        message = raw.request(n)
        then = time.perf_counter()
        sock.sendall(message)
        sock.recv(4096)
        waits.append((time.perf_counter() - then) * 1e6)
    sock.close()
    waits = sorted(waits[calls // 10 :])
    return waits[len(waits) // 2], waits[int(len(waits) * 0.99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    need = options.connections + 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(need, hard), hard))
    if options.serve:
        peers.wireproto_server("msgpack", connections=need)()
        return
    command = [sys.executable, __file__, "--serve", "--connections", str(options.connections)]
    servers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") for _ in "ab"
    ]
    try:
        ports = [int(server.stdout.readline().split()[1]) for server in servers if server.stdout is not None]
        server, port = servers[0], ports[0]
        raw = peers.wireproto_raw("msgpack")
        # The first connections pay for what all share.
        socks = []
        before = threads_before = 0.0
        for n in range(options.connections + 50):
            if n == 50:
                before, threads_before = settled_kib(server.pid), threads(server.pid)
            sock = load.dial(port)
            raw.greet(sock)
            sock.sendall(raw.request(1))
            sock.recv(4096)
            socks.append(sock)
        after, threads_after = settled_kib(server.pid), threads(server.pid)
        beside, alone = [], []
        for _ in range(options.rounds):
            beside.append(latency_us(ports[0]))
            alone.append(latency_us(ports[1]))
    finally:
        for server in servers:
            server.kill()
            server.wait()
    ratios = sorted(b[1] / a[1] for b, a in zip(beside, alone, strict=True))
    result = {
        "connections": options.connections,
        "kib_per_connection": (after - before) / options.connections,
        "server_threads_before": threads_before,
        "server_threads_after": threads_after,
        "p50_us_alone": statistics.median(each[0] for each in alone),
        "p99_us_alone": statistics.median(each[1] for each in alone),
        "p50_us_beside_idle": statistics.median(each[0] for each in beside),
        "p99_us_beside_idle": statistics.median(each[1] for each in beside),
        "p99_ratio": statistics.median(ratios),
        "p99_ratio_low": ratios[0],
        "p99_ratio_high": ratios[-1],
    }
    for key, value in result.items():
        print(f"{key:24} {value:12.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
