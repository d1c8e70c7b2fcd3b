"""Both sides of ours over TCP: every shape, codec and algorithm, and who packs what."""

import json
import threading
from collections.abc import Callable

import pytest

from tests.packing.service import (
    COLLECT,
    ECHO,
    GROW,
    JOIN,
    LATER,
    MIRROR,
    PLAIN,
    POST,
    REPEAT,
    SERVICE,
    SINK,
    SMALL,
    TEXT,
    WATCH,
    Hall,
    Text,
    Times,
)
from wireproto import CallError, Client, Limits, Server, Status, connect
from wireproto.errors import ConfigError
from wireproto.wire import packing
from wireproto.wire.frame import Kind
from wireproto.wire.packing import Packed, pack_payload

Seen = list[tuple[str, int, bool]]
MESSAGES = {Kind.REQUEST, Kind.RESPONSE, Kind.ITEM}

each_codec = pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
each_algorithm = pytest.mark.parametrize("algorithm", ["zlib", "zstd"])


def dial(server: Server, *compression: str, codec: str = "msgpack", limits: Limits | None = None) -> Client:
    return connect(str(server.address), SERVICE, codec=codec, compression=compression, limits=limits)


def packed(seen: Seen) -> list[tuple[str, int]]:
    """Who has read which kind packed."""
    return [(role, kind) for role, kind, flag in seen if flag]


@each_algorithm
@each_codec
def test_every_shape_is_packed_both_ways(
    serve: Callable[..., Server], hall: Hall, seen: Seen, codec: str, algorithm: str
) -> None:
    """Requests, answers and items of methods with ``compress`` travel packed and arrive whole, whatever the shape."""
    with dial(serve(), algorithm, codec=codec) as client:
        text = Text(text=TEXT)
        assert client.call(ECHO, text) == text
        assert client.start(ECHO, text).result(20) == text
        assert list(client.call_many(ECHO, [text] * 3)) == [text] * 3
        assert client.call(LATER, text) == text
        assert list(client.stream(REPEAT, Times(text=TEXT, times=5))) == [text] * 5
        assert client.upload(JOIN, [text] * 3).text == TEXT * 3
        assert client.upload(SINK, [text] * 3).text == f"3 {3 * len(TEXT)}"
        assert client.upload(COLLECT, [text] * 3).text == TEXT * 3
        assert list(client.duplex(MIRROR, [text] * 3)) == [text] * 3
        client.post(POST, text)
        assert hall.arrived.acquire(timeout=20)
        assert hall.posted == [TEXT]
    counted = packed(seen)
    assert counted.count(("server", Kind.REQUEST)) == 1 + 1 + 3 + 1 + 1 + 1
    assert counted.count(("client", Kind.RESPONSE)) == 1 + 1 + 3 + 1 + 2  # of SINK the answer is short
    assert counted.count(("server", Kind.ITEM)) == 3 + 3 + 3 + 3
    assert counted.count(("client", Kind.ITEM)) == 5 + 3


@each_codec
def test_nothing_is_packed_that_does_not_ask_for_it(serve: Callable[..., Server], seen: Seen, codec: str) -> None:
    """A method without ``compress``, what is short, and a connection without an algorithm send as ever."""
    server = serve()
    text = Text(text=TEXT)
    with dial(server, "zlib", codec=codec) as client:
        assert client.call(PLAIN, text) == text
        assert client.call(ECHO, Text(text="short")).text == "short"
        assert client.upload(SINK, [Text(text="short")]).text == "1 5"
    with dial(server, codec=codec) as client:
        assert client.call(ECHO, text) == text
    with dial(serve(compression=()), "zlib", codec=codec) as client:
        assert client.call(ECHO, text) == text
    assert packed(seen) == []


