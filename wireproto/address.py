"""Where a server listens: ``HOST:PORT``, parsed and printed in one place."""

from typing import NamedTuple

from wireproto.errors import ConfigError

__all__ = ["Address"]


class Address(NamedTuple):
    """A host and a TCP port. ``str`` gives ``host:port``, with brackets around an IPv6 host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: "str | tuple[str, int] | Address") -> "Address":
        """Read ``HOST:PORT``, ``[HOST]:PORT`` or ``:PORT`` (loopback); a pair of host and port is taken as it is.

        Raises:
            ConfigError: there is no port, or it is not 0 to 65535.
        """
        if isinstance(text, tuple):
            return cls(*text)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(f"{text!r} is not an address; write an IPv6 host in brackets: [::1]:7411")
        # isascii: str.isdigit alone takes other scripts' digits.
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigError(f"{text!r} is not an address; write HOST:PORT, for example 127.0.0.1:7411")
        return cls(host or "127.0.0.1", int(port))
