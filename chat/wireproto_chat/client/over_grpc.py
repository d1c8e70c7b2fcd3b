"""What the chat client needs when it talks over gRPC, where neither a sign-in nor a credit belongs to the connection.

Each call carries the token of the log-in. A server of version 1 has no Acknowledge: there, messages are acknowledged by
PopUndelivered, with as many as were shown since the last time. These are the oldest ones that wait, unless another
client of the same account has taken some, and then the answer holds messages that were not shown yet. They are shown,
so nothing is lost.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from wireproto import Address, CallError, CodecError, Metadata, Status
from wireproto.client.grpc import GrpcClient, GrpcStream, connect
from wireproto.schema import Message, Method, StreamMethod
from wireproto_chat.client.reconnect import Messages
from wireproto_chat.contract import (
    CHAT,
    DELETE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    PAGE_LIMIT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    LogInResponse,
    PopUndeliveredRequest,
    PopUndeliveredResponse,
    ReceiveMessagesResponse,
)

__all__ = ["GrpcConnection"]

QUIET = 0.01
"""Seconds without a further message after which those shown are acknowledged together."""

BATCH = 32
"""Messages shown after which they are acknowledged even if more are there; half the server's window."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


class GrpcConnection:
    """A ``chat.client.Connection`` through a gateway.

    Args:
        address: of the gateway.
        version: the newest version of the chat to speak; None for all that there is.

    Raises:
        HandshakeError, ConnectionLost: as ``wireproto.client.grpc.connect``.
        ConfigError: the extra ``grpc`` is not installed.
    """

    def __init__(self, address: str | Address, *, version: int | None = None) -> None:
        self._client: GrpcClient = connect(address, CHAT, version=version)
        # Held over each PopUndelivered and what is concluded from it: two that cross would each count wrong.
        self._popping = threading.Lock()
        self._inbox: _Inbox | None = None

    @property
    def address(self) -> Address:
        """Of the gateway."""
        return self._client.address

    @property
    def codec(self) -> str:
        """What the messages travel by, for the greeting."""
        return self._client.codec

    @property
    def version(self) -> int:
        """As ``Client.version``."""
        return self._client.version

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        """As ``Client.call``; a log-in is remembered for the calls after it."""
        if cast(object, method) is POP_UNDELIVERED:
            with self._popping:
                answer = self._call(method, request, timeout, metadata)
                if self._inbox is not None:
                    self._inbox.note(cast(PopUndeliveredResponse, answer))
            return answer
        if cast(object, method) in (LOG_OUT, DELETE_ACCOUNT) and self._inbox is not None:
            self._inbox.acknowledge()  # what was shown does not wait any more
        if cast(object, method) is LOG_IN:
            # What serves there may be older or newer than what did before the connection was lost.
            self._client.open()
        try:
            answer = self._call(method, request, timeout, metadata)
        except CallError as error:
            if cast(object, method) is LOG_IN and error.status is Status.UNAUTHENTICATED:
                self._client.authorization = ""  # its session has ended
            raise
        if isinstance(answer, LogInResponse):
            self._client.authorization = f"Bearer {answer.token}"
        elif cast(object, method) in (LOG_OUT, DELETE_ACCOUNT):
            self._client.authorization = ""
        return answer

    def _call(self, method: Method[Req, Resp], request: Req, timeout: float | None, metadata: Metadata | None) -> Resp:
        try:
            return self._client.call(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            if error.reason != "UNSUPPORTED_VERSION":
                raise
        # gRPC connects again by itself, so this may be the first that is seen of another server. It did nothing.
        self._client.open()
        return self._client.call(method, request, timeout=timeout, metadata=metadata)

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = 64, batch: int = 32
    ) -> Messages[Resp]:
        """As ``Client.stream``; in version 1 a message counts as shown when the next one is asked for."""
        stream = self._client.stream(method, request, credit=credit)
        if cast(object, method) is not RECEIVE_MESSAGES:
            return stream
        stream.wait_until_open()  # so that whoever looks after this finds the account online
        if self._client.version >= 2:
            self._inbox = None
            return stream
        self._inbox = _Inbox(self._client, cast("GrpcStream[ReceiveMessagesResponse]", stream), self._popping)
        return cast("Messages[Resp]", self._inbox)

    def ping(self, timeout: float | None = None) -> float:
        """As ``Client.ping``."""
        return self._client.ping(timeout)

    def close(self, *, drain: float = 0.0) -> None:
        """End the connection, once an acknowledgement that is under way has been answered."""
        with self._popping:
            self._client.close(drain=drain)


class _Inbox:
    """The messages of one stream, each once, with those that an acknowledgement brought first."""

    def __init__(
        self, client: GrpcClient, stream: "GrpcStream[ReceiveMessagesResponse]", popping: threading.Lock
    ) -> None:
        self._client = client
        self._stream = stream
        self._popping = popping  # held wherever what follows changes
        self._seen = 0  # every number up to this one was given out, or is in ``_ahead``
        self._acknowledged = 0  # every number up to this one
        self._shown: deque[int] = deque()  # given out, and not acknowledged as far as is known
        self._ahead: deque[ReceiveMessagesResponse] = deque()  # acknowledged before the stream brought them
        self._failed = False  # the last acknowledgement did, and nothing was shown since
        self._messages = self._each()

    def __iter__(self) -> Iterator[ReceiveMessagesResponse]:
        return self._messages

    def next(self, timeout: float | None = None) -> ReceiveMessagesResponse:
        """The next message, however long it takes."""
        return next(self._messages)

    def _each(self) -> Iterator[ReceiveMessagesResponse]:
        end: CallError | CodecError | None = None
        over = False
        while True:
            while self._ahead:
                yield self._ahead.popleft()
            if over:
                break
            try:
                message = self._stream.next(QUIET if self._shown and not self._failed else None)
            except TimeoutError:
                self.acknowledge()
                continue
            except StopIteration:
                over = True
                continue
            except (CallError, CodecError) as error:
                end, over = error, True
                continue
            if message.sequence <= self._seen:
                continue
            self._seen = message.sequence
            yield message
            self._failed = False
            with self._popping:
                if message.sequence > self._acknowledged:
                    self._shown.append(message.sequence)
            if len(self._shown) >= BATCH:
                self.acknowledge()
        if end is not None:
            raise end

    def note(self, answer: PopUndeliveredResponse) -> None:
        """What was taken with PopUndelivered is acknowledged. Called with the lock held."""
        for message in answer.messages:
            self._acknowledged = max(self._acknowledged, message.sequence)
        while self._shown and self._shown[0] <= self._acknowledged:
            self._shown.popleft()

    def acknowledge(self) -> None:
        """Have the server know what was shown. From any thread."""
        with self._popping:
            limit = min(len(self._shown), PAGE_LIMIT)
            if not limit:
                return
            try:
                answer = self._client.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit))
            except CallError:
                # Nothing is lost: they wait on the server. If it is serious the stream will end, too.
                self._failed = True
                return
            self.note(answer)
            if not answer.messages:
                self._shown.clear()  # another client of this account has acknowledged them
            for message in answer.messages:
                if message.sequence > self._seen:
                    self._seen = message.sequence
                    self._ahead.append(_as_streamed(message))


def _as_streamed(message: Any) -> ReceiveMessagesResponse:
    return ReceiveMessagesResponse(**{name: getattr(message, name) for name in message.__struct_fields__})
