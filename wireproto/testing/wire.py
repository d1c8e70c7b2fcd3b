"""A client's and a server's connection back to back: the protocol without a socket, a thread or a clock.

Whatever travels is kept in ``Pair.sent``, so that a test can look at bytes, change them, or lose them.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from wireproto import codecs
from wireproto.binding import Dialect
from wireproto.codecs import Codec
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import CallError, HandshakeError, LocalProtocolError
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.schema import (
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    StreamMethod,
    UploadMethod,
)
from wireproto.testing.begun import PairedAgent
from wireproto.testing.ends import AgentEnd, AnsweringEnd
from wireproto.testing.outgoing import Outgoing
from wireproto.testing.transcript import Sent, lines_of
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    AnsweredBeside,
    AnswerUnreadable,
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    HelloReceived,
    ItemReceived,
    ResponseReceived,
    WelcomeReceived,
    bare,
)
from wireproto.wire.frame import NO_CREDIT, TOP_BIT, U32_MAX, Credit
from wireproto.wire.handshake import Hello, Offer, Welcome, compare_digests, negotiate
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.packing import plain

__all__ = ["Pair", "Sent", "pair"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)

_BATCH = U32_MAX  # as many items as there is credit for

_ANSWERS = (ResponseReceived, ItemReceived, EndReceived, ErrorReceived)

WINDOW = 1024 * 1024
"""Bytes of a stream's first credit, unless told otherwise: that of ``Client.stream``."""


