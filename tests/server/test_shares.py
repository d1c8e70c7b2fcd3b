"""How many uploads and duplex calls over gRPC a network may have, and one of its connections."""

from wireproto.server.gateway.shares import NetworkShares


def enter(shares: NetworkShares, connection: str, network: str = "n") -> int:
    """Begin as many as are let in."""
    begun = 0
    while shares.enter(network, connection):
        begun += 1
    return begun


def test_a_connection_alone_leaves_room_for_another_one() -> None:
    """It may have all but an eighth, and another one that comes has what is left at once."""
    shares = NetworkShares(256)
    assert enter(shares, "a") == 224
    assert enter(shares, "b") == 32
    assert enter(shares, "c") == 0


def test_beside_others_a_connection_has_half() -> None:
    """One that has more begins none before it is below its half; what it ends is the others'."""
    shares = NetworkShares(256)
    assert shares.enter("n", "b")
    assert enter(shares, "a") == 128
    assert enter(shares, "b") == 127
    shares.leave("n", "a")
    assert enter(shares, "b") == 0
    assert shares.enter("n", "c")
    assert not shares.enter("n", "a")


def test_a_greedy_connection_gives_way() -> None:
    """Of what it ends it has nothing back while others want it."""
    shares = NetworkShares(256)
    assert enter(shares, "a") == 224
    assert enter(shares, "b") == 32
    for _ in range(96):
        shares.leave("n", "a")
        assert not shares.enter("n", "a")
        assert shares.enter("n", "b")
    assert not shares.enter("n", "b")
    shares.leave("n", "b")
    assert not shares.enter("n", "a")


def test_networks_are_counted_apart_and_forgotten() -> None:
    """What is over is forgotten, and one network takes nothing from another."""
    shares = NetworkShares(2)
    assert enter(shares, "a") == 2
    assert enter(shares, "a", "m") == 2
    for network in ("n", "m"):
        for _ in range(2):
            shares.leave(network, "a")
    assert not shares._networks
    assert enter(NetworkShares(1), "a") == 1
