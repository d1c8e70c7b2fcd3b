"""The places of one link: how many more calls it takes, and which thread or queued call is the next to have one."""

from collections import deque
from collections.abc import Callable

from wireproto.client.calls import Place
from wireproto.client.queue import CallQueue

__all__ = ["Places"]


class Places:
    """Used under the link's lock. Whoever began to wait first has the next place, a thread or a call in the queue.

    Args:
        queue: the client's queue of calls that ``start`` began.
        room: counts the places anew: how many more calls the link takes.

    Attributes:
        threads: the places that threads wait for.
        queued: the calls of the queue.
        free: no more than there are, counted down; ``full`` counts anew.
    """

    def __init__(self, queue: CallQueue, room: Callable[[], int]) -> None:
        self.threads: deque[Place] = deque()
        self.queued = queue.calls
        self.free = 0
        self._tickets = queue.tickets
        self._room = room
        self._granted = 0  # places given to threads that have not come for them yet

    def full(self) -> bool:
        """Whether there is no place, counted anew."""
        self.free = self._room() - self._granted
        return self.free <= 0

    def stand_in_line(self) -> Place:
        """A place that is ``done`` when it is granted or refused."""
        place = Place(next(self._tickets))
        self.threads.append(place)
        return place

    def threads_turn(self) -> bool:
        """Whether the next place is a thread's; if not, it is the oldest queued call's."""
        threads, queued = self.threads, self.queued
        if not threads:
            return False
        try:
            return threads[0].ticket < queued[0].ticket
        except IndexError:  # the queue's lock is not held here
            return True

    def grant(self) -> Place:
        """Give the thread that waited longest its place. It is counted apart until the thread comes for it."""
        self._granted += 1
        self.free -= 1
        return self.threads.popleft()

    def claim(self) -> None:
        """The thread came for its place: from here on its call counts. Or it will not use the place."""
        self._granted -= 1
