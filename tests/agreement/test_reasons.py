"""Every reason of ``docs/wire.md`` and of the framework's own methods is reached in a way that is shown here.

A reason without a way fails, and so does a way that leads to another reason. Those that an application's methods
declare are for the tests of that application.
"""

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.pages import ALL as TEXT
from tests.pages import table
from tests.server.newsroom import ALERTS, NEWSROOM, ListenRequest, Newsroom, publish
from tests.server.peer import Peer, until
from tests.server.service import (
    ADMIN,
    BLOCK,
    DEFER,
    ECHO,
    FAIL,
    FEED,
    SERVICE,
    SIGN_IN,
    WHO,
    AdminRequest,
    BlockRequest,
    DeferRequest,
    EchoRequest,
    FailRequest,
    FeedRequest,
    SignInRequest,
    Stage,
    WhoRequest,
)
from tests.server.test_uploads import ITERATE, UPLOADS, Chunk, Desk
from tests.wire.peers import drain, in_call, in_state, opened, raw
from wireproto import Handlers
from wireproto.client import connect
from wireproto.conformance.raw import Ending, RawFrame, RawListener, RawPeer, frame, pack_hello, pack_welcome
from wireproto.control import CONTROL
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import ErrorReceived
from wireproto.wire.frame import PREAMBLE, TOP_BIT, Credit, Flag, Kind, pack_credit, unpack_error
from wireproto.wire.metadata import Metadata, pack_metadata


