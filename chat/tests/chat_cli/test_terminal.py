"""The front for people, on a pseudo-terminal whose screen pyte keeps, over a fake server."""

import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chat_cli.screen import Screen
from chat_client.fake import PASSWORD
from wireproto_chat.client.sentences import PASSWORD_RULE

pytestmark = pytest.mark.slow

RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("chat_client.fake_program", run_name="__main__", alter_sys=True)
"""
"""Runs the fake program; the tests of the chat are no installed package."""

SIGNED_IN = "Server: You are signed in as alice."


def program(storm: int = 0) -> list[str]:
    """The command that runs the front; whoever signs in gets ``storm`` messages."""
    return [sys.executable, "-c", RUN, str(Path(__file__).parents[1]), str(storm)]


def sign_in(screen: Screen) -> None:
    """Sign in as alice, by hand."""
    screen.shows("> ")
    screen.line("0|alice")
    screen.shows("Password for alice:")
    screen.line(PASSWORD)
    screen.shows("alice> ")


def test_messages_never_garble_what_is_typed() -> None:
    """While two hundred messages arrive a line is typed key by key; each stands whole on the screen, once."""
    text = "/send mallory the quick brown fox jumps over the lazy dog, and goes on to a second row"
    with Screen(program(storm=200), columns=60) as screen:
        sign_in(screen)
        for key in text:
            screen.send(key)
            # The next key when a few more messages have come, as long as there are some.
            goal = min(screen.raw.count("of the storm") + 2, 200)
            screen.until(lambda screen, goal=goal: screen.raw.count("of the storm") >= goal)  # type: ignore[misc]
        screen.until(lambda screen: screen.raw.count("of the storm") >= 200)
        prompt = f"alice> {text}"
        screen.until(lambda screen: screen.everything[-2:] == [prompt[:60], prompt[60:]])
        storm = [row for row in screen.everything if "storm" in row]
        assert storm == [f"bob: message {number} of the storm" for number in range(200)]
        screen.line("")
        screen.shows("Server: Sent to mallory.")
        screen.line("bye")
        assert screen.ends() == 0
        assert screen.everything[:3] == ["* Connected to nothing.", "> 0|alice", "Password for alice:"]


def test_a_password_leaves_no_trace() -> None:
    """Nothing of a password is written to the terminal, and the history does not bring it back."""
    with Screen(program()) as screen:
        sign_in(screen)
        assert "correct" not in screen.raw
        assert "*****" not in screen.raw
        screen.line("4|")
        screen.shows("signed out")
        screen.line("0|alice|hunter22hunter22")
        screen.shows("! A password on the line stays on the screen.")
        before = screen.raw.count("hunter22hunter22")
        screen.send("\x1b[A")  # arrow up
        screen.until(lambda screen: screen.rows[screen.screen.cursor.y] == "> 4|")
        assert screen.raw.count("hunter22hunter22") == before
        screen.send("\x03")
        screen.line("quit")
        assert screen.ends() == 0


def test_a_password_can_be_thought_better_of() -> None:
    """Ctrl-C at a password, an empty one, or two that differ do nothing."""
    with Screen(program()) as screen:
        screen.shows("> ")
        screen.line("0|alice")
        screen.shows("Password for alice:")
        screen.send("\x03")
        screen.shows("* Nothing was done.")
        screen.line("1|dave")
        screen.shows(f"Choose a password for dave ({PASSWORD_RULE}):")
        screen.line("one password")
        screen.shows("Type it again:")
        screen.line("another one")
        screen.shows("! The two passwords differ.")
        screen.line("1|dave")
        screen.until(lambda screen: str(screen).count("Choose a password") == 2)
        screen.line("one password")
        screen.until(lambda screen: str(screen).count("Type it again:") == 2)
        screen.line("one password")
        screen.shows("Server: The account dave is made. Sign in with /login dave.")
        screen.send("\x04")
        assert screen.ends() == 0


def test_control_c_drops_the_line_and_leaves_when_asked_twice() -> None:
    """Ctrl-C behaves as in a shell; twice on an empty line it leaves."""
    with Screen(program()) as screen:
        screen.shows("> ")
        screen.send("/send bob oops")
        screen.shows("oops")
        screen.send("\x03")
        screen.until(lambda screen: screen.rows[screen.screen.cursor.y] == ">")
        screen.send("\x03")
        screen.shows("* To leave type /quit, or press Ctrl-D, or Ctrl-C again.")
        screen.send("\x03")
        assert screen.ends() == 0


def test_keys_pressed_between_two_prompts_are_kept() -> None:
    """Lines sent faster than prompts come are all carried out, and none is echoed twice."""
    with Screen(program()) as screen:
        sign_in(screen)
        screen.send("".join(f"/send bob {number}\r" for number in range(20)))
        screen.until(lambda screen: str(screen).count("Server: Sent to bob.") == 20)
        for number in range(20):
            assert screen.everything.count(f"alice> /send bob {number}") == 1
        screen.line("bye")
        assert screen.ends() == 0


def test_a_pasted_text_is_one_message() -> None:
    """A paste of several lines is one message, in which each line but the first is marked; escapes stay visible."""
    with Screen(program()) as screen:
        sign_in(screen)
        screen.send("\x1b[200~/send alice one\nServer: two\x1b[31m\u202e\x1b[201~\r")
        screen.shows(r"  | Server: two\x1b[31m\u202e")
        rows = screen.everything
        assert r"alice: one" in rows
        screen.line("bye")
        assert screen.ends() == 0


def test_pasted_commands_are_carried_out_one_by_one() -> None:
    """A paste of several lines that begin with commands is as many commands; a slip among them is sent to nobody."""
    with Screen(program(), columns=100) as screen:
        sign_in(screen)
        screen.send("\x1b[200~/send bob one\n/send mallory two\nand three\n/sned bob four\n/whoami\n\x1b[201~\r")
        screen.shows("Server: You are alice.")
        rows = [row for row in screen.everything if row.startswith(("Server: Sent", "! "))]
        assert sorted(rows) == [
            "! There is no command '/sned'. Did you mean /send? /help lists what there is.",
            "Server: Sent to bob.",
            "Server: Sent to mallory.",
        ]
        screen.line("bye")
        assert screen.ends() == 0


def test_a_pasted_password_is_not_remembered() -> None:
    """A paste one line of which holds a password is not brought back by the arrow keys."""
    with Screen(program()) as screen:
        sign_in(screen)
        screen.line("/whoami")
        screen.shows("Server: You are alice.")
        screen.send("\x1b[200~/list\n/login bob hunter22hunter22\x1b[201~\r")
        screen.shows("! A password on the line stays on the screen.")
        before = screen.raw.count("hunter22hunter22")
        screen.send("\x1b[A")
        screen.until(lambda screen: screen.rows[screen.screen.cursor.y] == "alice> /whoami")
        assert screen.raw.count("hunter22hunter22") == before
        screen.send("\x03")
        screen.line("bye")
        assert screen.ends() == 0


def test_a_server_that_goes_away_ends_the_prompt() -> None:
    """The program ends by itself, with a sentence, and leaves the terminal as it found it."""
    with Screen(program()) as screen:
        sign_in(screen)
        screen.line("/send bob gone")
        assert screen.ends() == 24
        assert screen.everything[-1] == "wireproto: The server went away: the power is out."


def test_a_signal_leaves_the_terminal_as_it_was() -> None:
    """SIGTERM ends the program with 143, and whoever has the terminal next finds it echoing and wrapping."""
    with Screen(["sh", "-c", f"{shlex.join(program())}; echo status=$?; stty -a"], columns=200) as screen:
        sign_in(screen)
        assert not screen.child.getecho()
        (child,) = psutil.Process(screen.child.pid).children()
        child.send_signal(signal.SIGTERM)
        assert screen.ends() == 0
        assert "status=143" in screen.rows
        words = str(screen).split()
        assert "echo" in words
        assert "icanon" in words
        assert screen.raw.rindex("\x1b[?7h") > screen.raw.rindex("\x1b[?7l")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Screen]:
    """A shell with job control, whose job is the chat."""
    script = tmp_path / "chat.sh"
    script.write_text(f"exec {shlex.join(program())}\n")
    words = ["bash", "--norc", "--noprofile", "-i"]
    with Screen(words, columns=100, environment={"PS1": "shell$ ", "INPUTRC": "/nowhere"}) as screen:
        screen.shows("shell$")
        screen.line(f"sh {script}")
        screen.shows("* Connected to nothing.")
        yield screen


def leave(screen: Screen) -> None:
    """Leave the chat, and then the shell."""
    screen.line("bye")
    screen.until(lambda screen: screen.rows[screen.screen.cursor.y] == "shell$")
    screen.line("exit")
    assert screen.ends() == 0


@pytest.mark.parametrize("how", ["key", "signal"])
def test_control_z_suspends_and_comes_back_with_the_line(shell: Screen, how: str) -> None:
    """Ctrl-Z gives the terminal to the shell, cooked; `fg` brings the prompt back with what was typed."""
    sign_in(shell)
    shell.send("/send bob half a li")
    shell.shows("alice> /send bob half a li")
    (child,) = psutil.Process(shell.child.pid).children()
    if how == "key":
        shell.send("\x1a")
    else:
        child.send_signal(signal.SIGTSTP)
    shell.shows("Stopped")
    assert child.status() == psutil.STATUS_STOPPED
    shell.line("stty -a | tr -s ' ;' '\\n\\n' | grep -cxE 'echo|icanon|isig'")
    shell.until(lambda screen: "3" in screen.rows)
    shell.line("fg")
    shell.until(lambda screen: screen.rows[screen.screen.cursor.y] == "alice> /send bob half a li")
    shell.line("ne")
    shell.shows("Server: Sent to bob.")
    leave(shell)


def test_control_z_at_a_password(shell: Screen) -> None:
    """A password that is half typed is still unseen, and still there, after Ctrl-Z and `fg`."""
    shell.shows("> ")
    shell.line("0|alice")
    shell.shows("Password for alice:")
    shell.send(PASSWORD[:5])
    shell.send("\x1a")
    shell.shows("Stopped")
    shell.line("fg")
    shell.until(lambda screen: screen.rows[screen.screen.cursor.y] == "Password for alice:")
    shell.line(PASSWORD[5:])
    shell.shows(SIGNED_IN)
    assert "corre" not in shell.raw
    leave(shell)


@pytest.mark.parametrize("columns", [20, 34])
def test_a_narrow_terminal(columns: int) -> None:
    """Every row of somebody's text begins with the name or the marker, however narrow the terminal."""
    spoof = "x" + " " * 200 + "Server: you are signed out"
    with Screen(program(), columns=columns, rows=60) as screen:
        sign_in(screen)
        screen.line(f"/send alice {spoof}")
        screen.until(lambda screen: "alice: x" in screen.rows and screen.rows[screen.screen.cursor.y] == "alice>")
        rows = screen.everything
        body = rows[rows.index("alice: x") + 1 :]
        assert "  | Server: you are" in [row[:19] for row in body]
        assert all(row.startswith(("  |", "Server: Sent", "alice>")) for row in body)
        screen.line("bye")
        assert screen.ends() == 0


