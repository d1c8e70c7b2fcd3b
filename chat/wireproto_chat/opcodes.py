"""The chat's opcode table: its messages, its methods and the reasons each one may be refused with.

Everything else (pipe text, MessagePack, protobuf, the ``.proto`` file, the gRPC service) follows from this page.
Fields are numbered by their order: append, never insert. Once this version is released, a field that is added needs a
default and ``Since(2)``, and a method ``since=2``.
"""

import re
from datetime import datetime
from typing import Annotated, Any

from wireproto.schema import Bounds, Message, Method, Service, StreamMethod

__all__ = [
    "ACKNOWLEDGE",
    "BROADCAST",
    "BROADCAST_LIMIT",
    "CHANGE_PASSWORD",
    "CHAT",
    "CREATE_ACCOUNT",
    "DELETE_ACCOUNT",
    "DELETE_MESSAGE",
    "LIST_CONVERSATION",
    "LOG_IN",
    "LOG_OUT",
    "NAME",
    "PAGE_LIMIT",
    "POP_UNDELIVERED",
    "RECEIVE_MESSAGES",
    "SEND_MESSAGE",
    "WHO_AM_I",
    "WILD_CARD",
    "Account",
    "AcknowledgeRequest",
    "AcknowledgeResponse",
    "BroadcastRequest",
    "BroadcastResponse",
    "ChangePasswordRequest",
    "ChangePasswordResponse",
    "ChatMessage",
    "ConversationMessage",
    "CreateAccountRequest",
    "CreateAccountResponse",
    "DeleteAccountRequest",
    "DeleteAccountResponse",
    "DeleteMessageRequest",
    "DeleteMessageResponse",
    "ListConversationRequest",
    "ListConversationResponse",
    "LogInRequest",
    "LogInResponse",
    "LogOutRequest",
    "LogOutResponse",
    "PopUndeliveredRequest",
    "PopUndeliveredResponse",
    "ReceiveMessagesRequest",
    "ReceiveMessagesResponse",
    "SendMessageRequest",
    "SendMessageResponse",
    "WhoAmIRequest",
    "WhoAmIResponse",
    "WildCardRequest",
    "WildCardResponse",
]

NAME = re.compile(r"[a-z0-9._-]{1,32}")
"""What a user name is."""

PAGE_LIMIT = 100
"""Most accounts or messages in one answer; a request's ``limit`` of 0 asks for this many."""

BROADCAST_LIMIT = 1_000
"""Most accounts one Broadcast may go to."""

_HIDDEN = frozenset({"password", "new_password", "token"})


def _shown(message: Any) -> list[tuple[str, Any]]:
    pairs = [(name, getattr(message, name)) for name in message.__struct_fields__]
    return [(name, "..." if name in _HIDDEN and value else value) for name, value in pairs]


def _repr(message: Any) -> str:
    """A message as text with its secrets left out: a repr ends in logs, tracebacks and test reports."""
    return f"{type(message).__name__}({', '.join(f'{name}={value!r}' for name, value in _shown(message))})"


class LogInRequest(Message):
    """Signs a connection in, by password or by the token of an earlier log-in."""

    username: str
    """1 to 32 of ``a-z 0-9 . _ -``."""
    password: str = ""
    """Empty when ``token`` is given."""
    token: str = ""
    """What an earlier LogIn answered; resumes that session without the password."""

    __repr__ = _repr
    __rich_repr__ = _shown


class LogInResponse(Message):
    """The session that was opened."""

    token: str
    """Resumes this session after a reconnect, and goes into ``authorization: Bearer <token>`` where there is no
    connection to sign in. Ends 7 days after its last use, 30 days after the password was given, or at LogOut."""
    undelivered: int
    """Messages that wait for this account."""

    __repr__ = _repr
    __rich_repr__ = _shown


class CreateAccountRequest(Message):
    """Makes an account; it does not sign in."""

    username: str
    """1 to 32 of ``a-z 0-9 . _ -``; free, and not of an account deleted in the last 30 days."""
    password: str
    """12 to 128 characters, at most 1,024 bytes of UTF-8, none of those that are tried first. Compared after Unicode
    normalisation (NFC)."""

    __repr__ = _repr
    __rich_repr__ = _shown


class CreateAccountResponse(Message):
    """The account exists, durably."""


class WildCardRequest(Message):
    """Asks for the accounts whose name matches a pattern, in the order of their names, a page at a time."""

    pattern: str
    """``*`` stands for any characters, ``?`` for one; 1 to 64 of ``a-z 0-9 . _ - * ?`` with at most 8 ``*``."""
    after: str = ""
    """The ``next`` of the page before; empty for the first page."""
    limit: Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)] = 0
    """Most accounts in the answer; 0 for 100."""