class Scene:
    """Servers over the stage, or over other handlers, with some limits changed; and peers of them."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.servers: list[Server] = []
        self._peers: list[Peer] = []

    def server(self, handlers: Handlers | None = None, **limits: Any) -> Server:
        server = Server(
            handlers or self.stage.handlers,
            codecs=["msgpack"],
            limits=Limits(**limits),
            workers=4,
            authenticate=self.stage.authenticate,
        )
        server.start()
        self.servers.append(server)
        return server

    def peer(self, handlers: Handlers | None = None, **limits: Any) -> Peer:
        peer = Peer(self.server(handlers, **limits), SERVICE)
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        self.stage.open_gates()
        for peer in self._peers:
            peer.socket.close()
        for server in self.servers:
            server.shutdown(5)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def called(opcode: int, payload: bytes = b"", block: bytes = b"", call_id: int = 1, flags: int = 0) -> bytes:
    return frame(3, payload, block, flags=flags, codec=2, version=1, opcode=opcode, call_id=call_id)


# What ends a connection, found by the server ----------------------------------------------------------------------

HELLO = PREAMBLE + frame(1, pack_hello(service=SERVICE.full_name))
STREAM = pack_metadata(Metadata(credit=Credit(2**32 - 1, 0)))
PING = frame(10, b"12345678")

FIRST: dict[str, tuple[bytes, dict[str, Any]]] = {
    "EARLY_FRAME": (HELLO + PING, {}),
    "FOREIGN_PROTOCOL": (b"SSH-2.0-OpenSSH_9.2\r\n", {}),
    "HELLO_TIMEOUT": (b"", {"hello_timeout": 0.01}),
    "UNSUPPORTED_MAJOR": (b"\xf5WP\x02", {}),
}
"""Said first, under these limits."""

THEN: dict[str, tuple[bytes, dict[str, Any]]] = {
    "BAD_BODY": (frame(10, b"123"), {}),
    "CALL_ID": (called(1, call_id=0), {}),
    "CREDIT_EXCEEDED": (frame(5, codec=2, version=1, opcode=5, call_id=1), {}),
    "CREDIT_OVERFLOW": (
        called(FEED.opcode, b"\x91\xa1f", STREAM, flags=8) + frame(9, pack_credit(1, 0), opcode=FEED.opcode, call_id=1),
        {},
    ),
    "FRAME_TIMEOUT": (PING[:10], {"frame_timeout": 0.01, "frame_rate": 10**6}),
    "FRAME_TOO_LARGE": (frame(3, length=2**32 - 1), {}),
    "FRAME_TOO_SHORT": (frame(3, length=11), {}),
    "METADATA_OVERRUN": (frame(3, metadata_length=1), {}),
    "RESERVED_FLAGS": (frame(10, b"12345678", flags=1), {}),
    "TOO_MANY_CANCELS": (
        called(DEFER.opcode, b"\x91\xa1d") + frame(8, opcode=DEFER.opcode, call_id=1)
        + called(DEFER.opcode, b"\x91\xa1e", call_id=2) + frame(8, opcode=DEFER.opcode, call_id=2),
        {"cancel_burst": 1, "cancels_per_second": 0.001},
    ),
    "STRAY_ANSWERS": (frame(4, codec=2, version=1, call_id=TOP_BIT | 1) * 17, {}),
    "TOO_MANY_FRAMES": (frame(8, opcode=ECHO.opcode, call_id=1) * 1001, {}),
    "TOO_MANY_ERRORS": (called(0x999) + called(0x999, call_id=2), {"errors_per_minute": 1}),
    "TOO_MANY_PINGS": (PING + PING, {"ping_burst": 1, "pings_per_second": 0.001}),
    "UNEXPECTED_KIND": (frame(2, pack_welcome()), {}),
    "UNEXPECTED_METADATA": (frame(10, b"12345678", b"m"), {}),
    "UNKNOWN_KIND": (frame(99), {}),
    "WRONG_CODEC": (frame(10, b"12345678", codec=1), {}),
    "WRONG_HALF": (frame(4, codec=2, version=1, call_id=1), {}),
    "WRONG_OPCODE": (frame(10, b"12345678", opcode=1), {}),
    "WRONG_VERSION": (frame(10, b"12345678", version=1), {}),
}  # fmt: skip
"""Said once WELCOME was read."""


def last_words(peer: RawPeer) -> CallError:
    """The final ERROR, the last of what comes."""
    frames = list(iter(peer.receive, Ending.EOF))
    assert isinstance(frames[-1], RawFrame)
    assert (frames[-1].kind, frames[-1].call_id) == (7, 0)
    return unpack_error(frames[-1].payload)


def found_by_the_server(scene: Scene, reason: str) -> CallError:
    wire, limits = {**FIRST, **THEN}.get(reason, (b"\0\0", {}))
    server = scene.server(**limits)
    with RawPeer.connect((server.address.host, server.address.port)) as peer:
        if reason not in FIRST:
            peer.send(HELLO)
            peer.take(4)
            assert isinstance(peer.receive(), RawFrame)
        peer.send(wire)
        if reason == "TRUNCATED_FRAME":
            peer.end_output()
        elif reason in FIRST:
            peer.take(4)
        return last_words(peer)


# ... and by the client --------------------------------------------------------------------------------------------


def a_client(*, calls: str = "") -> Connection:
    """Open; with call 1 in flight, unary or a stream without credit."""
    pair = in_call() if calls == "unary" else opened()
    if calls == "stream":
        pair.client.send_flagged_request(Flag.ITEMS_COME_BACK, 0x10, b"")
    return pair.client


ANSWERED: dict[str, tuple[Callable[[], Connection], bytes]] = {
    "BAD_BODY": (a_client, raw(10, b"123")),
    "CALL_ID": (a_client, raw(4, call_id=0)),
    "CREDIT_EXCEEDED": (partial(a_client, calls="stream"), raw(5)),
    "CREDIT_OVERFLOW": (a_client, raw(9, pack_credit(2**32 - 1, 0), call_id=0, opcode=0) * 2),
    "FOREIGN_PROTOCOL": (lambda: in_state(Role.CLIENT, State.GREETING), b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "FRAME_TOO_LARGE": (a_client, raw(4, length=2**32 - 1)),
    "FRAME_TOO_SHORT": (a_client, raw(4, length=11)),
    "METADATA_OVERRUN": (a_client, raw(4, metadata_length=1)),
    "RESERVED_FLAGS": (a_client, raw(10, b"12345678", flags=1)),
    "STRAY_ANSWERS": (a_client, raw(4) * 17),
    "TRUNCATED_FRAME": (a_client, raw(10)[:9]),
    "TOO_MANY_FRAMES": (a_client, raw(8, call_id=TOP_BIT | 1) * 1001),
    "UNEXPECTED_KIND": (a_client, raw(1)),
    "UNEXPECTED_METADATA": (a_client, raw(10, b"12345678", b"m")),
    "UNKNOWN_KIND": (a_client, raw(99)),
    "UNSUPPORTED_MAJOR": (lambda: in_state(Role.CLIENT, State.GREETING), b"\xf5WP\x02"),
    "WRONG_CODEC": (partial(a_client, calls="unary"), raw(4, codec=1)),
    "WRONG_HALF": (partial(a_client, calls="unary"), raw(6)),
    "WRONG_OPCODE": (partial(a_client, calls="unary"), raw(4, opcode=0x11)),
    "WRONG_VERSION": (partial(a_client, calls="unary"), raw(4, version=2)),
}

ENDING = {row[0]: (row[1], row[2]) for row in table("reason", "found by")}


def status_of_ending(reason: str) -> Status:
    """What the document's last word on it says, or else INVALID_ARGUMENT."""
    said = re.search(r"; ([A-Z_]+)$", ENDING[reason][1])
    return Status[said[1]] if said else Status.INVALID_ARGUMENT


