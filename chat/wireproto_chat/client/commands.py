"""What a person may type, parsed into commands. Two spellings of each: ``3|bob|hello`` and ``/send bob hello``.

Parsing knows no connection and no terminal; a line that means nothing raises `Misunderstood`, whose text says
what to type instead.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = [
    "COMMANDS",
    "HELP",
    "PASSWORD_ON_LINE",
    "TAKES_NAME",
    "Broadcast",
    "ChangePassword",
    "ChatCommand",
    "Create",
    "Delete",
    "DeleteMessage",
    "Help",
    "History",
    "Listen",
    "LogIn",
    "LogOut",
    "Misunderstood",
    "More",
    "Pop",
    "Quit",
    "Search",
    "Send",
    "Who",
    "WhoAmI",
    "hides_password",
    "parse",
    "split",
]

HELP = """\
/login NAME            0|NAME            sign in; the password is asked for
/create NAME           1|NAME            make an account
/list [PATTERN]        2|PATTERN         accounts whose name matches; * any characters, ? one
/who [PATTERN]                           the same, with who is online and who was when
/send NAME TEXT        3|NAME|TEXT       send a message; TEXT may contain |
/broadcast PATTERN TEXT                  send a message to everybody whose name matches
/history NAME [N]                        the last N messages between you and NAME; 20 if not said
/more                                    the next page of the last list or history
/delete-message [NAME]#N                 delete a message for both; /history shows the number
/logout                4|                sign out
/delete NAME [force]   5|NAME[|force]    delete your account; force: also with messages waiting
/pop                   7|                take the undelivered messages
/password                                change your password; both are asked for
/whoami                                  who you are, and what waits
/help                                    this list
/quit                  bye, quit         leave
A pasted text is one command or several: each line that begins with a command is one, and other lines belong to the
message above. Ctrl-Z suspends the program, fg brings it back.
When input is not a terminal, a password may be the third part: 0|NAME|PASSWORD."""

PASSWORD_ON_LINE = "A password on the line stays on the screen. Type only the name, and you are asked for it."
"""What is said to a person, as opposed to a script, who writes the third part of ``0|NAME|PASSWORD``."""

PASSWORD_ASKED = "Type only /password: both passwords are asked for, and nothing of them is shown."


class Misunderstood(Exception):
    """The line is no command; the text says what to type."""


@dataclass(frozen=True, slots=True)
class LogIn:
    """``password`` is None when it has to be asked for."""

    name: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Create:
    """``password`` is None when it has to be asked for."""

    name: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Search:
    pattern: str


@dataclass(frozen=True, slots=True)
class More:
    pass


@dataclass(frozen=True, slots=True)
class Send:
    recipient: str
    text: str


@dataclass(frozen=True, slots=True)
class Who:
    pattern: str


@dataclass(frozen=True, slots=True)
class Broadcast:
    pattern: str
    text: str


@dataclass(frozen=True, slots=True)
class History:
    name: str
    count: int = 20


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """``recipient`` is empty for a message that the person received."""

    recipient: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Both are None when they have to be asked for; they never stand on a line."""

    password: str | None = field(default=None, repr=False)
    new_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class WhoAmI:
    pass


@dataclass(frozen=True, slots=True)
class LogOut:
    pass


@dataclass(frozen=True, slots=True)
class Delete:
    name: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Listen:
    """``6|``: what signing in does anyway."""


@dataclass(frozen=True, slots=True)
class Pop:
    pass


@dataclass(frozen=True, slots=True)
class Help:
    pass


@dataclass(frozen=True, slots=True)
class Quit:
    pass


ChatCommand = (
    LogIn
    | Create
    | Search
    | Who
    | More
    | Send
    | Broadcast
    | History
    | DeleteMessage
    | LogOut
    | Delete
    | Listen
    | Pop
    | ChangePassword
    | WhoAmI
    | Help
    | Quit
)