def pair(
    handlers: Handlers | Service,
    *,
    codec: str | Codec = "msgpack",
    service: Service | None = None,
    limits: Limits | None = None,
    authenticate: Authenticate | None = None,
    handshake: bool = True,
    agent: Handlers | None = None,
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
        agent: what the client runs when the server calls it, through ``Pair.agent`` or ``Context.client``; None for a
            client that answers no calls.

    Raises:
        ConfigError: there is no such codec, or handlers are of methods that their side calls itself.
        HandshakeError: the two sides do not agree.
    """
    made = Pair(handlers, codecs.get(codec), service, limits or Limits(), authenticate, agent)
    if handshake:
        made.greet()
    return made


class Pair:
    """Two connections and what travels between them; made by ``pair``. For one thread.

    Nothing waits and nothing happens by itself: bytes move when a method here is called, handlers run on the caller's
    thread, and no time passes, so that only the deadline a call begins with is looked at. A handler that iterates over
    the items of its call is run when all of them have come; a sink is given each as it comes.

    Attributes:
        client: the client's ``Connection``.
        server: the server's.
        service: what the client declares; it is spoken in ``codec``.
        agent: the client as its server sees it that calls it: what ``Context.client`` is in handlers.
        limits: of both sides.
        sent: all that travelled, in order.
        untold: what came of one-way calls that failed or were refused, in order; their caller is told nothing.
        moving: handlers are being run.
    """

    def __init__(
        self,
        handlers: Handlers | Service,
        codec: Codec,
        service: Service | None,
        limits: Limits,
        authenticate: Authenticate | None,
        agent: Handlers | None = None,
    ) -> None:
        if isinstance(handlers, Handlers):
            handlers.check_side("client")
        if agent is not None:
            agent.check_side("server")
        self._served = handlers.service if isinstance(handlers, Handlers) else handlers
        self.service = self._served if service is None else service
        self.codec = codec
        self.client = Connection(Role.CLIENT, limits)
        self.server = Connection(Role.SERVER, limits)
        self.sent: list[Sent] = []
        self._handlers = handlers if isinstance(handlers, Handlers) else None
        self.limits = limits
        self.untold: list[CallError] = []
        self.moving = False
        self._agent = PairedAgent(self)
        self.agent: ConnectedClient = self._agent
        self._authenticate = authenticate
        self._worker = agent
        self._serving = AnsweringEnd(self.server, codec, limits, self.untold)
        self._serving.client = self.agent
        self._working = AgentEnd(self.client, codec, limits, self.untold)
        self._answers: dict[int, list[Event]] = {}

    def __repr__(self) -> str:
        return f"<Pair of {self.service.full_name}, {self.codec.name}, version {self.version}>"

    @property
    def version(self) -> int:
        """The version agreed on; 0 before the handshake."""
        return self.client.version

    @property
    def identity(self) -> Identity | None:
        """Whom the server takes the connection for; None until somebody signs in."""
        return self._serving.identity

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        self._serving.identity = identity

    # Bytes.

    def greet(self) -> None:
        """Shake hands.

        Raises:
            HandshakeError: the server refused, or the client found that the two declare a method differently.
        """
        limits, answers = self.limits, self._worker is not None
        self.client.send_hello(
            Hello(
                min_version=self.service.oldest,
                max_version=self.service.version,
                codecs=((self.codec.id, self.codec.name),),
                max_frame=limits.max_frame,
                max_calls=limits.max_calls if answers else 0,
                first_credit=Credit(limits.first_items, limits.first_bytes) if answers else NO_CREDIT,
                one_way_credit=limits.one_way_calls if answers else 0,
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
            if isinstance(event, WelcomeReceived):
                self._check_welcome(event.welcome)
        if self._worker is not None:
            self._working.table = self._worker.table(self.codec, self.version, limits, by="server")

    def _check_welcome(self, welcome: Welcome) -> None:
        ours = self.service.digests(welcome.version)
        try:
            compare_digests(self.service.full_name, welcome.version, ours, welcome.digests)
        except HandshakeError as error:
            self.client.refuse(error)
            self.deliver(self.client)
            raise

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
        moving, self.moving = self.moving, True
        try:
            while True:
                self._working.move()
                for event in self.deliver(self.client):
                    if isinstance(event, HelloReceived):
                        self._answer_hello(event.hello)
                    self._serving.take(event)
                    self._agent.take(event)
                self._serving.move()
                self._agent.move()
                if not self.server.bytes_pending and not self.client.bytes_pending:
                    return reported
                for event in self.deliver(self.server):
                    reported.append(event)
                    self._working.take(event)
        finally:
            self.moving = moving

    def settle(self) -> None:
        """Exchange, and keep what came for the client's calls until somebody asks for it.

        Raises:
            CallError, ProtocolError: the connection has ended.
        """
        self._keep_answers()

    def dialect(self) -> Dialect:
        """What the server speaks when it calls its client."""
        return Dialect(self._served, self.codec, self.server.version, self.limits, by="server")

    def sent_by(self, role: Role) -> bytes:
        """Everything that one side has sent."""
        return b"".join(each.data for each in self.sent if each.by is role)

    def transcript(self) -> str:
        """Every frame that travelled, one a line, for people: ``client REQUEST call 1 opcode 0x0010: 32 7c 33``."""
        return "\n".join(line for each in self.sent for line in lines_of(each))

    # Calls.

    def start(
        self,
        method: Operation[Req, Any],
        request: Req | None = None,
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
        credit: int | None = None,
        window: int = WINDOW,
    ) -> int:
        """Queue the REQUEST of a call; its id. ``exchange`` delivers it.

        Args:
            method: of the service, in the version agreed on or not.
            request: its message; None where items follow, which ``send_item`` queues.
            metadata: what to send beside it; plain entries, or all that there is.
            credit: of a stream, in items; 64 unless told otherwise.
            window: ... and in bytes.

        Raises:
            EncodeError: the request cannot be written.
            LocalProtocolError: there is no credit for another one-way call; or a request is given where items follow,
                or none where one is to be sent.
        """
        if method.items_follow != (request is None):
            raise LocalProtocolError(
                f"{method.name} begins without a request, its items follow"
                if method.items_follow
                else f"{method.name} wants a {method.request.__name__}"
            )
        payload = b"" if request is None else self._written(method, request)
        given = metadata if isinstance(metadata, Metadata) else Metadata(entries=dict(metadata or {}))
        flags, granted = method.shape.flags, None
        if not flags:
            return self.client.send_request(method.opcode, payload, pack_metadata(given))
        if method.items_come_back:
            granted = Credit(64 if credit is None else credit, window)
            given = msgspec.structs.replace(given, credit=granted)
        return self.client.send_flagged_request(flags, method.opcode, payload, pack_metadata(given), credit=granted)

    def send_item(self, call_id: int, method: Operation[Req, Any], item: Req) -> None:
        """Queue one item of a call that was started; ``client.send_end`` says that there are no more.

        Raises:
            EncodeError: the item cannot be written.
            LocalProtocolError: there is no credit for it, or the call is over.
        """
        self.client.send_item(call_id, self._written(method, item))

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
                return self._read(method, plain(event.payload))
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
        window: int = WINDOW,
    ) -> Generator[Item]:
        """One stream, item by item; each item's credit goes back when the next one is asked for.

        It ends when the stream does, and raises its CallError; of one that pauses, it ends with the items that are
        there. Closing it cancels the call.
        """
        call_id = self.start(method, request, metadata=metadata, credit=credit, window=window)
        try:
            while events := self._events_of(call_id):
                yield from self._answers_in(events, call_id, method)
                if any(isinstance(event, EndReceived) for event in events):
                    return
        finally:
            self._leave(call_id)

    def upload(
        self,
        method: UploadMethod[Item, Resp],
        items: Iterable[Item],
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
    ) -> Resp:
        """One upload: its items, as many at once as the server has given credit for, and its answer.

        An answer that comes before the end of the items ends it; the rest is not taken from ``items``.

        Raises:
            CallError: it was refused, or the server has ended the connection and said why.
            EncodeError, DecodeError: a message cannot be written or read; the call is cancelled.
            RemoteProtocolError: the server broke a rule of the protocol.
            LocalProtocolError: the server takes no further item, or does not answer: a future is not done.
        """
        call_id = self.start(method, metadata=metadata)
        outgoing = Outgoing(self.client, call_id, lambda item: self._written(method, item), items)
        try:
            while True:
                moved = not outgoing.complete and outgoing.send(_BATCH)
                for event in self._events_of(call_id):
                    if isinstance(event, ResponseReceived):
                        return self._read(method, plain(event.payload))
                    if isinstance(event, ErrorReceived):
                        raise event.error
                if outgoing.complete:
                    raise self._unanswered(method)
                if not moved and not self.client.may_send_item(call_id):
                    raise self._unanswered(method, "takes no further item yet; its sink")
        finally:
            self._leave(call_id)

    def duplex(
        self,
        method: DuplexMethod[Req, Item],
        items: Iterable[Req],
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
        credit: int = 64,
        window: int = WINDOW,
    ) -> Generator[Item]:
        """One duplex call, answer by answer. An item is taken from ``items`` whenever all answers so far were given.

        It ends when the server's half does, and raises its CallError; of one that pauses, it ends with the answers that
        are there. Closing it cancels the call.
        """
        call_id = self.start(method, metadata=metadata, credit=credit, window=window)
        outgoing = Outgoing(self.client, call_id, lambda item: self._written(method, item), items)
        try:
            while True:
                moved = not outgoing.complete and outgoing.send(1)
                events = self._events_of(call_id)
                if not moved and not events and not self.client.may_send_item(call_id):
                    return
                yield from self._answers_in(events, call_id, method)
                if any(isinstance(event, EndReceived) for event in events) or (outgoing.complete and not events):
                    return
        finally:
            self._leave(call_id)

    def post(
        self,
        method: OneWayMethod[Req],
        request: Req,
        *,
        metadata: Metadata | Mapping[str, str] | None = None,
    ) -> None:
        """One one-way call. Its handler has run when this returns; if it failed, ``untold`` says how.

        Raises:
            CallError: the server has ended the connection and said why.
            EncodeError: the request cannot be written.
            LocalProtocolError: there is no credit for it: a server that the test plays has given none.
        """
        self._events_of(self.start(method, request, metadata=metadata))

    def _written(self, method: Operation[Req, Any], message: Req) -> bytes:
        return self.codec.plan(method.request, self.version, self.limits, request=True).encode(message)

    def _answers_in(self, events: list[Event], call_id: int, method: Operation[Any, Item]) -> Iterator[Item]:
        """The items among some events, each with its credit sent once it was taken."""
        for event in events:
            if isinstance(event, ItemReceived):
                yield self._read(method, plain(event.payload))
                self.client.send_credit(call_id, 1, len(event.payload))
            elif isinstance(event, ErrorReceived):
                raise event.error

    def _leave(self, call_id: int) -> None:
        """Cancel a call, if it is not over."""
        if self.client.state is not State.CLOSED and self.client.send_cancel(call_id):
            self.exchange()

    def _events_of(self, call_id: int) -> list[Event]:
        """Exchange, and take what came for one call; the rest is kept for its own."""
        self._keep_answers()
        return self._answers.pop(call_id, [])

    def _keep_answers(self) -> None:
        for told in self.exchange():
            event = bare(told)
            if isinstance(told, AnsweredBeside) and isinstance(event, ErrorReceived):
                event.error.metadata = told.beside.metadata
                self._dialect().read_details(told.opcode, event.error)
            if isinstance(event, AnswerUnreadable):
                self.client.send_cancel(event.call_id)
                event = ErrorReceived(event.call_id, event.error)
            if isinstance(event, ConnectionEnded):
                raise event.error or LocalProtocolError("the connection has ended")
            if isinstance(event, _ANSWERS) and not event.call_id & TOP_BIT:  # what the server sends in its own calls
                self._answers.setdefault(event.call_id, []).append(event)

    def _dialect(self) -> Dialect:
        """What the client speaks, for the details of errors."""
        return Dialect(self.service, self.codec, self.version, self.limits)

    def _read(self, method: Operation[Any, Resp], payload: bytes) -> Resp:
        return self.codec.plan(method.response, self.version, self.limits, request=False).decode(payload)

    def _unanswered(
        self, method: Operation[Any, Any], what: str = "is not answered yet; its handler"
    ) -> LocalProtocolError:
        if self._handlers is None:
            return LocalProtocolError(f"nobody answers {method.name}: give pair() handlers, or answer through .server")
        return LocalProtocolError(f"{method.name} {what} gave a future that is not done")

    # The server's side.

    def _answer_hello(self, hello: Hello) -> None:
        served = self._served
        names = {self.codec.id: self.codec.name}
        offer = Offer(served.full_name, served.version, names, served.digests, served.oldest)
        try:
            welcome = negotiate(hello, {offer.service: offer}, self.limits, "pair")
        except HandshakeError as error:
            self.server.refuse(error)
            return
        self.server.send_welcome(welcome)
        if self._handlers is not None:
            self._serving.table = self._handlers.table(self.codec, welcome.version, self.limits, self._authenticate)
