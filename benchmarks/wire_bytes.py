"""Bytes of one call on the wire, both ways, of each peer with its own client: counted by a relay between the two.

The first twenty calls, in which handshakes are made and HTTP/2 fills its header tables, are not counted.

    python benchmarks/wire_bytes.py [--json FILE] [NAME ...]
"""

import argparse
import importlib.util
import json
import os
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

NAMES = ("wireproto-pipe", "wireproto-msgpack", "wireproto-protobuf", "thriftpy2", "grpc-sync")
WARM_UP = 20
CALLS = 200


class Relay:
    """Passes bytes on between one client after the other and a server, and counts them."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._server = port
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65_536):
            with self._lock:
                self.count += len(data)
            target.sendall(data)


def bytes_per_call(name: str) -> float:
    server = peers.Running(name, [])
    try:
        relay = Relay(server.port)
        call = peers.ENTRIES[name].call(relay.port)
        # Numbers as large as those of a real service: 1 to 127 would flatter every varint.
        for number in range(WARM_UP):
            call(1_000_000 + number)
        before = relay.count
        for number in range(CALLS):
            call(2_000_000 + number)
        return (relay.count - before) / CALLS
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {}
    for name in options.names or NAMES:
        if all(importlib.util.find_spec(need) for need in peers.ENTRIES[name].needs):
            result[name] = bytes_per_call(name)
            print(f"{name:20} {result[name]:8.1f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    os._exit(0)  # some clients keep threads of their own


if __name__ == "__main__":
    main()
