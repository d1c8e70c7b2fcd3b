"""What may be typed, in both spellings, and what a wrong line is answered."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireproto_chat.client.commands import (
    Broadcast,
    ChangePassword,
    ChatCommand,
    Create,
    Delete,
    DeleteMessage,
    Help,
    History,
    Listen,
    LogIn,
    LogOut,
    Misunderstood,
    More,
    Pop,
    Quit,
    Search,
    Send,
    Who,
    WhoAmI,
    hides_password,
    parse,
    split,
)
from wireproto_chat.client.sentences import PASSWORD_RULE
from wireproto_chat.service.passwords import MAX_CHARACTERS, MIN_CHARACTERS


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("0|alice", LogIn("alice")),
        ("0| alice ", LogIn("alice")),
        ("0|alice|", LogIn("alice")),
        ("0|alice|secret word|with bars ", LogIn("alice", "secret word|with bars ")),
        ("/login alice", LogIn("alice")),
        ("/LOGIN alice", LogIn("alice")),
        ("/login alice secret word", LogIn("alice", "secret word")),
        ("1|alice", Create("alice")),
        ("1|alice|secret", Create("alice", "secret")),
        ("/create alice", Create("alice")),
        ("2|a*", Search("a*")),
        ("2|", Search("*")),
        ("2", Search("*")),
        ("/list", Search("*")),
        ("/list a?b*", Search("a?b*")),
        ("/who", Who("*")),
        ("/who a*", Who("a*")),
        ("/broadcast team-* lunch at | noon ", Broadcast("team-*", "lunch at | noon ")),
        ("/history bob", History("bob", 20)),
        ("/history bob 5", History("bob", 5)),
        ("/delete-message bob#12", DeleteMessage("bob", 12)),
        ("/delete-message #7 ", DeleteMessage("", 7)),
        ("/password", ChangePassword()),
        ("/passwd", ChangePassword()),
        ("/whoami", WhoAmI()),
        ("/more", More()),
        ("3|bob|hi", Send("bob", "hi")),
        ("3| bob | hi | there ", Send("bob", " hi | there ")),
        ("3|bob|line\nline", Send("bob", "line\nline")),
        ("/send bob hi", Send("bob", "hi")),
        ("/send bob  two blanks ", Send("bob", " two blanks ")),
        ("/send bob\tindented", Send("bob", "indented")),
        ("/send bob\nline\nline", Send("bob", "line\nline")),
        ("/send bob \\x1b|\\", Send("bob", "\\x1b|\\")),
        ("4|", LogOut()),
        ("4", LogOut()),
        ("/logout", LogOut()),
        ("5|alice", Delete("alice")),
        ("5|alice|force", Delete("alice", force=True)),
        ("5|alice| FORCE ", Delete("alice", force=True)),
        ("/delete alice", Delete("alice")),
        ("/delete alice force", Delete("alice", force=True)),
        ("6|", Listen()),
        ("7|", Pop()),
        ("/pop", Pop()),
        ("/help", Help()),
        ("bye", Quit()),
        ("  Quit ", Quit()),
        ("/quit", Quit()),
        ("/exit", Quit()),
        ("", None),
        (" \t ", None),
    ],
)
def test_a_line_becomes_a_command(line: str, command: ChatCommand | None) -> None:
    """Both spellings mean the same, and a message's text stays as it is."""
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hello", "/help"),
        ("hello bob", "/send NAME TEXT"),
        ("send", "Did you mean /send?"),
        ("exit", "Did you mean /exit?"),
        ("/sned bob hi", "Did you mean /send?"),
        ("/hlep", "Did you mean /help?"),
        ("/xyzzy", "There is no command '/xyzzy'. /help"),
        ("/", "There is no command '/'"),
        ("8|x", "the options are 0 to 7"),
        ("12345678|x", "the options are 0 to 7"),
        ("0|", "0|NAME"),
        ("1| |x", "1|NAME"),
        ("/login", "/login NAME"),
        ("2|a|b", "2|PATTERN"),
        ("/list a b", "/list [PATTERN]"),
        ("/who a b", "/who [PATTERN]"),
        ("/broadcast a*", "/broadcast PATTERN TEXT"),
        ("/history", "/history NAME [N]"),
        ("/history bob 0", "1 to 1,000"),
        ("/history bob 1001", "1 to 1,000"),
        ("/history bob \uff13", "1 to 1,000"),
        ("/history bob some", "1 to 1,000"),
        ("/delete-message", "Nothing was deleted"),
        ("/delete-message 7", "#7 of yours"),
        ("/delete-message bob#", "Nothing was deleted"),
        ("/password old new", "Type only /password"),
        ("/whoami now", "takes nothing"),
        ("3|bob", "3|NAME|TEXT"),
        ("3|bob|", "3|NAME|TEXT"),
        ("3||hi", "3|NAME|TEXT"),
        ("/send bob", "/send NAME TEXT"),
        ("/send bob ", "/send NAME TEXT"),
        ("4|alice", "4|"),
        ("7|3", "7|"),
        ("/logout now", "takes nothing"),
        ("5|", "5|NAME"),
        ("5|alice|forse", "Nothing was deleted"),
        ("/delete", "/delete NAME [force]"),
        ("/delete alice bob", "Nothing was deleted"),
        ("\uff13|bob|hi", "not a command"),
        ("-1|x", "not a command"),
    ],
)
def test_a_wrong_line_is_answered_with_what_to_type(line: str, says: str) -> None:
    """The sentence names the spelling that would have been right."""
    with pytest.raises(Misunderstood) as caught:
        parse(line)
    assert says in str(caught.value)


