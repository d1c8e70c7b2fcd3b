"""A lending library: the service of a whole application, for tests and benchmarks that want one.

It has what such a table uses: accounts, tokens, methods that need a signed-in caller, pages, a stream with its
position, safe repetition, reasons, a second version with methods and fields of its own, and messages of every field
type. Every type in every shape, for tests of single things, is in ``tests/codecs/everything.py`` and
``tests/protos/declarations.py``.

``tests/librarian.py`` answers five of its methods. The others are only declared: they are there for their messages.
"""

import enum
from datetime import datetime
from typing import Annotated, Any

from wireproto.schema import Bounds, Message, Method, Service, Since, StreamMethod, UInt64

PAGE_LIMIT = 100
"""Most entries in one answer; a request's ``limit`` of 0 asks for this many."""

Name = Annotated[str, Bounds(min_length=1, max_length=32)]
Password = Annotated[str, Bounds(min_length=8, max_length=128)]
Text = Annotated[str, Bounds(min_length=1, max_length=2_000)]
Limit = Annotated[int, Bounds(ge=0, le=PAGE_LIMIT)]
Isbn = Annotated[UInt64, Bounds(ge=9_780_000_000_000, le=9_799_999_999_999)]
Id = Annotated[bytes, Bounds(min_length=16, max_length=16)]

_HIDDEN = frozenset({"new_password", "password", "token"})


def _shown(message: Any) -> list[tuple[str, Any]]:
    return [(name, "..." if name in _HIDDEN else getattr(message, name)) for name in message.__struct_fields__]


def _repr(message: Any) -> str:
    """A message as text without its secrets."""
    return f"{type(message).__name__}({', '.join(f'{name}={value!r}' for name, value in _shown(message))})"


class Genre(enum.IntEnum):
    """Where a book stands."""

    FICTION = 1
    """Stories, by author."""
    SCIENCE = 2
    TRAVEL = 300
    """In the cellar, which is numbered apart."""


class Hindrance(enum.IntEnum):
    """Why a book was not lent."""

    ALL_LENT = 1
    """Reserve it."""
    READING_ROOM = 2
    """It never leaves the house."""
    UNKNOWN_BOOK = 3


class Shelf(Message):
    """A place in the house."""

    room: Annotated[int, Bounds(ge=1, le=99)]
    letter: Annotated[str, Bounds(min_length=1, max_length=1)] = "A"


class Book(Message):
    """One title, whatever the number of its copies."""

    isbn: Isbn
    """Thirteen digits, the check digit included."""
    title: str
    authors: Annotated[list[Name], Bounds(min_length=1, max_length=8)]
    """In the order of the title page."""
    genre: Genre
    shelf: Shelf
    copies: dict[str, Annotated[int, Bounds(ge=0)]] = {}
    """How many each branch has."""
    rating: Annotated[float | None, Bounds(ge=0, le=5)] = None
    """The mean of what readers gave; nothing when nobody did."""
    available: bool = True
    due_back: Annotated[datetime | None, Since(2)] = None
    """When the first copy is expected; nothing when one is here."""


class Notice(Message):
    """One notice of a page; the fields are those of FollowNoticesResponse."""

    number: int
    notice_id: Id
    sender: str
    text: str
    sent_at: datetime


class Loan(Message):
    """One copy in somebody's hands, now or in the past."""

    position: int
    """Its place in the order in which loans were made; rises, with gaps."""
    loan_id: Id
    book: Book
    lent_at: datetime
    returned_at: datetime | None = None
    renewals: Annotated[int, Bounds(ge=0, le=3)] = 0
    note: str | None = None
    """What the librarian wrote on the card."""
    overdue: bool = False


class LogInRequest(Message):
    """Signs a connection in."""

    name: Name
    password: str

    __repr__ = _repr
    __rich_repr__ = _shown


class LogInResponse(Message):
    """The session that was opened."""

    token: str
    """Goes into ``authorization: Bearer <token>`` where there is no connection to sign in."""
    waiting: int
    """Notices that wait for this member."""

    __repr__ = _repr
    __rich_repr__ = _shown


