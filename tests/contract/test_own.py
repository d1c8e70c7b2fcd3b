"""The locks in this repository are what the services in it say."""

from pathlib import Path

import pytest
from calculator import CALCULATOR

from wireproto.conformance.service import CONFORMANCE
from wireproto.contract import Lock
from wireproto.control import CONTROL
from wireproto.schema import Service

CONTRACT = Path(__file__).parents[2] / "contract"
LOCKED = [CONTROL, CONFORMANCE, CALCULATOR]


@pytest.mark.parametrize("service", LOCKED, ids=lambda service: service.name)
def test_our_services_are_what_their_locks_say(service: Service) -> None:
    """Released versions have not changed, and the others are in the lock as they are declared."""
    text = (CONTRACT / f"{service.full_name}.lock.json").read_text("utf-8")
    lock = Lock.parse(text)
    assert lock.problems(service) == []
    assert Lock.of(service, before=lock).text() == text, "run make generate"


def test_no_lock_is_left_of_a_service_that_is_gone() -> None:
    """Each file in the folder is of a service that is checked."""
    assert {path.name for path in CONTRACT.iterdir()} == {f"{each.full_name}.lock.json" for each in LOCKED}
