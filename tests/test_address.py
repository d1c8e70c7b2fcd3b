"""Whether an address is this machine alone, by what it resolves to."""

import socket

import pytest

from wireproto.address import Address, is_loopback

ADDRESSES = ["127.0.0.1", "127.1.2.3", "127.1", "::1", "::ffff:127.0.0.1"]
NAMES = ["localhost", "LOCALHOST", "localhost.", "a.localhost"]
ELSEWHERE = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "127.any.invalid", "a..b", "x" * 300, ""]


@pytest.mark.parametrize("host", ADDRESSES + NAMES)
def test_loopback_in_every_way_that_it_is_written(host: str) -> None:
    """Addresses and names of the loopback are known as such, short, mapped and in capitals."""
    assert is_loopback(host)
    assert Address(host, 1).on_this_machine


@pytest.mark.parametrize("host", ELSEWHERE)
def test_what_is_not_loopback(host: str) -> None:
    """Other addresses are not, nor are names that only look like it or cannot be resolved."""
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_unspecified_address_depends_on_what_is_done_with_it(host: str) -> None:
    """To listen on it is to listen everywhere; to connect to it is to connect to this machine."""
    assert not is_loopback(host)
    assert Address(host, 1).on_this_machine


def test_a_name_is_loopback_only_with_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with one address elsewhere is not this machine alone."""

    def resolve(host: str, *words: object, **settings: object) -> list[tuple[object, ...]]:
        addresses = ["127.0.0.1", "192.0.2.1"] if host == "mixed.example" else ["127.0.0.1", "::1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert not is_loopback("mixed.example")
    assert is_loopback("own.example")
