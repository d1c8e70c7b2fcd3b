"""The chat client without its terminal: commands become calls, answers and messages become lines.

A `ChatSession` is driven by one front (``terminal`` for people, ``piped`` for scripts). It signs in, opens the
stream of messages by itself, shows each message once, and turns every refusal into a sentence. It loads neither
the terminal library nor anything the server needs.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeGuard, TypeVar

from wireproto.chat import contract
from wireproto.chat.commands import (
    HELP,
    Command,
    Create,
    Delete,
    Help,
    Listen,
    LogIn,
    LogOut,
    More,
    Pop,
    Quit,
    Search,
    Send,
)
from wireproto.chat.display import Kind, Line
from wireproto.chat.refusals import refusal
from wireproto.errors import (
    CallError,
    CodecError,
    ConnectionLost,
    DecodeError,
    HandshakeError,
    LocalProtocolError,
)
from wireproto.metadata import Metadata
from wireproto.schema import Message, Method, StreamMethod
from wireproto.status import Status

__all__ = ["ChatSession", "Connection"]

WINDOW = 64
"""Messages the server may send ahead of what was shown; what the contract allows at most."""

PONG = 5.0
"""Seconds within which a server that is there answers a PING."""

QUIET = 0.05
"""Seconds without a new message after which those received are taken to be shown."""

EMPTY_PAGES = 10
"""Pages without a match that one listing looks through; a page covers 10,000 accounts."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

_log = logging.getLogger(__name__)


class Connection(Protocol):
    """What a session needs of ``wireproto.client.Client``."""

    def call(self, method: Method[Req, Resp], request: Req, *, metadata: Metadata | None = None) -> Resp: ...

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = ..., batch: int = ...
    ) -> Iterable[Resp]: ...

    def ping(self, timeout: float | None = None) -> float: ...

    def close(self, *, drain: float = 0.0) -> None: ...


class _Mailbox:
    """Which sequence numbers of one account were shown. The stream and PopUndelivered may bring the same ones."""

    def __init__(self) -> None:
        self.streamed = 0  # every number up to this one came by the stream, which keeps order
        self.popped: set[int] = set()  # numbers beyond it that PopUndelivered brought first

    def __contains__(self, sequence: int) -> bool:
        return sequence <= self.streamed or sequence in self.popped

    def take_streamed(self, sequence: int) -> bool:
        """Note a number from the stream; whether it is new."""
        new = sequence not in self
        self.popped.discard(sequence)
        self.streamed = max(self.streamed, sequence)
        return new

    def take_popped(self, sequence: int) -> bool:
        new = sequence not in self
        if new:
            self.popped.add(sequence)
        return new


class _Receiver:
    """One open stream of messages, as its thread and the session's owner see it."""

    def __init__(self, user: str, mailbox: _Mailbox, backlog: int) -> None:
        self.user = user
        self.mailbox = mailbox
        self.backlog = backlog  # messages that waited at log-in and have not come yet
        self.awaited = 0  # a sequence number known to come: this account wrote to itself
        self.dismissed = False  # the session ended it: its end is no news
        self.ended = False
        self.thread: threading.Thread | None = None

    @property
    def owes(self) -> bool:
        """Whether messages are known to be on their way."""
        return not self.ended and (self.backlog > 0 or self.awaited not in self.mailbox)


