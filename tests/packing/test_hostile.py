"""Peers that pack wrongly, or what is too much: each costs its call, and no more memory than it declared."""

import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.packing.service import ECHO, JOIN, MIRROR, PLAIN, POST, REPEAT, SERVICE, SINK, SLOW, TEXT, Hall, Text, Times
from tests.server.peer import Peer
from tests.zstandard import zstd
from wireproto import CallError, Limits, Server, Status, codecs, connect
from wireproto.answering.unpacking import PackedCalls
from wireproto.conformance.raw import RawListener
from wireproto.status import Retry
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    CreditReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    HelloReceived,
    ItemReceived,
    PackedItemReceived,
    PackedResponseReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import Credit, Flag
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.packing import Packed

MAX_FRAME = 1024 * 1024
CREDIT = Credit(16, 65_536)
SOME = Text(text="x" * 1000)


class PackingPeer(Peer):
    """A client driven by hand that has agreed on an algorithm."""

    algorithm = 1

    def hello(self) -> Hello:
        return msgspec.structs.replace(super().hello(), packing=(self.algorithm,))

    def event(self) -> Event:
        """The next event that is no CREDIT."""
        while isinstance(event := super().event(), CreditReceived):
            pass
        return event


class ZstdPeer(PackingPeer):
    algorithm = 2


def stream(data: bytes, algorithm: int) -> bytes:
    return zlib.compress(data) if algorithm == 1 else zstd.compress(data)


def packed(data: bytes, algorithm: int, length: int | None = None, tail: bytes = b"", cut: int = 0) -> Packed:
    body = stream(data, algorithm)
    body = body[: len(body) - cut] + tail
    return Packed(algorithm, struct.pack(">I", len(data) if length is None else length) + body)


def message(text: Text, codec: str = "msgpack") -> bytes:
    plan = codecs.get(codec).plan(Text, 1, Limits(), request=True)
    return plan.encode(text)


def wrongs(algorithm: int) -> dict[str, Packed]:
    """Packed payloads of a message that are wrong, by what is."""
    good = message(SOME)
    return {
        "one byte less is said": packed(good, algorithm, len(good) - 1),
        "one byte more is said": packed(good, algorithm, len(good) + 1),
        "much more is said": packed(good, algorithm, 100_000),
        "it is cut": packed(good, algorithm, cut=1),
        "a byte follows": packed(good, algorithm, tail=b"x"),
        "a stream follows": packed(good, algorithm, tail=stream(good, algorithm)),
        "it is noise": Packed(algorithm, struct.pack(">I", len(good)) + bytes(range(100))),
        "it is packed twice": packed(stream(good, algorithm), algorithm),
        "it is another message": packed(b"\xc1", algorithm),
    }


@pytest.fixture(params=[PackingPeer, ZstdPeer], ids=["zlib", "zstd"])
def kind(request: pytest.FixtureRequest) -> type[PackingPeer]:
    found: type[PackingPeer] = request.param
    return found


def unpacked(peer: Peer, event: Event) -> Text:
    """What an answer or an item says, packed or not."""
    assert isinstance(event, PackedResponseReceived | PackedItemReceived | ResponseReceived | ItemReceived), event
    payload = event.payload if isinstance(event.payload, bytes) else event.payload.unpack()
    found: Text = peer.decode(ECHO, payload)
    return found


def test_a_payload_that_is_packed_wrongly_fails_its_call(serve: Callable[..., Server], kind: type[PackingPeer]) -> None:
    """BAD_PAYLOAD, NEVER, of every shape, whether or not the method says ``compress``; the connection goes on."""
    with kind(serve(), SERVICE) as peer:
        connection = peer.connection
        for name, payload in wrongs(kind.algorithm).items():
            for method in (ECHO, PLAIN, REPEAT):
                connection.send_flagged_request(method.shape.flags, method.opcode, payload)
                error = peer.expect(ErrorReceived).error
                said = (error.status, error.reason, error.retry)
                assert said == (Status.INVALID_ARGUMENT, "BAD_PAYLOAD", Retry.NEVER), name
            for feeding in (SINK, MIRROR):
                block = pack_metadata(Metadata(credit=CREDIT)) if feeding is MIRROR else b""
                credit = CREDIT if feeding is MIRROR else None
                call_id = connection.send_flagged_request(
                    feeding.shape.flags, feeding.opcode, b"", block, credit=credit
                )
                connection.send_item(call_id, payload)
                assert peer.expect(ErrorReceived).error.reason == "BAD_PAYLOAD", (name, feeding)
        good = packed(message(SOME), kind.algorithm)
        for method in (ECHO, PLAIN):
            connection.send_request(method.opcode, good)
            assert unpacked(peer, peer.event()) == SOME