class JoinRequest(Message):
    """Makes somebody a member; it does not sign in."""

    name: Name
    password: Password
    favourites: list[Genre] = []

    __repr__ = _repr
    __rich_repr__ = _shown


class JoinResponse(Message):
    """The member is known from now on."""


class FindBooksRequest(Message):
    """Asks for the books whose title matches a pattern, in the order of their titles, a page at a time."""

    pattern: Annotated[str, Bounds(min_length=1, max_length=64)]
    """``*`` stands for any characters, ``?`` for one."""
    after: str = ""
    """The ``next`` of the page before; empty for the first page."""
    limit: Limit = 0
    """Most books in the answer; 0 for 100."""
    genre: Genre | None = None
    """Only those that stand there."""


class FindBooksResponse(Message):
    """One page of a list of books."""

    books: list[Book]
    next: str
    """What to give as ``after`` for the next page; empty when this is the last."""


class SendNoticeRequest(Message):
    """Puts a notice on a member's board. The sender is who signed in, never a field.

    The metadata ``idempotency_key`` makes a repetition safe: the same key with the same recipient and text answers
    what the first call answered and sends nothing; with others it is refused.
    """

    recipient: Name
    text: Text


class SendNoticeResponse(Message):
    """The notice is on the board."""

    notice_id: Id
    """16 random bytes, never used again."""
    number: int
    """The notice's place on the recipient's board: 1, 2, 3, without gaps."""
    duplicate: Annotated[bool, Since(2)] = False
    """The key was used before for the same notice: nothing was sent now, and this is what was answered then."""


class LogOutRequest(Message):
    """Ends the session."""


class LogOutResponse(Message):
    """The session has ended; the connection may log in again."""


class LeaveRequest(Message):
    """Ends the caller's membership."""

    name: Name
    """The caller's own name, as a safeguard."""
    force: bool = False
    """Also when notices wait that nobody has read."""


class LeaveResponse(Message):
    """The member is gone."""

    discarded: int
    """Notices that went along."""


class FollowNoticesRequest(Message):
    """Opens the stream of the caller's notices: first those that wait, then each as it is sent."""

    after: Annotated[int, Bounds(ge=0)] = 0
    """The last ``number`` that the client has; the stream starts behind it, or behind the last one that was taken."""


class FollowNoticesResponse(Message):
    """One notice of the stream."""

    number: int
    notice_id: Id
    sender: str
    text: str
    sent_at: datetime
    """For display; ``number`` is the order."""


class TakeNoticesRequest(Message):
    """Takes a page of notices off the caller's board."""

    limit: Limit = 0
    """Most notices in the answer; 0 for 100."""


class TakeNoticesResponse(Message):
    """A page of notices, oldest first, which no stream gives again."""

    notices: list[Notice]
    remaining: int
    """Notices that still wait."""


class LendRequest(Message):
    """Borrows books, all those that can be had."""

    isbns: Annotated[list[Isbn], Bounds(min_length=1, max_length=10)]
    branch: str = ""
    """Where they are picked up; empty for the main house."""
    gift_for: Name | None = None
    """Another member, who may return them."""


class LendResponse(Message):
    """What was lent, and what was not."""

    loans: dict[int, Loan]
    """By ISBN."""
    refused: dict[int, Hindrance] = {}
    """The others."""
    fee: float = 0.0
    """In euros."""


class ReturnBooksRequest(Message):
    """Gives books back."""

    loan_ids: list[Id]
    ratings: dict[int, Annotated[float, Bounds(ge=0, le=5)]] = {}
    """By ISBN, for those that the caller has read."""


class ReturnBooksResponse(Message):
    """The loans have ended."""

    late: list[bool]
    """For each loan, in the order of the request."""
    account: dict[str, float] = {}
    """What is owed, by the name of the fee."""


class ReserveRequest(Message):
    """Puts the caller into the queue for a book; may be repeated."""

    isbn: Isbn
    until: datetime | None = None
    """When it is of no use any more; nothing when it always is."""


