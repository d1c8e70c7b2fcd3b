"""Every way to copy an object that Python has, for the tests of what may be copied and of what may not."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["WAYS"]


def _pickled(value: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own bytes, as between two processes


WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle{number}": partial(_pickled, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
