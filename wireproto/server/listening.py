"""Having an address to listen on, and saying in a sentence why it cannot be had. Every door asks here."""

import errno
import os
import socket

from wireproto.address import Address
from wireproto.errors import ConfigError

__all__ = ["listen", "wanted"]


def wanted(host: object, port: object) -> Address:
    """What a door was told to listen on.

    Args:
        host: an address, or a name of this machine.
        port: 0 for a free one.

    Raises:
        ConfigError: that is no host, or no port.
    """
    if not isinstance(host, str):
        raise ConfigError(f"host is {host!r}; give a str, for example '127.0.0.1'")
    if not host:  # all networks, to a socket; nobody should have those by leaving a word out
        raise ConfigError("host is ''; give '127.0.0.1' for this machine alone, or '0.0.0.0' for all networks")
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"port is {port!r}; give 0 for a free one, or 1 to 65535")
    return Address(host, port)


def listen(where: Address, backlog: int = 1) -> socket.socket:
    """A socket that listens there.

    Args:
        where: port 0 for a free one.
        backlog: connections that may wait to be accepted.

    Raises:
        ConfigError: the address is in use, or cannot be had.
    """
    host, port = where
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # First without a socket: create_server closes its own after an OSError only.
        socket.getaddrinfo(host, port, family)
        return socket.create_server((host, port), family=family, backlog=backlog)
    except (TypeError, ValueError) as error:  # what no resolver can be asked for
        raise _unknown(where) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"{where} is in use; stop what listens there, or choose another port") from error
        if isinstance(error, socket.gaierror) or (error.errno or 0) < 0:  # create_server hides the type
            raise _unknown(where) from error
        # Not strerror: create_server puts the address into it a second time.
        raise ConfigError(f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from error


def _unknown(where: Address) -> ConfigError:
    shown = ascii(where.host)[1:-1]  # it may be anything
    return ConfigError(f"cannot listen on {shown}: that is no address or name of this machine")
