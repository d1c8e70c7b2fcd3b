"""What an early call saves: the time from `connect` to the first answer over a way with latency.

    python benchmarks/early.py [MILLISECONDS ...]

Each number is the latency of one direction; a round trip is twice that. A proxy of the test kit adds it to frames, but
not to the handshake of TCP, which is the kernel's with the proxy on this machine: over a real way both columns have one
round trip more.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from examples.calculator import ADD, CALCULATOR, AddRequest, handlers
from wireproto import Server, connect
from wireproto.testing.faults import Latency
from wireproto.testing.proxy import FaultProxy

TIMES = 20


def first_answer(address: object, *, early: bool) -> float:
    """Seconds until the first answer of a new client is there."""
    began = time.perf_counter()
    with connect(str(address), CALCULATOR, early=early) as client:
        client.call(ADD, AddRequest(left=2, right=3))
        return time.perf_counter() - began


def main(given: list[str]) -> None:
    """Measure each latency."""
    print(f"first answer, median of {TIMES}, ms\n\n| one way | round trip | as always | early |\n|---|---|---|---|")
    with Server(handlers, port=0) as server:
        for text in given or ["0", "10", "20", "50"]:
            way = Latency(float(text) / 1000)
            with FaultProxy(server.address, up=[way], down=[way]) as proxy:
                plain, early = (
                    1000 * statistics.median(first_answer(proxy.address, early=each) for _ in range(TIMES))
                    for each in (False, True)
                )
            print(f"| {text} | {2 * float(text):g} | {plain:.1f} | {early:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
