"""Who is calling, and how what was begun in that name ends when the name is taken away."""

import threading
import weakref
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, Self, cast

__all__ = ["Holder", "Identity"]


class Holder(Protocol):
    """A connection or a door: what has calls in flight that were begun with an identity."""

    def identity_revoked(self, identity: "Identity") -> None:
        """End the calls of this identity, but for those of methods that say ``outlives_identity``. Any thread calls it,
        with no lock of ours held.
        """


class Identity:
    """Who is calling: made by ``authenticate`` or handed to ``Context.sign_in``. Thread-safe.

    Args:
        subject: the name the application knows the caller by.
        capabilities: what the caller may do; a method's ``requires`` names one of them.
    """

    __slots__ = ("_holders", "_revoked", "capabilities", "subject")

    # One lock for all: it is taken once for each sign-in and each call that brings a credential, for a microsecond.
    _holding: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, subject: str, capabilities: Iterable[str] = ()) -> None:
        self.subject = subject
        self.capabilities = frozenset(capabilities)
        self._revoked = False
        self._holders: weakref.WeakSet[Holder] | None = None  # until the first one: many identities live for one call

    @property
    def revoked(self) -> bool:
        """Whether ``revoke`` was called; a revoked identity counts as none."""
        return self._revoked

    def revoke(self) -> None:
        """Take the identity away from every connection that was signed in with it, and from its calls; from any thread,
        and as often as one likes.

        Calls in flight end at once with UNAUTHENTICATED, SIGN_IN_REQUIRED, maybe processed; their handlers see
        ``context.cancelled``, and what they still answer is dropped. The calls of methods that are declared with
        ``outlives_identity=True`` go on: such is a method whose handler revokes the identity of its own caller and has
        an answer to give. It costs a look at all calls in flight of the connections, and of the gateways, that the
        identity was seen on.
        """
        self._revoked = True
        # Whoever holds an identity enters itself first and looks at ``revoked`` then; here it is the other way round.
        with self._holding:
            holders = list(self._holders or ())
        for holder in holders:
            holder.identity_revoked(self)

    def held_by(self, holder: Holder | None) -> None:
        """For doors: have ``holder`` told when the identity is revoked, as long as somebody else keeps that object."""
        if holder is not None:
            with self._holding:
                if self._holders is None:
                    self._holders = weakref.WeakSet()
                self._holders.add(holder)

    def __copy__(self) -> Self:
        """The same object: whoever has a copy must not keep what ``revoke`` takes away."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """The same object, as ``copy.copy``."""
        return self

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        """For a pickle: all but what is of this process."""
        attributes, slots = cast("tuple[Any, dict[str, Any]]", object.__getstate__(self))
        return attributes, {**slots, "_holders": None}

    def __repr__(self) -> str:
        return f"Identity({self.subject!r}, {sorted(self.capabilities)}{', revoked' if self._revoked else ''})"
