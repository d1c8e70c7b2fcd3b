"""What a person reads when a call fails: a sentence that says what happened and what to do.

The reasons are those of ``wireproto_chat.opcodes`` and the framework's. Where only the server knows the detail
(which rule a password breaks, how many messages wait) its own words are kept, and the advice is put behind them.
"""

import re

from wireproto import CallError, Retry, Status

__all__ = ["PASSWORD_RULE", "refusal"]

PASSWORD_RULE = "12 to 128 characters, none of the common ones"
"""What a person is told before choosing a password: the rule of the opcode table. A server may ask for more."""

# Fields: name (whom or what the command was about), user (who is signed in), says (the server's own sentence),
# number (the first number in it), again (when to try again).
_SENTENCES = {
    "SIGN_IN_REQUIRED": "You are not signed in. Type /login NAME; /create NAME makes an account.",
    "ALREADY_SIGNED_IN": "You are signed in already. Type /logout first.",
    "BAD_CREDENTIALS": "Name or password is wrong. Try again, or make an account with /create {name}.",
    "BAD_USERNAME": "'{name}' cannot be a name: names are 1 to 32 of a-z, 0-9, '.', '_' and '-'.",
    "BAD_PASSWORD": "{says} Nothing was done; choose another password.",
    "NAME_TAKEN": "The name {name} is taken, or was until a short time ago. Choose another.",
    "BAD_PATTERN": "{says}",
    "BAD_TEXT": "{says} Nothing was sent.",
    "UNKNOWN_RECIPIENT": "There is no account {name}, so nothing was sent. /list shows who is there.",
    "MAILBOX_FULL": "The mailbox of {name} is full, so nothing was sent. It has room again when {name} has read.",
    "NOT_YOUR_ACCOUNT": "You can delete only your own account. You are signed in as {user}.",
    "UNDELIVERED_MESSAGES": "Undelivered messages wait for you ({number}), so nothing was deleted. "
    "Read them with /pop, or discard them with /delete {name} force.",
    "TOO_MANY_STREAMS": "Messages do not arrive here: this account receives in too many places already. "
    "End one of them, or read with /pop.",
    "THROTTLED": "Too many wrong passwords. {again}.",
    "TOO_OFTEN": "That was asked too often, so nothing was done. {again}.",
    "BAD_CREDENTIALS:/password": "That is not your password, so nothing was changed.",
    "UNKNOWN_ACCOUNT": "There is no account {name}. /list shows who is there.",
    "UNKNOWN_MESSAGE": "There is no such message of yours, so nothing was deleted. /history NAME shows the numbers.",
    "TOO_MANY_RECIPIENTS": "{says} Nothing was sent.",
    "KEY_CONFLICT": "The server takes this for another message than it is, so nothing was sent. Type it again.",
    "CONNECTION_LOST": "The connection was lost before the answer came{maybe}.",
    "SIGNED_OUT": "You were signed out: the session ended elsewhere. Type /login NAME.",
    "STORE_FULL": "The server's disk is full, so nothing was done. Tell whoever runs it.",
    "STORE_FAILED": "The server cannot reach its store{maybe}. {again}; if it stays so, tell whoever runs it.",
    "SERVER_BUSY": "The server has too much to do, so nothing was done. {again}.",
    "TOO_MANY_CALLS": "Too many commands are under way, so nothing was done. {again}.",
    "SHUTTING_DOWN": "The server is shutting down, so nothing was done. {again}.",
    "REQUEST_TOO_LARGE": "That is too long for this server, so nothing was done. Send it in parts.",
    "RESPONSE_TOO_LARGE": "The answer is too long to be sent. Ask for less, for example with a longer pattern.",
    "DEADLINE": "No answer came in time{maybe}. {again}.",
    "INTERNAL": "Something failed inside the server{maybe}. Tell whoever runs it: {says}",
}

# For a reason this client does not know, from a newer server: the status still says what to do.
_BY_STATUS = {
    Status.DEADLINE_EXCEEDED: _SENTENCES["DEADLINE"],
    Status.UNAUTHENTICATED: _SENTENCES["SIGN_IN_REQUIRED"],
    Status.UNAVAILABLE: "The server cannot do that just now{maybe}: {says} {again}.",
    Status.INTERNAL: _SENTENCES["INTERNAL"],
    Status.UNIMPLEMENTED: "This server does not offer that: {says}",
}

_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)


def refusal(error: CallError, *, name: str = "", user: str = "", writes: bool = False, command: str = "") -> str:
    """One sentence or two for ``error``; contains the server's words as they came, so not yet safe to print.

    Args:
        error: what the call raised.
        name: whom or what the command was about.
        user: who is signed in.
        command: the plain command, where a reason means something of its own to it.
        writes: whether the command would have changed something, so that not knowing matters.
    """
    template = (
        _SENTENCES.get(f"{error.reason}:{command}") or _SENTENCES.get(error.reason) or _BY_STATUS.get(error.status)
    )
    says = _sentence(error.message or f"the call ended with {error.status.name}")
    if template is None:
        return f"{says} {_again(error)}." if error.retry is Retry.NOT_PROCESSED else says
    count = _COUNT.search(error.message)
    return template.format(
        name=name or "NAME",
        user=user or "nobody",
        says=says,
        number=count[0] if count else "some",
        again=_again(error),
        maybe=", and it is not known whether it was done" if writes and error.retry is not Retry.NOT_PROCESSED else "",
    )


def _again(error: CallError) -> str:
    if not error.retry_after_ms:
        return "Try again later"
    seconds = -(-error.retry_after_ms // 1000)
    return f"Try again in {seconds} second{'s' if seconds > 1 else ''}"


def _sentence(text: str) -> str:
    """``text`` with a capital and a full stop, so that it stands beside ours."""
    text = text.strip(" \t\r\n")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
