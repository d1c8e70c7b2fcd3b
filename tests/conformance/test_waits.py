"""No wait of the kit is without an end, whatever a program or a peer does, or does not do."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from wireproto.conformance import page, processes, programs, side
from wireproto.conformance.callee import Callee, Trial
from wireproto.conformance.caller import Bench, Caller
from wireproto.conformance.case import Deviation
from wireproto.conformance.processes import ServerProcess
from wireproto.conformance.programs import Program, Programs
from wireproto.conformance.raw import Ending, RawListener, RawPeer
from wireproto.conformance.service import COUNT, SHORT


@contextmanager
def quick(patch: pytest.MonkeyPatch) -> Iterator[float]:
    """With less patience; the time at which it began."""
    patch.setattr(processes, "STOP_TIMEOUT", 1.0)
    patch.setattr(programs, "STOP_TIMEOUT", 1.0)
    patch.setattr(programs, "TELL_TIMEOUT", 0.5)
    yield time.monotonic()


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[str]:
    """The first line of a program: it starts a process with the same stdout, which is ended behind the test."""
    noted = tmp_path / "pid"
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    yield f"import subprocess, sys; open({str(noted)!r}, 'w').write(str(subprocess.Popen({sleeper}).pid)); "
    os.kill(int(noted.read_text()), signal.SIGKILL)


def test_a_server_whose_child_keeps_its_output_is_closed(left_behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a server is waited for, and not that of what it started."""
    code = left_behind + "print('127.0.0.1:1', flush=True); import time; time.sleep(60)"
    with quick(monkeypatch), ServerProcess([sys.executable, "-c", code]) as server:
        assert server.address == ("127.0.0.1", 1)
        began = time.monotonic()
    assert time.monotonic() - began < 20


def test_a_client_whose_child_keeps_its_output_is_closed(left_behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a client is waited for, and not that of what it started; what it said is read."""
    program = Program([sys.executable, "-c", left_behind + "print('{}', flush=True); sys.stdin.read()"])
    assert program.answer(20) == {}
    with quick(monkeypatch) as began:
        program.close()
    assert time.monotonic() - began < 20


def test_a_client_that_does_not_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that nobody reads is a deviation after a time, however long it is, and the process is ended."""
    sleeper = Programs([sys.executable, "-c", "import time; time.sleep(60)"])
    with quick(monkeypatch) as began:
        with pytest.raises(Deviation, match="does not read what it is told"), sleeper.borrow() as program:
            program.tell({"steps": "x" * 2_000_000})
        sleeper.close()
    assert time.monotonic() - began < 20


def test_what_is_no_text_is_read_over() -> None:
    """A server that writes bytes that are no UTF-8 is heard all the same, behind them, too."""
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n127.0.0.1:7\\n'); sys.stdout.flush(); input()"
    with ServerProcess([sys.executable, "-c", code]) as server:
        assert server.address == ("127.0.0.1", 7)


# Peers that are never silent --------------------------------------------------------------------------------------


@contextmanager
def talking(first: bytes, again: bytes) -> Iterator[RawPeer]:
    """A peer whose other end sends something over and over, until it is closed."""
    with RawListener() as listener, RawPeer.connect(listener.address) as peer:
        other = listener.accept()
        assert other is not None

        def talk() -> None:
            with other:
                other.send(first)
                while other.send(again * 20) is None:
                    other.take(1, 0.001)  # as if it read what it is sent

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield peer
        finally:
            peer.reset()
            thread.join(20)


PING = page.frame(page.PING, b"12345678")
PONG = page.frame(page.PONG, b"12345678")
WELCOME = page.PREAMBLE + page.frame(page.WELCOME, page.pack_welcome())
HELLO = page.PREAMBLE + page.frame(page.HELLO, page.pack_hello())
REQUEST = page.frame(
    page.REQUEST,
    b"\x93\x00\x00\xc2",
    codec=2,
    version=1,
    opcode=COUNT.opcode,
    call_id=1,
    flags=page.ITEMS_COME_BACK,
)
CREDIT = page.frame(page.CREDIT, page.credit_body(1, 1), opcode=COUNT.opcode, call_id=1)


def caller(peer: RawPeer) -> Caller:
    made = Caller(peer, Bench(("127.0.0.1", 1), (2, "msgpack"), 1, "", 1, patience=0.3))
    made.expect_welcome()
    return made


class Nobody:
    """In the place of a client's program."""

    def borrow(self) -> AbstractContextManager["Nobody"]:
        return nullcontext(self)

    def tell(self, instruction: dict[str, Any]) -> None:
        pass

    def answer(self, timeout: float) -> None:
        return None


def callee(peer: RawPeer) -> Callee:
    made = Callee(peer, Trial((2, "msgpack"), 1, Nobody(), 0.3, 0.6), Nobody())
    made.greet()
    return made


def no_frame(peer: RawPeer) -> None:
    assert caller(peer).first() is Ending.SILENCE


def no_end_of_a_server(peer: RawPeer) -> None:
    with pytest.raises(Deviation, match="a final ERROR with BAD_BODY was due"):
        caller(peer).ends("BAD_BODY")


def no_end_of_a_client(peer: RawPeer) -> None:
    with pytest.raises(Deviation, match="a final ERROR with BAD_BODY was due"):
        callee(peer).ends("BAD_BODY")


def no_second_request(peer: RawPeer) -> None:
    made = callee(peer)
    made.request(COUNT)
    with pytest.raises(Deviation, match="the client went on sending for 1 s"):
        made.request(SHORT)


@pytest.mark.parametrize(
    ("first", "again", "wait"),
    [
        (WELCOME, PING, no_frame),
        (WELCOME, PING, no_end_of_a_server),
        (WELCOME, PONG, no_end_of_a_server),
        (HELLO, PING, no_end_of_a_client),
        (HELLO, PONG, no_end_of_a_client),
        (HELLO + REQUEST, CREDIT, no_second_request),
    ],
)
def test_a_peer_that_never_stops_is_not_listened_to_for_ever(
    first: bytes, again: bytes, wait: Callable[[RawPeer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a peer sends instead of what is due, the wait for that ends, and says what was due."""
    monkeypatch.setattr(side, "LONGEST", 1.0)
    began = time.monotonic()
    with talking(first, again) as peer:
        wait(peer)
    assert time.monotonic() - began < 20
