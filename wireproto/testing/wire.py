"""A client's and a server's connection back to back: the protocol without a socket, a thread or a clock.

Whatever travels is kept in ``Pair.sent``, so that a test can look at bytes, change them, or lose them.
"""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import msgspec

from wireproto import codecs
from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Context, Entry, Handlers, Identity, Subscription, Table
from wireproto.errors import CallError, HandshakeError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Operation, Service, StreamMethod
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    HelloReceived,
    ItemReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import KINDS, PREAMBLE, Kind, total_length, unpack
from wireproto.wire.framing import PayloadTooLarge
from wireproto.wire.handshake import Hello, Offer, negotiate
from wireproto.wire.metadata import Metadata, pack_metadata

__all__ = ["Pair", "Sent", "pair"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)


class Sent(NamedTuple):
    """What one side gave to the other at once."""

    by: Role
    data: bytes


def pair(
    handlers: Handlers | Service,
    *,
    codec: str | Codec = "msgpack",
    service: Service | None = None,
    limits: Limits | None = None,
    authenticate: Authenticate | None = None,
    handshake: bool = True,
) -> "Pair":
    """Connect a client to a server without a socket.

        link = pair(handlers, codec="pipe")
        assert link.call(ADD, AddRequest(left=2, right=3)).total == 5
        assert link.sent[-1].data.endswith(b"5")

    Args:
        handlers: what the server runs; a ``Service`` alone for a server that the test plays itself.
        codec: the one both sides have.
        service: what the client declares, such as ``Service.as_of`` an older version; None for what is served.
        limits: of both sides.
        authenticate: as for ``Server``.
        handshake: False for a client that has said nothing yet.

    Raises:
        ConfigError: there is no such codec.
        HandshakeError: the two sides do not agree.
    """
    made = Pair(handlers, codecs.get(codec), service, limits or Limits(), authenticate)
    if handshake:
        made.greet()
    return made