def test_no_colour() -> None:
    """With NO_COLOR set no colour is written; without it, names and the server have one."""
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Screen(program(), environment=environment) as screen:
            sign_in(screen)
            screen.shows(SIGNED_IN)
            screen.line("bye")
            assert screen.ends() == 0
            colours = {cell.fg for row in screen.screen.buffer.values() for cell in row.values()} - {"default"}
            assert bool(colours) is coloured


def test_tab_completes_commands_and_names() -> None:
    """Tab completes what is unambiguous, lists what is not, and asks the server for names nobody has seen."""
    with Screen(program(), columns=40) as screen:
        sign_in(screen)
        screen.send("/bro\t")
        screen.shows("alice> /broadcast")
        screen.send("\x03")
        screen.send("/send m\t")
        screen.shows("alice> /send mallory")
        screen.line("hi")
        screen.shows("Server: Sent to mallory.")
        screen.send("/wh\t")
        screen.shows("/whoami")
        screen.send("\x03")
        screen.line("bye")
        assert screen.ends() == 0


def test_a_password_is_changed_unseen() -> None:
    """/password asks for both passwords and writes neither; Ctrl-C does nothing."""
    with Screen(program()) as screen:
        sign_in(screen)
        screen.line("/password")
        screen.shows("Your password:")
        screen.send("\x03")
        screen.shows("* Nothing was done.")
        screen.line("/password")
        screen.until(lambda screen: str(screen).count("Your password:") == 2)
        screen.line(PASSWORD)
        screen.shows(f"Choose a new password ({PASSWORD_RULE}):")
        screen.line("hunter22hunter22")
        screen.shows("Type it again:")
        screen.line("hunter22hunter22")
        screen.shows("Server: Your password is changed.")
        assert "hunter22" not in screen.raw
        assert "correct" not in screen.raw
        screen.line("bye")
        assert screen.ends() == 0
