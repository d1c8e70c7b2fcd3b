"""The front for scripts: lines in, lines out, in order, over a fake server."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chat_client.fake import PASSWORD, FakeClient, FakeServer
from wireproto import ConnectionLost
from wireproto_chat.cli.piped import Piped
from wireproto_chat.client.session import ChatSession

PATIENCE = 5.0


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Two accounts."""
    server = FakeServer("alice", "bob")
    yield server
    server.close()


class Script:
    """A piped front whose input is written by the test."""

    def __init__(
        self,
        server: FakeServer,
        *,
        out: io.StringIO | None = None,
        password: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        self.out = out or io.StringIO()
        source, self.input = os.pipe()
        self.piped = Piped(source, self.out, password)
        self.client = FakeClient(server)
        self.farewells: list[str] = []
        self.session = ChatSession(self.client, self.piped.show, self._lost, patience=0)
        self._source = source

    def _lost(self, sentence: str) -> None:
        self.farewells.append(sentence)
        self.piped.stop()

    def feed(self, *pieces: bytes) -> list[str]:
        """Run with this input, and nothing behind it; the lines of output."""

        def write() -> None:
            with open(self.input, "wb", buffering=0) as pipe:
                for piece in pieces:
                    pipe.write(piece)

        writer = threading.Thread(target=write)
        writer.start()
        self.run()
        writer.join(10)
        return self.lines

    def run(self) -> None:
        """Run until the input, the server or the reader of the output has ended."""
        try:
            self.piped.run(self.session, PATIENCE)
        finally:
            self.session.close(PATIENCE)
            self.piped.close()
            os.close(self._source)

    @property
    def lines(self) -> list[str]:
        """What was printed."""
        return self.out.getvalue().split("\n")[:-1]


def test_each_command_is_answered_in_order(server: FakeServer) -> None:
    """Answers stand in the order of the commands, and the messages that waited behind the log-in."""
    server.post("bob", "alice", "one\ntwo")
    server.post("bob", "alice", "\x1b[2J")
    lines = Script(server).feed(f"0|alice|{PASSWORD}\n2|*\n\n3|bob|hi | there\n4|\nbye\n2|*\n".encode())
    assert lines == [
        "Server: You are signed in as alice. 2 messages came while you were away.",
        "bob: one",
        "  | two",
        r"bob: \x1b[2J",
        "Server: 2 accounts matching *:",
        "  | alice (online)",
        "  | bob",
        "Server: Sent to bob.",
        "Server: You are signed out.",
    ]
    assert server.mail["bob"] == [("alice", "hi | there")]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_arrive_in_any_pieces(server: FakeServer, size: int) -> None:
    """Only LF ends a line; one CR before it goes; the last line needs none; other separators are text."""
    data = f"0|alice|{PASSWORD}\r\n3|bob|a\u2028b\x0bc\x85d\re\r\n3|bob|\u00e9\u6f22".encode()
    Script(server).feed(*[data[start : start + size] for start in range(0, len(data), size)])
    assert [text for _, text in server.mail["bob"]] == ["a\u2028b\x0bc\x85d\re", "\u00e9\u6f22"]


def test_refusals_carry_their_reason(server: FakeServer) -> None:
    """A line that was refused ends in a word that a script can look for."""
    lines = Script(server).feed(b"3|bob|hi\n0|alice|wrong\n/sned bob hi\n0|alice\n\xff\xfe\n/help\n")
    assert [line.rpartition(" ")[2] for line in lines[:5]] == [
        "[SIGN_IN_REQUIRED]",
        "[BAD_CREDENTIALS]",
        "[MISUNDERSTOOD]",
        "[MISUNDERSTOOD]",
        "[NOT_UTF8]",
    ]
    assert lines[3].startswith("! The password is missing: write 0|alice|PASSWORD, or start with --password-file")
    assert lines[4] == "! Line 5 is not UTF-8; nothing was done. [NOT_UTF8]"
    assert lines[5] == "* What you can type:"


def test_the_password_file_answers_for_lines_without(server: FakeServer) -> None:
    """A password that is not on the line is asked of whoever knows it."""
    script = Script(server, password=lambda name: PASSWORD if name in ("alice", "carol") else None)
    assert script.feed(b"1|carol\n0|alice\n") == [
        "Server: The account carol is made. Sign in with /login carol.",
        "Server: You are signed in as alice.",
    ]


def test_a_server_that_goes_away_ends_the_waiting(server: FakeServer) -> None:
    """The end of the server ends the program although its input is open and silent."""
    script = Script(server)
    os.write(script.input, f"0|alice|{PASSWORD}\n".encode())

    def leave() -> None:
        with server.opened:
            server.opened.wait_for(lambda: "alice" in server.streams, 10)
        server.end_streams("alice", ConnectionLost("the power is out"))

    thread = threading.Thread(target=leave)
    thread.start()
    script.run()
    thread.join(10)
    os.close(script.input)
    assert script.farewells == ["the server went away: the power is out."]


def test_a_reader_that_goes_away_ends_the_program(server: FakeServer) -> None:
    """When nobody reads the output nothing more is sent in the person's name."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    script = Script(server, out=Broken())
    script.feed(f"0|alice|{PASSWORD}\n3|bob|hi\n".encode())
    assert script.piped.broken
    assert server.mail["bob"] == []


def test_each_line_is_flushed(server: FakeServer) -> None:
    """A program that waits for an answer gets it before it writes the next line."""
    seen: list[str] = []

    class Watched(io.StringIO):
        def flush(self) -> Any:
            seen.append(self.getvalue())

    Script(server, out=Watched()).feed(b"7|\n4|\n")
    assert [text.count("\n") for text in seen] == [1, 2]
