"""What a person reads when a call succeeds: the server's answers as sentences, lists and lines of the past."""

from collections.abc import Sequence
from datetime import datetime

from wireproto_chat.client.display import DisplayLine, LineKind
from wireproto_chat.opcodes import Account, ConversationMessage, WhoAmIResponse

__all__ = ["accounts", "count", "past", "who_you_are"]


def accounts(found: Sequence[Account], *, times: bool) -> list[str]:
    """One row for each account; with ``times`` its presence in a column of its own."""
    if not times:
        return [f"{account.username}{' (online)' if account.online else ''}" for account in found]
    width = max(len(account.username) for account in found)
    return [f"{account.username:{width}}  {_presence(account)}" for account in found]


def past(message: ConversationMessage, reader: str) -> DisplayLine:
    """A message of a conversation as ``reader`` sees it; a place without a name is in the reader's own mailbox."""
    return DisplayLine(
        LineKind.HISTORY,
        "(deleted)" if message.deleted else message.text,
        sender=message.sender,
        place=f"{'' if message.recipient == reader else message.recipient}#{message.sequence}",
        when=_moment(message.sent_at),
    )


def who_you_are(answer: WhoAmIResponse) -> str:
    """The account, and what waits for it."""
    waiting = f"{count(answer.undelivered, 'message')} not shown yet" if answer.undelivered else "none waits"
    where = "nowhere else" if answer.sessions == 1 else f"in {count(answer.sessions, 'place')}"
    return (
        f"You are {answer.username}. The account was made {_moment(answer.created_at)} and is signed in "
        f"{where}. {count(answer.last_sequence, 'message')} came; {waiting}."
    )


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _presence(account: Account) -> str:
    if account.online:
        return "online"
    return f"last seen {_moment(account.last_seen)}" if account.last_seen is not None else "offline"


def _moment(time: datetime) -> str:
    """To the minute, by the clock of whoever reads it; in UTC where that clock has no such time."""
    try:
        local = time.astimezone()
    except (
        OverflowError,
        OSError,
        ValueError,
    ):  # a server may say any year from 1 to 9999, and the clock adds its hours
        return f"{time.replace(tzinfo=None).isoformat(' ', 'minutes')} UTC"
    return local.replace(tzinfo=None).isoformat(" ", "minutes")
