"""The suite that users run over their services, over a service that has everything, in every codec."""

from tests.codecs.everything import ALL, EVERYTHING, GROWING
from wireproto.testing import RoundTripSuite


class TestEverything(RoundTripSuite):
    """The built-in codecs and the one of the example."""

    service = EVERYTHING
    codecs = ALL


class TestGrowing(RoundTripSuite):
    """The same over versions."""

    service = GROWING
    codecs = ALL