class Account(Message):
    """One account of a list."""

    username: str
    online: bool
    """Whether a ReceiveMessages stream of this account is open: a message sent now would arrive now."""
    last_seen: datetime | None = None
    """When it last logged in, used a session (to the hour) or closed a stream; the time of the answer while it is
    online, and nothing when it never logged in. For display."""


class WildCardResponse(Message):
    """One page of a list of accounts."""

    accounts: list[Account]
    """May be empty on a page that is not the last: one call looks at 10,000 names at most."""
    next: str
    """What to give as ``after`` for the next page; empty when this is the last."""


class SendMessageRequest(Message):
    """Sends a text to an account. The sender is who signed in, never a field.

    The metadata ``idempotency_key`` makes a repetition safe: the same key with the same recipient and text answers
    what the first call answered and sends nothing; with others it is refused. Keys are kept 7 days after their last
    use, each account has its own. Without a key a repetition is a second message.
    """

    recipient: str
    text: str
    """1 to 16,384 bytes of UTF-8; stored and delivered as it is, control characters included."""


class SendMessageResponse(Message):
    """The message is on durable storage and will be delivered."""

    message_id: bytes
    """16 random bytes, never used again."""
    sequence: int
    """The message's place in the recipient's mailbox: 1, 2, 3, without gaps, in the order of acceptance."""
    duplicate: bool = False
    """The key was used before for the same message: nothing was sent now, and this is what was answered then."""


class LogOutRequest(Message):
    """Ends the session: its token, its streams, and the identity of every connection that signed in with it."""


class LogOutResponse(Message):
    """The session has ended; the connection may log in again."""


class DeleteAccountRequest(Message):
    """Deletes the caller's own account and its mailbox."""

    username: str
    """The caller's own user name, as a safeguard."""
    force: bool = False
    """Also when messages wait that nobody has received; they are discarded."""


class DeleteAccountResponse(Message):
    """The account is gone, its sessions have ended, and its name is not given out for 30 days."""

    discarded: int
    """Undelivered messages that went with it."""


class ReceiveMessagesRequest(Message):
    """Opens the stream of the caller's messages: first everything undelivered, then each as it is accepted.

    Messages that were sent but not acknowledged come again on the next stream. Several streams of one account may be
    open; each gets everything, and the furthest acknowledgement counts. A deleted message is left out, and with it its
    sequence.

    Acknowledge and PopUndelivered acknowledge; credit only controls the flow. The stream pauses while 64 of its
    messages are not acknowledged, over TCP and gRPC alike.
    """

    after: int = 0
    """The last ``sequence`` the client already has; the stream starts behind it, or behind the last one
    acknowledged, whichever is later."""


class ReceiveMessagesResponse(Message):
    """One message of the stream."""

    sequence: int
    """1, 2, 3 in this mailbox. A client that saw this number already shows nothing."""
    message_id: bytes
    """16 bytes, as answered to the sender."""
    sender: str
    text: str
    sent_at: datetime
    """When the server accepted it, by its clock. For display; ``sequence`` is the order."""


class PopUndeliveredRequest(Message):
    """Takes a page of undelivered messages and acknowledges it in the same step.

    For simple clients: when the answer is lost on its way, so are its messages. ReceiveMessages has no such gap.
    """

    limit: Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)] = 0
    """Most messages in the answer; 0 for 100."""


class ChatMessage(Message):
    """One message of a page; the fields are those of ReceiveMessagesResponse."""

    sequence: int
    message_id: bytes
    sender: str
    text: str
    sent_at: datetime


class PopUndeliveredResponse(Message):
    """A page of messages, oldest first, now acknowledged."""

    messages: list[ChatMessage]
    """Fewer than asked for when their texts are long: an answer must fit into a frame."""
    remaining: int
    """Messages that still wait."""


class AcknowledgeRequest(Message):
    """Says that everything up to a message was dealt with; the server does not deliver it again."""

    sequence: int
    """Of the last message dealt with. Lower than an earlier acknowledgement: changes nothing, and is no error."""


class AcknowledgeResponse(Message):
    """The acknowledgement is on durable storage."""

    acknowledged: int
    """The furthest sequence ever acknowledged, by any client of the account."""
    undelivered: int
    """Messages behind it, which wait."""


class ListConversationRequest(Message):
    """Asks for what the caller and another account sent each other, a page at a time, delivered or not.

    To read on, give the ``position`` of the page's last message as ``before`` when the newest come first (the default),
    as ``after`` when the oldest do.
    """

    username: str
    """The other account; the caller's own name for notes to oneself."""
    before: Annotated[int, Bounds(ge=0)] = 0
    """Only messages with a lower ``position``; 0 for no bound."""
    after: Annotated[int, Bounds(ge=0)] = 0
    """Only messages with a higher ``position``."""
    limit: Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)] = 0
    """Most messages in the answer; 0 for 100."""
    oldest_first: bool = False
    """The order, and with it which end a page is taken from."""