@pytest.mark.parametrize("reason", [reason for reason, (by, _) in ENDING.items() if by != "client"])
def test_what_a_server_ends_a_connection_for(scene: Scene, reason: str) -> None:
    """A live server says so in its final ERROR, with the status of the document."""
    error = found_by_the_server(scene, reason)
    assert (error.reason, error.status, error.retry) == (reason, status_of_ending(reason), Retry.NEVER)


BY_TIME = {"TOO_MANY_PINGS"}
"""What a client finds by its clock, above the connection: ``tests/client/test_keeper.py`` has it."""


@pytest.mark.parametrize("reason", [name for name, (by, _) in ENDING.items() if by != "server" and name not in BY_TIME])
def test_what_a_client_ends_a_connection_for(reason: str) -> None:
    """A client's connection ends for it, with the status of the document."""
    make, wire = ANSWERED[reason]
    client = make()
    client.receive_data(wire)
    client.receive_eof()
    drain(client)
    assert isinstance(client.error, RemoteProtocolError)
    assert (client.error.reason, client.error.status) == (reason, status_of_ending(reason))


def test_a_clients_user_is_told() -> None:
    """Whoever called through a connection that the client ended learns why, as does the server."""
    told: list[CallError] = []

    def mumble(listener: RawListener) -> None:
        peer = listener.accept()
        assert peer is not None
        with peer:
            peer.take(4)
            peer.receive()
            peer.send(PREAMBLE + frame(2, pack_welcome()))
            peer.receive()
            peer.send(frame(10, b"123"))
            told.append(unpack_error_of(peer))

    with RawListener() as listener:
        server = threading.Thread(target=mumble, args=(listener,))
        server.start()
        with (
            connect(f"127.0.0.1:{listener.address[1]}", SERVICE, codec="msgpack") as client,
            pytest.raises(CallError, match="BAD_BODY"),
        ):
            client.call(ECHO, EchoRequest(text=""), timeout=20)
        server.join(20)
    assert [error.reason for error in told] == ["BAD_BODY"]


def unpack_error_of(peer: RawPeer) -> CallError:
    answer = peer.receive()
    assert isinstance(answer, RawFrame)
    return unpack_error(answer.payload)


# Handshakes -------------------------------------------------------------------------------------------------------

REFUSED_HELLOS: dict[str, dict[str, Any]] = {
    "UNKNOWN_SERVICE": {"service": "other.v1.OtherService"},
    "UNSUPPORTED_VERSION": {"versions": (9, 10)},
    "UNSUPPORTED_CODEC": {"codecs": [(200, "morse")]},
    "CONTRACT_MISMATCH": {"fields": bytes.fromhex("0001 0006 0001 deadbeef")},
}


@pytest.mark.parametrize(("reason", "status"), [row[:2] for row in table("reason", "status", "when")])
def test_why_a_handshake_is_refused(scene: Scene, reason: str, status: str) -> None:
    """A live server refuses such a HELLO with the reason and the status of the document."""
    server = scene.server()
    with RawPeer.connect((server.address.host, server.address.port)) as peer:
        hello = {"service": SERVICE.full_name, **REFUSED_HELLOS[reason]}
        peer.send(PREAMBLE + frame(1, pack_hello(**hello)))
        peer.take(4)
        error = last_words(peer)
    assert (error.reason, error.status.name) == (reason, status)


# Calls ------------------------------------------------------------------------------------------------------------


def fail(peer: Peer, method: Any, request: Any, metadata: Metadata | None = None) -> CallError:
    error = peer.fail(method, request, metadata)
    assert isinstance(error, CallError)
    return error


