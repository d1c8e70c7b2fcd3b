"""Who answers in the lending library: handlers of Join, LogIn, SendNotice, FollowNotices and TakeNotices.

Clients that nobody here wrote call them through the gateway.
"""

import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.lending import (
    FOLLOW_NOTICES,
    JOIN,
    LENDING,
    LOG_IN,
    PAGE_LIMIT,
    SEND_NOTICE,
    TAKE_NOTICES,
    FollowNoticesRequest,
    FollowNoticesResponse,
    JoinRequest,
    JoinResponse,
    LogInRequest,
    LogInResponse,
    Notice,
    SendNoticeRequest,
    SendNoticeResponse,
    TakeNoticesRequest,
    TakeNoticesResponse,
)
from wireproto import Context, Handlers, Identity, Metadata, Status, Subscription


class Member:
    """What the library keeps of one member; whoever touches it holds the library's lock."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.notices: list[FollowNoticesResponse] = []
        self.taken = 0
        self.keys: dict[bytes, tuple[SendNoticeRequest, SendNoticeResponse]] = {}
        self.followers: set[Follower] = set()


class Library:
    """The handlers over what is in memory, and the judge of their tokens.

    It is for tests: passwords are kept and compared as they are, and nobody is slowed down who guesses.
    """

    def __init__(self) -> None:
        self.handlers = Handlers(LENDING)
        self.lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._tokens: dict[str, Identity] = {}
        self.handlers.register(LOG_IN)(self._log_in)
        self.handlers.register(JOIN)(self._join)
        self.handlers.register(SEND_NOTICE)(self._send_notice)
        self.handlers.register(FOLLOW_NOTICES)(self._follow_notices)
        self.handlers.register(TAKE_NOTICES)(self._take_notices)

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        """Who has the token ``Bearer TOKEN``; what a server or gateway is given."""
        kind, _, token = metadata.authorization.partition(" ")
        with self.lock:
            return self._tokens.get(token) if kind == "Bearer" else None

    def _join(self, request: JoinRequest, context: Context) -> JoinResponse:
        with self.lock:
            if request.name in self._members:
                context.abort(Status.ALREADY_EXISTS, "NAME_TAKEN", f"{request.name!r} is a member; take another name")
            self._members[request.name] = Member(request.password)
        return JoinResponse()

    def _log_in(self, request: LogInRequest, context: Context) -> LogInResponse:
        token, identity = secrets.token_urlsafe(16), Identity(request.name, {"member"})
        with self.lock:
            member = self._members.get(request.name)
            if member is None or member.password != request.password:
                context.abort(Status.UNAUTHENTICATED, "BAD_CREDENTIALS", "no member has this name and this password")
            context.sign_in(identity)
            self._tokens[token] = identity
            return LogInResponse(token=token, waiting=len(member.notices) - member.taken)

    def _send_notice(self, request: SendNoticeRequest, context: Context) -> SendNoticeResponse:
        key = context.metadata.idempotency_key
        with self.lock:
            name, sender = self._caller(context)
            known = sender.keys.get(key)
            if known is not None:
                sent, answer = known
                if sent != request:
                    context.abort(Status.ALREADY_EXISTS, "KEY_CONFLICT", "use a fresh key for each notice")
                return SendNoticeResponse(notice_id=answer.notice_id, number=answer.number, duplicate=True)
            recipient = self._members.get(request.recipient)
            if recipient is None:
                context.abort(Status.NOT_FOUND, "UNKNOWN_RECIPIENT", f"there is no member {request.recipient!r}")
            answer = SendNoticeResponse(notice_id=secrets.token_bytes(16), number=len(recipient.notices) + 1)
            if key:
                sender.keys[key] = (request, answer)
            recipient.notices.append(
                FollowNoticesResponse(
                    number=answer.number,
                    notice_id=answer.notice_id,
                    sender=name,
                    text=request.text,
                    sent_at=datetime.now(UTC),
                )
            )
            followers = list(recipient.followers)
        # Not while holding the lock: what is woken may take at once.
        for follower in followers:
            follower.wake()
        return answer

    def _follow_notices(self, request: FollowNoticesRequest, context: Context) -> "Follower":
        with self.lock:
            _, member = self._caller(context)
            follower = Follower(self, member, max(request.after, member.taken))
            member.followers.add(follower)
        return follower

    def _take_notices(self, request: TakeNoticesRequest, context: Context) -> TakeNoticesResponse:
        with self.lock:
            _, member = self._caller(context)
            page = member.notices[member.taken :][: request.limit or PAGE_LIMIT]
            member.taken += len(page)
            remaining = len(member.notices) - member.taken
        notices = [
            Notice(
                number=each.number,
                notice_id=each.notice_id,
                sender=each.sender,
                text=each.text,
                sent_at=each.sent_at,
            )
            for each in page
        ]
        return TakeNoticesResponse(notices=notices, remaining=remaining)

    def _caller(self, context: Context) -> tuple[str, Member]:
        assert context.identity is not None
        return context.identity.subject, self._members[context.identity.subject]


class Follower(Subscription[FollowNoticesResponse]):
    """One open stream: where on the board it is."""

    def __init__(self, library: Library, member: Member, after: int) -> None:
        self._lock = library.lock
        self._member = member
        self._after = after

    def take(self, n: int) -> Sequence[FollowNoticesResponse]:
        with self._lock:
            taken = self._member.notices[self._after : self._after + n]
        self._after += len(taken)
        return taken

    def close(self, reason: str) -> None:
        with self._lock:
            self._member.followers.discard(self)
