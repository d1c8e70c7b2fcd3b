"""A call at the end of a pair that answers it: its context, whoever takes its items, and whatever gives its answers.

As on a real server a sink is given one item after the other, and credit returns for those that it has taken. A handler
that iterates over the items would wait for them, which nothing here can do: it is run once all have come, so that the
credit for them returns as they come.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from wireproto.codecs import Codec
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Entry, Outcome
from wireproto.errors import CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.reasons import failure
from wireproto.schema import Operation, Shape
from wireproto.status import Retry, Status
from wireproto.wire.answers import pack_answer, with_entry
from wireproto.wire.connection import Connection
from wireproto.wire.framing import PayloadTooLarge
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload, plain

__all__ = ["PairedCall", "next_of"]


class CallsLink(Protocol):
    """What a call uses of the end that answers it."""

    codec: Codec
    connection: Connection

    @property
    def identity(self) -> Identity | None:
        """Whom this end takes its caller for."""

    @identity.setter
    def identity(self, identity: Identity | None) -> None: ...

    @property
    def client(self) -> ConnectedClient:
        """See ``Context.client``."""


class PairedCall(Context):
    """One call of a pair. Nothing of it happens but in ``move``, which goes as far as it can.

    Attributes:
        entry: of its method.
        over: it is answered, or nobody waits for that; whatever takes its items may still have to be told.
    """

    __slots__ = (
        "_awaited",
        "_call_id",
        "_complete",
        "_dropped",
        "_error",
        "_link",
        "_owed_bytes",
        "_owed_items",
        "_said",
        "_sink",
        "_source",
        "_waiting",
        "cancelled",
        "deadline",
        "entry",
        "identity",
        "metadata",
        "over",
    )

    def __init__(self, link: CallsLink, call_id: int, entry: Entry, metadata: Metadata) -> None:
        self.metadata = metadata
        self.identity = link.identity
        self.deadline = entry.due(None if metadata.deadline_ms is None else metadata.deadline_ms / 1000)
        self.cancelled = False
        self.entry = entry
        self.over = False
        self._link = link
        self._call_id = call_id
        self._source: Future[Any] | Subscription[Any] | Iterator[Any] | None = None
        self._sink: Sink[Any, Any] | None = None
        self._waiting: deque[bytes] = deque()
        self._awaited: tuple[Future[Any], int] | None = None  # what the sink gave for an item, and the bytes of that
        self._complete = False
        self._owed_items = 0
        self._owed_bytes = 0
        self._error: CallError | None = None
        self._said: dict[str, str] = {}
        self._dropped = 0  # items that the source has left out, of which the caller was not told yet

    # What a handler sees.

    @property
    def peer(self) -> str:
        return "pair:0"

    @property
    def codec(self) -> str:
        return self._link.codec.name

    @property
    def version(self) -> int:
        return self._link.connection.version

    @property
    def method(self) -> Operation[Any, Any]:
        return self.entry.method

    @property
    def draining(self) -> bool:
        return False

    @property
    def client(self) -> ConnectedClient:
        return self._link.client

    def set_metadata(self, name: str, value: str) -> None:
        said = with_entry(self._said, name, value)
        if not self.over:
            self._said = said
            if self.entry.shape is not Shape.ONE_WAY:
                self._link.connection.set_metadata(self._call_id, pack_answer(said))

    def sign_in(self, identity: Identity) -> None:
        signed_in = self._link.identity
        if signed_in is not None and signed_in is not identity and not signed_in.revoked:
            raise CallError(
                Status.FAILED_PRECONDITION,
                "ALREADY_SIGNED_IN",
                f"this connection is signed in as {signed_in.subject}; sign out first, or open another one",
            )
        self.identity = self._link.identity = identity

    def sign_out(self) -> None:
        self.identity = self._link.identity = None

    # What comes of it.

    def begin(self, payload: bytes) -> None:
        """Judge the call and run its handler, or make its sink."""
        entry = self.entry
        if not entry.method.items_follow:
            self._go_on(entry.run(payload, self))
        elif (refusal := entry.admit(self)) is not None:
            self._settle(refusal)
        elif entry.sinks:
            sink = entry.open(self)
            if isinstance(sink, CallError):
                self._settle(sink)
                return
            self._sink = sink
            if entry.method.items_come_back:
                assert isinstance(sink, Subscription)  # or it would not have been made
                self._source = sink
            else:
                sink.answer = self._answer_early

    def put(self, payload: bytes) -> None:
        """An item has come."""
        self._waiting.append(payload)
        if self._sink is None:
            self._owe(len(payload))

    def complete(self) -> None:
        """All items have come."""
        self._complete = True
        if self._sink is None:
            self._go_on(self.entry.run_items(map(self.entry.read, self._waiting), self))

    def move(self) -> None:
        """Give the sink what came and its future allows, return credit, and send what the source has."""
        if self._is_revoked():
            text = "the identity of the call was revoked while it ran; sign in again"
            error = failure("SIGN_IN_REQUIRED", text, retry=Retry.MAYBE_PROCESSED)
            self._end("the identity was revoked", error)
            self._link.connection.send_error(self._call_id, error)
        try:
            if self._sink is not None:
                self._feed(self._sink)
            if not self.over:
                self._send_answers()
        except BaseException as error:  # noqa: BLE001 - what a source or a sink raises ends its call only
            told = self.entry.failure(error)
            if not self.over:
                self._link.connection.send_error(self._call_id, told)
            self._end("failed", told)
        if self.over:
            self._tell_sink()
        elif self._owed_items:
            self._link.connection.send_credit(self._call_id, self._owed_items, self._owed_bytes)
            self._owed_items = self._owed_bytes = 0

    def cancel(self) -> None:
        """The caller wants no answer any more."""
        error = failure("CANCELLED", "cancelled by the caller")
        self._end("the caller cancelled", error)
        self._link.connection.send_error(self._call_id, error)
        self._tell_sink()

    def lose(self) -> None:
        """The connection has ended."""
        self._end("the connection ended", failure("CANCELLED", "the connection ended"))
        self._tell_sink()

    def _is_revoked(self) -> bool:
        identity, method = self.identity, self.entry.method
        return not self.over and identity is not None and identity.revoked and not method.outlives_identity

    def _feed(self, sink: Sink[Any, Any]) -> None:
        while not self.over:
            if self._awaited is not None:
                future, size = self._awaited
                if not future.done():
                    return
                self._awaited = None
                future.result(0)
                self._owe(size)
            elif self._waiting:
                payload = self._waiting.popleft()
                taken = sink.receive(self.entry.read(payload))
                if taken is None:
                    self._owe(len(payload))
                else:
                    self._awaited = (taken, len(payload))
            elif self._complete:
                self._sink = None  # it is told once
                answer = sink.finished()
                if not self.entry.method.items_come_back:
                    self._go_on(self.entry.outcome(answer))
                return
            else:
                return

    def _owe(self, size: int) -> None:
        self._owed_items += 1
        self._owed_bytes += size

    def _answer_early(self, response: Any) -> None:
        """``Sink.answer``. The sink is told the end with the next move: it may be in the middle of something."""
        if not self.over:
            outcome = self.entry.encode(response)
            self._settle(outcome)
            self._error = outcome if isinstance(outcome, CallError) else None

    def _tell_sink(self) -> None:
        """No more items come of a call that is over."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            if self._error is not None:
                sink.failed(self._error)
            else:
                sink.finished()
        except BaseException as error:  # noqa: BLE001 - nobody waits for it; the log has it, as on a real server
            self.entry.failure(error)

    def _go_on(self, outcome: Outcome) -> None:
        if self.over:
            return  # a sink has answered before it returned
        if isinstance(outcome, bytes | Packed | CallError):
            self._settle(outcome)
        else:
            self._source = outcome

    def _settle(self, outcome: Payload | CallError) -> None:
        self.over = True
        connection = self._link.connection
        if isinstance(outcome, CallError):
            connection.send_error(self._call_id, outcome)
            return
        try:
            connection.send_response(self._call_id, plain(outcome))
        except PayloadTooLarge as error:
            connection.send_error(self._call_id, _too_large(error))

    def _send_answers(self) -> None:
        source, connection = self._source, self._link.connection
        if isinstance(source, Future):
            if source.done():
                self._settle(self.entry.encode(source.result(0)))
            return
        if source is None:
            return
        while connection.may_send_item(self._call_id):
            items = next_of(source)
            if isinstance(source, Subscription):
                self._dropped += source.dropped
                source.dropped = 0
            if items is None:
                self._send_end()
                return
            if not items:
                return
            payload = self.entry.encode(items[0])
            if isinstance(payload, CallError):
                raise payload
            if self._dropped:
                connection.send_item_behind(self._call_id, payload, self._dropped)
                self._dropped = 0
            else:
                connection.send_item(self._call_id, payload)
        if isinstance(source, Subscription):
            try:
                source.stalled()
            except StopIteration:
                self._send_end()

    def _send_end(self) -> None:
        try:
            self._link.connection.send_end(self._call_id, dropped=self._dropped)
        except PayloadTooLarge as error:
            raise _too_large(error) from None
        self._end("ended")

    def _end(self, why: str, error: CallError | None = None) -> None:
        self.over = self.cancelled = True
        self._error = error
        source, self._source = self._source, None
        if isinstance(source, Future):
            source.cancel()
        elif isinstance(source, Subscription):
            source.close(why)
        elif isinstance(source, Generator):
            source.close()


def _too_large(error: PayloadTooLarge) -> CallError:
    return failure("RESPONSE_TOO_LARGE", f"the answer cannot be sent: {error}")


def next_of(source: Subscription[Any] | Iterator[Any]) -> list[Any] | None:
    """The next item of a source; none if there is none yet, which only a subscription can say; None behind the last."""
    try:
        if not isinstance(source, Subscription):
            return [next(source)]
        items = list(source.take(1))
    except StopIteration:
        return None
    if len(items) > 1:
        raise ValueError(f"{type(source).__name__}.take(1) gave {len(items)} items")
    return items
