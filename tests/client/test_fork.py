"""A client in a child of its process: it is refused there, and the parent notices nothing."""

import concurrent.futures
import copy
import multiprocessing
import multiprocessing.forkserver
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests import children
from tests.children import in_child
from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, echo
from wireproto import Client, LocalProtocolError, connect
from wireproto.client import ClientState

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

FORKS = 1000


def refused(act: Callable[[], object]) -> None:
    """``act`` is refused in words."""
    with pytest.raises(LocalProtocolError, match="before a fork"):
        act()


def holding(peer: Peer) -> None:
    """Serve, but hold the first request and a stream open until the second request of that text."""
    peer.greet()
    stream, held = peer.stream_request(), peer.request()
    while True:
        request = peer.request()
        if peer.message(request).text == "go":
            break
        peer.answer(request)
    peer.answer(held)
    peer.connection.send_item(stream.call_id, peer.payload(COUNT, CountResponse(n=1)))
    peer.connection.send_end(stream.call_id)
    peer.answer(request)
    peer.serve()


@contextmanager
def busy() -> Iterator[tuple[Client, Any, Any]]:
    """A client with a future and a stream open, which must end well."""
    with serving(holding) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=1))
        future = client.start(ECHO, echo("held"))
        yield client, future, stream
        assert client.call(ECHO, echo("go"), timeout=PATIENCE).text == "go"
        assert future.result(PATIENCE).text == "held"
        assert [item.n for item in stream] == [1]
        assert server.connections == 1


