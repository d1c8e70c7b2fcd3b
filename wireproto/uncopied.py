"""Objects that hold a connection, a thread or a lock, of which there cannot be two."""

from typing import NoReturn, SupportsIndex

__all__ = ["Uncopied"]


class Uncopied:
    """A base of classes whose instances cannot be copied or pickled.

    A copy would share the descriptors of the first: whichever of the two is dropped first closes them for both.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse ``copy.copy``, ``copy.deepcopy`` and ``pickle``, which all come here.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, for it holds what there is one of: make another one "
            "where it is needed"
        )