def test_wrong_payloads_are_counted(serve: Callable[..., Server], hall: Hall, kind: type[PackingPeer]) -> None:
    """Too many of them end the connection, those of one-way calls among them, which nobody is told of."""
    with kind(serve(limits=Limits(errors_per_minute=5)), SERVICE) as peer:
        payload = wrongs(kind.algorithm)["it is cut"]
        for _ in range(3):
            peer.connection.send_flagged_request(Flag.ONE_WAY, POST.opcode, payload)
        for _ in range(4):
            peer.connection.send_request(ECHO.opcode, payload)
        error = peer.ended().error
        assert error is not None
        assert error.reason == "TOO_MANY_ERRORS"
    assert hall.posted == []


def peak_of(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [ECHO, SINK], ids=["unary", "sink"])
def test_a_bomb_costs_four_frames_at_the_most(
    serve: Callable[..., Server], kind: type[PackingPeer], method: object
) -> None:
    """Whatever a packed payload becomes, right or wrong, both sides together take less than four times max frame."""
    algorithm, most = kind.algorithm, MAX_FRAME - 12
    zeros = b"\x91\xdb" + struct.pack(">I", most - 6) + bytes(most - 6)
    bombs = {
        "a whole frame": packed(zeros, algorithm),
        "64 MiB for one": packed(bytes(64 << 20), algorithm, most),
        "64 MiB for a byte": packed(bytes(64 << 20), algorithm, 1),
        "packed twice": packed(stream(bytes(16 << 20), algorithm), algorithm),
        "a bomb follows": packed(zeros, algorithm, tail=stream(bytes(16 << 20), algorithm)),
        "cut": packed(zeros, algorithm, cut=1),
    }
    ratio = len(bombs["a whole frame"]) / len(bombs["a whole frame"].body)
    assert ratio > (990 if algorithm == 1 else 17_000)
    with kind(serve(), SERVICE) as peer:
        unpacked(peer, _answer(peer, packed(message(SOME), algorithm)))  # whatever is loaded is loaded

        for name, bomb in bombs.items():

            def send(bomb: Packed = bomb, name: str = name) -> None:
                if method is ECHO:
                    _answer(peer, bomb)
                    return
                call_id = peer.connection.send_flagged_request(Flag.ITEMS_FOLLOW, SINK.opcode, b"")
                peer.connection.send_item(call_id, bomb)
                if name == "a whole frame":
                    peer.connection.send_end(call_id)
                peer.event()

            assert peak_of(send) <= 4 * MAX_FRAME, name


def _answer(peer: Peer, payload: Packed) -> Event:
    peer.connection.send_request(ECHO.opcode, payload)
    return peer.event()


