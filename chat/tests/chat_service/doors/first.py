"""The opcode table of the chat's first release, as clients in the field have it. It is not to be changed."""

from datetime import datetime
from typing import Annotated

from wireproto.schema import Bounds, Message, Method, Service, StreamMethod

PAGE_LIMIT = 100


class LogInRequest(Message):
    """Signs a connection in, by password or by the token of an earlier log-in."""

    username: str
    password: str = ""
    token: str = ""


class LogInResponse(Message):
    """The session that was opened."""

    token: str
    undelivered: int


class CreateAccountRequest(Message):
    """Makes an account; it does not sign in."""

    username: str
    password: str


class CreateAccountResponse(Message):
    """The account exists, durably."""


class WildCardRequest(Message):
    """Asks for the accounts whose name matches a pattern, in the order of their names, a page at a time."""

    pattern: str
    after: str = ""
    limit: Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)] = 0


class Account(Message):
    """One account of a list."""

    username: str
    online: bool


class WildCardResponse(Message):
    """One page of a list of accounts."""

    accounts: list[Account]
    next: str


class SendMessageRequest(Message):
    """Sends a text to an account. The sender is who signed in, never a field."""

    recipient: str
    text: str


class SendMessageResponse(Message):
    """The message is on durable storage and will be delivered."""

    message_id: bytes
    sequence: int


class LogOutRequest(Message):
    """Ends the session: its token, its streams, and the identity of every connection that signed in with it."""


class LogOutResponse(Message):
    """The session has ended; the connection may log in again."""


class DeleteAccountRequest(Message):
    """Deletes the caller's own account and its mailbox."""

    username: str
    force: bool = False


class DeleteAccountResponse(Message):
    """The account is gone, its sessions have ended, and its name is not given out for 30 days."""

    discarded: int


class ReceiveMessagesRequest(Message):
    """Opens the stream of the caller's messages: first everything undelivered, then each as it is accepted."""

    after: int = 0


class ReceiveMessagesResponse(Message):
    """One message of the stream."""

    sequence: int
    message_id: bytes
    sender: str
    text: str
    sent_at: datetime


class PopUndeliveredRequest(Message):
    """Takes a page of undelivered messages and acknowledges it in the same step."""

    limit: Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)] = 0


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
    remaining: int


_READS = ("STORE_FAILED",)
_WRITES = ("STORE_FULL", "STORE_FAILED")

LOG_IN = Method(
    opcode=0,
    name="LogIn",
    request=LogInRequest,
    response=LogInResponse,
    reasons=("BAD_USERNAME", "BAD_PASSWORD", "BAD_CREDENTIALS", "ALREADY_SIGNED_IN", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Signs the connection in by password or token. An unknown name and a wrong password have the same answer.",
)

CREATE_ACCOUNT = Method(
    opcode=1,
    name="CreateAccount",
    request=CreateAccountRequest,
    response=CreateAccountResponse,
    reasons=("BAD_USERNAME", "BAD_PASSWORD", "NAME_TAKEN", *_WRITES),
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
    reasons=("BAD_PATTERN", *_READS),
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
    doc="Deletes the caller's own account; refused while messages wait, unless forced.",
)

RECEIVE_MESSAGES = StreamMethod(
    opcode=6,
    name="ReceiveMessages",
    request=ReceiveMessagesRequest,
    response=ReceiveMessagesResponse,
    requires="account",
    reasons=("BAD_AFTER", "WINDOW_TOO_LARGE", "ACKNOWLEDGED_TOO_MUCH", "TOO_MANY_STREAMS", "SIGNED_OUT", *_READS),
    doc="Streams the caller's messages: the undelivered ones first, then live. Returned credit acknowledges.",
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
    ],
)
