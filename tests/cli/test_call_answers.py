"""`wireproto call`: what a server says beside its answer, and the details of its errors."""

from collections.abc import Iterator

import pytest

from tests.cli.conftest import run
from tests.integration.test_answers import shop as handlers
from wireproto import Server, Status

SERVICE = ("--service", "tests.integration.test_answers:SHOP")


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of the shop, served."""
    with Server(handlers()) as server:
        yield str(server.address)


@pytest.mark.parametrize("service", [SERVICE, ()], ids=["declared", "described"])
def test_the_details_of_an_error_are_printed(shop: str, service: tuple[str, ...]) -> None:
    """The message with its name, and the metadata by name, below the error; also of a service that is described."""
    done = run("call", shop, "Order", "how=stock", 'said={"region": "eu"}', *service)
    lines = done.stderr.splitlines()
    assert "FAILED_PRECONDITION EMPTY: none" in lines[0]
    assert lines[1:] == ['details OutOfStock {"article": "a|é", "left": 7, "text": ""}', "region: eu"]
    assert (done.stdout, done.exit_code) == ("", 10 + Status.FAILED_PRECONDITION)


@pytest.mark.parametrize("method", ["Order", "List", "Send", "Talk"])
def test_metadata_are_shown_if_they_are_asked_for(shop: str, method: str) -> None:
    """With -v they stand behind the answer, of every shape; what would steer a terminal is escaped."""
    words = ("call", shop, method, 'said={"region": "eu\\n", "who": "Zoë"}', *SERVICE)
    done = run(*words, "-v")
    assert "\n< region: eu\\n\n< who: Zoë\n" in done.stderr
    assert done.exit_code == 0
    assert run(*words).stderr == ""


def test_items_that_were_left_out_are_shown(shop: str) -> None:
    """With -v their number stands behind the stream."""
    done = run("call", shop, "Feed", "-v", *SERVICE)
    assert next(line for line in done.stderr.splitlines() if line.startswith("< ")) == "< items left out: 5"
    assert len(done.stdout.splitlines()) == 2