class ConversationMessage(Message):
    """One message of a conversation, in whichever direction."""

    position: int
    """Its place in the order in which the server accepted messages; rises, with gaps. Common to both directions."""
    sequence: int
    """Its place in the recipient's mailbox."""
    message_id: bytes
    sender: str
    recipient: str
    text: str
    """Empty when the message was deleted."""
    sent_at: datetime
    deleted: bool = False
    """Its text is gone for both; its place stays."""


class ListConversationResponse(Message):
    """One page of a conversation, in the order asked for."""

    messages: list[ConversationMessage]
    """Fewer than asked for when their texts are long: an answer must fit into a frame."""
    more: bool
    """Whether there are messages behind the last of these."""


class DeleteMessageRequest(Message):
    """Deletes a message that the caller has sent or received, for both. It may be repeated."""

    recipient: str
    """Whose mailbox it is in; the caller's own name for one that was received."""
    sequence: int
    """Its place there, as its sender was answered and its recipient was told."""


class DeleteMessageResponse(Message):
    """The text is gone from the store. No stream encodes it after this answer, and no page asked for later has it."""


class BroadcastRequest(Message):
    """Sends a text to every account whose name matches a pattern, but the sender's.

    All of them get it in one step, or none does. ``idempotency_key`` is honoured as by SendMessage.
    """

    pattern: str
    """As for WildCard. At most 1,000 accounts may match."""
    text: str
    """As for SendMessage."""


class BroadcastResponse(Message):
    """The messages are on durable storage and will be delivered."""

    recipients: int
    """Accounts it was sent to."""
    full: int
    """Accounts that match too, but whose mailbox is full: they did not get it."""
    duplicate: bool = False
    """The key was used before for the same broadcast: nothing was sent now, and this is what was answered then."""


class ChangePasswordRequest(Message):
    """Gives the caller's account another password."""

    password: str
    """The one it has."""
    new_password: str
    """As for CreateAccount."""

    __repr__ = _repr
    __rich_repr__ = _shown


class ChangePasswordResponse(Message):
    """The new password holds, and only the caller's session is left."""

    sessions_ended: int
    """Other sessions of the account, with their tokens, streams and connections' identities."""


class WhoAmIRequest(Message):
    """Asks whose session this is."""


class WhoAmIResponse(Message):
    """The caller's account."""

    username: str
    created_at: datetime
    sessions: int
    """Sessions the account has, this one included."""
    acknowledged: int
    """The furthest sequence ever acknowledged; what lies behind it is delivered by the next stream."""
    last_sequence: int
    """Of the newest message in the mailbox; 0 while there was none."""
    undelivered: int
    """Messages that wait."""


# Any method that reaches the store may be refused with these, through no fault of the caller:
#   STORE_FULL    RESOURCE_EXHAUSTED: no room on the server's disk; nothing was written
#   STORE_FAILED  UNAVAILABLE: the store cannot be read or written; the result may be unknown
# and, as any call, with SERVER_BUSY when too much work waits already.
_READS = ("STORE_FAILED",)
_WRITES = ("STORE_FULL", "STORE_FAILED")

LOG_IN = Method(
    opcode=0,
    name="LogIn",
    request=LogInRequest,
    response=LogInResponse,
    reasons=(
        "BAD_USERNAME",
        "BAD_PASSWORD",
        "BAD_CREDENTIALS",
        "ALREADY_SIGNED_IN",
        "THROTTLED",
        "TOO_OFTEN",
        *_WRITES,
    ),
    timeout=15.0,
    max_request=8192,
    doc="Signs the connection in by password or token. An unknown name and a wrong password have the same answer.",
)

