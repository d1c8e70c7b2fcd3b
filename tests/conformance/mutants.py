"""Broken implementations: a right one, and a proxy in front of it that breaks one rule for it, frame by frame."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from wireproto.conformance.page import FURTHEST, HEADER, PREAMBLE, TOP_BIT, credit_body, error_body, read_error
from wireproto.conformance.raw import Ending, RawFrame, RawListener, RawPeer, frame
from wireproto.wire.frame import Kind

__all__ = [
    "Change",
    "Mutant",
    "all_but_the_first",
    "call_error",
    "changed",
    "crossing",
    "drop",
    "drop_if",
    "every",
    "far_ids",
    "final_error",
    "first_credit",
    "instead",
    "of_the_server",
    "on",
    "on_if",
    "same_or_behind",
    "twice",
    "twice_if",
]

Change = Callable[[RawFrame], Iterable[bytes] | None]
"""What is passed on instead of a frame; None for the frame as it is."""

LONGEST = 1 << 21
"""A length above it, or below a header's, is no frame's: from there on bytes are passed on as they come."""

PATIENCE = 20.0


def changed(each: RawFrame, **fields: Any) -> bytes:
    """A frame with some of its fields changed."""
    kind, flags, codec, version, opcode, call_id, metadata, payload = each._replace(**fields)
    return frame(kind, payload, metadata, codec=codec, version=version, opcode=opcode, call_id=call_id, flags=flags)


def _nothing(each: RawFrame) -> None:
    return None


class Mutant:
    """A server at ``address`` that is the one behind it but for what is changed.

    Args:
        behind: the right server.
        up: made for each connection: changes what the client sends, as if the server did not look at it.
        down: ... and what the server sends.
        preamble: what the server's first four bytes are.
        reset: the connection is reset where the server ends it.
    """

    def __init__(
        self,
        behind: tuple[str, int],
        *,
        up: Callable[[], Change] = lambda: _nothing,
        down: Callable[[], Change] = lambda: _nothing,
        preamble: bytes = PREAMBLE,
        reset: bool = False,
    ) -> None:
        self._behind = behind
        self._up, self._down = up, down
        self._preamble = preamble
        self._reset = reset
        self._listener = RawListener()
        self._stopping = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.address = self._listener.address

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping:
            if (client := self._listener.accept(0.05)) is not None:
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: RawPeer) -> None:
        try:
            server = RawPeer.connect(self._behind)
        except OSError:
            client.reset()  # nobody is there, and so nobody is here
            return
        with client, server:
            gone = threading.Event()
            upwards = threading.Thread(
                target=self._pump, args=(client, server, self._up(), PREAMBLE, gone), daemon=True
            )
            upwards.start()
            self._pump(server, client, self._down(), self._preamble, gone)
            if self._reset:
                gone.set()
                upwards.join(PATIENCE)
                client.reset()
            else:
                client.end_output()
                upwards.join(PATIENCE)

    def _pump(self, source: RawPeer, sink: RawPeer, change: Change, preamble: bytes, gone: threading.Event) -> None:
        def wait(size: int) -> bool:
            """Until so many bytes wait; False when they do not come."""
            # Whoever stops has still what was sent before passed on.
            while (found := source.take(size, 0.05)) is Ending.SILENCE:
                if self._stopping or gone.is_set():
                    return False
            if isinstance(found, Ending):
                return False
            source.received[:0] = found
            return True

        if wait(len(PREAMBLE)) and source.received.startswith(PREAMBLE):
            del source.received[: len(PREAMBLE)]
            sink.send(preamble)
            while wait(4):
                length = int.from_bytes(source.received[:4], "big")
                if not 12 <= length <= LONGEST or not wait(4 + length):
                    break
                data = bytes(source.received[: 4 + length])
                del source.received[: 4 + length]
                instead = change(_taken_apart(data))
                sink.send(data) if instead is None else sink.send(*instead)
        while True:
            data, ending = source.drain(0.05)
            if data:
                sink.send(data)
            if ending is not Ending.SILENCE or (not data and (self._stopping or gone.is_set())):
                break
        if sink.socket.fileno() >= 0 and not self._reset:
            sink.end_output()


def _taken_apart(data: bytes) -> RawFrame:
    _, kind, flags, codec, version, opcode, metadata_length, call_id = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    return RawFrame(kind, flags, codec, version, opcode, call_id, body[:metadata_length], body[metadata_length:])


# What is changed.


def on(number: int, **fields: Any) -> Callable[[], Change]:
    """Frames of one kind with these fields."""
    return lambda: lambda each: [changed(each, **fields)] if each.kind == number else None


def drop(*kinds: int) -> Callable[[], Change]:
    return lambda: lambda each: [] if each.kind in kinds else None


def instead(kind: int, *frames: bytes) -> Callable[[], Change]:
    return lambda: lambda each: frames if each.kind == kind else None


def every(function: Callable[[RawFrame], list[bytes] | None]) -> Callable[[], Change]:
    return lambda: function


def twice(kind: int) -> Callable[[], Change]:
    return every(lambda each: [changed(each), changed(each)] if each.kind == kind else None)


Chosen = Callable[[RawFrame], bool]


def of_the_server(each: RawFrame) -> bool:
    """Whether a frame is of a call that the server began."""
    return bool(each.call_id & TOP_BIT)


def on_if(chosen: Chosen, **fields: Any) -> Callable[[], Change]:
    """The frames chosen, with these fields."""
    return every(lambda each: [changed(each, **fields)] if chosen(each) else None)


def drop_if(chosen: Chosen) -> Callable[[], Change]:
    return every(lambda each: [] if chosen(each) else None)


def twice_if(chosen: Chosen) -> Callable[[], Change]:
    return every(lambda each: [changed(each)] * 2 if chosen(each) else None)


def all_but_the_first(kind: int) -> Callable[[], Change]:
    """Of a kind only the first frame is passed on."""

    def made() -> Change:
        seen = 0

        def change(each: RawFrame) -> list[bytes] | None:
            nonlocal seen
            seen += each.kind == kind
            return [] if each.kind == kind and seen > 1 else None

        return change

    return made


def crossing(allowed: int) -> Callable[[], Change]:
    """END, CREDIT and CANCEL behind so many of them come twice, as if their bucket were smaller or never refilled."""

    def made() -> Change:
        seen = 0

        def change(each: RawFrame) -> list[bytes] | None:
            nonlocal seen
            if each.kind not in (Kind.END, Kind.CREDIT, Kind.CANCEL):
                return None
            seen += 1
            return [changed(each)] * 2 if seen > allowed else None

        return change

    return made


def chatting(allowed: int) -> Callable[[], Change]:
    """Chatter behind so many frames of it comes many times, as if less of it was allowed. Time allows for some more."""

    def made() -> Change:
        seen = 0

        def change(each: RawFrame) -> list[bytes] | None:
            nonlocal seen
            if each.kind not in (200, Kind.PONG):
                return None
            seen += 1
            return [changed(each)] * 1000 if seen > allowed else None

        return change

    return made


def _ids(wrong: Callable[[int, int], bool], instead: Callable[[int], int]) -> Callable[[], Change]:
    """REQUESTs whose id is wrong by the one before are given another one."""

    def made() -> Change:
        last = 0

        def change(each: RawFrame) -> list[bytes] | None:
            nonlocal last
            if each.kind != Kind.REQUEST:
                return None
            before, last = last, each.call_id
            if not wrong(each.call_id, before):
                return None
            last = instead(before)
            return [changed(each, call_id=last)]

        return change

    return made


def far_ids() -> Change:
    """Ids that lie too far ahead are taken, as if they were the next ones."""
    far = _ids(lambda call_id, last: bool(last) and call_id - last > FURTHEST, lambda last: last + 1)
    return far()


def same_or_behind() -> Change:
    """After the last number comes none: ids that begin again are those of the call before."""
    behind = _ids(lambda call_id, last: call_id < last, lambda last: last)
    return behind()


def first_credit(items: int, size: int) -> Callable[[], Change]:
    """Every REQUEST grants this first credit and has no other metadata; one that granted none is left alone."""
    block = b"\x05\x00\x08" + credit_body(items, size)
    return on_if(lambda each: each.kind == Kind.REQUEST and bool(each.metadata), metadata=block)


def call_error(each: RawFrame, **fields: Any) -> list[bytes] | None:
    """An ERROR of a call with its body changed."""
    return _error(each, **fields) if each.kind == Kind.ERROR and each.call_id else None


def final_error(each: RawFrame, **fields: Any) -> list[bytes] | None:
    """A final ERROR with its body changed."""
    return _error(each, **fields) if each.kind == Kind.ERROR and not each.call_id else None


def _error(each: RawFrame, **fields: Any) -> list[bytes]:
    read = read_error(each.payload)._replace(**fields)
    body = error_body(read.status, read.reason.encode(), read.message.encode(), read.retry, read.retry_after_ms)
    return [changed(each, payload=body)]