class Pair:
    """Two connections and what travels between them; made by ``pair``. For one thread.

    Nothing waits and nothing happens by itself: bytes move when a method here is called, handlers run on the caller's
    thread, and no time passes, so that only the deadline a call begins with is looked at.

    Attributes:
        client: the client's ``Connection``.
        server: the server's.
        service: what the client declares; it is spoken in ``codec``.
        sent: all that travelled, in order.
    """

    def __init__(
        self,
        handlers: Handlers | Service,
        codec: Codec,
        service: Service | None,
        limits: Limits,
        authenticate: Authenticate | None,
    ) -> None:
        self._served = handlers.service if isinstance(handlers, Handlers) else handlers
        self.service = self._served if service is None else service
        self.codec = codec
        self.client = Connection(Role.CLIENT, limits)
        self.server = Connection(Role.SERVER, limits)
        self.sent: list[Sent] = []
        self._handlers = handlers if isinstance(handlers, Handlers) else None
        self._limits = limits
        self._authenticate = authenticate
        self._table: Table | None = None
        self._identity: Identity | None = None
        self._calls: dict[int, _PairedCall] = {}
        self._answers: dict[int, list[Event]] = {}

    def __repr__(self) -> str:
        return f"<Pair of {self.service.full_name}, {self.codec.name}, version {self.version}>"

    @property
    def version(self) -> int:
        """The version agreed on; 0 before the handshake."""
        return self.client.version

    # Bytes.

    def greet(self) -> None:
        """Shake hands.

        Raises:
            HandshakeError: the server refused.
        """
        self.client.send_hello(
            Hello(
                min_version=1,
                max_version=self.service.version,
                codecs=((self.codec.id, self.codec.name),),
                max_frame=self._limits.max_frame,
                max_calls=self._limits.max_calls,
                client_name="pair",
                service=self.service.full_name,
                digests=self.service.digests(self.service.version),
            )
        )
        for event in self.deliver(self.client):
            if isinstance(event, HelloReceived):
                self._answer_hello(event.hello)
        for event in self.deliver(self.server):
            if isinstance(event, ConnectionEnded) and event.error is not None:
                raise event.error

    def deliver(self, sender: Connection) -> list[Event]:
        """Give the peer of ``sender`` what that has queued; what it reports. No handler runs."""
        receiver = self.server if sender is self.client else self.client
        if data := sender.data_to_send():
            self.sent.append(Sent(sender.role, data))
            receiver.receive_data(data)
        events: list[Event] = []
        while (event := receiver.next_event()) is not NEED_DATA:
            assert not isinstance(event, type(NEED_DATA))
            events.append(event)
        return events

    def exchange(self) -> list[Event]:
        """Deliver in both directions, and run the handlers of what arrives, until nothing moves.

        Returns:
            What the client reports.
        """
        reported: list[Event] = []
        while True:
            for event in self.deliver(self.client):
                self._on_server(event)
            self._pump()
            if not self.server.bytes_pending and not self.client.bytes_pending:
                return reported
            reported += self.deliver(self.server)

    def sent_by(self, role: Role) -> bytes:
        """Everything that one side has sent."""
        return b"".join(each.data for each in self.sent if each.by is role)

    def transcript(self) -> str:
        """Every frame that travelled, one a line, for people: ``client REQUEST call 1 opcode 0x0010: 32 7c 33``."""
        return "\n".join(line for each in self.sent for line in _lines(each))

    # Calls.

    def start(
        self,
        method: Operation[Req, Any],
        request: Req,
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
        credit: int | None = None,
    ) -> int:
        """Queue the REQUEST of a call; its id. ``exchange`` delivers it.

        Args:
            method: of the service, in the version agreed on or not.
            request: its message.
            metadata: what to send beside it; plain entries, or all that there is.
            credit: of a stream; 64 unless told otherwise.

        Raises:
            EncodeError: the request cannot be written.
        """
        payload = self.codec.plan(method.request, self.version, self._limits, request=True).encode(request)
        given = metadata if isinstance(metadata, Metadata) else Metadata(entries=dict(metadata or {}))
        if method.is_stream:
            given = msgspec.structs.replace(given, credit=64 if credit is None else credit)
        return self.client.send_request(method.opcode, payload, pack_metadata(given), credit=given.credit)

    def call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
    ) -> Resp:
        """One unary call, from its request to its answer.

        Raises:
            CallError: it was refused, or the server has ended the connection and said why.
            EncodeError, DecodeError: a message cannot be written or read.
            RemoteProtocolError: the server broke a rule of the protocol.
            LocalProtocolError: there is no answer: the handler gave a future that is not done.
        """
        call_id = self.start(method, request, metadata=metadata)
        for event in self._events_of(call_id):
            if isinstance(event, ResponseReceived):
                return self._read(method, event.payload)
            if isinstance(event, ErrorReceived):
                raise event.error
        raise self._unanswered(method)

    def stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
        credit: int = 64,
    ) -> Generator[Item]:
        """One stream, item by item; each item's credit goes back when the next one is asked for.

        It ends when the stream does, and raises its CallError; of one that pauses, it ends with the items that are
        there. Closing it cancels the call.
        """
        call_id = self.start(method, request, metadata=metadata, credit=credit)
        try:
            while events := self._events_of(call_id):
                for event in events:
                    if isinstance(event, ItemReceived):
                        yield self._read(method, event.payload)
                        self.client.send_credit(call_id, 1)
                    elif isinstance(event, ErrorReceived):
                        raise event.error
                    elif isinstance(event, EndReceived):
                        return
        finally:
            if self.client.state is not State.CLOSED:
                self.client.send_cancel(call_id)
                self.exchange()

    def _events_of(self, call_id: int) -> list[Event]:
        """Exchange, and take what came for one call; the rest is kept for its own."""
        for event in self.exchange():
            if isinstance(event, ConnectionEnded):
                raise event.error or LocalProtocolError("the connection has ended")
            if isinstance(event, ResponseReceived | ItemReceived | EndReceived | ErrorReceived):
                self._answers.setdefault(event.call_id, []).append(event)
        return self._answers.pop(call_id, [])

    def _read(self, method: Operation[Any, Resp], payload: bytes) -> Resp:
        return self.codec.plan(method.response, self.version, self._limits, request=False).decode(payload)

    def _unanswered(self, method: Operation[Any, Any]) -> LocalProtocolError:
        if self._handlers is None:
            return LocalProtocolError(f"nobody answers {method.name}: give pair() handlers, or answer through .server")
        return LocalProtocolError(f"{method.name} is not answered yet; its handler gave a future that is not done")

    # The server's side.

    def _answer_hello(self, hello: Hello) -> None:
        served = self._served
        offer = Offer(served.full_name, served.version, {self.codec.id: self.codec.name}, served.digests)
        try:
            welcome = negotiate(hello, {offer.service: offer}, self._limits, "pair")
        except HandshakeError as error:
            self.server.refuse(error)
            return
        self.server.send_welcome(welcome)
        if self._handlers is not None:
            self._table = self._handlers.table(self.codec, welcome.version, self._limits, self._authenticate)

    def _on_server(self, event: Event) -> None:
        if isinstance(event, HelloReceived):
            self._answer_hello(event.hello)
        elif isinstance(event, ConnectionEnded):
            for call_id in list(self._calls):
                self._calls.pop(call_id).end("the connection ended")
        elif self._table is None:
            return
        elif isinstance(event, RequestReceived):
            self._begin(self._table, event)
        elif isinstance(event, CancelReceived):
            if (call := self._calls.pop(event.call_id, None)) is not None:
                call.end("the caller cancelled")
            cancelled = CallError(Status.CANCELLED, "CANCELLED", "cancelled by the caller", retry=Retry.MAYBE_PROCESSED)
            self.server.send_error(event.call_id, cancelled)

    def _begin(self, table: Table, event: RequestReceived) -> None:
        entry = table.entries.get(event.opcode)
        if isinstance(event.metadata, CallError):
            self.server.send_error(event.call_id, event.metadata)
        elif entry is None:
            self.server.send_error(event.call_id, table.missing(event.opcode))
        else:
            call = _PairedCall(self, entry, event.metadata)
            outcome = entry.run(event.payload, call)
            if isinstance(outcome, bytes | CallError):
                self._settle(event.call_id, outcome)
            else:
                call.source = outcome
                self._calls[event.call_id] = call

    def _pump(self) -> None:
        """Send what sources and futures have."""
        for call_id, call in list(self._calls.items()):
            source = call.source
            try:
                if isinstance(source, Future):
                    if source.done():
                        del self._calls[call_id]
                        self._settle(call_id, call.entry.encode(source.result(0)))
                    continue
                for item in call.take(self.server.credit(call_id)):
                    payload = call.entry.encode(item)
                    if isinstance(payload, CallError):
                        raise payload
                    self.server.send_item(call_id, payload)
            except StopIteration:
                self._calls.pop(call_id).end("ended")
                self.server.send_end(call_id)
            except BaseException as error:  # noqa: BLE001 - what a source raises ends its call, as on a real server
                self._calls.pop(call_id, call).end("failed")
                self.server.send_error(call_id, call.entry.failure(error))

    def _settle(self, call_id: int, outcome: bytes | CallError) -> None:
        if isinstance(outcome, CallError):
            self.server.send_error(call_id, outcome)
            return
        try:
            self.server.send_response(call_id, outcome)
        except PayloadTooLarge as error:
            text = f"the answer cannot be sent: {error}"
            too_large = CallError(Status.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE", text, retry=Retry.MAYBE_PROCESSED)
            self.server.send_error(call_id, too_large)


class _PairedCall(Context):
    """A call on the server's side of a pair."""

    __slots__ = (
        "_link",
        "cancelled",
        "deadline",
        "entry",
        "identity",
        "metadata",
        "source",
    )

    def __init__(self, link: Pair, entry: Entry, metadata: Metadata) -> None:
        self.metadata = metadata
        self.identity = link._identity
        self.deadline = entry.due(None if metadata.deadline_ms is None else metadata.deadline_ms / 1000)
        self.cancelled = False
        self.entry = entry
        self.source: Future[Any] | Subscription[Any] | Iterator[Any] | None = None
        self._link = link

    @property
    def peer(self) -> str:
        return "pair:0"

    @property
    def codec(self) -> str:
        return self._link.codec.name

    @property
    def version(self) -> int:
        return self._link.server.version

    @property
    def method(self) -> Operation[Any, Any]:
        return self.entry.method

    @property
    def draining(self) -> bool:
        return False

    def sign_in(self, identity: Identity) -> None:
        signed_in = self._link._identity
        if signed_in is not None and signed_in is not identity and not signed_in.revoked:
            raise CallError(
                Status.FAILED_PRECONDITION,
                "ALREADY_SIGNED_IN",
                f"this connection is signed in as {signed_in.subject}; sign out first, or open another one",
            )
        self.identity = self._link._identity = identity

    def sign_out(self) -> None:
        self.identity = self._link._identity = None

    def take(self, credit: int) -> list[Any]:
        """Up to ``credit`` items of the source.

        Raises:
            StopIteration: it is over.
        """
        source = self.source
        if isinstance(source, Subscription):
            items = list(source.take(credit)) if credit else []
            if len(items) > credit:
                raise ValueError(f"{type(source).__name__}.take({credit}) gave {len(items)} items")
            return items
        assert isinstance(source, Iterator)
        # One at a time, so that the items before its end are sent before that is.
        return [next(source)] if credit else []

    def end(self, why: str) -> None:
        """The caller is gone, or the source over."""
        self.cancelled = True
        if isinstance(self.source, Future):
            self.source.cancel()
        elif isinstance(self.source, Subscription):
            self.source.close(why)
        elif isinstance(self.source, Generator):
            self.source.close()


def _lines(sent: Sent) -> Iterator[str]:
    data = sent.data
    if data.startswith(PREAMBLE):
        yield f"{sent.by.value} preamble: {PREAMBLE.hex(' ')}"
        data = data[len(PREAMBLE) :]
    while data:
        size = total_length(data, 0, len(data))
        frame = unpack(data)
        data = data[size:]
        name = Kind(frame.kind).name if frame.kind in KINDS else f"kind {frame.kind}"
        call = f" call {frame.call_id} opcode {frame.opcode:#06x}" if frame.call_id else ""
        body = (frame.metadata + frame.payload).hex(" ")
        yield f"{sent.by.value} {name}{call}: {body}"
