"""What the README shows is run: its programs, its steps, its commands and its bytes."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.conftest import run
from wireproto import Handlers, Limits, Server, __version__, codecs
from wireproto.cli import root
from wireproto.cli.target import resolve
from wireproto.wire.frame import Kind, pack

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: list[tuple[str, str]] = [(language, text) for language, text in FENCE.findall(README)]
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line.removeprefix("$ ")
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _calculator() -> str:
    """The first program, without its last two lines, which run it."""
    return PYTHON[0].partition("with Server(")[0]


def _tutorial() -> str:
    """The first program after the steps of "Add an opcode"."""
    declarations, table, handler = PYTHON[1:4]
    table = f"{declarations}\n{table}"
    return re.sub(r"^CALCULATOR = .*$", lambda _: table, _calculator(), flags=re.MULTILINE) + handler


def test_the_example_prints_five(tmp_path: Path) -> None:
    """The program at the top runs as it is printed."""
    (tmp_path / "calculator.py").write_text(PYTHON[0])
    assert _run(tmp_path, "calculator.py") == "5\n"


def test_the_example_in_the_folder_is_the_same() -> None:
    """examples/calculator.py is the program at the top, made importable."""

    def meaning(source: str) -> list[str]:
        code = (line.partition("#")[0].strip() for line in source.partition("from wireproto")[2].splitlines())
        return [line for line in code if line and not line.startswith("if __name__")]

    assert meaning((ROOT / "examples" / "calculator.py").read_text("utf-8")) == meaning(PYTHON[0])


@pytest.mark.slow
def test_an_opcode_is_added_in_the_steps_shown(tmp_path: Path) -> None:
    """After the README's steps the new method works, and the suite fuzzes it with no test written for it."""
    (tmp_path / "calculator.py").write_text(_tutorial())
    (tmp_path / "call.py").write_text(
        "from calculator import *\n"
        "for codec in ('pipe', 'msgpack', 'protobuf'):\n"
        "    with Server(handlers, port=0) as server, connect(server.address, CALCULATOR, codec=codec) as client:\n"
        "        print(client.call(MULTIPLY, MultiplyRequest(factors=[1.5, 2.0, 4.0])).product)\n"
    )
    assert _run(tmp_path, "call.py") == "12.0\n" * 3
    (tmp_path / "test_calculator.py").write_text(PYTHON[4])
    report = _run(tmp_path, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-o", "addopts=", "test_calculator.py")
    for method in ("Add", "Multiply"):
        for codec in ("pipe", "msgpack", "protobuf"):
            assert re.search(rf"::test_\w+\[{method}-request-v1-{codec}\] PASSED", report), report


ITEMS = """
from collections.abc import Iterator
from wireproto import DuplexMethod, OneWayMethod, UploadMethod

TOTAL = UploadMethod(opcode=0x20, name="Total", request=AddRequest, response=AddResponse)
SUMS = DuplexMethod(opcode=0x21, name="Sums", request=AddRequest, response=AddResponse)
NOTE = OneWayMethod(opcode=0x22, name="Note", request=AddRequest)
CALCULATOR = Service("example.v1.CalculatorService", version=1, methods=[ADD, TOTAL, SUMS, NOTE])
handlers = Handlers(CALCULATOR)
noted = []

@handlers.register(TOTAL)
def total_of(items: Iterator[AddRequest], context: Context) -> AddResponse:
    return AddResponse(total=sum(item.left + item.right for item in items))

@handlers.register(SUMS)
def sums(items: Iterator[AddRequest], context: Context) -> Iterator[AddResponse]:
    for item in items:
        yield AddResponse(total=item.left + item.right)

@handlers.register(NOTE)
def note(request: AddRequest, context: Context) -> None:
    noted.append(request)

requests = [AddRequest(left=n, right=1) for n in range(3)]
with Server(handlers, port=0) as server, connect(server.address, CALCULATOR) as client:
"""


def test_items_flow_in_the_lines_shown(tmp_path: Path) -> None:
    """An upload, a duplex call in both ways of using it, and a one-way call."""
    program = (
        _calculator() + ITEMS + textwrap.indent(PYTHON[5] + "print(total.total)\nclient.close(drain=10)\n", "    ")
    )
    (tmp_path / "items.py").write_text(program + "print(len(noted))\n")
    assert _run(tmp_path, "items.py") == "1\n2\n3\n5\n99990000\n1\n"


TICKING = """
import threading
import time
from wireproto import Gap, StreamMethod, Subscription, Topic

class TicksRequest(Message):
    pass

class Tick(Message):
    number: int
    price: float

"""

LISTENING = """
def publish() -> None:
    while not ticks.subscribers:
        time.sleep(0.001)
    {publish}
    ticks.close()

with Server(handlers) as server, connect(server.address, CALCULATOR) as client:
    publishing = threading.Thread(target=publish)
    publishing.start()
{listen}
    publishing.join()
"""


def test_a_topic_is_followed_in_the_lines_shown(tmp_path: Path) -> None:
    """What is published is printed by who listens, until the topic is closed."""
    declared, topic, rest = PYTHON[6].partition("ticks = Topic")
    handler, published, item = (topic + rest).partition("ticks.publish")
    served = "CALCULATOR = Service('example.v1.CalculatorService', methods=[TICKS])\nhandlers = Handlers(CALCULATOR)\n"
    publish = (published + item).strip()
    listening = LISTENING.format(publish=publish, listen=textwrap.indent(PYTHON[7], "    "))
    (tmp_path / "ticks.py").write_text(_calculator() + TICKING + declared + served + handler + listening)
    assert _run(tmp_path, "ticks.py") == "9.5\n"


def test_the_gateway_opens_in_the_lines_shown(tmp_path: Path) -> None:
    """The gateway's lines, below the program at the top, open it and print where it listens."""
    (tmp_path / "gateway.py").write_text(_calculator() + PYTHON[8])
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", _run(tmp_path, "gateway.py"))


def test_every_python_block_is_run() -> None:
    """The nine blocks that the tests above run are all there are."""
    assert len(PYTHON) == 9


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_as_they_are_written(line: str) -> None:
    """Each command shown is a task of the Makefile, or parses with the options it is shown with."""
    program, *words = shlex.split(line)
    if program == "make":
        tasks = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[0] in tasks
    elif program == "wireproto" and words[0] != "chat":
        command = root.wireproto.get_command(click.Context(root.wireproto), words[0])
        assert command is not None
        context = command.make_context(words[0], words[1:])
        assert isinstance(context, click.Context)
    else:  # the chat's own tests run its command
        assert line in ("pip install '.[cli,grpc]' ./chat", "wireproto chat 127.0.0.1:7411 --codec pipe")


def test_the_answers_shown_are_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `wireproto call` prints what the README says it prints."""
    monkeypatch.chdir(ROOT)
    shown = re.findall(r"^\$ (wireproto call .*)\n(?!\$)(.*)$", README, re.MULTILINE)
    assert len(shown) == 2
    with Server(resolve("examples.calculator:handlers", Handlers), name=f"wireproto/{__version__}") as server:
        for line, answer in shown:
            words = shlex.split(line.replace("127.0.0.1:7412", str(server.address)))
            assert run(*words[1:]).stdout == f"{answer}\n"


@pytest.mark.parametrize(
    ("codec", "payload"), [(1, b"2|3"), (2, bytes.fromhex("920203")), (3, bytes.fromhex("08021003"))]
)
def test_the_frame_shown_is_what_is_sent(codec: int, payload: bytes) -> None:
    """The bytes of the picture are those of the code, in each codec."""
    namespace: dict[str, Any] = {"__name__": "calculator"}
    exec(compile(_calculator(), "README.md", "exec"), namespace)
    request_type = namespace["AddRequest"]
    name = ["pipe", "msgpack", "protobuf"][codec - 1]
    plan = codecs.get(name).plan(request_type, 1, Limits())
    assert plan.encode(request_type(left=2, right=3)) == payload
    assert payload.hex(" ") in README
    if codec == 1:
        frame = pack(Kind.REQUEST, codec, 1, 0x10, 1, b"", payload).hex(" ")
        assert frame in re.sub(r" +", " ", README)


def test_the_files_it_names_are_there() -> None:
    """No link of the README leads nowhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