def answer_to(peer: Peer, wire: bytes) -> CallError:
    """What a REQUEST is answered that our client would not send; it takes the next id."""
    peer.connection.send_request(int.from_bytes(wire[8:10]), b"")
    peer.connection.data_to_send()
    peer.socket.sendall(wire[:12] + peer.connection.last_call_id.to_bytes(4) + wire[16:])
    return peer.expect(ErrorReceived).error


def signed_in_twice(scene: Scene) -> CallError:
    peer = scene.peer()
    peer.call(SIGN_IN, SignInRequest(name="ann"))
    return fail(peer, SIGN_IN, SignInRequest(name="bob"))


def cancelled(scene: Scene) -> CallError:
    peer = scene.peer()
    call_id = peer.start(DEFER, DeferRequest(name="c"))
    peer.flush()
    # Not by the connection, which would keep the answer to itself.
    peer.socket.sendall(frame(8, opcode=DEFER.opcode, call_id=call_id))
    return peer.expect(ErrorReceived).error


def no_handler(scene: Scene) -> CallError:
    return fail(scene.peer(Handlers(SERVICE)), ECHO, EchoRequest())


def too_large(scene: Scene) -> CallError:
    return fail(scene.peer(), ECHO, EchoRequest(size=2 * 1024 * 1024))


def busy(scene: Scene) -> CallError:
    peer = scene.peer(run_queue=1)
    for _ in range(9):
        peer.start(BLOCK, BlockRequest(name="b"))
    return peer.expect(ErrorReceived).error


def shutting_down(scene: Scene) -> CallError:
    peer = scene.peer()
    (server,) = scene.servers
    held = peer.start(BLOCK, BlockRequest(name="s"))
    peer.flush()
    assert scene.stage.inside("s").wait(20)
    for session in list(server.sessions.values()):
        session.drain()
    # It crosses GOAWAY, which is not read yet.
    late = peer.start(ECHO, EchoRequest())
    peer.event()
    error = peer.expect(ErrorReceived)
    assert held < error.call_id == late
    return error.error


def too_many(scene: Scene) -> CallError:
    peer = scene.peer(max_calls=1)
    peer.start(DEFER, DeferRequest(name="t"))
    error = fail(peer, ECHO, EchoRequest())
    scene.stage.future("t").cancel()
    return error


def not_permitted(scene: Scene) -> CallError:
    peer = scene.peer()
    peer.call(SIGN_IN, SignInRequest(name="ann", capabilities=["user"]))
    return fail(peer, ADMIN, AdminRequest())


def no_item(scene: Scene) -> CallError:
    """An upload of which nothing comes behind its first item."""
    desk = Desk()
    server = scene.server(desk.handlers, item_timeout=0.1)
    with Peer(server, UPLOADS) as peer:
        call_id = peer.start(ITERATE, Chunk())
        peer.send(ITERATE, call_id, Chunk(number=1))
        while not isinstance(event := peer.event(), ErrorReceived):
            pass
        return event.error


def slow(scene: Scene) -> CallError:
    """A listener without credit, of a topic that ends the slow."""
    room = Newsroom(keep=1)
    with Peer(scene.server(room.handlers), NEWSROOM) as peer:
        peer.start(ALERTS, ListenRequest())
        peer.flush()
        until(lambda: room.alerts.subscribers == 1, "it listens")
        publish(room.alerts, 1, 2)
        return peer.expect(ErrorReceived).error


def sent(scene: Scene, *, opcode: int = ECHO.opcode, payload: bytes = b"\x92\xa0\0", block: bytes = b"") -> CallError:
    return answer_to(scene.peer(), called(opcode, payload, block))