def test_requests_of_one_connection_are_unpacked_one_at_a_time(
    serve: Callable[..., Server], kind: type[PackingPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come together, of every shape, one is unpacked at a time, and all of them are answered."""
    unpack = Packed.unpack
    now = most = 0
    count = threading.Lock()

    def watch(self: Packed) -> bytes:
        nonlocal now, most
        with count:
            now += 1
            most = max(most, now)
        try:
            return unpack(self)
        finally:
            with count:
                now -= 1

    monkeypatch.setattr(Packed, "unpack", watch)
    wrong = packed(bytes(64 << 20), kind.algorithm, MAX_FRAME - 12)
    right = packed(message(SOME), kind.algorithm)
    with kind(serve(), SERVICE) as peer:
        peer.call(PLAIN, SOME)

        def send() -> None:
            for _ in range(40):
                peer.connection.send_request(ECHO.opcode, wrong)
                peer.connection.send_request(PLAIN.opcode, right)
                peer.connection.send_flagged_request(Flag.ONE_WAY, POST.opcode, right)
            answers = [peer.event() for _ in range(80)]
            assert sum(isinstance(each, ErrorReceived) for each in answers) == 40

        waiting = 2 * 40 * len(wrong.body)  # as they came, here and there
        assert peak_of(send) <= 4 * MAX_FRAME + waiting
    assert most == 1


def test_items_of_one_connection_are_unpacked_one_at_a_time(
    serve: Callable[..., Server], kind: type[PackingPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many uploads and duplex calls they are of, and beside the requests, one payload is unpacked at a time."""
    unpack = Packed.unpack
    count, beside = threading.Lock(), threading.Event()
    now = most = 0

    def watch(self: Packed) -> bytes:
        nonlocal now, most
        with count:
            now += 1
            most = max(most, now)
            if now > 1:
                beside.set()
        try:
            beside.wait(0.1)  # for another one, which is not to come
            return unpack(self)
        finally:
            with count:
                now -= 1

    monkeypatch.setattr(Packed, "unpack", watch)
    right = packed(message(SOME), kind.algorithm)
    with kind(serve(), SERVICE) as peer:
        connection = peer.connection
        uploads = [connection.send_flagged_request(Flag.ITEMS_FOLLOW, SINK.opcode, b"") for _ in range(4)]
        uploads += [connection.send_flagged_request(Flag.ITEMS_FOLLOW, JOIN.opcode, b"") for _ in range(2)]
        for call_id in uploads:
            connection.send_item(call_id, right)
            connection.send_end(call_id)
        connection.send_request(ECHO.opcode, right)
        answers = [peer.event() for _ in range(7)]
        assert all(isinstance(each, ResponseReceived | PackedResponseReceived) for each in answers), answers
    assert most == 1


def test_a_slow_handler_holds_up_no_other_request(serve: Callable[..., Server], hall: Hall) -> None:
    """The next request is unpacked while the handler of the one before still runs."""
    with PackingPeer(serve(), SERVICE) as peer:
        right = packed(message(SOME), 1)
        hall.gate = threading.Event()
        slow = peer.connection.send_request(SLOW.opcode, right)
        other = peer.connection.send_request(ECHO.opcode, right)
        event = peer.event()
        assert isinstance(event, PackedResponseReceived | ResponseReceived)
        assert event.call_id == other
        cancelled = peer.connection.send_request(SLOW.opcode, right)
        peer.connection.send_cancel(cancelled)
        hall.gate.set()
        event = peer.event()
        assert isinstance(event, PackedResponseReceived | ResponseReceived)
        assert event.call_id == slow


class Idle:
    """A pool whose jobs wait."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def submit(self, job: object, *, always: bool = False) -> bool:
        assert always
        self.jobs.append(job)
        return True


class Waiting:
    """As much of a call as waits for its turn."""

    def __init__(self) -> None:
        self.payload: object = packed(b"x", 1)
        self.answered = False
        self.runs = 0

    def run(self, last: bool) -> None:
        self.runs += 1


def test_calls_that_are_over_do_not_pile_up() -> None:
    """Without a free worker, calls that end before their turn are forgotten; those that wait have it, once each."""
    pool: Any = Idle()
    limits = Limits(max_calls=2, one_way_calls=3)
    calls = PackedCalls(threading.Lock(), pool, limits)
    every = [Waiting() for _ in range(1000)]
    for call in every:
        calls.put_locked(call)  # type: ignore[arg-type]
        call.answered = True
    assert len(calls._waiting) <= 10
    every[-1].answered = False
    while pool.jobs:
        pool.jobs.pop().run_blocking()
    assert len(calls._waiting) == 0
    assert (every[0].runs, every[-1].runs) == (1, 1)
    assert sum(call.runs for call in every) <= 12
    calls.put_locked(Waiting())  # type: ignore[arg-type]
    assert len(pool.jobs) == 1


def test_many_bombs_leave_the_leader_free(serve: Callable[..., Server], kind: type[PackingPeer]) -> None:
    """While a connection sends bombs as fast as it may, another one's calls and PINGs are answered."""
    server = serve()
    most = MAX_FRAME - 12
    bomb = packed(b"\x91\xdb" + struct.pack(">I", most - 6) + bytes(most - 6), kind.algorithm)
    with kind(server, SERVICE) as hostile, Peer(server, SERVICE) as other:
        for _ in range(60):
            hostile.connection.send_request(PLAIN.opcode, bomb)
        hostile.flush()
        for _ in range(20):
            assert other.call(PLAIN, Text(text="x")) == Text(text="x")
            other.connection.send_ping(b"12345678")
            other.expect(PongReceived)
        for _ in range(60):
            event = hostile.event()
            assert isinstance(event, ResponseReceived | ErrorReceived)


# A server that packs wrongly.


def _serve_one(
    listener: RawListener, script: Callable[[Connection, Callable[[], Event], Callable[[], None]], None]
) -> None:
    raw = listener.accept(20)
    assert raw is not None
    sock = raw.socket
    sock.settimeout(20)
    connection = Connection(Role.SERVER)

    def flush() -> None:
        if data := connection.data_to_send():
            sock.sendall(data)

    def event() -> Event:
        while (found := connection.next_event()) is NEED_DATA:
            flush()
            if data := sock.recv(65_536):
                connection.receive_data(data)
            else:
                connection.receive_eof()
        return found

    hello = event()
    assert isinstance(hello, HelloReceived)
    connection.send_welcome(
        Welcome(
            version=1,
            codec=2,
            max_frame=MAX_FRAME,
            max_calls=8,
            packing=hello.hello.packing[:1],
            first_credit=Credit(16, 65_536),
        )
    )
    flush()
    try:
        script(connection, event, flush)
    finally:
        sock.close()


def test_an_answer_that_is_packed_wrongly_is_data_loss(kind: type[PackingPeer]) -> None:
    """The caller is told DATA_LOSS, BAD_PAYLOAD, maybe processed, however it calls; the next call is answered."""
    bad = wrongs(kind.algorithm)["it is cut"]
    good = packed(message(SOME), kind.algorithm)
    cancelled: list[int] = []

    def script(connection: Connection, event: Callable[[], Event], flush: Callable[[], None]) -> None:
        for payload in (bad, bad, bad, good):
            request = event()
            assert isinstance(request, RequestReceived | FlaggedRequestReceived)
            connection.send_packed_response(request.call_id, payload)
            flush()
        upload = event()
        assert isinstance(upload, FlaggedRequestReceived)
        connection.send_packed_response(upload.call_id, bad)
        flush()
        while not isinstance(found := event(), FlaggedRequestReceived):
            pass
        connection.send_item(found.call_id, good)
        connection.send_item(found.call_id, bad)
        flush()
        while isinstance(found := event(), CreditReceived):
            pass
        assert isinstance(found, CancelReceived)
        cancelled.append(found.call_id)

    with RawListener() as listener:
        thread = threading.Thread(target=_serve_one, args=(listener, script))
        thread.start()
        names = {1: "zlib", 2: "zstd"}
        address = "{}:{}".format(*listener.address)
        with connect(address, SERVICE, compression=(names[kind.algorithm],)) as client:
            for call in (
                lambda: client.call(ECHO, SOME),
                lambda: client.start(ECHO, SOME).result(20),
                lambda: list(client.call_many(ECHO, [SOME])),
            ):
                with pytest.raises(CallError, match="the answer cannot be read: the packed payload") as caught:
                    call()
                error = caught.value
                said = (error.status, error.reason, error.retry)
                assert said == (Status.DATA_LOSS, "BAD_PAYLOAD", Retry.MAYBE_PROCESSED)
            assert client.call(ECHO, SOME) == SOME
            with pytest.raises(CallError) as caught:
                client.upload(SINK, [])
            assert caught.value.status is Status.DATA_LOSS
            items = client.stream(REPEAT, Times(text=TEXT, times=2))
            assert next(items) == SOME
            with pytest.raises(CallError) as caught:
                next(items)
            assert caught.value.status is Status.DATA_LOSS
            assert list(items) == []
        thread.join(20)
        assert not thread.is_alive()
    assert cancelled
