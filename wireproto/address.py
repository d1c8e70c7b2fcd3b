"""Where a server listens: ``HOST:PORT``, parsed and printed in one place, and whether that is this machine alone."""

from typing import NamedTuple

from wireproto.errors import ConfigError

__all__ = ["Address", "is_loopback"]


class Address(NamedTuple):
    """A host and a TCP port. ``str`` gives ``host:port``, with brackets around an IPv6 host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """Whether what is sent to it stays on this machine; see ``is_loopback``. May wait for the resolver."""
        return is_loopback(self.host, connecting=True)

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


def is_loopback(host: str, *, connecting: bool = False) -> bool:
    """Whether a host is this machine's loopback: a name by all the addresses that it resolves to, not by its looks.

    Args:
        host: a name or an address. A name may have the resolver asked, which can take seconds.
        connecting: it is to be connected to, where the unspecified address means this machine. To listen there, on the
            contrary, means all networks.

    Returns:
        False for a name that cannot be resolved, too.
    """
    if host.startswith("127.") and host.count(".") == 3 and host.replace(".", "").isdecimal():
        return True  # what nearly every accepted connection here has, for a fraction of what the rest costs
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True  # RFC 6761, whatever the resolver says
    import ipaddress  # 3 ms that a program which only declares messages does not pay
    import socket

    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not (address.is_loopback or (connecting and address.is_unspecified)):
            return False
    return bool(found)