CREATE_ACCOUNT = Method(
    opcode=1,
    name="CreateAccount",
    request=CreateAccountRequest,
    response=CreateAccountResponse,
    reasons=("BAD_USERNAME", "BAD_PASSWORD", "NAME_TAKEN", "TOO_OFTEN", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Makes an account with a user name and a password.",
)

WILD_CARD = Method(
    opcode=2,
    name="WildCard",
    request=WildCardRequest,
    response=WildCardResponse,
    requires="account",
    reasons=("BAD_PATTERN", "TOO_OFTEN", *_READS),
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Lists accounts whose name matches a pattern, with who is online.",
)

SEND_MESSAGE = Method(
    opcode=3,
    name="SendMessage",
    request=SendMessageRequest,
    response=SendMessageResponse,
    requires="account",
    reasons=("BAD_TEXT", "UNKNOWN_RECIPIENT", "MAILBOX_FULL", "KEY_CONFLICT", *_WRITES),
    timeout=10.0,
    doc="Sends a message. Answered once it is on durable storage; safe to repeat with the same idempotency key.",
)

LOG_OUT = Method(
    opcode=4,
    name="LogOut",
    request=LogOutRequest,
    response=LogOutResponse,
    requires="account",
    reasons=_WRITES,
    timeout=10.0,
    outlives_identity=True,  # it is what ends it, and has an answer to give
    doc="Ends the session: revokes its token, ends its streams, and leaves the connection without an identity.",
)

DELETE_ACCOUNT = Method(
    opcode=5,
    name="DeleteAccount",
    request=DeleteAccountRequest,
    response=DeleteAccountResponse,
    requires="account",
    reasons=("NOT_YOUR_ACCOUNT", "UNDELIVERED_MESSAGES", *_WRITES),
    timeout=10.0,
    outlives_identity=True,  # as of LogOut
    doc="Deletes the caller's own account; refused while messages wait, unless forced.",
)

RECEIVE_MESSAGES = StreamMethod(
    opcode=6,
    name="ReceiveMessages",
    request=ReceiveMessagesRequest,
    response=ReceiveMessagesResponse,
    requires="account",
    reasons=("BAD_AFTER", "TOO_MANY_STREAMS", "SIGNED_OUT", *_READS),
    outlives_identity=True,  # it ends by itself, SIGNED_OUT, whether the session was ended or has run out
    doc="Streams the caller's messages: the undelivered ones first, then live. Acknowledge says which were dealt with.",
)

POP_UNDELIVERED = Method(
    opcode=7,
    name="PopUndelivered",
    request=PopUndeliveredRequest,
    response=PopUndeliveredResponse,
    requires="account",
    reasons=_WRITES,
    timeout=10.0,
    doc="Takes the oldest undelivered messages and acknowledges them in the same step.",
)

ACKNOWLEDGE = Method(
    opcode=8,
    name="Acknowledge",
    request=AcknowledgeRequest,
    response=AcknowledgeResponse,
    requires="account",
    reasons=("ACKNOWLEDGED_TOO_MUCH", *_WRITES),
    idempotent=True,
    timeout=10.0,
    doc="Acknowledges the caller's messages up to a sequence. One that was not delivered is refused.",
)

LIST_CONVERSATION = Method(
    opcode=9,
    name="ListConversation",
    request=ListConversationRequest,
    response=ListConversationResponse,
    requires="account",
    reasons=("UNKNOWN_ACCOUNT", *_READS),
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Lists what the caller and another account sent each other.",
)

DELETE_MESSAGE = Method(
    opcode=10,
    name="DeleteMessage",
    request=DeleteMessageRequest,
    response=DeleteMessageResponse,
    requires="account",
    reasons=("UNKNOWN_MESSAGE", *_WRITES),
    idempotent=True,
    timeout=10.0,
    doc="Deletes a message for sender and recipient. Other people's messages are answered as ones that do not exist.",
)

BROADCAST = Method(
    opcode=11,
    name="Broadcast",
    request=BroadcastRequest,
    response=BroadcastResponse,
    requires="account",
    reasons=("BAD_PATTERN", "BAD_TEXT", "TOO_MANY_RECIPIENTS", "KEY_CONFLICT", "TOO_OFTEN", *_WRITES),
    blocking=True,
    timeout=10.0,
    doc="Sends a message to every account whose name matches a pattern, in one step.",
)

CHANGE_PASSWORD = Method(
    opcode=12,
    name="ChangePassword",
    request=ChangePasswordRequest,
    response=ChangePasswordResponse,
    requires="account",
    reasons=("BAD_PASSWORD", "BAD_CREDENTIALS", "THROTTLED", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Changes the caller's password and ends the account's other sessions.",
)

WHO_AM_I = Method(
    opcode=13,
    name="WhoAmI",
    request=WhoAmIRequest,
    response=WhoAmIResponse,
    requires="account",
    reasons=_READS,
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Says whose session this is, and how its mailbox stands.",
)

CHAT = Service(
    "wirechat.v1.ChatService",
    version=1,
    methods=[
        LOG_IN,
        CREATE_ACCOUNT,
        WILD_CARD,
        SEND_MESSAGE,
        LOG_OUT,
        DELETE_ACCOUNT,
        RECEIVE_MESSAGES,
        POP_UNDELIVERED,
        ACKNOWLEDGE,
        LIST_CONVERSATION,
        DELETE_MESSAGE,
        BROADCAST,
        CHANGE_PASSWORD,
        WHO_AM_I,
    ],
)
