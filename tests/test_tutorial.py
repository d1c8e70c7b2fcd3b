"""Adding an opcode, in the steps of the README: it is tested in every codec, with no test written for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the reader has: the calculator.
CALCULATOR = """
from wireproto import Context, Handlers, Message, Method, Service


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


{messages}

ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse)
{method}
CALCULATOR = Service("example.v1.CalculatorService", methods=[ADD{listed}])

handlers = Handlers(CALCULATOR)


@handlers.register(ADD)
def add(request: AddRequest, context: Context) -> AddResponse:
    return AddResponse(total=request.left + request.right)


{handler}
"""

# The steps: two message classes, one Method, one handler.
MESSAGES = """
class DivideRequest(Message):
    dividend: float
    divisor: float


class DivideResponse(Message):
    quotient: float
    remainder: float | None = None
"""

METHOD = 'DIVIDE = Method(opcode=0x11, name="Divide", request=DivideRequest, response=DivideResponse)'

HANDLER = """
@handlers.register(DIVIDE)
def divide(request: DivideRequest, context: Context) -> DivideResponse:
    return DivideResponse(quotient=request.dividend // request.divisor, remainder=request.dividend % request.divisor)
"""

# The whole test file of the project; it knows nothing of the new method.
TESTS = """
from calculator.contract import CALCULATOR
from wireproto.testing import RoundTripSuite


class TestCalculator(RoundTripSuite):
    service = CALCULATOR
"""

CALLS = """
from calculator.contract import CALCULATOR, DIVIDE, DivideRequest, handlers
from wireproto import Server, connect

for codec in ("pipe", "msgpack", "protobuf"):
    with Server(handlers, port=0) as server, connect(server.address, CALCULATOR, codec=codec) as client:
        answer = client.call(DIVIDE, DivideRequest(dividend=7.0, divisor=2.0))
        print(codec, answer.quotient, answer.remainder)
"""


class Project:
    """A scratch package with a test file, outside of this repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "calculator").mkdir()
        (path / "calculator" / "__init__.py").write_text("")
        (path / "test_calculator.py").write_text(TESTS)
        self.write()

    def write(self, *, messages: str = "", method: str = "", listed: str = "", handler: str = "") -> None:
        source = CALCULATOR.format(messages=messages, method=method, listed=listed, handler=handler)
        (self.path / "calculator" / "contract.py").write_text(source)

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.slow
def test_an_added_opcode_is_tested_with_no_test_written_for_it(project: Project) -> None:
    """Two messages, a Method and a handler later, the same three lines test the new method in every codec."""
    before = project.tests()
    assert not any("Divide" in name for name in before)
    project.write(messages=MESSAGES, method=METHOD, listed=", DIVIDE", handler=HANDLER)
    after = project.tests()
    added = after - before
    assert before < after
    for codec in ("pipe", "msgpack", "protobuf"):
        for side in ("request", "response"):
            for test in (
                "test_decoding_gives_what_was_encoded",
                "test_mutated_bytes_give_a_message_or_decode_error",
                "test_undeclared_values_are_refused",
                "test_an_older_peer_gets_what_its_version_has",
            ):
                assert f"{test}[Divide-{side}-v1-{codec}]" in added
    assert {f"test_codecs_agree[Divide-{side}-v1]" for side in ("request", "response")} <= added


def test_an_added_opcode_can_be_called_in_every_codec(project: Project) -> None:
    """The new method answers over the wire, whichever codec is chosen."""
    project.write(messages=MESSAGES, method=METHOD, listed=", DIVIDE", handler=HANDLER)
    ran = project.run("-c", CALLS)
    assert ran.stdout == "pipe 3.0 1.0\nmsgpack 3.0 1.0\nprotobuf 3.0 1.0\n", ran.stderr


def test_a_wrong_step_says_what_to_write(project: Project) -> None:
    """A field of a type that no codec carries fails where it is declared, and names class and field."""
    project.write(messages=MESSAGES.replace("divisor: float", "divisor: complex"), method=METHOD, listed=", DIVIDE")
    ran = project.run("-c", "import calculator.contract")
    assert ran.returncode == 1
    assert "DeclarationError: DivideRequest.divisor: " in ran.stderr
