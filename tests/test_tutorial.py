"""Adding an opcode, in the steps that README.md shows: it is tested in every codec, with no test written for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(heading: str) -> list[str]:
    """The Python of one section of README.md, block by block."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index(f"{heading}\n") :].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


# The program that the README begins with, without its last lines, which run it.
CALCULATOR = blocks("# wireproto")[0].partition("with Server(")[0]
TABLE = next(line for line in CALCULATOR.splitlines() if line.startswith("CALCULATOR = "))

# The steps: two message classes and one Method, the entry in the table, one handler. Last, the test file.
MESSAGES, ENTRY, HANDLER, TESTS = blocks("## Add an opcode")[:4]

CALLS = """
from calculator import CALCULATOR, MULTIPLY, MultiplyRequest, handlers
from wireproto import Server, connect

for codec in ("pipe", "msgpack", "protobuf"):
    with Server(handlers, port=0) as server, connect(server.address, CALCULATOR, codec=codec) as client:
        print(codec, client.call(MULTIPLY, MultiplyRequest(factors=[2.0, 3.5])).product)
"""


class Project:
    """A scratch project outside of this repository: the calculator, and the README's test file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(CALCULATOR)
        (path / "test_calculator.py").write_text(TESTS)

    def write(self, source: str) -> None:
        (self.path / "calculator.py").write_text(source)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self.path}", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.path, env=environment, capture_output=True, text=True, timeout=110
        )

    def tests(self) -> set[str]:
        """Run pytest; the names of the tests that passed. All must."""
        ran = self.run("-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-W", "error")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return {line.split("::")[-1] for line in ran.stdout.splitlines() if line.startswith("PASSED")}


def added(messages: str = MESSAGES) -> str:
    """The calculator after the steps."""
    return CALCULATOR.replace(TABLE + "\n", f"{messages}\n{ENTRY}") + HANDLER


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.slow
def test_an_added_opcode_is_tested_with_no_test_written_for_it(project: Project) -> None:
    """Two messages, a Method and a handler later, the same test file tests the new method in every codec."""
    before = project.tests()
    assert not any("Multiply" in name for name in before)
    project.write(added())
    after = project.tests()
    assert before < after
    new = after - before
    for side in ("request", "response"):
        assert f"test_codecs_agree[Multiply-{side}-v1]" in new
        for codec in ("pipe", "msgpack", "protobuf"):
            for test in (
                "test_decoding_gives_what_was_encoded",
                "test_mutated_bytes_give_a_message_or_decode_error",
                "test_undeclared_values_are_refused",
                "test_an_older_peer_gets_what_its_version_has",
            ):
                assert f"{test}[Multiply-{side}-v1-{codec}]" in new


def test_an_added_opcode_can_be_called_in_every_codec(project: Project) -> None:
    """The new method answers over the wire, whichever codec is chosen."""
    project.write(added())
    ran = project.run("-c", CALLS)
    assert ran.stdout == "pipe 7.0\nmsgpack 7.0\nprotobuf 7.0\n", ran.stderr


def test_a_wrong_step_says_what_to_write(project: Project) -> None:
    """A field of a type that no codec carries fails where it is declared, and names class and field."""
    project.write(added(MESSAGES.replace("product: float", "product: complex")))
    ran = project.run("-c", "import calculator")
    assert ran.returncode == 1
    assert "DeclarationError: MultiplyResponse.product: " in ran.stderr
