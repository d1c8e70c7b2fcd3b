"""Calls of the server together with grease, early requests, identities that are revoked, and forks."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.agents.conftest import LIMITS, Branch, Work
from tests.agents.service import (
    AGENTS,
    CONVERT,
    ENROL,
    NOTIFY,
    REPORT,
    RUN,
    SHELL,
    TAIL,
    EnrolRequest,
    EnrolResponse,
    Line,
    Order,
    Result,
)
from wireproto import Context, Handlers, Identity, LocalProtocolError, Metadata, Server, Workers, connect
from wireproto.connected import ConnectedClient
from wireproto.testing import greasing


def lines(*texts: str) -> Iterator[Line]:
    return (Line(text=text) for text in texts)


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
@pytest.mark.parametrize("sides", ["server", "client", "both"])
def test_grease_changes_no_answer(branch: Branch, codec: str, sides: str) -> None:
    """Peers that say what nobody knows answer and are answered in all shapes, whichever side greases."""
    office = branch.office(**({} if sides == "client" else {"connections": greasing(sides + codec)}))
    settings: dict[str, Any] = {} if sides == "server" else {"connections": greasing(codec + sides)}
    agent, client, work = branch.agent(office, codec=codec, **settings)
    for number in range(10):
        assert agent.call(RUN, Order(text="a", count=number), timeout=10) == Result(text="A", count=number)
        assert client.call(ENROL, EnrolRequest(name="again")).agents == 2
    assert [line.text for line in agent.stream(TAIL, Order(text="t", count=100), timeout=10)] == [
        f"t{number}" for number in range(100)
    ]
    uploaded = agent.upload(REPORT, lines("a", "b"), timeout=10)
    assert uploaded.result(10) == Result(text="a,b", count=2)
    for method, expected in ((SHELL, ["ba", "dc"]), (CONVERT, ["AB", "CD"])):
        assert [line.text for line in agent.duplex(method, lines("ab", "cd"), timeout=10)] == expected
    agent.post(NOTIFY, Order(text="told"))
    assert work.noted.acquire(timeout=10)
    assert work.orders == ["told"]


def test_the_handler_of_an_early_request_calls_its_client(branch: Branch) -> None:
    """A call that came together with HELLO has a client that can be called, and waits for its answer."""
    office = branch.office()

    def ask(client: ConnectedClient) -> Future[EnrolResponse]:
        answer: Future[EnrolResponse] = Future()
        asked = client.start(RUN, Order(text="x", count=7), timeout=10)
        asked.add_done_callback(lambda done: answer.set_result(EnrolResponse(agents=done.result().count)))
        return answer

    office.act = ask
    client, _ = branch.client(office, early=True)
    assert client.call(ENROL, EnrolRequest(name="early"), timeout=10).agents == 7


def test_a_revoked_identity_ends_no_call_of_the_server() -> None:
    """Revoking ends the calls that were begun with the identity; the server's own calls to that client go on."""
    known = Identity("worker")
    handlers = Handlers(AGENTS)
    found: list[ConnectedClient] = []

    @handlers.register(ENROL)
    def enrol(request: EnrolRequest, context: Context) -> EnrolResponse | Future[EnrolResponse]:
        found.append(context.client)
        return EnrolResponse(agents=len(found)) if request.name == "a" else Future()

    def authenticate(metadata: Metadata, peer: str) -> Identity | None:
        return None if known.revoked else known

    work = Work()
    with Server(handlers, authenticate=authenticate, limits=LIMITS) as server:
        agent = connect(server.address, AGENTS, handlers=work.handlers, limits=LIMITS, timeout=10.0)
        try:
            agent.authorization = "me"
            agent.call(ENROL, EnrolRequest(name="a"))
            held = agent.start(ENROL, EnrolRequest(name="held"))
            asked = found[0].start(RUN, Order(text="wait", count=3), timeout=10)
            assert work.waiting.acquire(timeout=10)
            while len(found) < 2:
                agent.ping(10)
            known.revoke()
            error = held.exception(10)
            assert getattr(error, "reason", "") == "SIGN_IN_REQUIRED"
            assert not asked.done()
            work.gate.set()
            assert asked.result(10).count == 3
            assert found[0].call(RUN, Order(text="b"), timeout=10).text == "B"
        finally:
            agent.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_workers_that_were_made_before_a_fork_are_refused() -> None:
    """A child has none of their threads, so that its clients would never answer: they are told, and may have others."""
    with Workers(2) as workers:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            told = b"accepted"
            try:
                connect("127.0.0.1:1", AGENTS, handlers=Work().handlers, workers=workers, limits=LIMITS, timeout=5.0)
            except LocalProtocolError as error:
                told = str(error).encode()
            except BaseException as error:  # noqa: BLE001 - whatever it is the parent says
                told = repr(error).encode()
            finally:
                os.write(writer, told)
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            found = answer.read()
        os.waitpid(child, 0)
    assert "made before a fork" in found