@given(st.text())
def test_any_line_is_a_command_or_misunderstood(line: str) -> None:
    """No line breaks the parser."""
    with contextlib.suppress(Misunderstood):
        parse(line)


@given(st.text("abc.-_", min_size=1), st.text(min_size=1))
def test_texts_survive_both_spellings(name: str, text: str) -> None:
    """Whatever the text is, it is sent as typed."""
    assert parse(f"3|{name}|{text}") == Send(name, text)
    assert parse(f"/send {name} {text}") == Send(name, text)


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("0|alice|secret", True),
        ("1|alice| ", True),
        (" 0|alice|secret", True),
        ("/login alice secret", True),
        ("/create  alice  secret", True),
        ("/password secret", True),
        ("/PASSWD secret more", True),
        ("/LOGIN alice secret", True),
        ("/password ", False),
        ("0|alice", False),
        ("0|alice|", False),
        ("/login alice ", False),
        ("3|bob|secret", False),
        ("10|bob|x", False),
        ("/send bob secret", False),
    ],
)
def test_lines_with_passwords_are_recognised(line: str, secret: bool) -> None:
    """A line with a password in it is kept in no history, however it is spelled."""
    assert hides_password(line) is secret


def test_passwords_are_not_in_a_repr() -> None:
    """A command in a log or traceback shows no password."""
    assert "secret" not in repr(
        [LogIn("alice", "secret"), Create("alice", "secret"), ChangePassword("secret", "secret")]
    )


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("/send bob hi", ["/send bob hi"]),
        ("/send bob one\n/send carol two\n/send dave three", ["/send bob one", "/send carol two", "/send dave three"]),
        ("/send bob one\n/send carol two\n", ["/send bob one", "/send carol two"]),
        ("  /send bob one\n\n\n/LIST a*\n/?", ["/send bob one", "/LIST a*", "/?"]),
        ("3|bob|one\n3|carol|two\n4|", ["3|bob|one", "3|carol|two", "4|"]),
        ("/send bob one\ntwo\n\nthree\n/list", ["/send bob one\ntwo\n\nthree", "/list"]),
        # What only looks like a command, in the other spelling, or with a blank in front, is a line of the message.
        ("/send bob files:\n/etc/passwd\n/home\n/tmp is full", ["/send bob files:\n/etc/passwd\n/home\n/tmp is full"]),
        ("/send bob rows:\n1|apple\n2|pear", ["/send bob rows:\n1|apple\n2|pear"]),
        ("3|bob|type\n/list", ["3|bob|type\n/list"]),
        ("/send bob type\n /list\nbye", ["/send bob type\n /list\nbye"]),
        # A slip of the finger is answered, and never sent to whoever is above.
        ("/send bob hi\n/sned carol secret", ["/send bob hi", "/sned carol secret"]),
        ("hello\n/list", ["hello\n/list"]),
        ("bye\n/list", ["bye\n/list"]),
        ("", [""]),
        ("\n", [""]),
    ],
)
def test_a_pasted_text_is_split_where_commands_begin(text: str, commands: list[str]) -> None:
    """Each line that begins with a command is one; what follows belongs to it."""
    assert split(text) == commands


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=8), min_size=1, max_size=5))
def test_nothing_of_a_pasted_text_is_lost(lines: list[str]) -> None:
    """Every line is in one of the commands, in order, but for empty ones at the end of each."""
    text = "/send bob " + "\n".join(lines)
    assert [line for each in split(text) for line in each.split("\n") if line] == [
        line for line in text.split("\n") if line
    ]


def test_the_rule_for_passwords_is_the_services() -> None:
    """What a person is told before choosing a password is what the service asks for unless it is told otherwise."""
    assert PASSWORD_RULE.startswith(f"{MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
