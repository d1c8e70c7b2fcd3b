"""One house for each module, and for each test its own people in it, once through every door."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chat_service.doors.people import DOORS, Door, House, Person
from chat_service.fakes import PASSWORD

_numbers = itertools.count(1)


class Scene:
    """A test's part of a house that it shares: people with names that no other test has, and one door for them.

    Attributes:
        house: with the server.
        door: by which everybody comes in, unless told otherwise.
    """

    def __init__(self, house: House, door: Door, stack: ExitStack) -> None:
        self.house = house
        self.door = door
        self._stack = stack
        self._number = next(_numbers)

    def name(self, name: str) -> str:
        """The name of somebody here; of a pattern, one that finds nobody elsewhere."""
        return f"t{self._number}.{name}"

    def person(self, name: str, door: Door | None = None) -> Person:
        """Somebody at the door, not signed in; gone when the test ends."""
        return self._stack.enter_context(self.house.addresses.person(door or self.door, self.name(name)))

    def account(self, name: str, door: Door | None = None) -> Person:
        """Somebody who is signed in, as a new account."""
        person = self.person(name, door)
        person.create()
        person.log_in()
        return person

    def again(self, name: str, password: str = PASSWORD) -> Person:
        """Somebody who has an account already, by one more connection, signed in by password."""
        person = self.person(name)
        person.log_in(password)
        return person


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house") / "chat.db") as house:
        yield house


@pytest.fixture(params=DOORS, ids=str)
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


@pytest.fixture
def scene(house: House, door: Door) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(house, door, stack)


@pytest.fixture
def own(tmp_path: Path, door: Door) -> Iterator[Scene]:
    """A scene in a house of its own, which may be stopped."""
    with House(tmp_path / "chat.db") as house, ExitStack() as stack:
        yield Scene(house, door, stack)
