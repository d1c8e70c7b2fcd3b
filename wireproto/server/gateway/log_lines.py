"""What grpcio logs of its own: rationed, and without what it quotes, which may be what a stranger sent."""

import logging
from typing import Final

from wireproto.log_limit import LogLimit

__all__ = ["filter_log_lines"]

LOGGERS: Final = ("grpc._cython.cygrpc", "grpc._common", "grpc._server", "grpc.aio._server")
"""grpcio's loggers of what a server meets. Its clients in the same process share the first two."""


class _Unquoting(logging.Filter):
    """Takes text, arguments and traceback out of a record; what is left says where it came from, and how many more."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LogLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0] if record.exc_info else None
        what = f"{record.module}.{record.funcName}: {error.__name__ if error else record.levelname.lower()}"
        more = self._limit.admit((record.name, what))
        if more is None:
            return False
        record.msg = "%s; grpcio's words are left out, for they may quote what a stranger sent%s"
        record.args = (what, more)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


_UNQUOTING: Final = _Unquoting()


def filter_log_lines() -> None:
    """Have it so from now on, in this process. To ask for it again does nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_UNQUOTING)
