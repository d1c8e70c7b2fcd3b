"""Every command in every trouble around it: it says a sentence, and ends with a status that its help names."""

import functools
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import ROOT, environment, run
from tests.cli.services import shop as handlers
from tools.troubles import LONG_TROUBLES, TROUBLES, RunIn, Sample, Trouble, documented
from wireproto import Server, Status
from wireproto.cli import root

pytestmark = pytest.mark.slow

WIREPROTO = (sys.executable, "-m", "wireproto.cli")
SHOP = "tests.cli.services:SHOP"

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "serve": [
        {"words": "serve tests.cli.services:shop --port 0 --no-grpc", "stays": True},
        {"words": "serve tests.cli.services:shop --port 0 --grpc-port 0", "stays": True},
    ],
    "call": [
        {"words": "call SERVER Paint name=a"},
        {"words": f"call SERVER Paint -d @NEW --service {SHOP}", "well": 1, "prints": False, "tried": "names"},
    ],
    "ops": [{"words": f"ops {SHOP}"}],
    "bench": [{"words": "bench SERVER -c 1 -n 1 --codec pipe"}, {"words": "bench -c 1 -n 1 --codec pipe"}],
    "check": [
        {"words": f"check {SHOP} --write --lock NEW", "prints": False},
        {"words": f"check {SHOP} --against NEW", "well": 2, "prints": False, "tried": "names"},
    ],
    "proto": [{"words": f"proto {SHOP}"}, {"words": f"proto {SHOP} --out NEW", "prints": False}],
    "proxy": [{"words": "proxy 127.0.0.1:0 SERVER", "stays": True}],
    "fuzz": [
        {"words": "fuzz SERVER -n 2 --seed 1 --findings NEW"},
        {"words": "fuzz SERVER --replay NEW", "well": 2, "prints": False, "tried": "names"},
    ],
    "conformance": [
        {"words": "conformance SERVER --case 2.05"},
        {"words": "conformance --serve --port 0", "stays": True, "tried": "seldom"},
        {"words": "conformance --client --case 2.05 -- NEW", "well": 2, "prints": False, "tried": "names"},
    ],
}
"""What each command is tried with, beside its --help. SERVER is the address of one, and NEW a path where nothing is."""

GROUP = [{"words": "--help"}, {"words": "--version"}, {"words": "serev", "well": 2, "prints": False}]

EVERY = [
    *GROUP,
    # Those that other distributions bring, too.
    *({"words": f"{name} --help"} for name in root._every()),
    *(sample for name in root._COMMANDS for sample in SAMPLES.get(name, ())),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of the shop."""
    with Server(handlers) as running:
        yield str(running.address)


@functools.cache
def statuses(command: str) -> frozenset[int]:
    """Those that a command's help names, or else that of the group."""
    calls = [status.value for status in Status if status is not Status.OK]
    for words in ((command, "--help"), ("--help",)):
        if found := documented(run(*words).output, calls):
            return frozenset(found)
    return frozenset()


def test_every_command_has_samples() -> None:
    """A command that is added is tried in all troubles, with words that make it do its work."""
    assert SAMPLES.keys() == root._COMMANDS.keys()


@pytest.mark.parametrize("trouble", [*TROUBLES.values(), *LONG_TROUBLES.values()], ids=[*TROUBLES, *LONG_TROUBLES])
def test_each_trouble_is_one(trouble: Trouble, run_in: RunIn) -> None:
    """What is said to go wrong does go wrong here: a small program fails by it."""
    done = run_in(trouble, [sys.executable, "-c", trouble.bites, "NEW"])
    assert done.status == 3, done


ODD_HOSTS = ["a..b", "n" * 255, ".".join(["n" * 63] * 5), "gr\udcfc", "xn--\udcff", "[::1%nowhere]", "256.256.256.256"]


@pytest.mark.parametrize("host", ODD_HOSTS)
@pytest.mark.parametrize(
    "words",
    [
        "call HOST:7411 Check",
        "bench HOST:7411 -n 1",
        "bench HOST:7411 -n 1 --grpc",
        "fuzz HOST:7411 -n 1",
        "conformance HOST:7411 --case 2.05",
        "serve tests.cli.services:shop --no-grpc --port 0 --allow-plaintext --host HOST",
        "proxy HOST:0 127.0.0.1:1",
    ],
)
def test_a_name_that_no_host_has_is_a_sentence(words: str, host: str) -> None:
    """A host's name that is too long, or no text at all, ends a command in words before anything is sent."""
    done = run(*[word.replace("HOST", host) for word in words.split()])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in statuses(words.split()[0])
    assert done.exit_code != 0
    assert re.search(r"^(wireproto|Error): .*\w", done.stderr, re.MULTILINE)


@pytest.mark.samples(EVERY)
def test_a_command_says_a_sentence(sample: Sample, trouble: Trouble, run_in: RunIn, server: str) -> None:
    """No traceback of Python's and no status that is not documented, whatever the system refuses."""
    words = [word.replace("SERVER", server) for word in sample.words.split()]
    done = run_in(trouble, [*WIREPROTO, *words], sample, environment(PYTHONPATH=str(ROOT)))
    assert done.faults(sample, trouble, statuses(words[0])) == [], done
