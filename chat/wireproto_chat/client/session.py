"""The chat client without its terminal: commands become calls, answers and messages become lines.

A `ChatSession` is driven by one front (``terminal`` for people, ``piped`` for scripts). It signs in, opens the
stream of messages by itself, shows each message once, comes back after a lost connection, and turns every refusal into
a sentence. It loads neither the terminal library nor anything the server needs.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from wireproto import (
    CallError,
    CodecError,
    ConnectionLost,
    DecodeError,
    HandshakeError,
    LocalProtocolError,
    Metadata,
    Status,
)
from wireproto.schema import Message, Method
from wireproto_chat import opcodes
from wireproto_chat.client import answers
from wireproto_chat.client.answers import count
from wireproto_chat.client.commands import (
    HELP,
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
)
from wireproto_chat.client.display import DisplayLine, LineKind
from wireproto_chat.client.inbox import Inbox, ShownMessages
from wireproto_chat.client.names import Names
from wireproto_chat.client.reconnect import PATIENCE, ChatClient, Gone, Lasting, Messages, SessionEnded, is_lost
from wireproto_chat.client.sentences import refusal

__all__ = ["ChatSession"]

WINDOW = 64
"""Messages the server may send ahead of what was shown; no stream of the chat has more that are not acknowledged."""

PONG = 5.0
"""Seconds within which a server that is there answers a PING."""

QUIET = 0.05
"""Seconds without a new message after which those received are taken to be shown."""

EMPTY_PAGES = 10
"""Pages without a match that one listing looks through; a page covers 10,000 accounts."""

SUGGESTED = 50
"""Names asked of the server for one completion."""

SUGGEST = 2.0
"""Seconds that this may take."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Opened = Messages[opcodes.ReceiveMessagesResponse] | CallError | CodecError

_log = logging.getLogger(__name__)


