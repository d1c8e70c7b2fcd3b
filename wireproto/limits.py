"""Every limit in one place: unit, default and reason. One object is passed down to whoever enforces one."""

from dataclasses import dataclass, fields

__all__ = ["HELLO_MAX_FRAME", "MAX_FRAME_CEILING", "MIN_HEARTBEAT", "Limits"]

HELLO_MAX_FRAME = 4096
"""Bytes: the longest frame accepted until HELLO (by a server) or WELCOME (by a client) is read."""

MAX_FRAME_CEILING = 16 * 1024 * 1024
"""Bytes: the most that ``Limits.max_frame`` may be; msgpack needs up to 73 times the frame in memory."""

MIN_HEARTBEAT = 1.0
"""Seconds: the least that ``Limits.heartbeat`` may be, unless it is 0. A shorter one would let a peer have us send a
PING as often as it likes, on each of its connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one side of a connection accepts. Seconds and bytes unless a name says otherwise.

    Raises:
        ValueError: a value is out of its range; the text names it.
    """

    max_frame: int = 1024 * 1024
    """Largest value of a frame's length field. Told to the peer in the handshake; 4096 to 16 MiB."""
    max_metadata: int = 8192
    """Largest metadata block of a request. What HTTP servers and gRPC allow for headers."""
    max_calls: int = 256
    """Calls in flight on one connection, each from its request to its last frame; told to the peer. Further requests
    are refused one by one. As many handlers may run on behind the end of their calls, by a cancel or a deadline."""
    first_items: int = 16
    """Items of each upload or duplex call that may be sent before the call is looked at; told in the handshake."""
    first_bytes: int = 65_536
    """... and bytes of them."""
    window_items: int = 256
    """Items of such a call that may be on their way or wait for its handler, once it is admitted."""
    window_bytes: int = 1024 * 1024
    """... and bytes of them, the last item not counted. A method with ``collect`` takes as many in one call."""
    max_held: int = 4 * 1024 * 1024
    """Bytes that the windows of one connection's calls may have together; further calls go on with their first ones."""
    item_timeout: float = 30.0
    """How long a handler that iterates over items waits for the next one, though the caller may send it."""
    one_way_calls: int = 256
    """One-way calls of one connection that may be on their way, or wait, or run; told in the handshake."""
    max_elements: int = 65_536
    """Elements in one list or map of a payload. Bounds what a small frame costs in memory."""

    hello_timeout: float = 5.0
    """From accept to a whole HELLO. A client waits as long for WELCOME, within its connect timeout."""
    frame_timeout: float = 5.0
    """A frame once begun must be whole after this plus its length / ``frame_rate``."""
    frame_rate: int = 8192
    """Bytes a second below which a sender counts as stalled. A deadline per frame, so dripping does not help."""
    write_timeout: float = 10.0
    """A peer that takes nothing of the output for this long is closed."""
    heartbeat: float = 60.0
    """A PING is sent after this much silence, and after three times as much the peer is gone; 1 second or more. The
    smaller of both sides holds; 0 leaves it to the other side, and if that says 0 as well, there is none."""
    idle_timeout: float = 180.0
    """A server closes a connection that was silent for this long where no heartbeat was agreed on. Where a peer has
    ended its output, what is in flight is ended after this long."""
    linger: float = 1.0
    """After a final ERROR the rest of the input is read and dropped for this long, so that the peer sees the reason."""
    linger_bytes: int = 256 * 1024
    """... and at most this many bytes of it."""

    high_watermark: int = 1024 * 1024
    """Output of one connection above which its reading and its streams pause; one frame may go over it."""
    low_watermark: int = 256 * 1024
    """Output below which they go on."""
    turn_bytes: int = 120 * 1024
    """Bytes read of one connection before the next one has its turn. Nearly two items of 64 KiB: a read for each costs
    10 % more of the CPU of bulk. And less than 128 KiB, which glibc's malloc asks of the system each time."""
    turn_calls: int = 64
    """Calls run of one connection before the next one has its turn."""

    cancels_per_second: float = 20.0
    """CANCEL frames for calls in flight, steady rate; a flood of start-and-cancel is answered by closing."""
    cancel_burst: int = 200
    """... and the burst on top of it."""
    errors_per_minute: int = 100
    """Bad payloads, unknown opcodes and wrong shapes of one connection in a minute before it is closed."""
    pings_per_second: float = 20.0
    """PING frames of either side, steady rate; beyond the burst the connection is closed."""
    ping_burst: int = 100
    """... and the burst on top of it."""

    max_connections: int = 10_000
    """Connections of one server; at the limit it stops accepting until one ends."""
    max_connections_per_address: int = 256
    """... of one peer address; loopback is exempt."""
    max_handshaking: int = 1000
    """Connections that have not sent HELLO yet; beyond it the oldest is closed."""
    backlog: int = 1024
    """Connections the kernel holds until they are accepted."""
    start_queue: int = 4096
    """Calls of one client begun by ``start`` that wait for a connection or a place; further ones fail at once, "not
    processed". 16 times the calls that a server takes by default. Of a server: its own calls that wait for one client,
    and as many may be in flight there, whatever the client takes."""
    run_queue: int = 1024
    """Calls that wait for a worker in one server, or in one client with handlers; further ones are refused, "not
    processed". Of one connection at most ``max_calls`` can wait."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("heartbeat", "linger", "linger_bytes") else 1e-3
            if isinstance(value, bool) or not isinstance(value, int | float) or value < lowest:
                raise ValueError(f"Limits.{field.name} is {value!r}; give a number above {lowest:g}")
        if self.heartbeat and not self.heartbeat >= MIN_HEARTBEAT:
            raise ValueError(f"Limits.heartbeat is {self.heartbeat}; give {MIN_HEARTBEAT:g} s or more, or 0 for none")
        if not HELLO_MAX_FRAME <= self.max_frame <= MAX_FRAME_CEILING:
            raise ValueError(
                f"Limits.max_frame is {self.max_frame}; give {HELLO_MAX_FRAME} to {MAX_FRAME_CEILING} bytes"
            )
        for name in ("first_items", "first_bytes", "window_items", "window_bytes", "one_way_calls"):
            if not 1 <= getattr(self, name) < 2**32:
                raise ValueError(f"Limits.{name} is {getattr(self, name)}; give 1 to 2**32 - 1")
        if self.first_items > self.window_items or self.first_bytes > self.window_bytes:
            raise ValueError("Limits.first_items and first_bytes are within window_items and window_bytes")
        if self.max_metadata > 65_535:
            raise ValueError(f"Limits.max_metadata is {self.max_metadata}; the header's field holds at most 65535")
        if self.low_watermark > self.high_watermark:
            raise ValueError("Limits.low_watermark is above high_watermark; reading would never go on")
