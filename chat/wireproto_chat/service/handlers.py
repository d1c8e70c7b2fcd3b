"""The chat service: one handler for each method of the opcode table, over one open store.

Handlers look at the request, hand the work to whoever may do it (the writer, the hashing threads), and return the
future of the answer; none of them waits. What a method requires of its caller is judged by the dispatcher, from the
opcode table.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from wireproto import CallError, Context, Handlers, Identity, Metadata, Status, Subscription
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    BROADCAST,
    CHANGE_PASSWORD,
    CHAT,
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    WHO_AM_I,
    WILD_CARD,
    AcknowledgeRequest,
    AcknowledgeResponse,
    BroadcastRequest,
    BroadcastResponse,
    ChangePasswordRequest,
    ChangePasswordResponse,
    CreateAccountRequest,
    CreateAccountResponse,
    DeleteAccountRequest,
    DeleteAccountResponse,
    DeleteMessageRequest,
    DeleteMessageResponse,
    ListConversationRequest,
    ListConversationResponse,
    LogInRequest,
    LogInResponse,
    LogOutRequest,
    LogOutResponse,
    PopUndeliveredRequest,
    PopUndeliveredResponse,
    ReceiveMessagesRequest,
    ReceiveMessagesResponse,
    SendMessageRequest,
    SendMessageResponse,
    WhoAmIRequest,
    WhoAmIResponse,
    WildCardRequest,
    WildCardResponse,
)
from wireproto_chat.service.accounts import (
    CreateAccount,
    DeleteAccount,
    ReplacePassword,
    check_name,
    describe,
    is_held,
    list_accounts,
    name_taken,
)
from wireproto_chat.service.broadcast import AppendBroadcast, audience
from wireproto_chat.service.guesses import Guesses, is_own, network_of
from wireproto_chat.service.history import ClearMessage, list_conversation
from wireproto_chat.service.live import MailboxStream, Streams
from wireproto_chat.service.mailboxes import MAX_TEXT, AcknowledgeThrough, AppendMessage, TakePage, signed_out
from wireproto_chat.service.passwords import HashPool, Passwords
from wireproto_chat.service.rates import RATES, Rate, Rates
from wireproto_chat.service.sessions import (
    ChatIdentity,
    CloseSession,
    OpenSession,
    ResumeSession,
    Sessions,
)
from wireproto_chat.store.clocks import Clocks, steady
from wireproto_chat.store.expiry import Expire
from wireproto_chat.store.space import KEEP_FREE, free_bytes
from wireproto_chat.store.store import Store
from wireproto_chat.wildcard import Pattern

__all__ = ["ChatApp", "open_chat"]

log = logging.getLogger("wireproto_chat")


class ChatApp:
    """The chat, ready to be served: ``Server(app.handlers, authenticate=app.authenticate)``.

    Close it after the server. Made by ``open_chat``.

    Attributes:
        handlers: the handlers of ``opcodes.CHAT``.
        store_path: the database file.
    """

    def __init__(self, store: Store, streams: Streams, passwords: Passwords, rates: Rates) -> None:
        self._store = store
        self._streams = streams
        self._passwords = passwords
        self._rates = rates
        self._sessions = Sessions(store)
        self._guesses = Guesses(store)
        self._hashing = HashPool()
        self.store_path: Path = store.path
        self.handlers = Handlers(CHAT)
        register = self.handlers.register
        register(LOG_IN)(self._log_in)
        register(CREATE_ACCOUNT)(self._create_account)
        register(WILD_CARD)(self._wild_card)
        register(SEND_MESSAGE)(self._send_message)
        register(LOG_OUT)(self._log_out)
        register(DELETE_ACCOUNT)(self._delete_account)
        register(RECEIVE_MESSAGES)(self._receive_messages)
        register(POP_UNDELIVERED)(self._pop_undelivered)
        register(ACKNOWLEDGE)(self._acknowledge)
        register(LIST_CONVERSATION)(self._list_conversation)
        register(DELETE_MESSAGE)(self._delete_message)
        register(BROADCAST)(self._broadcast)
        register(CHANGE_PASSWORD)(self._change_password)
        register(WHO_AM_I)(self._who_am_i)

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        """Whose token a call carries in ``authorization: Bearer <token>``; what ``Server(authenticate=)`` takes."""
        return self._sessions.authenticate(metadata, peer)

    @property
    def counts(self) -> tuple[int, int]:
        """Writes done and transactions they took, since the chat was opened; their quotient is the average batch."""
        return self._store.counts

    def close(self, timeout: float = 10.0) -> bool:
        """Finish the writes that wait and let go of the store.

        In a child made by ``os.fork`` nothing is done: it is all the parent's.

        Returns:
            Whether that was done within ``timeout`` seconds.
        """
        if not self._store.inherited:
            self._hashing.close()
        return self._store.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------ handlers

    def _log_in(self, request: LogInRequest, context: Context) -> "Future[LogInResponse]":
        present = context.identity
        if present is not None and not present.revoked:
            context.abort(
                Status.FAILED_PRECONDITION,
                "ALREADY_SIGNED_IN",
                f"this connection is signed in as {present.subject}; log out first",
            )
        check_name(request.username)
        if request.token:
            return self._resume_session(request, context)
        return self._open_session(request, context)

    def _resume_session(self, request: LogInRequest, context: Context) -> "Future[LogInResponse]":
        """Sign in by a token. It costs no hash and cannot be guessed, so it is neither limited nor held up."""

        def signed_in(account_id: int, token_hash: bytes, opened_age: int, used_age: int) -> None:
            identity = self._sessions.hold(request.username, account_id, token_hash, opened_age, used_age)
            self._sign_in(context, identity)

        return self._store.submit(ResumeSession(request.username, request.token, signed_in=signed_in))

    def _open_session(self, request: LogInRequest, context: Context) -> "Future[LogInResponse]":
        """Sign in by a password. A hashing thread verifies it, then the writer opens the session and answers."""
        name = request.username
        password = self._passwords.normalise(request.password)
        self._count_from(LOG_IN.name, context)
        answer: Future[LogInResponse] = Future()

        def verify() -> None:
            guess, failed_before = self._guesses.begin(name, context.peer, answer)
            row = self._store.one(self._store.sql.account_by_name, name)
            # A name that nobody has is verified, too, against the password of nobody. So the time that an answer takes
            # does not tell whether there is such an account, and neither does the answer.
            is_right = self._passwords.verify(None if row is None else row[2], password)
            if row is None or not is_right:
                self._guesses.failed(guess, answer)
                return
            account_id, _, stored, *_ = row

            def signed_in(token_hash: bytes, opened_age: int) -> None:
                identity = self._sessions.hold(name, account_id, token_hash, opened_age, opened_age)
                self._sign_in(context, identity)

            self._store.submit(
                OpenSession(
                    answer,
                    account_id,
                    old_hash=stored,
                    new_hash=self._passwords.hash(password) if self._passwords.is_old(stored) else None,
                    guess=guess if failed_before else None,
                    signed_in=signed_in,
                )
            )

        self._hash(answer, verify)
        return answer

    def _sign_in(self, context: Context, identity: ChatIdentity) -> None:
        """Make the connection the account's, unless its caller has given the log-in up.

        Such a caller does not know that the log-in worked. It will try again, and would be told ALREADY_SIGNED_IN.
        """
        if not context.cancelled:
            context.sign_in(identity)

    def _create_account(self, request: CreateAccountRequest, context: Context) -> "Future[CreateAccountResponse]":
        name = request.username
        check_name(name)
        password = self._passwords.checked(request.password)
        self._count_from(CREATE_ACCOUNT.name, context)
        answer: Future[CreateAccountResponse] = Future()

        def create() -> None:
            # Looked at first so that a taken name costs no hash; the writer looks again, and its look counts.
            store = self._store
            if any(is_held(account, store.clocks.age) for account in store.rows(store.sql.name_uses, name)):
                raise name_taken(name)
            store.submit(CreateAccount(answer, name, self._passwords.hash(password)))

        self._hash(answer, create)
        return answer

    def _wild_card(self, request: WildCardRequest, context: Context) -> WildCardResponse:
        caller = self._caller(context)
        pattern = self._pattern(request.pattern)
        self._rates.count(WILD_CARD.name, caller.account_id)
        return list_accounts(self._store, self._streams.online, pattern, request.after, request.limit)

    def _send_message(self, request: SendMessageRequest, context: Context) -> "Future[SendMessageResponse]":
        caller = self._caller(context)
        body = self._body(request.text)
        return self._store.submit(AppendMessage(caller, request.recipient, body, context.metadata.idempotency_key))

    def _log_out(self, request: LogOutRequest, context: Context) -> "Future[LogOutResponse]":
        caller = self._caller(context)

        def ended() -> None:
            self._sessions.end(caller.token_hash)
            context.sign_out()
            self._streams.wake(caller.account_id)

        return self._store.submit(CloseSession(caller.token_hash, ended=ended))

    def _delete_account(self, request: DeleteAccountRequest, context: Context) -> "Future[DeleteAccountResponse]":
        caller = self._caller(context)
        if request.username != caller.subject:
            context.abort(
                Status.PERMISSION_DENIED,
                "NOT_YOUR_ACCOUNT",
                f"you are signed in as {caller.subject}; only {caller.subject} can be deleted here",
            )

        def ended() -> None:
            self._sessions.end_all(caller.account_id)
            context.sign_out()
            self._streams.wake(caller.account_id)

        return self._store.submit(DeleteAccount(caller.account_id, force=request.force, ended=ended))

    def _receive_messages(
        self, request: ReceiveMessagesRequest, context: Context
    ) -> Subscription[ReceiveMessagesResponse]:
        stream = MailboxStream(self._store, self._streams, self._caller(context), request.after)
        self._streams.add(stream)
        return stream

    def _pop_undelivered(self, request: PopUndeliveredRequest, context: Context) -> "Future[PopUndeliveredResponse]":
        caller = self._caller(context)
        return self._store.submit(TakePage(caller, request.limit, self._streams.acknowledged))

    def _acknowledge(self, request: AcknowledgeRequest, context: Context) -> "Future[AcknowledgeResponse]":
        caller = self._caller(context)
        return self._store.submit(
            AcknowledgeThrough(
                caller, request.sequence, given=self._streams.given, acknowledged=self._streams.acknowledged
            )
        )

    def _list_conversation(self, request: ListConversationRequest, context: Context) -> ListConversationResponse:
        return list_conversation(self._store, self._caller(context), request)

    def _delete_message(self, request: DeleteMessageRequest, context: Context) -> "Future[DeleteMessageResponse]":
        caller = self._caller(context)
        return self._store.submit(
            ClearMessage(caller, request.recipient, request.sequence, deleted=self._streams.deleted)
        )

    def _broadcast(self, request: BroadcastRequest, context: Context) -> "Future[BroadcastResponse]":
        caller = self._caller(context)
        body = self._body(request.text)
        self._rates.count(BROADCAST.name, caller.account_id)
        recipients = audience(self._store, self._pattern(request.pattern))
        return self._store.submit(
            AppendBroadcast(caller, request.pattern, recipients, body, context.metadata.idempotency_key)
        )

    def _change_password(self, request: ChangePasswordRequest, context: Context) -> "Future[ChangePasswordResponse]":
        caller = self._caller(context)
        passwords = self._passwords
        old = passwords.normalise(request.password)
        new = passwords.checked(request.new_password)
        answer: Future[ChangePasswordResponse] = Future()

        def ended() -> None:
            self._sessions.end_all(caller.account_id, kept=caller.token_hash)
            self._streams.wake(caller.account_id)

        def change() -> None:
            guess, failed_before = self._guesses.begin(caller.subject, context.peer, answer)
            row = self._store.one(self._store.sql.account_by_id, caller.account_id)
            if row is None or caller.revoked:
                raise signed_out()
            if not passwords.verify(row[2], old):
                self._guesses.failed(guess, answer)
                return
            self._store.submit(
                ReplacePassword(
                    answer,
                    caller,
                    old_hash=row[2],
                    new_hash=passwords.hash(new),
                    guess=guess if failed_before else None,
                    ended=ended,
                )
            )

        self._hash(answer, change)
        return answer

    def _who_am_i(self, request: WhoAmIRequest, context: Context) -> WhoAmIResponse:
        return describe(self._store, self._caller(context))

    def _hash(self, answer: "Future[Any]", work: Callable[[], None]) -> None:
        """Have a hashing thread do what ends in the store. A child made by ``os.fork`` has no such thread."""
        self._store.check_open()
        self._hashing.submit(answer, work)

    def _count_from(self, method: str, context: Context) -> None:
        network = network_of(context.peer)
        if not is_own(network):
            self._rates.count(method, network)

    def _body(self, text: str) -> bytes:
        body = text.encode()
        if not 0 < len(body) <= MAX_TEXT:
            raise CallError(
                Status.INVALID_ARGUMENT,
                "BAD_TEXT",
                f"a message is 1 to {MAX_TEXT} bytes of UTF-8; this one is {len(body)}",
            )
        return body

    def _pattern(self, text: str) -> Pattern:
        try:
            return Pattern(text)
        except ValueError as error:
            raise CallError(Status.INVALID_ARGUMENT, "BAD_PATTERN", str(error)) from None

    def _caller(self, context: Context) -> ChatIdentity:
        identity = context.identity
        if not isinstance(identity, ChatIdentity):
            raise signed_out()
        self._sessions.touch(identity)
        return identity


def open_chat(
    store_url: str | None = None,
    *,
    minimum_password: int = 12,
    keep_free: int = KEEP_FREE,
    rates: Mapping[str, Rate] = RATES,
    on_fatal: Callable[[OSError], None] | None = None,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = steady,
    passwords: Passwords | None = None,
    free: Callable[[Path], int] = free_bytes,
) -> ChatApp:
    """Open the chat's store and make its service.

    Args:
        store_url: ``sqlite:///PATH`` or a path; None for ``$XDG_STATE_HOME/wireproto/chat.db``. Made when missing.
        minimum_password: characters a new password must have; 1 to 128.
        keep_free: bytes of the store's disk that messages and accounts may not use up: with less, what would make the
            store larger is refused, STORE_FULL, while all else goes on. A quarter as much is held in reserve, for when
            somebody else has used up the rest.
        rates: how often the calls that cost much may be made, by the method's name; empty for as often as they come.
        on_fatal: called once, on a thread that uses the store, when it cannot be trusted any more (a failed fsync, a
            corrupt page): from then on every write is refused, and the process should end with an error.
        clock: seconds since 1970, UTC, which people are shown; tests give their own.
        steady: seconds that only ever grow, by which everything is reckoned that makes somebody wait or ends; so a
            ``clock`` that is wrong holds nobody up, and nothing is lost. Tests give their own.
        passwords: tests give one that hashes faster.
        free: bytes free in a directory; tests give their own.

    Returns:
        The service. Close it when the server has shut down.

    Raises:
        ConfigError: the store cannot be used: another process has it, it is not writable, not a chat database, damaged,
            or of a newer version. The text says what to do.
    """

    def fatal(error: BaseException) -> None:
        if on_fatal is not None:
            cause = getattr(error, "orig", None) or error
            name = getattr(cause, "sqlite_errorname", type(cause).__name__)
            on_fatal(OSError(f"the store {store.path} failed ({cause}, {name}); check its disk, then start again"))

    streams = Streams()
    passwords = passwords or Passwords(minimum=minimum_password)
    store = Store(
        store_url,
        clocks=Clocks(clock, steady),
        housekeeping=Expire,
        on_arrival=streams.tell,
        on_fatal=fatal,
        keep_free=keep_free,
        free=free,
    )
    return ChatApp(store, streams, passwords, Rates(rates, clock=steady))