WAYS: dict[str, Callable[[Scene], CallError]] = {
    "ALREADY_SIGNED_IN": signed_in_twice,
    "BAD_METADATA": partial(sent, block=b"\1"),
    "BAD_PAYLOAD": partial(sent, payload=b"\xc1"),
    "CANCELLED": cancelled,
    "DEADLINE": lambda scene: fail(scene.peer(), DEFER, DeferRequest(name="d"), Metadata(deadline_ms=1)),
    "INTERNAL": lambda scene: fail(scene.peer(), FAIL, FailRequest(how="undeclared")),
    "ITEM_TIMEOUT": no_item,
    "METADATA_TOO_LARGE": partial(sent, block=b"\x07\x20\x00" + bytes(8192)),
    "NOT_PERMITTED": not_permitted,
    "NO_HANDLER": no_handler,
    "POSITION_LOST": lambda scene: fail(scene.peer(), FEED, FeedRequest(name="f"), Metadata(resume_after=b"1")),
    "REQUEST_TOO_LARGE": lambda scene: fail(scene.peer(), FAIL, FailRequest(how="x" * 1000)),
    "RESPONSE_TOO_LARGE": too_large,
    "SERVER_BUSY": busy,
    "SHUTTING_DOWN": shutting_down,
    "SIGN_IN_REQUIRED": lambda scene: fail(scene.peer(), WHO, WhoRequest()),
    "SLOW_CONSUMER": slow,
    "TOO_MANY_CALLS": too_many,
    "UNKNOWN_METADATA": partial(sent, block=b"\xff\0\0"),
    "UNKNOWN_OPCODE": partial(sent, opcode=0x999),
    "WRONG_SHAPE": partial(sent, opcode=FEED.opcode),
}


OF_CALLS = {row[0]: (row[1], row[2]) for row in table("reason", "status", "retry")}


@pytest.mark.parametrize("reason", OF_CALLS)
def test_why_a_call_fails(scene: Scene, reason: str) -> None:
    """A live server answers a call with the reason, the status and the advice of the document."""
    error = WAYS[reason](scene)
    status, retry = OF_CALLS[reason]
    assert (error.reason, error.status.name) == (reason, status)
    known_better = {"NOT_PROCESSED"} if retry == "MAYBE_PROCESSED" else set()
    assert error.retry.name in {retry} | known_better


# What methods declare ---------------------------------------------------------------------------------------------

DECLARED: dict[tuple[str, str], Callable[[Peer], CallError]] = {
    ("Check", "UNKNOWN_SERVICE"): lambda peer: of_control(peer, "Check"),
    ("Describe", "UNKNOWN_SERVICE"): lambda peer: of_control(peer, "Describe"),
}


def of_control(peer: Peer, name: str) -> CallError:
    (method,) = (each for each in CONTROL.methods if each.name == name)
    return fail(peer, method, method.request(service="other.v1.OtherService"))


def test_every_reason_the_control_service_declares(scene: Scene) -> None:
    """Each of its methods answers each reason that it declares, on a connection of another service."""
    assert set(DECLARED) == {(method.name, reason) for method in CONTROL.methods for reason in method.reasons}
    peer = scene.peer()
    for (_, reason), provoke in DECLARED.items():
        assert provoke(peer).reason == reason


def test_what_a_method_declares_arrives_and_nothing_else(scene: Scene) -> None:
    """A declared reason is the client's to read; one that is not declared is an incident, and its words stay here."""
    peer = scene.peer()
    assert fail(peer, FAIL, FailRequest(how="declared")).reason == "DECLARED"
    error = fail(peer, FAIL, FailRequest(how="undeclared"))
    assert error.reason == "INTERNAL"
    assert "SURPRISE" not in error.message


# All of them ------------------------------------------------------------------------------------------------------


def test_no_reason_is_forgotten() -> None:
    """Every reason in the tables has a way, and there is no way to a reason that is in none."""
    server = {reason for reason, (by, _) in ENDING.items() if by != "client"}
    client = {reason for reason, (by, _) in ENDING.items() if by != "server"}
    assert {*FIRST, *THEN, "TRUNCATED_FRAME"} == server
    assert set(ANSWERED) == client - BY_TIME
    assert set(REFUSED_HELLOS) == {row[0] for row in table("reason", "status", "when")}
    assert set(WAYS) == set(OF_CALLS)


def test_no_reason_is_mentioned_that_is_in_no_table() -> None:
    """Whatever the document writes like a reason is one, or the name of a kind, flag, status, retry or limit."""
    listed = {*ENDING, *OF_CALLS, *REFUSED_HELLOS}
    names = {*Kind.__members__, *Flag.__members__, *Status.__members__, *Retry.__members__}
    names |= {row[0] for row in table("limit", "value")} | {"CAPITALS"}
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    said = set(re.findall(r"(?<![\w<`])[A-Z]{2,}(?:_[A-Z]+)+(?![\w`>])", prose))
    assert said - names <= listed, said - names - listed