class ReserveResponse(Message):
    """The caller is in the queue."""

    place: int
    """1 for whoever gets the next copy."""
    likely: list[datetime] = []
    """When copies are expected."""


class ListLoansRequest(Message):
    """Asks for the caller's loans, a page at a time.

    To read on, give the ``position`` of the page's last loan as ``before`` when the newest come first (the default), as
    ``after`` when the oldest do.
    """

    before: Annotated[int, Bounds(ge=0)] = 0
    """Only loans with a lower ``position``; 0 for no bound."""
    after: Annotated[int, Bounds(ge=0)] = 0
    """Only loans with a higher ``position``."""
    limit: Limit = 0
    """Most loans in the answer; 0 for 100."""
    oldest_first: bool = False
    """The order, and with it which end a page is taken from."""


class ListLoansResponse(Message):
    """One page of loans, in the order asked for."""

    loans: list[Loan]
    more: bool
    """Whether there are loans behind the last of these."""


class AnnounceRequest(Message):
    """Puts a notice on the board of every member whose name matches a pattern, but the sender's."""

    pattern: Annotated[str, Bounds(min_length=1, max_length=64)]
    text: Text
    poster: bytes = b""
    """A picture to go with it."""


class AnnounceResponse(Message):
    """The notices are on the boards."""

    recipients: int
    numbers: dict[str, int]
    """The notice's place on each board, by the member's name."""
    duplicate: bool = False


class ChangePasswordRequest(Message):
    """Gives the caller another password."""

    new_password: Password
    password: str
    """The one that holds until then."""

    __repr__ = _repr
    __rich_repr__ = _shown


class ChangePasswordResponse(Message):
    """The new password holds, and only the caller's session is left."""

    sessions_ended: int


class WhoAmIRequest(Message):
    """Asks whose session this is."""


class WhoAmIResponse(Message):
    """The caller as the library knows them."""

    name: str
    joined_at: datetime
    card: UInt64
    """The number on the card, which has all of 64 bits."""
    last_loan: Loan | None = None
    favourites: list[Genre] = []
    waiting: int = 0


# Any method that reaches the catalogue may be refused with these, through no fault of the caller.
_READS = ("CATALOGUE_FAILED",)
_WRITES = ("CATALOGUE_FULL", *_READS)

