"""REQUESTs that come together with HELLO: how a client writes them, and what a server looks at before it reads them.

They are written before anybody knows what the server chooses, for the newest version and the first codec of HELLO.
"""

import msgspec

from wireproto.errors import LocalProtocolError
from wireproto.wire.frame import (
    HEADER_SIZE,
    NO_CREDIT,
    Credit,
    Flag,
    Kind,
    flags_problem,
    pack,
)
from wireproto.wire.handshake import Hello

__all__ = ["EarlyRequest", "early_problem"]


class EarlyRequest(msgspec.Struct, frozen=True):
    """A call that begins with HELLO.

    Attributes:
        opcode: of the method, 0 to 65,535.
        payload: the encoded request; b"" where items follow.
        metadata: a block from ``pack_metadata``.
        flags: of its shape; never one-way or packed: WELCOME alone gives the credit for the one, and the algorithm for
            the other.
        credit: what the metadata grant of the answer half.
    """

    opcode: int
    payload: bytes = b""
    metadata: bytes = b""
    flags: int = 0
    credit: Credit = NO_CREDIT

    def pack(self, hello: Hello, call_id: int) -> bytes:
        """The frame, for a client that greets with ``hello``.

        Raises:
            LocalProtocolError: it is no REQUEST that may go early.
        """
        if self.flags & Flag.ONE_WAY:
            raise LocalProtocolError("a one-way call takes credit that only WELCOME gives; begin it behind that")
        if self.flags & Flag.PACKED:
            raise LocalProtocolError("nothing is packed before WELCOME has chosen an algorithm")
        if problem := flags_problem(Kind.REQUEST, self.flags):
            raise LocalProtocolError(f"a REQUEST cannot have the flags {self.flags:#04x}: {problem}")
        if self.payload and self.flags & Flag.ITEMS_FOLLOW:
            raise LocalProtocolError("a REQUEST whose items follow has no payload: its messages are the items")
        codec = hello.codecs[0][0]
        return pack(
            Kind.REQUEST, codec, hello.max_version, self.opcode, call_id, self.metadata, self.payload, self.flags
        )


def early_problem(data: bytes) -> str:
    """Why these bytes may not come before WELCOME, "" if they may: whole REQUESTs, none of them one-way or packed.

    No more is looked at here. They are read behind WELCOME as any others, and judged then.
    """
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or end - at < HEADER_SIZE:
            return f"the last {len(data) - at} early bytes are no whole frame"
        kind, flags = data[at + 4 : at + 6]
        if kind != Kind.REQUEST:
            return f"a frame of kind {kind} came before HELLO was answered; only a REQUEST may"
        if flags & Flag.ONE_WAY:
            return "a one-way call came before HELLO was answered, which grants the credit for it"
        if flags & Flag.PACKED:
            return "a packed REQUEST came before HELLO was answered, which chooses the algorithm"
        at = end
    return ""