WAYS: dict[str, Callable[[Client, Any, Any], object]] = {
    "nothing": lambda client, future, stream: None,
    "close": lambda client, future, stream: client.close(),
    "drain": lambda client, future, stream: client.close(drain=1.0),
    "close the stream": lambda client, future, stream: stream.close(),
    "leave its block": lambda client, future, stream: client.__exit__(None, None, None),
    "finalize": lambda client, future, stream: [each.__del__() for each in (client, stream)],
    "call": lambda client, future, stream: refused(lambda: client.call(ECHO, echo("x"))),
    "start": lambda client, future, stream: refused(lambda: client.start(ECHO, echo("x"))),
    "call_many": lambda client, future, stream: refused(lambda: list(client.call_many(ECHO, [echo("x")]))),
    "stream": lambda client, future, stream: refused(lambda: client.stream(COUNT, CountRequest(upto=1))),
    "ping": lambda client, future, stream: refused(lambda: client.ping(1.0)),
    "open": lambda client, future, stream: refused(client.open),
    "wait for its future": lambda client, future, stream: refused(lambda: future.result(1.0)),
    "cancel its future": lambda client, future, stream: future.cancel(),
    "next item": lambda client, future, stream: refused(lambda: stream.next(1.0)),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_child_does_the_parent_notices_nothing(way: str) -> None:
    """Calls, futures and streams of the parent go on; in the child, use is refused and letting go does nothing."""
    with busy() as (client, future, stream):
        assert in_child(lambda: WAYS[way](client, future, stream)) == 0


PROGRAM = """
import os, sys
from tests.client.service import ECHO, SERVICE, echo
from wireproto import connect
client = connect(sys.argv[1], SERVICE)
for _ in range(3):
    future = client.start(ECHO, echo("x"))
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    assert future.result(10).text == "x"
client.close()
"""


def test_a_child_that_ends_as_an_interpreter_does_loses_nothing() -> None:
    """``sys.exit`` of a child finalizes what it inherited, without a warning; the parent's calls are answered."""
    with serving(echoing) as server:
        ran = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", *children.FORKS, "-c", PROGRAM, str(server.address)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert server.connections == 1


MANY_FORKS = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, echo
from wireproto import connect
client = connect(sys.argv[1], SERVICE)
stream = client.stream(COUNT, CountRequest(upto=1))
held = client.start(ECHO, echo("held"))
over = threading.Event()
answered = [0, 0]

def calls():
    while not over.is_set():
        assert client.call(ECHO, echo("call"), timeout=20).text == "call"
        answered[0] += 1

def starts():
    while not over.is_set():
        futures = [client.start(ECHO, echo(str(n))) for n in range(8)]
        assert [future.result(20).text for future in futures] == [str(n) for n in range(8)]
        answered[1] += 8

with ThreadPoolExecutor(3) as pool:
    running = [pool.submit(each) for each in (calls, calls, starts)]
    try:
        for turn in range(int(sys.argv[2])):
            child = os.fork()
            if not child:
                if turn % 2:
                    client.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
    for each in running:
        each.result(20)
assert min(answered) > 0
assert client.call(ECHO, echo("go"), timeout=20).text == "go"
assert held.result(20).text == "held"
assert [item.n for item in stream] == [1]
client.close()
"""


def test_a_thousand_forks_cost_the_parent_nothing() -> None:
    """While threads call, futures are under way and a stream is open, children come and go, and drop what they got.

    In a small process: to fork the one that runs all tests takes a hundred times as long.
    """
    with serving(holding) as server:
        ran = subprocess.run(
            [sys.executable, *children.FORKS, "-c", MANY_FORKS, str(server.address), str(FORKS)],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert server.connections == 1


def _call_in_worker(address: str) -> str:
    """What a worker process does: make a client of its own."""
    with connect(address, SERVICE) as client:
        future = client.start(ECHO, echo("from a future"))
        return client.call(ECHO, echo("from a worker")).text + ", " + future.result(PATIENCE).text


_inherited: Client | None = None


def _use_inherited(_: int) -> str:
    """What a forked worker does that uses its parent's client."""
    assert _inherited is not None
    try:
        return _inherited.call(ECHO, echo("x")).text
    except LocalProtocolError as error:
        return str(error)


@pytest.fixture(scope="module")
def _fork_server() -> None:
    """The process that ``forkserver`` forks from stays for the whole run, and so do its descriptors."""
    multiprocessing.forkserver.ensure_running()


@pytest.mark.usefixtures("_fork_server")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("kind", ["Pool", "ProcessPoolExecutor"])
def test_workers_of_every_kind_have_clients_of_their_own(method: str, kind: str) -> None:
    """A worker connects and calls, while the parent has calls, futures and a stream open."""
    context: Any = multiprocessing.get_context(method)
    with serving(echoing) as server, busy() as (client, _, _):
        global _inherited
        _inherited = client
        try:
            if kind == "Pool":
                with context.Pool(1) as pool:
                    assert pool.apply(_call_in_worker, (str(server.address),)) == "from a worker, from a future"
                    if method == "fork":
                        assert "before a fork" in pool.apply(_use_inherited, (0,))
            else:
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                    said = executor.submit(_call_in_worker, str(server.address)).result(60)
                    assert said == "from a worker, from a future"
                    if method == "fork":
                        assert "before a fork" in executor.submit(_use_inherited, 0).result(60)
        finally:
            _inherited = None


def test_a_child_may_read_a_future_that_was_done() -> None:
    """What was answered before the fork is there in the child as well."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        future = client.start(ECHO, echo("x"))
        assert future.result(PATIENCE).text == "x"

        def look() -> None:
            assert future.result(0).text == "x"
            assert client.state in ClientState

        assert in_child(look) == 0


def test_a_fork_by_another_thread_and_in_a_callback() -> None:
    """Whichever thread forks, its child can use a client of its own, signal handlers included."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        statuses: list[int] = []

        def own() -> None:
            with connect(server.address, SERVICE) as mine:
                assert mine.call(ECHO, echo("mine")).text == "mine"
                assert mine.start(ECHO, echo("mine")).result(PATIENCE).text == "mine"

        thread = threading.Thread(target=lambda: statuses.append(in_child(own)))
        thread.start()
        thread.join(PATIENCE)
        done = threading.Event()

        def callback(_: object) -> None:
            statuses.append(in_child(own))
            done.set()

        client.start(ECHO, echo("x")).add_done_callback(callback)
        assert done.wait(PATIENCE)
        assert statuses == [0, 0]
        assert client.call(ECHO, echo("y")).text == "y"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda each: each.__name__)
def test_a_client_cannot_be_copied(copied: Callable[[object], object]) -> None:
    """A copy would hang up for both; it is refused in words, and the original goes on."""
    with busy() as (client, _, stream):
        for each in (client, stream, client.call_many(ECHO, [])):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copied(each)