# What each plain command takes, spelled as the refusal of a wrong one spells it.
_USAGE = {
    "/login": "/login NAME",
    "/create": "/create NAME",
    "/list": "/list [PATTERN]",
    "/who": "/who [PATTERN]",
    "/send": "/send NAME TEXT",
    "/broadcast": "/broadcast PATTERN TEXT",
    "/history": "/history NAME [N]",
    "/more": "/more",
    "/delete-message": "/delete-message [NAME]#N",
    "/logout": "/logout",
    "/delete": "/delete NAME [force]",
    "/pop": "/pop",
    "/password": "/password",
    "/whoami": "/whoami",
    "/help": "/help",
    "/quit": "/quit",
}
_OPTIONS = ("0|NAME", "1|NAME", "2|PATTERN", "3|NAME|TEXT", "4|", "5|NAME", "6|", "7|")
_SAME = {"/bye": "/quit", "/exit": "/quit", "/?": "/help", "/signin": "/login", "/msg": "/send", "/passwd": "/password"}
_KNOWN = [*_USAGE, *_SAME]
_BARE: dict[str, Callable[[], ChatCommand]] = {
    "/logout": LogOut,
    "/pop": Pop,
    "/more": More,
    "/whoami": WhoAmI,
    "/help": Help,
    "/quit": Quit,
}
_LEAVE = frozenset({"bye", "quit", "/quit", "/bye", "/exit"})

COMMANDS = tuple(_USAGE)
"""Every plain command, in the order of `HELP`."""

TAKES_NAME = frozenset({"/send", "/msg", "/history", "/delete", "/login", "/list", "/who", "/broadcast"})
"""Those whose first word is, or may be, the name of an account."""

MOST_HISTORY = 1_000

