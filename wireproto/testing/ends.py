"""One end of a pair as it answers the calls of the other one: the server's, and the client's if it has handlers."""

from wireproto.codecs import Codec
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Table
from wireproto.errors import CallError, LocalProtocolError
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.testing.paired import PairedCall
from wireproto.wire.connection import Connection
from wireproto.wire.events import (
    CancelReceived,
    ConnectionEnded,
    Event,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
    RequestReceived,
)
from wireproto.wire.frame import Flag
from wireproto.wire.packing import plain

__all__ = ["AgentEnd", "AnsweringEnd"]


class AnsweringEnd:
    """The calls that one end answers. Without a table it answers none: the test does.

    Attributes:
        connection: of this end.
        codec: of the pair.
        table: what the other end may call; None until the handshake, and for an end that the test plays.
        untold: what came of one-way calls that failed or were refused.
    """

    def __init__(self, connection: Connection, codec: Codec, limits: Limits, untold: list[CallError]) -> None:
        self.connection = connection
        self.codec = codec
        self.table: Table | None = None
        self.untold = untold
        self._identity: Identity | None = None
        self._client: ConnectedClient | None = None
        self._limits = limits
        self._calls: dict[int, PairedCall] = {}
        self._one_way_owed = 0

    @property
    def identity(self) -> Identity | None:
        """Whom this end takes its caller for."""
        return self._identity

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        self._identity = identity

    @property
    def client(self) -> ConnectedClient:
        """See ``Context.client``."""
        if self._client is None:
            raise LocalProtocolError("this is the client: its server is called by way of the pair itself")
        return self._client

    @client.setter
    def client(self, client: ConnectedClient) -> None:
        self._client = client

    def take(self, event: Event) -> None:
        """What this end's connection reports of the calls of the other end; all else is read over."""
        if isinstance(event, ConnectionEnded):
            for call_id in list(self._calls):
                self._calls.pop(call_id).lose()
        elif self.table is None:
            return
        elif isinstance(event, RequestReceived):
            self._begin(self.table, event, Flag.NONE)
        elif isinstance(event, FlaggedRequestReceived):
            self._begin(self.table, event, event.flags)
        elif isinstance(event, ItemReceived | RequestEnded):
            # Of one that was answered in the meantime nothing is wanted any more.
            if (call := self._calls.get(event.call_id)) is not None:
                if isinstance(event, ItemReceived):
                    call.put(plain(event.payload))
                else:
                    call.complete()
        elif isinstance(event, CancelReceived) and (call := self._calls.pop(event.call_id, None)) is not None:
            call.cancel()

    def move(self) -> None:
        """Let each call go on as far as it can."""
        for call_id, call in list(self._calls.items()):
            call.move()
            if call.over:
                self._calls.pop(call_id, None)

    def _begin(self, table: Table, event: RequestReceived | FlaggedRequestReceived, flags: int) -> None:
        call = self._judged(table, event, flags)
        if flags & Flag.ONE_WAY:
            outcome = call if isinstance(call, CallError) else call.entry.run(event.payload, call)
            if isinstance(outcome, CallError):
                self.untold.append(outcome)
            self._return_one_way_credit()
        elif isinstance(call, CallError):
            self.connection.send_error(event.call_id, call)
        else:
            call.begin(plain(event.payload))
            if not call.over:
                self._calls[event.call_id] = call

    def _judged(
        self, table: Table, event: RequestReceived | FlaggedRequestReceived, flags: int
    ) -> PairedCall | CallError:
        """A call of a method that is there, in its shape; or why it is none."""
        entry = table.find(event.opcode, flags)
        if entry is None:
            return table.missing(event.opcode, flags)
        if isinstance(event.metadata, CallError):
            return event.metadata
        return PairedCall(self, event.call_id, entry, event.metadata)

    def _return_one_way_credit(self) -> None:
        """A one-way call is over: let the caller begin more, by half of what it may have at once."""
        self._one_way_owed += 1
        if self._one_way_owed * 2 >= self._limits.one_way_calls and self.connection.send_one_way_credit(
            self._one_way_owed
        ):
            self._one_way_owed = 0


class AgentEnd(AnsweringEnd):
    """The client's end: whoever calls there is the server, and has no other name."""

    @property
    def identity(self) -> Identity | None:
        return None

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        if identity is not None:
            raise LocalProtocolError("nobody signs in at a client: the only one who calls here is its server")
