"""``docs/conformance.md`` says what the kit does."""

import re
from pathlib import Path

from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import AUTHORIZATION, CONFORMANCE, LONGEST_SHORT, OTHER_AUTHORIZATION, SECRET

TEXT = (Path(__file__).parent.parent.parent / "docs" / "conformance.md").read_text()


def test_the_service_is_the_one_declared() -> None:
    """Its table has every method under its opcode, and the numbers and texts that the cases use."""
    rows = re.findall(r"^\| 0x([0-9a-f]{4}) \| ([A-Z][a-z]+) \|", TEXT, re.MULTILINE)
    assert [(int(opcode, 16), name) for opcode, name in rows] == [
        (method.opcode, method.name) for method in CONFORMANCE.methods
    ]
    for each in (AUTHORIZATION, OTHER_AUTHORIZATION, SECRET, CONFORMANCE.full_name, f"{LONGEST_SHORT} bytes"):
        assert each in TEXT


def test_the_digests_are_those_of_the_service() -> None:
    """Each opcode's digest, in each version that has it."""
    rows = re.findall(
        r"^\| 0x([0-9a-f]{4}) \| ([0-9a-f]{8})? ?\| ([0-9a-f]{8})? ?\| ([0-9a-f]{8})? ?\|$", TEXT, re.MULTILINE
    )
    for version in (1, 2, 3):
        found = {int(row[0], 16): int(row[version], 16) for row in rows if row[version]}
        assert found == CONFORMANCE.digests(version)


def test_the_cases_it_names_are_there() -> None:
    """Every case in the text is one, and there are as many as it says."""
    named = set(re.findall(r"\b([sc][0-9]+\.[0-9]{2,3})\b", TEXT))
    assert named <= {*SERVER_CASES.cases, *CLIENT_CASES.cases}
    (counted,) = re.findall(r"more than ([0-9]+) cases for servers and more than ([0-9]+) for clients", TEXT)
    for said, there in zip(counted, (len(SERVER_CASES.cases), len(CLIENT_CASES.cases)), strict=True):
        assert int(said) < there <= int(said) + 100
