"""A large frame in pieces: whether its cost is linear, and how often its bytes are copied.

A server's connection is given one REQUEST, 16 MiB in pieces of 64 KiB and 1 MiB in single bytes, and a quarter of each.

Time per byte does not say by itself whether the cost is linear, for two reasons that have nothing to do with the code:

- A page of memory that is new to the process costs several times what it costs to fill it. Whether an allocation gets
  new pages or used ones depends on its size and on what was freed before. So the allocator is told to keep what is
  freed, and a first turn, which is not counted, gets the pages. (That is glibc's ``mallopt``; elsewhere they are paid.)
- What is small lies in the processor's cache, what is large does not. So a bare loop does the same beside it: it adds
  the same pieces to a bytearray and copies the payload out of that, which is linear and meets the same caches.

Both take turns, at both sizes. ``over_bare`` is our CPU time over the loop's in the same turn; ``growth`` is that of
the whole over that of the quarter in the same turn: about 1 if the cost is linear, 4 if it is quadratic. Each figure is
the median of the turns, with the lowest and the highest.

The most memory at any moment, in frames, says how many copies there are at once: one is what is gathered, one is the
payload that is handed out. It is told in whole hundredths: the objects around the bytes, 1 KiB of them, are no copies.

    python benchmarks/pieces.py [--quick] [--json FILE]
"""

import argparse
import contextlib
import ctypes
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wireproto.limits import MAX_FRAME_CEILING, Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import NEED_DATA, HelloReceived, RequestReceived
from wireproto.wire.frame import HEADER
from wireproto.wire.handshake import Hello, Welcome

LIMITS = Limits(max_frame=MAX_FRAME_CEILING)
KIB = 1024
SHARE = 4
"""The smaller frame is a quarter of the larger; in each turn it is read four times, so that both are as many bytes."""


class Case(NamedTuple):
    name: str
    size: int
    piece: int
    turns: int
    quick_turns: int


CASES = (
    Case("16 MiB in 64 KiB", 16 * KIB * KIB, 64 * KIB, 201, 51),
    Case("1 MiB in bytes", KIB * KIB, 1, 25, 7),
)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_pages() -> None:
    """Have what is freed stay with the process, whatever its size."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_MAX, 0)


def opened() -> tuple[Connection, Connection]:
    """A client's and a server's connection after their handshake."""
    client, server = Connection(Role.CLIENT, LIMITS), Connection(Role.SERVER, LIMITS)
    client.send_hello(
        Hello(min_version=1, max_version=1, codecs=((2, "msgpack"),), max_frame=LIMITS.max_frame, service="a.v1.B")
    )
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), HelloReceived)
    server.send_welcome(Welcome(version=1, codec=2, max_frame=LIMITS.max_frame, max_calls=9))
    client.receive_data(server.data_to_send())
    client.next_event()
    return client, server


def cut(size: int, piece: int) -> list[bytes]:
    """A frame of ``size`` bytes, the first that a client sends, in pieces."""
    client, _ = opened()
    client.send_request(1, bytes(size - HEADER.size))
    wire = client.data_to_send()
    return [wire[at : at + piece] for at in range(0, len(wire), piece)]


def feed(server: Connection, pieces: list[bytes]) -> bytes:
    event: object = NEED_DATA
    for piece in pieces:
        assert event is NEED_DATA
        server.receive_data(piece)
        event = server.next_event()
    assert isinstance(event, RequestReceived)
    assert server.next_event() is NEED_DATA
    return event.payload


def gather(pieces: list[bytes]) -> bytes:
    """The bare loop."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
    with memoryview(gathered) as view:
        return bytes(view[HEADER.size :])


def cpu(size: int, act: Callable[..., bytes], *arguments: object) -> float:
    """Nanoseconds of CPU a byte."""
    began = time.process_time()
    payload = act(*arguments)
    spent = time.process_time() - began
    assert len(payload) == size - HEADER.size
    return spent / size * 1e9


def turn(size: int, pieces: list[bytes], times: int) -> tuple[float, float]:
    """Nanoseconds a byte, ours and the bare loop's, one after the other so many times."""
    ours = bare = 0.0
    for _ in range(times):
        ours += cpu(size, feed, opened()[1], pieces) / times
        bare += cpu(size, gather, pieces) / times
    return ours, bare


def spread(name: str, each: list[float]) -> dict[str, float]:
    return {name: statistics.median(each), f"{name}_low": min(each), f"{name}_high": max(each)}


def linearity(case: Case, turns: int) -> dict[str, float]:
    shares = {share: cut(case.size // share, case.piece) for share in (1, SHARE)}
    found: dict[str, list[float]] = {}
    for number in range(turns + 1):
        over = {}
        for share, pieces in shares.items():
            ours, bare = turn(case.size // share, pieces, share)
            over[share] = ours / bare
            if number:  # the first turn only warms up
                end = "" if share == 1 else "_quarter"
                for name, value in ("ns_a_byte", ours), ("bare_ns_a_byte", bare), ("over_bare", over[share]):
                    found.setdefault(name + end, []).append(value)
        if number:
            found.setdefault("growth", []).append(over[1] / over[SHARE])
    return {name: value for key, each in found.items() for name, value in spread(key, each).items()}


def copies(case: Case) -> float:
    pieces = cut(case.size, case.piece)
    _, server = opened()
    tracemalloc.start()
    try:
        feed(server, pieces)
        return round(tracemalloc.get_traced_memory()[1] / case.size, 2)
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_pages()
    result = {}
    for case in CASES:
        result[case.name] = linearity(case, case.quick_turns if options.quick else case.turns)
        result[case.name]["copies"] = copies(case)
        print(case.name)
        for name, value in result[case.name].items():
            if not name.endswith(("_low", "_high")):
                ends = [result[case.name].get(f"{name}_{end}", value) for end in ("low", "high")]
                print(f"  {name:24} {value:8.4f} ({ends[0]:.4f} to {ends[1]:.4f})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