LOG_IN = Method(
    opcode=0,
    name="LogIn",
    request=LogInRequest,
    response=LogInResponse,
    reasons=("BAD_CREDENTIALS", "ALREADY_SIGNED_IN", "THROTTLED", "TOO_OFTEN", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Signs the connection in. An unknown name and a wrong password have the same answer.",
)
JOIN = Method(
    opcode=1,
    name="Join",
    request=JoinRequest,
    response=JoinResponse,
    reasons=("NAME_TAKEN", "TOO_OFTEN", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Makes somebody a member with a name and a password.",
)
FIND_BOOKS = Method(
    opcode=2,
    name="FindBooks",
    request=FindBooksRequest,
    response=FindBooksResponse,
    requires="member",
    reasons=("BAD_PATTERN", "TOO_OFTEN", *_READS),
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Lists books whose title matches a pattern.",
)
SEND_NOTICE = Method(
    opcode=3,
    name="SendNotice",
    request=SendNoticeRequest,
    response=SendNoticeResponse,
    requires="member",
    reasons=("UNKNOWN_RECIPIENT", "BOARD_FULL", "KEY_CONFLICT", *_WRITES),
    timeout=10.0,
    doc="Sends a notice to a member; safe to repeat with the same idempotency key.",
)
LOG_OUT = Method(
    opcode=4,
    name="LogOut",
    request=LogOutRequest,
    response=LogOutResponse,
    requires="member",
    reasons=_WRITES,
    timeout=10.0,
    doc="Ends the session: revokes its token and leaves the connection without an identity.",
)
LEAVE = Method(
    opcode=5,
    name="Leave",
    request=LeaveRequest,
    response=LeaveResponse,
    requires="member",
    reasons=("NOT_YOUR_NAME", "BOOKS_ARE_OUT", "NOTICES_WAIT", *_WRITES),
    timeout=10.0,
    doc="Ends the caller's membership; refused while books are out.",
)
FOLLOW_NOTICES = StreamMethod(
    opcode=6,
    name="FollowNotices",
    request=FollowNoticesRequest,
    response=FollowNoticesResponse,
    requires="member",
    reasons=("BAD_AFTER", "TOO_MANY_STREAMS", "SIGNED_OUT", *_READS),
    doc="Streams the caller's notices: those that wait first, then live.",
)
TAKE_NOTICES = Method(
    opcode=7,
    name="TakeNotices",
    request=TakeNoticesRequest,
    response=TakeNoticesResponse,
    requires="member",
    reasons=_WRITES,
    timeout=10.0,
    doc="Takes the oldest notices off the caller's board.",
)
LEND = Method(
    opcode=8,
    name="Lend",
    request=LendRequest,
    response=LendResponse,
    since=2,
    requires="member",
    reasons=("UNKNOWN_BRANCH", "UNKNOWN_RECIPIENT", "TOO_MANY_BOOKS", "CARD_EXPIRED", *_WRITES),
    timeout=10.0,
    doc="Borrows books, all those that can be had.",
)
RETURN_BOOKS = Method(
    opcode=9,
    name="ReturnBooks",
    request=ReturnBooksRequest,
    response=ReturnBooksResponse,
    since=2,
    requires="member",
    reasons=("UNKNOWN_LOAN", *_WRITES),
    idempotent=True,
    timeout=10.0,
    doc="Gives books back. Other people's loans are answered as ones that do not exist.",
)
RESERVE = Method(
    opcode=10,
    name="Reserve",
    request=ReserveRequest,
    response=ReserveResponse,
    since=2,
    requires="member",
    reasons=("UNKNOWN_BOOK", "BOOK_IS_HERE", "TOO_MANY_BOOKS", "CARD_EXPIRED", *_WRITES),
    idempotent=True,
    timeout=10.0,
    doc="Reserves a book.",
)
LIST_LOANS = Method(
    opcode=11,
    name="ListLoans",
    request=ListLoansRequest,
    response=ListLoansResponse,
    since=2,
    requires="member",
    reasons=_READS,
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Lists what the caller has borrowed.",
)
ANNOUNCE = Method(
    opcode=12,
    name="Announce",
    request=AnnounceRequest,
    response=AnnounceResponse,
    since=2,
    requires="librarian",
    reasons=("BAD_PATTERN", "TOO_MANY_RECIPIENTS", "BOARD_FULL", "KEY_CONFLICT", "TOO_OFTEN", *_WRITES),
    blocking=True,
    timeout=10.0,
    doc="Sends a notice to every member whose name matches a pattern, in one step.",
)
CHANGE_PASSWORD = Method(
    opcode=13,
    name="ChangePassword",
    request=ChangePasswordRequest,
    response=ChangePasswordResponse,
    since=2,
    requires="member",
    reasons=("BAD_CREDENTIALS", "THROTTLED", *_WRITES),
    timeout=15.0,
    max_request=8192,
    doc="Changes the caller's password and ends the member's other sessions.",
)
WHO_AM_I = Method(
    opcode=14,
    name="WhoAmI",
    request=WhoAmIRequest,
    response=WhoAmIResponse,
    since=2,
    requires="member",
    reasons=_READS,
    idempotent=True,
    blocking=True,
    timeout=10.0,
    doc="Says whose session this is.",
)

LENDING = Service(
    "test.lending.v1.LendingService",
    version=2,
    methods=[
        LOG_IN,
        JOIN,
        FIND_BOOKS,
        SEND_NOTICE,
        LOG_OUT,
        LEAVE,
        FOLLOW_NOTICES,
        TAKE_NOTICES,
        LEND,
        RETURN_BOOKS,
        RESERVE,
        LIST_LOANS,
        ANNOUNCE,
        CHANGE_PASSWORD,
        WHO_AM_I,
    ],
)
