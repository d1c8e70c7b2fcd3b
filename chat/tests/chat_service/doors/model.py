"""The chat service in plain Python: accounts, mailboxes, keys, sessions; what each call answers, or is refused with.

It knows nothing of the service's code. Time stands still but for ``pass_time``, so it knows who is throttled, too.
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

__all__ = ["Account", "Message", "Model", "Refused", "Session"]

PASSWORD = "correct horse battery"
FREE_GUESSES = 5


class Refused(Exception):
    """The call is refused, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(eq=False)
class Message:
    """One message in one mailbox. Its id is what the server said, once it did."""

    sender: "Account"
    recipient: "Account"
    sequence: int
    text: str
    message_id: bytes = b""
    deleted: bool = False


@dataclass(eq=False)
class Session:
    """One log-in."""

    account: "Account"
    ended: bool = False


@dataclass
class Key:
    """What was asked and answered under an idempotency key."""

    content: tuple[str, ...]
    answer: object


@dataclass(eq=False)
class Account:
    """An account and its mailbox."""

    name: str
    password: str = PASSWORD
    deleted: bool = False
    mailbox: list[Message] = field(default_factory=list)
    acknowledged: int = 0
    keys: dict[bytes, Key] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    failures: int = 0
    failed_at: float = 0.0

    @property
    def head(self) -> int:
        return len(self.mailbox)

    def waiting(self) -> list[Message]:
        """What is neither acknowledged nor deleted."""
        return [message for message in self.mailbox[self.acknowledged :] if not message.deleted]


class Model:
    """All accounts by name, and every message in the order of acceptance."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.messages: list[Message] = []
        self.now = 0.0

    def live(self) -> list[Account]:
        return [account for account in self.accounts.values() if not account.deleted]

    def account(self, name: str, otherwise: str) -> Account:
        account = self.accounts.get(name)
        if account is None or account.deleted:
            raise Refused(otherwise)
        return account

    def signed_in(self, session: Session) -> Account:
        if session.ended:
            raise Refused("SIGN_IN_REQUIRED")
        return session.account

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    # Accounts and sessions.

    def create(self, name: str) -> None:
        if name in self.accounts:
            raise Refused("NAME_TAKEN")  # live, or deleted and its name held back
        self.accounts[name] = Account(name)

    def log_in(self, name: str, password: str) -> Session:
        account = self._verified(name, password)
        session = Session(account)
        account.sessions.append(session)
        return session

    def resume(self, session: Session) -> None:
        if session.ended:
            raise Refused("BAD_CREDENTIALS")

    def _verified(self, name: str, password: str) -> Account:
        account = self.accounts[name]
        wait = 0 if account.failures < FREE_GUESSES else min(900, 2 ** (account.failures - FREE_GUESSES))
        if self.now - account.failed_at < wait:
            raise Refused("THROTTLED")
        if account.deleted or account.password != password:
            account.failures += 1
            account.failed_at = self.now
            raise Refused("BAD_CREDENTIALS")
        account.failures = 0
        return account

    def log_out(self, session: Session) -> None:
        account = self.signed_in(session)
        session.ended = True
        account.sessions.remove(session)

    def change_password(self, session: Session, old: str, new: str) -> int:
        account = self._verified(self.signed_in(session).name, old)
        account.password = new
        others = [other for other in account.sessions if other is not session]
        for other in others:
            other.ended = True
        account.sessions = [session]
        return len(others)

    def delete_account(self, session: Session, *, force: bool) -> int:
        account = self.signed_in(session)
        discarded = len(account.waiting())
        if discarded and not force:
            raise Refused("UNDELIVERED_MESSAGES")
        account.deleted = True
        for each in account.sessions:
            each.ended = True
        account.sessions.clear()
        self.messages = [message for message in self.messages if message.recipient is not account]
        return discarded

    # Messages.

    def send(self, session: Session, to: str, text: str, key: bytes) -> tuple[Message, bool]:
        """The message, and whether it was there before."""
        sender = self.signed_in(session)
        known = self._known(sender, key, ("send", to, text))
        if known is not None:
            assert isinstance(known.answer, Message)
            return known.answer, True
        message = self._append(sender, self.account(to, "UNKNOWN_RECIPIENT"), text)
        if key:
            sender.keys[key] = Key(("send", to, text), message)
        return message, False

    def broadcast(self, session: Session, pattern: str, text: str, key: bytes) -> tuple[int, bool]:
        sender = self.signed_in(session)
        known = self._known(sender, key, ("broadcast", pattern, text))
        if known is not None:
            assert isinstance(known.answer, int)
            return known.answer, True
        found = [each for each in self.live() if each is not sender and fnmatchcase(each.name, pattern)]
        for account in sorted(found, key=lambda account: account.name):
            self._append(sender, account, text)
        if key:
            sender.keys[key] = Key(("broadcast", pattern, text), len(found))
        return len(found), False

    def _known(self, sender: Account, key: bytes, content: tuple[str, ...]) -> Key | None:
        known = sender.keys.get(key)
        if known is not None and known.content != content:
            raise Refused("KEY_CONFLICT")
        return known

    def _append(self, sender: Account, recipient: Account, text: str) -> Message:
        message = Message(sender, recipient, recipient.head + 1, text)
        recipient.mailbox.append(message)
        self.messages.append(message)
        return message

    def pop(self, session: Session, limit: int) -> tuple[list[Message], int]:
        account = self.signed_in(session)
        page = account.waiting()[:limit]
        if page:
            account.acknowledged = page[-1].sequence
        return page, len(account.waiting())

    def acknowledge(self, session: Session, sequence: int, given: int) -> tuple[int, int]:
        """Up to what was acknowledged or given out before."""
        account = self.signed_in(session)
        if not 0 <= sequence <= max(given, account.acknowledged):
            raise Refused("ACKNOWLEDGED_TOO_MUCH")
        account.acknowledged = max(account.acknowledged, sequence)
        return account.acknowledged, len(account.waiting())

    def delete_message(self, session: Session, recipient: str, sequence: int) -> Message:
        caller = self.signed_in(session)
        box = self.account(recipient, "UNKNOWN_MESSAGE").mailbox
        if not 1 <= sequence <= len(box) or caller not in (box[sequence - 1].sender, box[sequence - 1].recipient):
            raise Refused("UNKNOWN_MESSAGE")
        box[sequence - 1].deleted = True
        return box[sequence - 1]

    def conversation(self, session: Session, name: str) -> list[Message]:
        """All of it, oldest first."""
        me = self.signed_in(session)
        other = self.account(name, "UNKNOWN_ACCOUNT")
        pairs = ((me, other), (other, me))
        return [message for message in self.messages if (message.sender, message.recipient) in pairs]
