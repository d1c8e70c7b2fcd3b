"""``python -m tests.conformance.paged [SERVICE]`` says where it listens, and serves until it is told to go."""

import signal
import socket
import sys
import threading

from tests.conformance.paged.conformance import SERVICE
from tests.conformance.paged.connection import Connection
from tests.conformance.paged.declared import SERVICES


def main() -> None:
    hosted = sys.argv[1] if len(sys.argv) > 1 else SERVICE
    assert hosted in SERVICES, hosted
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    print("{}:{}".format(*listener.getsockname()), flush=True)
    connections: list[threading.Thread] = []
    while not leaving.is_set():
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        thread = threading.Thread(target=Connection(sock, hosted, leaving).serve)
        thread.start()
        connections = [each for each in connections if each.is_alive()] + [thread]
    listener.close()
    for each in connections:
        each.join()


main()
