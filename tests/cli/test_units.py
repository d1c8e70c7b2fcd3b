"""Times and sizes on the command line: what people write, and nothing that a clock does not take."""

from typing import Any

import click
import pytest

from tests.cli.conftest import run
from wireproto.cli.units import SECONDS, SIZE, TIMEOUT

SERVICE = ("--service", "tests.cli.services:SHOP")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (SECONDS, "20ms", 0.02),
        (SECONDS, "1.5s", 1.5),
        (SECONDS, "2", 2.0),
        (SECONDS, "3m", 180.0),
        (SECONDS, ".5", 0.5),
        (SECONDS, "0", 0.0),
        (SECONDS, "168h", 604_800.0),
        (TIMEOUT, "1us", 1e-6),
        (SIZE, "512", 512),
        (SIZE, "64KiB", 65_536),
        (SIZE, "10kb/s", 10_000),
    ],
)
def test_times_and_sizes_have_units(kind: Any, text: str, value: float) -> None:
    """Times and sizes are read as people write them."""
    assert kind.convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        (SECONDS, "nan", "is no time; write 20ms, 1.5s or 2m"),
        (SECONDS, "inf", "is no time"),
        (SECONDS, "-1", "is no time"),
        (SECONDS, "1e308", "is no time"),
        (SECONDS, "\uff11", "is no time"),
        (SECONDS, "5 parsecs", "is no time"),
        (SECONDS, "", "is no time"),
        (SECONDS, "604801", "is too long; a week, 168h, is the most"),
        (SECONDS, "9" * 400, "is too long"),
        (TIMEOUT, "0", "is no time at all; give one above 0"),
        (TIMEOUT, "0." + "0" * 400 + "1", "is no time at all"),
        (SIZE, "1TiB", "is no size; write 512, 64KiB or 1MiB"),
        (SIZE, "9" * 400, "is no size"),
    ],
)
def test_what_no_clock_takes_is_refused(kind: Any, text: str, complaint: str) -> None:
    """A time that is none, or one beyond what the system can wait, is a sentence."""
    with pytest.raises(click.BadParameter, match=complaint):
        kind.convert(text, None, None)


@pytest.mark.parametrize("time", ["inf", "nan", "1e308", "99999999999", "0"])
@pytest.mark.parametrize(
    "words",
    [
        ("call", "127.0.0.1:1", "Check", *SERVICE, "--timeout"),
        ("bench", "127.0.0.1:1", "-z"),
        ("fuzz", "127.0.0.1:1", "--seconds"),
        ("fuzz", "127.0.0.1:1", "--timeout"),
    ],
    ids=" ".join,
)
def test_every_option_that_is_a_time_refuses_it(words: tuple[str, ...], time: str) -> None:
    """Whichever command waits: the time is judged before anything is connected."""
    done = run(*words, time)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
