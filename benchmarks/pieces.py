"""A large frame in pieces: whether its cost is linear, and how often its bytes are copied.

A server's connection is given one REQUEST, 16 MiB in pieces of 64 KiB and 1 MiB in single bytes, and a quarter and a
half of each: CPU time per byte, which must not grow with the size. The most memory at any moment, in frames, says how
many copies there are at once: one is what is gathered, one is the payload that is handed out.

    python benchmarks/pieces.py [--quick] [--json FILE]
"""

import argparse
import json
import statistics
import time
import tracemalloc
from pathlib import Path

from wireproto.connection import Connection, Role
from wireproto.events import NEED_DATA, HelloReceived, RequestReceived
from wireproto.handshake import Hello, Welcome
from wireproto.limits import MAX_FRAME_CEILING, Limits

LIMITS = Limits(max_frame=MAX_FRAME_CEILING)
KIB = 1024


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


def feed(server: Connection, pieces: list[bytes], size: int) -> None:
    event: object = NEED_DATA
    for piece in pieces:
        assert event is NEED_DATA
        server.receive_data(piece)
        event = server.next_event()
    assert isinstance(event, RequestReceived)
    assert len(event.payload) == size


def cut(size: int, piece: int) -> tuple[Connection, list[bytes], int]:
    client, server = opened()
    payload = size - 16
    client.send_request(1, bytes(payload))
    wire = client.data_to_send()
    return server, [wire[at : at + piece] for at in range(0, len(wire), piece)], payload


def nanoseconds_a_byte(size: int, piece: int, turns: int) -> float:
    found = []
    for _ in range(turns):
        server, pieces, payload = cut(size, piece)
        began = time.process_time()
        feed(server, pieces, payload)
        found.append((time.process_time() - began) / size * 1e9)
    return statistics.median(found)


def copies(size: int, piece: int) -> float:
    server, pieces, payload = cut(size, piece)
    tracemalloc.start()
    try:
        feed(server, pieces, payload)
        return tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    turns = 3 if options.quick else 7
    result = {}
    for name, size, piece in (("16 MiB in 64 KiB", 16 * KIB * KIB, 64 * KIB), ("1 MiB in bytes", KIB * KIB, 1)):
        each = {share: nanoseconds_a_byte(size // share, piece, turns) for share in (4, 2, 1)}
        result[name] = {
            "ns_a_byte_quarter": each[4],
            "ns_a_byte_half": each[2],
            "ns_a_byte": each[1],
            "growth": each[1] / each[4],
            "copies": copies(size, piece),
        }
        print(name, {key: round(value, 3) for key, value in result[name].items()})
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