_BLANKS = " \t"
_FIRST_WORD = re.compile(r"[ \t]*([^ \t\n]+)[ \t\n]?(.*)", re.DOTALL)
_OPTION = re.compile(r"([0-9]{1,9})(?:\|(.*))?", re.ASCII | re.DOTALL)
_WITH_PASSWORD = re.compile(
    r"\s*(?:[01]\|[^|]*\|.|/(?:login|create|signin)\s+\S+\s+\S|/(?:password|passwd)\s+\S)",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
_MESSAGE = re.compile(r"([^#|]*)#([0-9]{1,18})", re.ASCII)


def hides_password(line: str) -> bool:
    """Whether ``line`` holds a password, rightly or not: such a line is kept in no history."""
    return _WITH_PASSWORD.match(line) is not None


def split(text: str) -> list[str]:
    """The commands of a text that was pasted, each as it is to be parsed; a line that was typed is one.

    Each line that begins with a command, in the spelling of the first, begins a new one. The others are lines of a
    message, and so is one with a blank in front. A word that is nearly a command counts as one: it is refused by
    itself, where it would else be told to whom the message above goes.
    """
    first, *others = text.lstrip(_BLANKS).split("\n")
    begins = _begins_plainly if first.startswith("/") else _begins_with_option
    found = [[first]]
    for line in others:
        if begins(first) and begins(line):
            found.append([line])
        else:
            found[-1].append(line)
    return ["\n".join(each).rstrip("\n") for each in found] if others else [text]


def _begins_plainly(line: str) -> bool:
    word = _split(line)[0].lower()
    if not line.startswith("/"):
        return False
    if word in _KNOWN:
        return True
    # Nearly one, and no path: that has further slashes, or is no word at all.
    return re.fullmatch("/[a-z-]+", word) is not None and bool(difflib.get_close_matches(word, _KNOWN, 1, 0.75))


def _begins_with_option(line: str) -> bool:
    return re.match(r"[0-9]{1,9}\|", line, re.ASCII) is not None


def parse(line: str) -> ChatCommand | None:
    """The command that ``line`` spells; None for a blank line.

    Only the ends of the line are stripped, and of a message's text not even these.

    Raises:
        Misunderstood: it spells none.
    """
    line = line.lstrip(_BLANKS)
    bare = line.rstrip(_BLANKS)
    if not bare:
        return None
    if bare.lower() in _LEAVE:
        return Quit()
    if option := _OPTION.fullmatch(line):
        return _option(int(option[1]), option[2] or "")
    if line.startswith("/"):
        return _plain(line)
    if " " not in bare and (close := difflib.get_close_matches("/" + bare.lower(), _KNOWN, 1, 0.7)):
        raise Misunderstood(f"'{bare}' is not a command. Did you mean {close[0]}? /help lists what there is.")
    raise Misunderstood("That is not a command. To send a message type /send NAME TEXT; /help lists what there is.")


def _option(code: int, data: str) -> ChatCommand:
    """One line of the original syntax, ``{option code}|{data}``."""
    if code >= len(_OPTIONS):
        raise Misunderstood(f"There is no option {code}; the options are 0 to 7. /help lists them.")
    usage = _OPTIONS[code]
    first, bar, rest = data.partition("|")
    name = first.strip(_BLANKS)
    match code:
        case 0 | 1:
            if not name:
                raise Misunderstood(f"The name is missing: type {usage}, for example {code}|alice.")
            # A password is taken as it is: bars and blanks are part of it.
            return (LogIn, Create)[code](name, rest or None)
        case 2:
            if bar:
                raise Misunderstood(f"Names hold no bar: type {usage}, for example 2|a*.")
            return Search(name or "*")
        case 3:
            if not name or not rest:
                raise Misunderstood(f"To send a message type {usage}, for example 3|bob|hello.")
            return Send(name, rest)
        case 5:
            if not name:
                raise Misunderstood(f"The name is missing: type {usage}, with your own name, to delete your account.")
            return Delete(name, _force(rest, "5|NAME|force"))
    if data.strip(_BLANKS):
        raise Misunderstood(f"Option {code} takes nothing behind the bar: type {usage}")
    return LogOut() if code == 4 else Listen() if code == 6 else Pop()


def _plain(line: str) -> ChatCommand:
    """One line of the plain syntax, ``/command words``."""
    word, rest = _split(line)
    name = _SAME.get(word.lower(), word.lower())
    if name not in _USAGE:
        close = difflib.get_close_matches(name, _KNOWN, 1, 0.6)
        guess = f" Did you mean {close[0]}?" if close else ""
        raise Misunderstood(f"There is no command '{word}'.{guess} /help lists what there is.")
    usage = _USAGE[name]
    first, more = _split(rest)
    match name:
        case "/send":
            # Exactly one blank ends the name: what follows is the sender's own.
            if not first or not more:
                raise Misunderstood(f"To send a message type {usage}, for example /send bob hello.")
            return Send(first, more)
        case "/login" | "/create":
            if not first:
                raise Misunderstood(f"The name is missing: type {usage}, for example {name} alice.")
            return (LogIn if name == "/login" else Create)(first, more.strip(_BLANKS) or None)
        case "/list" | "/who":
            if more.strip(_BLANKS):
                raise Misunderstood(f"Names hold no blanks: type {usage}, for example {name} a*.")
            return (Search if name == "/list" else Who)(first or "*")
        case "/broadcast":
            if not first or not more:
                raise Misunderstood(f"To send to many type {usage}, for example /broadcast team-* lunch!")
            return Broadcast(first, more)
        case "/history":
            return _history(first, more.strip(_BLANKS), usage)
        case "/delete-message":
            found = _MESSAGE.fullmatch(rest.strip(_BLANKS))
            if found is None:
                raise Misunderstood(
                    f"Which message? Type {usage} as /history shows it: #7 of yours, bob#7 of bob's. "
                    "Nothing was deleted."
                )
            return DeleteMessage(found[1].strip(_BLANKS), int(found[2]))
        case "/password":
            if first:
                raise Misunderstood(PASSWORD_ASKED)
            return ChangePassword()
        case "/delete":
            if not first:
                raise Misunderstood(f"The name is missing: type {usage}, with your own name, to delete your account.")
            return Delete(first, _force(more, usage))
    if first:
        raise Misunderstood(f"{name} takes nothing behind it.")
    return _BARE[name]()


def _history(name: str, count: str, usage: str) -> History:
    if not name:
        raise Misunderstood(f"The name is missing: type {usage}, for example /history bob.")
    if not count:
        return History(name)
    if not (count.isascii() and count.isdigit() and len(count) <= 4 and 1 <= int(count) <= MOST_HISTORY):
        raise Misunderstood(f"How many messages? Type {usage}, with a number from 1 to {MOST_HISTORY:,}.")
    return History(name, int(count))


def _split(text: str) -> tuple[str, str]:
    """The first word, and what follows the one blank (or line end, when pasted) behind it."""
    found = _FIRST_WORD.match(text)
    return (found[1], found[2]) if found else ("", "")


def _force(word: str, usage: str) -> bool:
    """``force`` or nothing; anything else might be a slip, and what it would delete does not come back."""
    word = word.strip(_BLANKS)
    if word.lower() not in ("", "force"):
        raise Misunderstood(f"'{word}' is not understood; type {usage}. Nothing was deleted.")
    return bool(word)
