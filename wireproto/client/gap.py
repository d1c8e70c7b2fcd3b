"""What a program is told among the items of a stream that is followed, when some may be missing."""

from dataclasses import dataclass

from wireproto.schema import Position

__all__ = ["Gap"]


@dataclass(frozen=True)
class Gap:
    """Said among the items of a stream that is followed: behind this place, items may be missing.

    It comes when the server could not go on behind the last item, or when the stream was lost before it had given one,
    so that there was nothing to go on behind. It is handed out as soon as the new call is on its way, and does not wait
    for an item, which may be long in coming.

    Attributes:
        after: the position of the last item before it; None when there was none.
    """

    after: Position | None = None
