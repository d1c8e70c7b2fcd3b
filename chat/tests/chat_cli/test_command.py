"""``wireproto chat`` as a whole, against a real server: by pipe, by pseudo-terminal, over each codec."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_cli.screen import Screen
from chat_client.fake import PASSWORD, Run
from wireproto import Address, Handlers, Message, Method, Server, Service, Status
from wireproto_chat.client.sentences import PASSWORD_RULE

pytestmark = pytest.mark.slow

CODECS = ("pipe", "msgpack", "protobuf")
HOSTILE = "\x1b[2J\x1b]0;t\x07\x9b31m \u202eevil\u2066 a\x00b\rc\\n | \\ \ufeff end"
SHOWN = r"\x1b[2J\x1b]0;t\x07\x9b31m \u202eevil\u2066 a\x00b\rc\n | \ " + r"\ufeff end"


class NothingRequest(Message):
    """Asks for nothing."""


class NothingResponse(Message):
    """Is nothing."""


NOTHING = Method(opcode=0x10, name="Nothing", request=NothingRequest, response=NothingResponse)


def chat(address: Address, *options: str) -> list[str]:
    """The command line of a client."""
    return [sys.executable, "-m", "wireproto", "chat", str(address), *options]


@pytest.mark.parametrize("codec", CODECS)
def test_a_scripted_conversation(run: Run, codec: str) -> None:
    """Every option of the original syntax works over every codec; the answers stand in order."""
    script = [
        "1|carol|" + PASSWORD,
        "0|carol|" + PASSWORD,
        "2|*o*",
        "3|bob|hello | there",
        "7|",
        "5|carol",
        "bye",
        "never read",
    ]
    done = run("\n".join(script) + "\n", "--codec", codec)
    # Whether the stream of a moment ago is open yet is the server's to say: calls in flight have no order.
    assert done.stdout.replace("carol (online)", "carol").split("\n") == [
        "Server: The account carol is made. Sign in with /login carol.",
        "Server: You are signed in as carol.",
        "Server: 2 accounts matching *o*:",
        "  | bob",
        "  | carol",
        "Server: Sent to bob.",
        "Server: No undelivered messages.",
        "Server: The account carol is deleted.",
        "",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    other = run(f"0|bob|{PASSWORD}\n", "--codec", codec)
    assert other.stdout.split("\n")[1:] == ["carol: hello | there", ""]


@pytest.mark.parametrize("codec", CODECS)
def test_hostile_text_is_shown_by_pipe(run: Run, post: Callable[..., None], codec: str) -> None:
    """What a sender wrote to fool a terminal or a script arrives spelled out, over every codec."""
    post("alice", "bob", HOSTILE, "two\nServer: lines\n  | x")
    done = run(f"0|bob|{PASSWORD}\n4|\n", "--codec", codec)
    assert done.stdout.split("\n")[1:] == [
        f"alice: {SHOWN}",
        "alice: two",
        "  | Server: lines",
        "  |   | x",
        "Server: You are signed out.",
        "",
    ]


def test_messages_are_shown_once(run: Run, post: Callable[..., None]) -> None:
    """A message that was printed is acknowledged: the next log-in does not bring it again."""
    post("alice", "bob", *[str(number) for number in range(150)])
    first = run(f"0|bob|{PASSWORD}\n")
    assert first.stdout.split("\n")[1:-1] == [f"alice: {number}" for number in range(150)]
    second = run(f"0|bob|{PASSWORD}\n7|\n")
    assert second.stdout == "Server: You are signed in as bob.\nServer: No undelivered messages.\n"


def test_two_people_at_terminals(address: Address) -> None:
    """Two people, two codecs, two widths: what one types the other sees, above what that one is typing."""
    with (
        Screen(chat(address, "--codec", "pipe"), columns=80) as alice,
        Screen(chat(address, "--codec", "protobuf", "--user", "bob"), columns=40) as bob,
    ):
        alice.shows("* Connected to")
        alice.line("0|alice")
        alice.shows("Password for alice:")
        alice.line(PASSWORD)
        alice.shows("Server: You are signed in as alice.")
        bob.shows("Password for bob:")
        bob.line(PASSWORD)
        bob.shows("Server: You are signed in as bob.")
        bob.send("/send alice half a li")
        bob.shows("bob> /send alice half a li")
        alice.line("3|bob|hello, this is one row here and two rows there")
        alice.shows("Server: Sent to bob.")
        bob.until(
            lambda screen: (
                screen.everything[-3:]
                == ["alice: hello, this is one row here and", "  | two rows there", "bob> /send alice half a li"]
            )
        )
        bob.line("ne \u6f22\u5b57")
        alice.shows("bob: half a line")
        bob.line("bye")
        assert bob.ends() == 0
        alice.send("\x04")
        assert alice.ends() == 0


def test_hostile_text_does_nothing_to_a_terminal(address: Address, post: Callable[..., None]) -> None:
    """A message cannot clear the screen, set its title or move its cursor."""
    with Screen(chat(address, "--user", "bob"), columns=100) as screen:
        screen.shows("Password for bob:")
        screen.line(PASSWORD)
        screen.shows("Server: You are signed in as bob.")
        post("alice", "bob", HOSTILE, "\u05d0" * 3 + " bob: x")
        screen.shows(f"alice: {SHOWN}")
        screen.until(lambda screen: screen.everything[-1:] == ["bob>"] and "alice: \u05d0" in str(screen))
        assert screen.screen.title == ""
        assert screen.everything[0].startswith("* Connected")
        assert "\u2068\u05d0\u05d0\u05d0 bob: x\u2069" in screen.raw
        screen.line("quit")
        assert screen.ends() == 0


def test_the_password_file(run: Run, tmp_path: Path) -> None:
    """--user and --password-file sign in without a word; a file that others can read is warned of."""
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    done = run("4|\n", "--user", "alice", "--password-file", str(secret))
    assert done.stdout == "Server: You are signed in as alice.\nServer: You are signed out.\n"
    assert (done.returncode, done.stderr) == (0, "")
    secret.chmod(0o644)
    done = run("0|alice\n", "--password-file", str(secret))
    assert done.stdout == "Server: You are signed in as alice.\n"
    assert done.stderr == f"Warning: others can read {secret}; `chmod 600 {secret}` ends that.\n"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s", b"\xef\xbb\xbf%s\r\n", b"%s\r\nmore"])
def test_what_an_editor_adds_is_no_part_of_a_password(run: Run, tmp_path: Path, content: bytes) -> None:
    """A byte order mark in front of a password, and the end of its line, are taken off."""
    secret = tmp_path / "secret"
    secret.write_bytes(content % PASSWORD.encode())
    secret.chmod(0o600)
    done = run("4|\n", "--user", "alice", "--password-file", str(secret))
    assert (done.stdout.split("\n")[0], done.stderr) == ("Server: You are signed in as alice.", "")


def test_a_password_file_in_another_encoding_is_refused(run: Run, tmp_path: Path) -> None:
    """A file that is no UTF-8 is a sentence that names it and says what to do, before anything is sent."""
    secret = tmp_path / "secret"
    secret.write_bytes(f"\ufeff{PASSWORD}".encode("utf-16-le"))
    done = run("", "--user", "alice", "--password-file", str(secret))
    assert done.returncode == 1
    assert done.stderr == (
        f"wireproto: --password-file {secret} cannot be read: it is not UTF-8 (byte 1); save it as UTF-8\n"
    )


def test_a_mark_before_the_first_line_is_no_part_of_it(run: Run) -> None:
    """A script that an editor saved with a byte order mark is read as without; one that stands inside is text."""
    done = run(f"\ufeff0|alice|{PASSWORD}\n3|alice|\ufeffhi\n")
    assert done.stdout.split("\n")[0] == "Server: You are signed in as alice."
    assert r"alice: \ufeffhi" in done.stdout


def test_a_user_that_cannot_sign_in_ends_a_script(run: Run, tmp_path: Path) -> None:
    """Nothing of a script is carried out under no name; the exit status is that of UNAUTHENTICATED."""
    secret = tmp_path / "secret"
    secret.write_text("not the password")
    secret.chmod(0o600)
    done = run("2|*\n", "--user", "alice", "--password-file", str(secret))
    assert done.stdout.endswith("[BAD_CREDENTIALS]\n")
    assert done.stdout.count("\n") == 1
    assert done.returncode == 26


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"0|alice|{PASSWORD}", "/list", "3|bob|hi"], 0),
        (["0|alice|wrong password", "/list"], 26),
        ([f"0|nobody|{PASSWORD}"], 26),
        (["/sned bob hi"], 2),
        (["0|alice"], 2),
        (["/more"], 2),
        (["/password"], 26),
        (["3|bob|hi"], 26),
        ([f"0|alice|{PASSWORD}", "3|nobody|hi", "/sned"], 10 + Status.NOT_FOUND),
        ([f"0|alice|{PASSWORD}", f"0|bob|{PASSWORD}"], 10 + Status.FAILED_PRECONDITION),
        (["1|alice|another long password"], 10 + Status.ALREADY_EXISTS),
        (["1|carol|short"], 10 + Status.INVALID_ARGUMENT),
        (["/sned", f"0|alice|{PASSWORD}", "3|nobody|hi"], 2),
    ],
)
def test_a_line_that_fails_is_told_by_the_status(run: Run, lines: list[str], status: int) -> None:
    """The first line that is not carried out gives the exit status; those behind it are tried all the same."""
    done = run("\n".join([*lines, "/help", "bye"]) + "\n")
    assert "* What you can type:" in done.stdout
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--codec", "msgpak"], 2, "msgpack"),
        (["--user", "alice"], 2, "--password-file"),
        (["--password-file", "/nowhere/at/all"], 2, "/nowhere/at/all"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_wrong_options_are_explained(run: Run, options: list[str], status: int, says: str) -> None:
    """A wrong option ends with 2 and a sentence, and nothing on standard output."""
    done = run("", *options)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_another_machine_is_not_talked_to_in_the_clear_by_accident() -> None:
    """Without TLS a password leaves this machine only when that was asked for."""
    done = subprocess.run(
        chat(Address("192.0.2.1", 7411)), input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--allow-plaintext" in done.stderr


def test_a_terminal_that_cannot_move_its_cursor(address: Address) -> None:
    """With TERM=dumb there are plain lines, and the password is asked for without echo all the same."""
    with Screen(chat(address), environment={"TERM": "dumb"}) as screen:
        screen.line("0|bob|" + PASSWORD)
        screen.shows("! A password on the line stays on the screen.")
        before = screen.raw.count(PASSWORD)
        screen.line("0|bob")
        screen.shows("Password for bob:")
        screen.line(PASSWORD)
        screen.shows("Server: You are signed in as bob.")
        screen.line("1|dave")
        screen.shows(f"Choose a password for dave ({PASSWORD_RULE}):")
        screen.line(PASSWORD)
        screen.shows("Repeat for confirmation:")
        screen.line(PASSWORD)
        screen.shows("Server: The account dave is made.")
        screen.line("bye")
        assert screen.ends() == 0
        assert screen.raw.count(PASSWORD) == before
        assert "\x1b" not in screen.raw


def test_an_empty_password_file_is_refused(run: Run, tmp_path: Path) -> None:
    """A file without a password is an error before anything is tried with it."""
    empty = tmp_path / "secret"
    empty.write_text("\n" + PASSWORD)
    done = run("", "--password-file", str(empty))
    assert done.returncode == 2
    assert "empty line" in done.stderr


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a server the sentence says how to start one, and the exit status is that of UNAVAILABLE."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can have the port
        port = held.getsockname()[1]
        done = subprocess.run(
            chat(Address("127.0.0.1", port)), input="", capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 24
    assert "Connection refused" in done.stderr
    assert "`wireproto serve` starts one" in done.stderr
    assert done.stdout == ""


def test_a_server_of_something_else_is_quoted() -> None:
    """A server that refuses says why, and is told apart from none at all."""
    with Server(Handlers(Service("example.v1.NothingService", version=1, methods=[NOTHING]))) as server:
        done = subprocess.run(chat(server.address), input="", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (15, 19)
    assert f"wireproto: {server.address} refused the connection: " in done.stderr
    assert "example.v1.NothingService" in done.stderr


def test_a_server_that_goes_away_ends_a_terminal(server: Server) -> None:
    """A server that shuts down ends the prompt with a sentence; what was half typed stays to be copied."""
    with Screen(chat(server.address, "--user", "bob", "--reconnect", "0"), columns=200) as screen:
        screen.shows("Password for bob:")
        screen.line(PASSWORD)
        screen.shows("Server: You are signed in as bob.")
        screen.send("/send alice half a li")
        screen.shows("half a li")
        server.shutdown()
        assert screen.ends() == 24
        *_, typed, farewell = screen.everything
        assert typed == "bob> /send alice half a li"
        assert farewell.startswith(f"wireproto: The server at {server.address} went away: ")


def test_a_server_that_goes_away_ends_a_script(server: Server) -> None:
    """A script ends although its input stays open, with the sentence on standard error only."""
    with subprocess.Popen(
        chat(server.address, "--reconnect", "0"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(f"0|bob|{PASSWORD}\n3|bob|x\n")
        child.stdin.flush()
        for _ in range(3):
            child.stdout.readline()
        server.shutdown()
        assert child.wait(20) == 24
        assert child.stderr.read().startswith(f"wireproto: The server at {server.address} went away: ")


def test_a_server_that_does_not_come_back_in_time(server: Server) -> None:
    """A script is told that the connection was lost, and ends after the time it was given."""
    with subprocess.Popen(
        chat(server.address, "--reconnect", "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(f"0|bob|{PASSWORD}\n")
        child.stdin.flush()
        child.stdout.readline()
        server.shutdown()
        lost = f"* The connection to the server at {server.address} was lost; trying to get it back.\n"
        assert child.stdout.readline() == lost
        assert child.wait(20) == 24
        assert child.stderr.read().startswith(f"wireproto: The server at {server.address} went away: ")


def test_a_password_is_changed_by_files(run: Run, tmp_path: Path) -> None:
    """A script changes a password without any on the command line or in its input."""
    secret, new = tmp_path / "secret", tmp_path / "new"
    for file, text in ((secret, PASSWORD), (new, "another long password")):
        file.write_text(text)
        file.chmod(0o600)
    files = ("--password-file", str(secret), "--new-password-file", str(new))
    done = run("/password\n", "--user", "alice", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[1] == "Server: Your password is changed."
    done = run("/password\n/whoami\n", "--user", "alice", "--password-file", str(new))
    assert done.stdout.split("\n")[1].endswith("[MISUNDERSTOOD]")
    assert done.stdout.split("\n")[2].startswith("Server: You are alice.")


def test_interrupted_by_the_keyboard(address: Address) -> None:
    """SIGINT ends a script with 130 and no traceback."""
    with subprocess.Popen(
        chat(address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("2|*\n")
        child.stdin.flush()
        assert "[SIGN_IN_REQUIRED]" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in error


def test_an_output_that_nobody_reads(address: Address) -> None:
    """`wireproto chat | head -1` ends quietly."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        chat(address), stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE, text=True
    ) as child:
        os.close(writer)
        os.close(reader)
        _, error = child.communicate("2|*\n2|*\n", timeout=20)
    assert child.returncode == 0
    assert error == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_script_is_utf_8_both_ways_in_every_locale(
    run: Run, post: Callable[..., None], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """What a script reads is in the encoding in which it writes."""
    post("alice", "bob", "caf\u00e9 \u6f22")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = run(f"0|bob|{PASSWORD}\n3|bob|caf\u00e9 \u2603\n")
    assert done.stdout.split("\n")[1] == "alice: caf\u00e9 \u6f22"
    assert "bob: caf\u00e9 \u2603" in done.stdout
    assert done.returncode == 0


def test_the_client_loads_nothing_of_the_server() -> None:
    """Neither the session nor the piped front imports SQL, password hashing or the terminal library."""
    code = (
        "import sys, wireproto_chat.client.session, wireproto_chat.cli.chat, wireproto_chat.cli.piped\n"
        "print([name for name in ('sqlalchemy', 'argon2', 'prompt_toolkit', 'grpc', 'google.protobuf', 'rich')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
