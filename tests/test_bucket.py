"""A token bucket, told the time."""

from wireproto.bucket import Bucket


def test_a_burst_and_then_the_rate() -> None:
    """So many at once, then so many a second, and never more than the burst after a rest."""
    bucket = Bucket(rate=2.0, burst=3.0, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(10.4)
    assert bucket.take(10.6)
    assert not bucket.take(10.6)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, True, False]
