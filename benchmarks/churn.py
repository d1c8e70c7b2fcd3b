"""What a connection costs that is opened, used once and closed: the server's CPU time, beside a bare socket's.

Floor, thriftpy2 (where it is installed) and ours take turns. One cycle is connect, handshake, one call, close; the bare
floor and thriftpy2 have no handshake.

    python benchmarks/churn.py [--quick] [--json FILE]
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import load
import peers

NAMES = ("floor", "wireproto-msgpack", "thriftpy2")


def cycles(name: str, count: int) -> dict[str, float]:
    raw = peers.ENTRIES[name].raw
    assert raw is not None
    server = peers.Running(name, [])
    try:
        before = 0.0
        for number in range(count + 50):
            if number == 50:
                before = load.cpu(server.pid)
            sock = load.dial(server.port)
            raw.greet(sock)
            sock.sendall(raw.request(1))
            sock.recv(4096)
            sock.close()
        # In ticks of 10 ms: what the scheduler counts per thread is gone with the threads of the thread-per-connection.
        return {"cpu_us": (load.cpu(server.pid) - before) / count * 1e6}
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [name for name in NAMES if all(importlib.util.find_spec(need) for need in peers.ENTRIES[name].needs)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(1 if options.quick else 5):
        for name in names:
            rounds[name].append(cycles(name, 500 if options.quick else 2000))
    result = {name: load.combine(found) for name, found in rounds.items()}
    for name, figures in result.items():
        print(name, {key: round(value["median"], 1) for key, value in figures.items()})
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
