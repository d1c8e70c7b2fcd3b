"""A process that was stopped for longer than every limit, and goes on: it blames nobody for the time that it slept.

A stopped process stands for a suspended machine, a debugger, and code in C that keeps the interpreter: the kernel goes
on taking what peers send, and the clock goes on.
"""

import contextlib
import time

import pytest

from tests.server.peer import until
from tests.stopping import program, said, stopped
from wireproto import Limits, codecs
from wireproto.conformance.raw import Ending, RawPeer, frame, pack_hello
from wireproto.conformance.service import CONFORMANCE, MIRROR, MirrorRequest, make_handlers
from wireproto.server import Server
from wireproto.testing import FaultProxy
from wireproto.wire.frame import PREAMBLE, Kind

pytestmark = [pytest.mark.slow, pytest.mark.plain]

STOPPED = 3.5
"""Seconds, more than any of the limits below, and than three heartbeats."""

PING_SIZE = 24
"""Bytes of a PING, and of a PONG."""

LIMITS = (
    "Limits(hello_timeout=1.0, frame_timeout=1.0, frame_rate=1000, write_timeout=1.0, heartbeat=1.0, "
    "max_handshaking=500)"
)

SERVER = f"""
import sys
from wireproto import Limits, codecs
from wireproto.conformance.service import make_handlers
from wireproto.server import Server

with Server(make_handlers(), limits={LIMITS}) as server:
    print(server.address.port, flush=True)
    sys.stdin.readline()
"""

CLIENT = f"""
import sys
from wireproto import Limits, connect
from wireproto.conformance.service import CONFORMANCE, MIRROR, MirrorRequest

with connect(("127.0.0.1", int(sys.argv[1])), CONFORMANCE, limits={LIMITS}) as client:
    future = client.start(MIRROR, MirrorRequest(text="before"))
    future.result(10)
    print("connected", flush=True)
    sys.stdin.readline()
    print(client.call(MIRROR, MirrorRequest(text="after"), timeout=10).text, flush=True)
    sys.stdin.readline()
"""

PAYLOAD = codecs.get("msgpack").plan(MirrorRequest, 1, Limits()).encode(MirrorRequest(text="hi"))


def test_peers_that_were_well_are_not_closed() -> None:
    """100 peers that ping, greet, finish a frame or read on while the server is stopped are all served afterwards."""
    request = frame(Kind.REQUEST, PAYLOAD, codec=2, version=1, opcode=MIRROR.opcode, call_id=1)
    hello = PREAMBLE + frame(Kind.HELLO, pack_hello(service=CONFORMANCE.full_name))
    with program("-c", SERVER) as server, contextlib.ExitStack() as stack:
        port = int(said(server))
        peers = [stack.enter_context(RawPeer.connect(("127.0.0.1", port))) for _ in range(100)]
        late, begun, silent = peers[:20], peers[20:50], peers[50:]
        for peer in begun + silent:
            peer.send(hello)
            assert peer.take(4) == PREAMBLE
            peer.receive()
        for peer in begun:
            peer.send(request[:20])
        with stopped(server, STOPPED):
            end = time.monotonic() + STOPPED
            while time.monotonic() < end:  # what a peer that is well does meanwhile
                for peer in silent:
                    peer.send(frame(Kind.PING, b"12345678"))
                time.sleep(0.2)
            for peer in late:
                peer.send(hello)
            for peer in begun:
                peer.send(request[20:])
        for peer in late:
            assert peer.take(4) == PREAMBLE
            peer.receive()
        for peer in late + silent:
            peer.send(request)
        answered = 0
        for peer in peers:
            while True:
                answer = peer.receive()
                assert not isinstance(answer, Ending), answer
                if answer.kind == Kind.RESPONSE:
                    answered += 1
                    break
                assert answer.kind in (Kind.PING, Kind.PONG), answer
        assert answered == 100


def test_two_processes_that_were_stopped_together_keep_their_connection() -> None:
    """As a machine that was suspended stops them: on waking neither gives the other up for what it could not say."""
    with (
        program("-c", SERVER) as server,
        FaultProxy(("127.0.0.1", int(said(server)))) as proxy,
        program("-c", CLIENT, str(proxy.address.port)) as client,
    ):
        assert said(client) == "connected"
        wait_for_signs_of_life(proxy)
        with stopped(server, STOPPED), stopped(client, STOPPED):
            pass
        wait_for_signs_of_life(proxy)
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
        assert said(client) == "after"
        assert proxy.stats.connections == 1


def wait_for_signs_of_life(proxy: FaultProxy) -> None:
    """Wait until the two sides have heard a PING or PONG of each other that they had not heard before."""
    before = proxy.stats
    until(
        lambda: min(proxy.stats.up - before.up, proxy.stats.down - before.down) >= PING_SIZE,
        "either side has heard of the other",
    )


def test_a_client_that_was_stopped_keeps_its_connection() -> None:
    """A client that was stopped for longer than its own limits goes on with the connection that it has."""
    with Server(make_handlers()) as server, program("-c", CLIENT, str(server.address.port)) as client:
        assert said(client) == "connected"
        (session,) = server.sessions.values()
        session.connection.heartbeat_ms = 600_000  # so that it is not the server that gives the client up
        with stopped(client, STOPPED):
            (before,) = server.sessions.values()
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
        assert said(client) == "after"
        (after,) = server.sessions.values()
        assert after is before