def test_the_clients_favourite_is_spoken(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The algorithm is the first of the client's list that the server allows; the default of both is zlib."""
    numbers: list[int] = []

    def pack(payload: bytes, algorithm: int) -> bytes | Packed:
        numbers.append(algorithm)
        return pack_payload(payload, algorithm)

    monkeypatch.setattr("wireproto.dispatch.pack_payload", pack)
    for allowed, offered, spoken in (
        (("zlib", "zstd"), ("zstd", "zlib"), [2]),
        (("zlib",), ("zstd", "zlib"), [1]),
        (("zstd",), ("zlib",), []),
    ):
        with dial(serve(compression=allowed), *offered) as client:
            client.call(ECHO, Text(text=TEXT))
        assert numbers == spoken
        numbers.clear()
    with connect(str(serve(compression=("zlib",)).address), SERVICE) as client:
        client.call(ECHO, Text(text=TEXT))
    assert numbers == [1]


def test_a_wrong_name_is_refused_at_once(hall: Hall) -> None:
    """An algorithm that nobody knows is a ConfigError of the server and of the client, before anything is sent."""
    with pytest.raises(ConfigError, match="'gzip' is not known"):
        Server(hall.handlers, compression=("gzip",))
    with pytest.raises(ConfigError, match="'gzip' is not known"):
        Client("127.0.0.1:1", SERVICE, compression=("gzip",))


@each_algorithm
def test_the_limit_of_a_method_counts_what_is_unpacked(
    serve: Callable[..., Server], hall: Hall, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """``max_request`` is of the payload unpacked, at the client and, for a client that does not care, at the server."""
    with dial(serve(), algorithm) as client:
        whole = Text(text="x" * (2000 - 4))
        assert client.call(SMALL, whole) == whole
        longer = Text(text="x" * (2000 - 3))
        with pytest.raises(CallError, match="Nothing was sent") as caught:
            client.call(SMALL, longer)
        assert caught.value.reason == "REQUEST_TOO_LARGE"
        unpacked = monkeypatch.setattr(Packed, "unpack", lambda self: pytest.fail("it was unpacked"))
        assert unpacked is None
        monkeypatch.setattr("wireproto.binding._limited", lambda encode, method, most: encode)
    with (
        dial(serve(), algorithm) as client,
        pytest.raises(CallError, match="2001 bytes; Small takes at most") as caught,
    ):
        client.call(SMALL, longer)
    assert caught.value.reason == "REQUEST_TOO_LARGE"


@each_algorithm
def test_an_answer_is_as_long_as_the_client_accepts_unpacked(serve: Callable[..., Server], algorithm: str) -> None:
    """The longest answer comes; one byte more is RESPONSE_TOO_LARGE, however short it would be packed."""
    with dial(serve(), algorithm, codec="pipe", limits=Limits(max_frame=8192)) as client:
        assert len(client.call(GROW, Times(text="x", times=8192 - 12)).text) == 8192 - 12
        with pytest.raises(CallError) as caught:
            client.call(GROW, Times(text="x", times=8192 - 11))
        assert (caught.value.status, caught.value.reason) == (Status.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")
        with pytest.raises(CallError, match="RESPONSE_TOO_LARGE"):
            list(client.stream(REPEAT, Times(text="x" * (8192 - 11), times=1)))


@each_algorithm
def test_a_request_is_as_long_as_the_server_accepts_unpacked(serve: Callable[..., Server], algorithm: str) -> None:
    """The longest request and item come; one byte more is not sent."""
    with dial(serve(limits=Limits(max_frame=8192)), algorithm, codec="pipe") as client:
        most = 8192 - 12
        assert client.call(ECHO, Text(text="x" * most)).text == "x" * most
        assert client.upload(SINK, [Text(text="x" * most)]).text == f"1 {most}"
        for call in (
            lambda: client.call(ECHO, Text(text="x" * (most + 1))),
            lambda: client.upload(SINK, [Text(text="x" * (most + 1))]),
            lambda: client.post(POST, Text(text="x" * (most + 1))),
        ):
            with pytest.raises(CallError) as caught:
                call()
            assert caught.value.reason == "REQUEST_TOO_LARGE"


def test_collected_items_count_unpacked(serve: Callable[..., Server]) -> None:
    """What is kept until all has come is bounded by a window of what the items stand for."""
    limits = Limits(window_bytes=100_000, first_bytes=50_000)
    with dial(serve(limits=limits), "zlib") as client:
        with pytest.raises(CallError) as caught:
            client.upload(COLLECT, [Text(text="x" * 10_000)] * 20)
        assert caught.value.reason == "REQUEST_TOO_LARGE"
        assert len(client.upload(COLLECT, [Text(text="x" * 10_000)] * 9).text) == 90_000


@each_algorithm
def test_what_is_packed_is_read_off_the_leader(serve: Callable[..., Server], hall: Hall, algorithm: str) -> None:
    """The leader runs a quick method, and never one whose request has to be unpacked, nor a turn of packed items."""
    server = serve()
    with dial(server, algorithm) as client:
        for _ in range(30):
            client.call(PLAIN, Text(text="x"))
        assert server.pool.leader in hall.threads
        short = [Text(text="x")] * 200
        for _ in range(5):
            assert client.upload(SINK, short).text == "200 200"
        unpackers: list[threading.Thread | None] = []
        leaders: list[threading.Thread | None] = []
        unpack = Packed.unpack

        def look(self: Packed) -> bytes:
            unpackers.append(threading.current_thread())
            leaders.append(server.pool.leader)
            return unpack(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Packed, "unpack", look)
            for _ in range(30):
                client.call(ECHO, Text(text=TEXT))
                client.upload(SINK, [Text(text="x")] * 3 + [Text(text=TEXT)] * 5 + [Text(text="x")] * 3)
        mine = threading.current_thread()
        pairs = [(one, leader) for one, leader in zip(unpackers, leaders, strict=True) if one is not mine]
        assert len(pairs) == 30 * (1 + 5)
        assert not [one for one, leader in pairs if one is leader]


def test_what_is_packed_is_packed_off_the_leader(
    serve: Callable[..., Server], hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, deferred ones too, and items of a subscription are packed by followers."""
    server = serve()
    wrong: list[str] = []
    made: list[int] = []

    def pack(payload: bytes, algorithm: int) -> bytes | Packed:
        made.append(len(payload))
        if server.pool.leader is threading.current_thread():
            wrong.append(threading.current_thread().name)
        return pack_payload(payload, algorithm)

    monkeypatch.setattr("wireproto.dispatch.pack_payload", pack)
    hall.items += [Text(text=TEXT + str(number)) for number in range(50)]
    with dial(server, "zlib") as client:
        for _ in range(20):
            client.call(ECHO, Text(text=TEXT))
            client.call(LATER, Text(text=TEXT))
        stream = client.stream(WATCH, Times(text="", times=0))
        for number in range(50):
            assert next(stream).text == TEXT + str(number)
        hall.close()
        assert list(stream) == []
    assert len(made) == 40 + 50
    assert wrong == []


def test_an_item_for_many_is_packed_once(
    serve: Callable[..., Server], hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subscriptions of connections with one algorithm share what an item is packed to; those of another one, theirs."""
    made: list[int] = []

    def pack(payload: bytes, algorithm: int) -> bytes | Packed:
        made.append(algorithm)
        return pack_payload(payload, algorithm)

    monkeypatch.setattr("wireproto.dispatch.pack_payload", pack)
    server = serve()
    hall.items += [Text(text=TEXT)]
    clients = [dial(server, name) for name in ("zlib", "zstd") for _ in range(4)] + [dial(server)]
    try:
        streams = []
        for client in clients:  # one after the other: two that look at once may both pack
            stream = client.stream(WATCH, Times(text="", times=0))
            assert next(stream).text == TEXT
            streams.append(stream)
        hall.close()
        for stream in streams:
            assert list(stream) == []
    finally:
        for client in clients:
            client.close()
    assert sorted(made) == [1, 2]


def test_honest_json_is_never_refused(serve: Callable[..., Server]) -> None:
    """There is no rule about ratios: a record that repeats itself 288 : 1 and more is a record."""
    rows = json.dumps([{"name": "the same name", "value": None, "flags": [0, 0, 0]}] * 3000)
    payload = pack_payload(rows.encode(), 1)
    assert isinstance(payload, Packed)
    assert len(payload) / len(payload.body) > 100
    with dial(serve(), "zlib", "zstd") as client:
        assert client.call(ECHO, Text(text=rows)).text == rows


def test_the_default_offers_zlib(hall: Hall) -> None:
    """Whoever says nothing offers zlib and accepts it, which is without effect until a method says ``compress``."""
    assert packing.numbers_of(("zlib",)) == (1,)
    assert Client("127.0.0.1:1", SERVICE)._line._hello.packing == (1,)
    assert Server(hall.handlers)._packing == (1,)