class ChatSession:
    """One person's conversation with one server.

    `execute`, `catch_up` and `close` belong to one thread at a time. ``show`` is called from that thread and from the
    receiving one, never by both at once; ``lost`` is called at most once, from either.

    Args:
        client: an open connection to a server of ``opcodes.CHAT``.
        show: prints one line; must make it safe (see ``display``).
        lost: told, in a sentence, that the server is gone for good; nothing can be carried out after it.
        server: what the sentence calls the server; its address.
        patience: seconds that getting a lost connection back may take; 0 to take every loss for final.
    """

    def __init__(
        self,
        client: ChatClient,
        show: Callable[[DisplayLine], None],
        lost: Callable[[str], None],
        *,
        server: str = "the server",
        patience: float = PATIENCE,
    ) -> None:
        self._client = client
        self._lasting = Lasting(client, self._connection_changed, patience=patience)
        self._names = Names(self._ask_names)
        self._show_line = show
        self._lost = lost
        self._server = server
        self._server_name = server[:1].lower() + server[1:]  # inside a sentence
        self._printing = threading.Lock()
        # Guards what follows, and is notified when a message was shown or the stream has ended.
        self._changed = threading.Condition()
        self._user = ""
        self._inbox: Inbox | None = None
        self._shown: dict[str, ShownMessages] = {}
        self._closing = False
        self._gone = False
        self._further: Callable[[], None] | None = None  # shows the next page
        self._failure: Exception | None = None

    @property
    def user(self) -> str:
        """Who is signed in; empty when nobody is."""
        return self._user

    @property
    def gone(self) -> bool:
        """Whether the server went away."""
        return self._gone

    @property
    def failure(self) -> Exception | None:
        """Why the last command was not carried out; None when it was."""
        return self._failure

    def execute(self, command: ChatCommand) -> None:
        """Carry out one command and show its answer; blocks until the server has answered.

        A log-in, a new account or a change of password must bring its passwords. Never raises for what a server or a
        person can do wrong: see `failure`. While the connection is lost it waits until that is back.
        """
        self._failure = None
        match command:
            case LogIn():
                self._log_in(command)
            case Create():
                self._create(command)
            case Search(pattern):
                self._list(pattern, "")
            case Who(pattern):
                self._list(pattern, "", times=True)
            case More():
                if self._further is None:
                    self._failure = Misunderstood("There is no further page. /list PATTERN begins a list.")
                    self._show(LineKind.PROBLEM, str(self._failure))
                else:
                    self._further()
            case Send():
                self._send(command)
            case Broadcast():
                self._broadcast(command)
            case History(name, most):
                self._history(name, most, 0)
            case DeleteMessage():
                self._delete_message(command)
            case LogOut():
                self._log_out()
            case Delete():
                self._delete(command)
            case Pop():
                self._pop()
            case ChangePassword():
                self._change_password(command)
            case WhoAmI():
                self._who_am_i()
            case Listen():
                self._show(
                    LineKind.NOTICE,
                    "Messages arrive by themselves."
                    if self._user
                    else "Messages arrive by themselves once you are signed in: type /login NAME.",
                )
            case Help():
                self._print(DisplayLine(LineKind.NOTICE, "What you can type:\n" + HELP, tabular=True))
            case Quit():
                pass  # the front's to do: it has lines to finish first

    def suggest(self, text: str, *, ask: bool) -> list[str]:
        """Names of accounts that begin with ``text``, for completion. Any thread; shows nothing.

        Args:
            text: what was typed so far.
            ask: also those that only the server knows; waits at most 2 seconds for it.
        """
        if ask and self._user and not (self._gone or self._closing or self._lasting.down):
            self._names.look_up(text)
        return self._names.beginning(text)

    def catch_up(self, patience: float) -> None:
        """Wait for the messages that are known to be coming; at most ``patience`` seconds for each next one."""
        with self._changed:
            inbox = self._inbox
            while inbox is not None and inbox.owes:
                before = inbox.shown.streamed
                if not self._changed.wait(patience) and inbox.shown.streamed == before:
                    return

    def hurry(self, seconds: float) -> None:
        """Give a lost connection only so many seconds more: somebody is about to leave. Any thread."""
        self._lasting.hurry(seconds)

    def check(self) -> None:
        """Find out whether the server is there, if nobody is signed in; else the stream would tell."""
        if self._user or self._gone or self._closing or self._lasting.down:
            return
        era = self._lasting.era
        try:
            self._client.ping(PONG)
        except (ConnectionLost, HandshakeError) as error:
            try:
                self._lasting.restore(era, error)
            except Gone as gone:
                self._server_gone(gone.error)
            except SessionEnded:
                _log.debug("somebody signed in meanwhile, and is told by the stream")
        except CallError as error:
            _log.debug("no answer to a PING: %s", error)

    def close(self, timeout: float) -> None:
        """Send no more, show what still comes for about ``timeout`` seconds at most, and end the connection."""
        with self._changed:
            self._closing = True
            inbox = self._inbox
        if inbox is not None and not inbox.ended and not self._lasting.down:
            self._drain(inbox, min(timeout, PONG))
        self._lasting.close(drain=0.0 if self._lasting.down else min(timeout, PONG))
        if inbox is not None and inbox.thread is not None:
            inbox.thread.join(timeout)

    def _drain(self, inbox: Inbox, timeout: float) -> None:
        """Show what the server has sent by now, and see to it that it knows what was shown."""
        deadline = time.monotonic() + timeout
        try:
            # Frames come in order: what was sent before the PONG is here with it. The second one says the same to us
            # about the acknowledgements. What is missed all the same was not acknowledged, and comes again.
            self._client.ping(timeout)
            with self._changed:
                while self._changed.wait(QUIET) and time.monotonic() < deadline:
                    pass
            inbox.acknowledge()
            self._client.ping(timeout)
        except CallError as error:
            _log.debug("the server was gone before the end: %s", error)

    # Commands

    def _log_in(self, command: LogIn) -> None:
        if self._user:
            # Answered here as well as by the server, so that nobody types a password for nothing.
            text = f"You are signed in as {self._user} already. Type /logout first."
            self._failure = CallError(Status.FAILED_PRECONDITION, "ALREADY_SIGNED_IN", text)
            self._show(LineKind.PROBLEM, text)
            return
        request = opcodes.LogInRequest(username=command.name, password=command.password or "")
        answer = self._call(opcodes.LOG_IN, request, name=command.name, repeat=True)
        if answer is None:
            return
        waiting = f" {count(answer.undelivered, 'message')} came while you were away." if answer.undelivered else ""
        self._show(LineKind.SERVER, f"You are signed in as {command.name}.{waiting}")
        shown = self._shown.setdefault(command.name, ShownMessages())
        inbox = Inbox(self._client, command.name, shown, answer.undelivered)
        self._lasting.signed_in(command.name, answer.token)
        with self._changed:
            self._user = command.name
            self._inbox = inbox
        self._begin(inbox)

    def _create(self, command: Create) -> None:
        request = opcodes.CreateAccountRequest(username=command.name, password=command.password or "")
        if self._call(opcodes.CREATE_ACCOUNT, request, name=command.name, writes=True) is not None:
            advice = "" if self._user else f" Sign in with /login {command.name}."
            self._names.learn([command.name])
            self._show(LineKind.SERVER, f"The account {command.name} is made.{advice}")

    def _list(self, pattern: str, after: str, *, times: bool = False) -> None:
        further = " more" if after else ""
        self._further = None
        for _ in range(EMPTY_PAGES):
            request = opcodes.WildCardRequest(pattern=pattern, after=after)
            page = self._call(opcodes.WILD_CARD, request, name=pattern, repeat=True)
            if page is None:
                return
            after = page.next
            if page.accounts or not after:
                break
        else:
            self._further = partial(self._list, pattern, after, times=times)
            self._show(LineKind.SERVER, f"No{further} account matches {pattern} so far. /more looks further.")
            return
        if not page.accounts:
            self._show(LineKind.SERVER, f"No{further} account matches {pattern}.")
            return
        self._names.learn([account.username for account in page.accounts])
        names = answers.accounts(page.accounts, times=times)
        head = f"{count(len(names), 'more account' if further else 'account')} matching {pattern}"
        if after:
            self._further = partial(self._list, pattern, after, times=times)
        text = "\n".join([f"{head}{'; /more shows the next' if after else ''}:", *names])
        self._print(DisplayLine(LineKind.SERVER, text, tabular=times))

    def _send(self, command: Send) -> None:
        request = opcodes.SendMessageRequest(recipient=command.recipient, text=command.text)
        answer = self._call(
            opcodes.SEND_MESSAGE, request, name=command.recipient, writes=True, metadata=_key(), repeat=True
        )
        if answer is None:
            return
        self._names.learn([command.recipient])
        with self._changed:
            if self._inbox is not None and self._inbox.user == command.recipient:
                self._inbox.awaited = answer.sequence
        self._show(LineKind.SERVER, f"Sent to {command.recipient}.")

    def _broadcast(self, command: Broadcast) -> None:
        request = opcodes.BroadcastRequest(pattern=command.pattern, text=command.text)
        answer = self._call(opcodes.BROADCAST, request, name=command.pattern, writes=True, metadata=_key(), repeat=True)
        if answer is None:
            return
        if not (answer.recipients or answer.full):
            self._show(LineKind.SERVER, f"No account but yours matches {command.pattern}, so nothing was sent.")
            return
        full = f" {count(answer.full, 'mailbox', 'mailboxes')} had no room for it." if answer.full else ""
        self._show(LineKind.SERVER, f"Sent to {count(answer.recipients, 'account')} matching {command.pattern}.{full}")

    def _history(self, name: str, most: int, before: int) -> None:
        """The ``most`` messages before a position (0: the last ones), the newest at the bottom."""
        found: list[opcodes.ConversationMessage] = []
        self._further = None
        more, start = True, before
        while more and len(found) < most:
            request = opcodes.ListConversationRequest(
                username=name, before=before, limit=min(most - len(found), opcodes.PAGE_LIMIT)
            )
            page = self._call(opcodes.LIST_CONVERSATION, request, name=name, repeat=True)
            if page is None:
                return
            found += page.messages
            more = page.more and bool(page.messages)
            before = found[-1].position if found else 0
        self._names.learn([name])
        if not found:
            self._show(LineKind.SERVER, f"There are no {'more ' if start else ''}messages between you and {name}.")
            return
        for message in reversed(found):
            self._print(answers.past(message, self._user))
        earlier = ""
        if more:
            self._further = partial(self._history, name, most, before)
            earlier = "; /more shows earlier ones"
        self._show(LineKind.SERVER, f"{count(len(found), 'message')} between you and {name}{earlier}.")

    def _delete_message(self, command: DeleteMessage) -> None:
        request = opcodes.DeleteMessageRequest(recipient=command.recipient or self._user, sequence=command.sequence)
        if self._call(opcodes.DELETE_MESSAGE, request, writes=True, repeat=True) is not None:
            self._show(LineKind.SERVER, f"The message {command.recipient}#{command.sequence} is deleted.")

    def _change_password(self, command: ChangePassword) -> None:
        request = opcodes.ChangePasswordRequest(
            password=command.password or "", new_password=command.new_password or ""
        )
        answer = self._call(opcodes.CHANGE_PASSWORD, request, name=self._user, writes=True, command="/password")
        if answer is None:
            return
        ended = answer.sessions_ended
        others = f" {count(ended, 'other session')} of yours {'was' if ended == 1 else 'were'} ended." if ended else ""
        self._show(LineKind.SERVER, f"Your password is changed.{others}")

    def _who_am_i(self) -> None:
        answer = self._call(opcodes.WHO_AM_I, opcodes.WhoAmIRequest(), repeat=True)
        if answer is None:
            return
        self._show(LineKind.SERVER, answers.who_you_are(answer))

    def _log_out(self) -> None:
        if self._call_ending(opcodes.LOG_OUT, opcodes.LogOutRequest()) is not None:
            self._show(LineKind.SERVER, "You are signed out.")

    def _delete(self, command: Delete) -> None:
        request = opcodes.DeleteAccountRequest(username=command.name, force=command.force)
        answer = self._call_ending(opcodes.DELETE_ACCOUNT, request, name=command.name)
        if answer is None:
            return
        self._shown.pop(command.name, None)  # an account made anew counts from 1 again
        lost = f" {count(answer.discarded, 'message')} that nobody read went with it." if answer.discarded else ""
        self._show(LineKind.SERVER, f"The account {command.name} is deleted.{lost}")

    def _pop(self) -> None:
        page = self._call(opcodes.POP_UNDELIVERED, opcodes.PopUndeliveredRequest(), writes=True)
        if page is None:
            return
        shown = self._shown.setdefault(self._user, ShownMessages())
        number = 0
        self._names.learn([message.sender for message in page.messages])
        for message in page.messages:
            with self._changed:
                new = shown.take_popped(message.sequence)
            if new:
                number += 1
                self._show(LineKind.MESSAGE, message.text, sender=message.sender)
        rest = f" {count(page.remaining, 'message')} more: type /pop again." if page.remaining else ""
        what = count(number, "undelivered message") if number else "No undelivered messages"
        self._show(LineKind.SERVER, f"{what}.{rest}")

    # Calls

    def _call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        name: str = "",
        writes: bool = False,
        metadata: Metadata | None = None,
        repeat: bool = False,
        command: str = "",
    ) -> Resp | None:
        """The answer, or None after the reason why there is none was shown."""
        try:
            return self._lasting.call(method, request, metadata=metadata, repeat=repeat)
        except Gone as gone:
            self._failure = gone.error
            self._server_gone(gone.error, "It is not known whether your last line was carried out." if writes else "")
        except SessionEnded:
            self._failure = CallError(Status.UNAUTHENTICATED, "SIGNED_OUT")
            self._signed_out(self._inbox, anew=True)
            if writes:
                self._show(LineKind.NOTICE, "It is not known whether your last line was carried out.")
        except CallError as error:
            self._failure = error
            text = refusal(error, name=name, user=self._user, writes=writes, command=command)
            self._show(LineKind.SERVER, text, reason=error.reason or error.status.name)
        except DecodeError as error:
            self._failure = error
            self._show(LineKind.PROBLEM, f"The server's answer cannot be read: {error}", reason="BAD_ANSWER")
        except (CodecError, LocalProtocolError) as error:
            self._failure = error
            self._show(LineKind.PROBLEM, f"That cannot be sent: {error}", reason="NOT_SENT")
        return None

    def _call_ending(self, method: Method[Req, Resp], request: Req, *, name: str = "") -> Resp | None:
        """Like `_call`, for one that ends the session: then the end of the stream is no news.

        Safe to repeat: once it was done, the token is worth nothing, and who comes back with it is signed out.
        """
        inbox = self._inbox
        if inbox is not None:
            inbox.acknowledge()
            with self._changed:
                inbox.dismissed = True
        answer = self._call(method, request, name=name, writes=True, repeat=True)
        again = False
        with self._changed:
            # A call may fail here and yet be done there: then the stream has ended all the same.
            if answer is not None or (inbox is not None and inbox.ended and not is_lost(inbox.error)):
                self._user, self._inbox = "", None
                self._lasting.signed_out()
            elif inbox is not None:
                inbox.dismissed = False
                again, inbox.ended = inbox.ended and self._inbox is inbox, False
        if again and inbox is not None:
            self._begin(inbox)  # the stream was lost with the connection, which is back, and nobody signed out
        return answer

    # Receiving

    def _begin(self, inbox: Inbox) -> None:
        # Opened here and not in the thread: the next command then finds this account online.
        opened = self._open(inbox)
        inbox.thread = threading.Thread(
            target=self._receive, args=(inbox, opened), name="wireproto-chat-receive", daemon=True
        )
        inbox.thread.start()

    def _open(self, inbox: Inbox) -> Opened:
        inbox.era = self._lasting.era
        request = opcodes.ReceiveMessagesRequest(after=inbox.after)
        try:
            return self._client.stream(opcodes.RECEIVE_MESSAGES, request, credit=WINDOW, batch=WINDOW // 2)
        except (CallError, CodecError) as error:
            return error
        except LocalProtocolError as error:  # closed meanwhile
            return CallError(Status.CANCELLED, "CANCELLED", str(error))

    def _receive(self, inbox: Inbox, opened: Opened) -> None:
        """Show the messages of one log-in until its stream has ended for good. Runs in a thread of its own."""
        again: Opened | None = opened
        while again is not None:
            error: CallError | CodecError | None = None
            if isinstance(again, CallError | CodecError):
                error = again
            else:
                try:
                    self._show_messages(inbox, again)
                except (CallError, CodecError) as caught:
                    error = caught
            again = self._resume(inbox, error)

    def _show_messages(self, inbox: Inbox, stream: Messages[opcodes.ReceiveMessagesResponse]) -> None:
        # To ask for the next message counts this one as shown: so not before it was.
        for message in inbox.messages(stream):
            with self._changed:
                new = inbox.shown.take_streamed(message.sequence)
            if new:
                self._names.learn([message.sender])
                self._show(LineKind.MESSAGE, message.text, sender=message.sender)
            inbox.tries.reset()
            with self._changed:
                inbox.backlog -= 1
                self._changed.notify_all()

    def _resume(self, inbox: Inbox, error: CallError | CodecError | None) -> Opened | None:
        """The stream that goes on where one has ended; None, after saying so, when there is none."""
        with self._changed:
            news = not (inbox.dismissed or self._closing or self._gone)
        if not news or not isinstance(error, CallError):
            pass
        elif is_lost(error) or error.reason == "SIGN_IN_REQUIRED":
            try:
                self._lasting.restore(inbox.era, error)
            except Gone as gone:
                error = gone.error
            except SessionEnded:
                self._signed_out(inbox, anew=True)
                news = False
            else:
                return self._open(inbox)
        elif self._lasting.rest(inbox.tries, error):
            if self._inbox is inbox:
                return self._open(inbox)
            news = False  # signed out meanwhile
        elif error.reason == "BAD_AFTER" and inbox.after:
            # The server was set back to an earlier state. What it now counts from the start is new.
            inbox.shown.forget()
            return self._open(inbox)
        self._stream_ended(inbox, error, news=news)
        return None

    def _stream_ended(self, inbox: Inbox, error: CallError | CodecError | None, *, news: bool) -> None:
        """Say so, unless it was to be expected."""
        with self._changed:
            inbox.ended, inbox.error = True, error
            self._changed.notify_all()
        if not news:
            _log.debug("the stream of messages ended: %s", error)
        elif is_lost(error) and isinstance(error, CallError):
            self._server_gone(error)
        elif isinstance(error, CodecError):
            self._show(LineKind.PROBLEM, f"A message cannot be read, and none behind it: {error}", reason="BAD_ANSWER")
        elif error is not None and error.reason not in ("SIGNED_OUT", "SIGN_IN_REQUIRED"):
            self._show(LineKind.SERVER, refusal(error, user=inbox.user), reason=error.reason)
            self._show(LineKind.NOTICE, "New messages are not shown from here on; /logout and /login begin again.")
        else:
            self._signed_out(inbox)

    def _ask_names(self, text: str) -> list[str]:
        """The first names on the server that begin with ``text``; none when it does not tell."""
        request = opcodes.WildCardRequest(pattern=f"{text}*", limit=SUGGESTED)
        try:
            page = self._client.call(opcodes.WILD_CARD, request, timeout=SUGGEST)
        except (CallError, CodecError, LocalProtocolError) as error:
            _log.debug("no names to complete %r with: %s", text, error)
            return []
        return [account.username for account in page.accounts]

    # State

    def _connection_changed(self, back: bool) -> None:
        if self._closing:
            return
        if back:
            self._show(LineKind.NOTICE, "The connection is back.")
        else:
            self._show(LineKind.NOTICE, f"The connection to {self._server_name} was lost; trying to get it back.")

    def _signed_out(self, inbox: Inbox | None, *, anew: bool = False) -> None:
        """The server ended the session that ``inbox`` belongs to; ``anew``: while the connection was lost."""
        with self._changed:
            if inbox is None or self._inbox is not inbox:
                return
            self._user, self._inbox = "", None
        self._lasting.signed_out()
        if anew:
            text = "The connection was lost and made again, so you are signed out. Type /login NAME."
            self._show(LineKind.NOTICE, text)
        else:
            self._show(LineKind.SERVER, refusal(CallError(Status.UNAUTHENTICATED, "SIGNED_OUT")), reason="SIGNED_OUT")

    def _server_gone(self, error: CallError, unsure: str = "") -> None:
        with self._changed:
            if self._gone or self._closing:
                return
            self._gone = True
            self._changed.notify_all()
        # Behind a semicolon stands advice for programs.
        why = error.message.partition(";")[0].rstrip(".") or error.status.name
        self._lost(" ".join(filter(None, (f"{self._server} went away: {why}.", unsure))))

    def _show(self, kind: LineKind, text: str, *, sender: str = "", reason: str = "") -> None:
        self._print(DisplayLine(kind, text, sender, reason))

    def _print(self, line: DisplayLine) -> None:
        with self._printing:
            self._show_line(line)


def _key() -> Metadata:
    """With a key the server can tell a repetition from a second message."""
    return Metadata(idempotency_key=secrets.token_bytes(16))