class ChatSession:
    """One person's conversation with one server.

    `execute`, `settle` and `close` belong to one thread at a time. ``show`` is called from that thread and from the
    receiving one, never by both at once; ``lost`` is called at most once, from either.

    Args:
        client: an open connection to a server of ``contract.CHAT``.
        show: prints one line; must make it safe (see ``display``).
        lost: told, in a sentence, that the server is gone; nothing can be carried out after it.
        server: what the sentence calls the server; its address.
    """

    def __init__(
        self,
        client: Connection,
        show: Callable[[Line], None],
        lost: Callable[[str], None],
        *,
        server: str = "the server",
    ) -> None:
        self._client = client
        self._show_line = show
        self._lost = lost
        self._server = server
        self._printing = threading.Lock()
        # Guards what follows, and is notified when a message was shown or the stream has ended.
        self._changed = threading.Condition()
        self._user = ""
        self._receiver: _Receiver | None = None
        self._mailboxes: dict[str, _Mailbox] = {}
        self._closing = False
        self._gone = False
        self._search = ("", "")  # pattern and cursor of the next page

    @property
    def user(self) -> str:
        """Who is signed in; empty when nobody is."""
        return self._user

    @property
    def gone(self) -> bool:
        """Whether the server went away."""
        return self._gone

    def execute(self, command: Command) -> None:
        """Carry out one command and show its answer; blocks until the server has answered.

        A log-in or a new account must bring its password. Never raises for what a server or a person can do wrong.
        """
        match command:
            case LogIn():
                self._log_in(command)
            case Create():
                self._create(command)
            case Search(pattern):
                self._list(pattern, "")
            case More():
                pattern, after = self._search
                if after:
                    self._list(pattern, after)
                else:
                    self._show(Kind.PROBLEM, "There is no further page. /list PATTERN begins a list.")
            case Send():
                self._send(command)
            case LogOut():
                self._log_out()
            case Delete():
                self._delete(command)
            case Pop():
                self._pop()
            case Listen():
                self._show(
                    Kind.NOTICE,
                    "Messages arrive by themselves."
                    if self._user
                    else "Messages arrive by themselves once you are signed in: type /login NAME.",
                )
            case Help():
                self._show(Kind.NOTICE, "What you can type:\n" + HELP)
            case Quit():
                pass  # the front's to do: it has lines to finish first

    def settle(self, patience: float) -> None:
        """Wait for the messages that are known to be coming; at most ``patience`` seconds for each next one."""
        with self._changed:
            receiver = self._receiver
            while receiver is not None and receiver.owes:
                before = receiver.mailbox.streamed
                if not self._changed.wait(patience) and receiver.mailbox.streamed == before:
                    return

    def check(self) -> None:
        """Find out whether the server is there, if nobody is signed in; else the stream would tell."""
        if self._user or self._gone or self._closing:
            return
        try:
            self._client.ping(PONG)
        except (ConnectionLost, HandshakeError) as error:
            self._server_gone(error)
        except CallError as error:
            _log.debug("no answer to a PING: %s", error)

    def close(self, timeout: float) -> None:
        """Send no more, show what still comes for about ``timeout`` seconds at most, and end the connection."""
        with self._changed:
            self._closing = True
            receiver = self._receiver
        if receiver is not None and not receiver.ended:
            self._drain(min(timeout, PONG))
        self._client.close(drain=min(timeout, PONG))
        if receiver is not None and receiver.thread is not None:
            receiver.thread.join(timeout)

    def _drain(self, timeout: float) -> None:
        """Show what the server has sent by now, and see to it that it knows what was shown."""
        deadline = time.monotonic() + timeout
        try:
            # Frames come in order: what was sent before the PONG is here with it. The second one says the same to us
            # about the acknowledgements. What is missed all the same was not acknowledged, and comes again.
            self._client.ping(timeout)
            with self._changed:
                while self._changed.wait(QUIET) and time.monotonic() < deadline:
                    pass
            self._client.ping(timeout)
        except CallError as error:
            _log.debug("the server was gone before the end: %s", error)

    # Commands

    def _log_in(self, command: LogIn) -> None:
        if self._user:
            # Answered here as well as by the server, so that nobody types a password for nothing.
            self._show(Kind.PROBLEM, f"You are signed in as {self._user} already. Type /logout first.")
            return
        request = contract.LogInRequest(username=command.name, password=command.password or "")
        answer = self._call(contract.LOG_IN, request, name=command.name)
        if answer is None:
            return
        waiting = f" {_count(answer.undelivered, 'message')} came while you were away." if answer.undelivered else ""
        self._show(Kind.SERVER, f"You are signed in as {command.name}.{waiting}")
        mailbox = self._mailboxes.setdefault(command.name, _Mailbox())
        receiver = _Receiver(command.name, mailbox, answer.undelivered)
        with self._changed:
            self._user = command.name
            self._receiver = receiver
        try:
            # Here and not in the thread: the next command then finds this account online.
            stream = self._client.stream(
                contract.RECEIVE_MESSAGES, contract.ReceiveMessagesRequest(), credit=WINDOW, batch=1
            )
        except (CallError, CodecError) as error:
            self._stream_ended(receiver, error)
            return
        receiver.thread = threading.Thread(
            target=self._receive, args=(receiver, stream), name="wireproto-chat-receive", daemon=True
        )
        receiver.thread.start()

    def _create(self, command: Create) -> None:
        request = contract.CreateAccountRequest(username=command.name, password=command.password or "")
        if self._call(contract.CREATE_ACCOUNT, request, name=command.name, writes=True) is not None:
            advice = "" if self._user else f" Sign in with /login {command.name}."
            self._show(Kind.SERVER, f"The account {command.name} is made.{advice}")

    def _list(self, pattern: str, after: str) -> None:
        further = " more" if after else ""
        for _ in range(EMPTY_PAGES):
            page = self._call(contract.WILD_CARD, contract.WildCardRequest(pattern=pattern, after=after), name=pattern)
            if page is None:
                return
            after = page.next
            if page.accounts or not after:
                break
        else:
            self._search = (pattern, after)
            self._show(Kind.SERVER, f"No{further} account matches {pattern} so far. /more looks further.")
            return
        self._search = (pattern, after)
        if not page.accounts:
            self._show(Kind.SERVER, f"No{further} account matches {pattern}.")
            return
        names = [f"{account.username}{' (online)' if account.online else ''}" for account in page.accounts]
        head = f"{_count(len(names), 'more account' if further else 'account')} matching {pattern}"
        self._show(Kind.SERVER, "\n".join([f"{head}{'; /more shows the next' if after else ''}:", *names]))

    def _send(self, command: Send) -> None:
        request = contract.SendMessageRequest(recipient=command.recipient, text=command.text)
        # With a key the server can tell a repetition from a second message.
        metadata = Metadata(idempotency_key=secrets.token_bytes(16))
        answer = self._call(contract.SEND_MESSAGE, request, name=command.recipient, writes=True, metadata=metadata)
        if answer is None:
            return
        with self._changed:
            if self._receiver is not None and self._receiver.user == command.recipient:
                self._receiver.awaited = answer.sequence
        self._show(Kind.SERVER, f"Sent to {command.recipient}.")

    def _log_out(self) -> None:
        if self._call_ending(contract.LOG_OUT, contract.LogOutRequest()) is not None:
            self._show(Kind.SERVER, "You are signed out.")

    def _delete(self, command: Delete) -> None:
        request = contract.DeleteAccountRequest(username=command.name, force=command.force)
        answer = self._call_ending(contract.DELETE_ACCOUNT, request, name=command.name)
        if answer is None:
            return
        self._mailboxes.pop(command.name, None)  # an account made anew counts from 1 again
        lost = f" {_count(answer.discarded, 'message')} that nobody read went with it." if answer.discarded else ""
        self._show(Kind.SERVER, f"The account {command.name} is deleted.{lost}")

    def _pop(self) -> None:
        page = self._call(contract.POP_UNDELIVERED, contract.PopUndeliveredRequest(), writes=True)
        if page is None:
            return
        mailbox = self._mailboxes.setdefault(self._user, _Mailbox())
        shown = 0
        for message in page.messages:
            with self._changed:
                new = mailbox.take_popped(message.sequence)
            if new:
                shown += 1
                self._show(Kind.MESSAGE, message.text, sender=message.sender)
        rest = f" {_count(page.remaining, 'message')} more: type /pop again." if page.remaining else ""
        self._show(
            Kind.SERVER, f"{_count(shown, 'undelivered message') if shown else 'No undelivered messages'}.{rest}"
        )

    # Calls

    def _call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        name: str = "",
        writes: bool = False,
        metadata: Metadata | None = None,
    ) -> Resp | None:
        """The answer, or None after the reason why there is none was shown."""
        try:
            return self._client.call(method, request, metadata=metadata)
        except (ConnectionLost, HandshakeError) as error:
            unsure = "It is not known whether your last line was carried out." if writes else ""
            self._server_gone(error, unsure)
        except CallError as error:
            text = refusal(error, name=name, user=self._user, writes=writes)
            self._show(Kind.SERVER, text, reason=error.reason or error.status.name)
        except DecodeError as error:
            self._show(Kind.PROBLEM, f"The server's answer cannot be read: {error}", reason="BAD_ANSWER")
        except (CodecError, LocalProtocolError) as error:
            self._show(Kind.PROBLEM, f"That cannot be sent: {error}", reason="NOT_SENT")
        return None

    def _call_ending(self, method: Method[Req, Resp], request: Req, *, name: str = "") -> Resp | None:
        """Like `_call`, for one that ends the session: then the end of the stream is no news."""
        receiver = self._receiver
        if receiver is not None:
            with self._changed:
                receiver.dismissed = True
        answer = self._call(method, request, name=name, writes=True)
        with self._changed:
            # A call may fail here and yet be done there: then the stream has ended all the same.
            if answer is not None or (receiver is not None and receiver.ended):
                self._user, self._receiver = "", None
            elif receiver is not None:
                receiver.dismissed = False
        return answer

    def _receive(self, receiver: _Receiver, stream: Iterable[contract.ReceiveMessagesResponse]) -> None:
        """Show the messages of one log-in until its stream ends. Runs in a thread of its own."""
        error: CallError | CodecError | None = None
        try:
            # Asking for the next message gives the credit of this one back, which acknowledges it: so not before
            # it was shown, and at once after.
            for message in stream:
                with self._changed:
                    new = receiver.mailbox.take_streamed(message.sequence)
                if new:
                    self._show(Kind.MESSAGE, message.text, sender=message.sender)
                with self._changed:
                    receiver.backlog -= 1
                    self._changed.notify_all()
        except (CallError, CodecError) as caught:
            error = caught
        finally:
            self._stream_ended(receiver, error)

    def _stream_ended(self, receiver: _Receiver, error: CallError | CodecError | None) -> None:
        """Say so, unless it was to be expected."""
        with self._changed:
            receiver.ended = True
            news = not (receiver.dismissed or self._closing or self._gone)
            self._changed.notify_all()
        if not news:
            _log.debug("the stream of messages ended: %s", error)
        elif _says_farewell(error):
            self._server_gone(error)
        elif isinstance(error, CodecError):
            self._show(Kind.PROBLEM, f"A message cannot be read, and none behind it: {error}", reason="BAD_ANSWER")
        elif error is not None and error.reason not in ("SIGNED_OUT", "SIGN_IN_REQUIRED"):
            self._show(Kind.SERVER, refusal(error, user=receiver.user), reason=error.reason)
            self._show(Kind.NOTICE, "New messages are not shown from here on; /logout and /login begin again.")
        else:
            self._signed_out(receiver, error)

    # State

    def _signed_out(self, receiver: _Receiver, error: CallError | None) -> None:
        """The server ended the session that ``receiver`` belongs to."""
        with self._changed:
            if self._receiver is not receiver:
                return
            self._user, self._receiver = "", None
        if error is not None and error.reason == "SIGN_IN_REQUIRED":
            # We were signed in: so this is another connection, made by itself after the first was lost.
            text = "The connection was lost and made again, so you are signed out. Type /login NAME."
            self._show(Kind.NOTICE, text)
        else:
            self._show(Kind.SERVER, refusal(CallError(Status.UNAUTHENTICATED, "SIGNED_OUT")), reason="SIGNED_OUT")

    def _server_gone(self, error: CallError, unsure: str = "") -> None:
        with self._changed:
            if self._gone or self._closing:
                return
            self._gone = True
            self._changed.notify_all()
        # Behind a semicolon stands advice for programs.
        why = error.message.partition(";")[0].rstrip(".") or error.status.name
        self._lost(" ".join(filter(None, (f"{self._server} went away: {why}.", unsure))))

    def _show(self, kind: Kind, text: str, *, sender: str = "", reason: str = "") -> None:
        with self._printing:
            self._show_line(Line(kind, text, sender, reason))


def _says_farewell(error: CallError | CodecError | None) -> TypeGuard[CallError]:
    """Whether this end of a stream means that there is no server any more, or will not be in a moment."""
    if isinstance(error, ConnectionLost | HandshakeError):
        return True
    return isinstance(error, CallError) and error.status is Status.UNAVAILABLE and error.reason != "STORE_FAILED"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
