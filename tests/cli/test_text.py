"""Text that comes from files and from stdin is UTF-8 in every locale, and a byte order mark is no part of it."""

import ast
import codecs
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PATIENCE, ROOT, environment, run
from tests.cli.services import SHOP
from tests.cli.services import shop as handlers
from wireproto import Message, Method, Server, Service
from wireproto.contract import Lock

SERVICE = ("--service", "tests.cli.services:SHOP")
TEXT = "gr\u00fc\u00df \u2603"


class ServeRequest(Message):
    """What a caf\u00e9 is asked for."""


class ServeResponse(Message):
    """Nothing yet."""


WRITTEN = Service(
    "example.v1.CafeService",
    version=1,
    methods=[Method(opcode=1, name="Serve", request=ServeRequest, response=ServeResponse)],
)


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of the shop, served."""
    with Server(handlers) as server:
        yield str(server.address)


def paint(shop: str, data: str, *, stdin: bytes = b"", encoding: str = "utf-8") -> "subprocess.CompletedProcess[bytes]":
    """Call a method with JSON, in a process whose standard streams have an encoding of their own."""
    return subprocess.run(
        [sys.executable, "-m", "wireproto", "call", shop, "Paint", "-d", data, *SERVICE],
        cwd=ROOT,
        env=environment(PYTHONIOENCODING=encoding),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "marked"])
def test_json_is_utf_8_in_every_locale(shop: str, tmp_path: Path, encoding: str, mark: bytes) -> None:
    """The same bytes mean the same request from a file and from stdin, and the answer is JSON that reads as UTF-8."""
    data = mark + json.dumps({"name": TEXT}, ensure_ascii=False).encode()
    file = tmp_path / "request.json"
    file.write_bytes(data)
    for done in (paint(shop, "@-", stdin=data, encoding=encoding), paint(shop, f"@{file}", encoding=encoding)):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.decode("utf-8"))["text"] == f"{TEXT}:x1"


def test_stdin_that_is_not_utf_8_is_refused(shop: str) -> None:
    """Bytes of another encoding are a sentence that says where, and nothing is sent in their place."""
    done = paint(shop, "@-", stdin='{"name": "gr\u00fc\u00df"}'.encode("latin-1"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"wireproto: --data @- cannot be read: it is not UTF-8 (byte 13); save it as UTF-8\n"


def lock() -> bytes:
    return Lock.of(SHOP).text().encode()


def reproducer() -> bytes:
    return json.dumps(
        {"seed": 1, "number": 1, "problems": ["x"], "cases": [], "service": SHOP.full_name, "codec": "pipe"}
        | {"version": 1}
    ).encode()


READERS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "a lock": (lock, ("check", "tests.cli.services:SHOP", "--lock", "FILE.json")),
    "an earlier lock": (lock, ("check", "tests.cli.services:SHOP", "--against", "FILE.json")),
    "known deviations": (
        lambda: b"s2.05  # why\n",
        ("conformance", "ADDRESS", "--case", "2.05", "--known", "FILE.json"),
    ),
    "a request": (lambda: b'{"name": "a"}', ("call", "ADDRESS", "Paint", "-d", "@FILE.json", *SERVICE)),
    "a reproducer": (reproducer, ("fuzz", "ADDRESS", *SERVICE, "--replay", "FILE.json")),
}
"""What commands read from files, and how. ``FILE.json`` is that file, ADDRESS that of a server."""


@pytest.mark.parametrize("what", READERS)
def test_a_mark_at_the_beginning_of_a_file_is_taken_off(what: str, shop: str, tmp_path: Path) -> None:
    """A file that an editor saved with a byte order mark is read as without."""
    content, words = READERS[what]
    file = tmp_path / "file.json"
    answers = []
    for mark in (b"", codecs.BOM_UTF8):
        file.write_bytes(mark + content())
        done = run(*[word.replace("FILE.json", str(file)).replace("ADDRESS", shop) for word in words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "cannot be read" not in done.stderr
        answers.append((done.exit_code, done.stdout.rpartition(" in ")[0]))  # some say how long it took
    assert answers[0] == answers[1]


@pytest.mark.parametrize("what", READERS)
def test_a_file_that_is_not_utf_8_is_named(what: str, shop: str, tmp_path: Path) -> None:
    """A file in another encoding ends the command with a sentence that names it, and with no status of a verdict."""
    file = tmp_path / "file.json"
    file.write_bytes("# gr\u00fc\u00df".encode("latin-1"))
    done = run(*[word.replace("FILE.json", str(file)).replace("ADDRESS", shop) for word in READERS[what][1]])
    assert done.exit_code == (1 if what == "a request" else 2)
    assert "file.json cannot be read: it is not UTF-8 (byte 5); save it as UTF-8" in done.stderr


def test_a_proto_file_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    """What `proto` prints into a file is what it would write there itself."""
    words = [sys.executable, "-m", "wireproto", "proto", "tests.cli.test_text:WRITTEN"]
    # PYTHONIOENCODING would be an order of the user's; the locale is none.
    printed = subprocess.run(
        words, cwd=ROOT, env=environment(PYTHONIOENCODING="latin-1"), capture_output=True, timeout=PATIENCE, check=True
    ).stdout
    run("proto", "tests.cli.test_text:WRITTEN", "--out", str(tmp_path))
    (file,) = tmp_path.rglob("*.proto")
    assert printed == file.read_bytes()
    assert "caf\u00e9".encode() in printed


def test_a_proto_file_of_another_encoding_is_written_anew(tmp_path: Path) -> None:
    """A file that is there and no UTF-8 is one that is not as it should be, and no traceback."""
    words = ("proto", "tests.cli.services:SHOP", "--out", str(tmp_path))
    assert run(*words).exit_code == 0
    (file,) = tmp_path.rglob("*.proto")
    right = file.read_bytes()
    file.write_bytes(b"// gr\xfc\xdf\n" + right)
    assert run(*words, "--check").exit_code == 1
    assert run(*words).exit_code == 0
    assert file.read_bytes() == right


def test_a_name_of_odd_bytes_is_printed_as_it_is(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 can be named and is printed byte by byte."""
    folder = bytes(tmp_path) + b"/gr\xfc\xdf"
    done = subprocess.run(
        [sys.executable, "-c", SAY_NAME, folder], env=environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, folder + b" \xe6\xbc\xa2\n", b"")
    narrow = subprocess.run(
        [sys.executable, "-c", SAY_NAME, "caf\u00e9"],
        env=environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (narrow.returncode, narrow.stdout) == (0, b"caf\xe9 \\u6f22\n")


SAY_NAME = """
import sys, click
from wireproto.cli.command import Command, run_as_program

@click.command(cls=Command)
@click.argument("name")
def say(name):
    click.echo(f"{name} \\u6f22")

run_as_program(say, "say", "SAY")
"""


# The source -----------------------------------------------------------------------------------------------------

FOLDERS = (
    "wireproto",
    "tools",
    "examples",
    "fuzz",
    "benchmarks",
    "chat/wireproto_chat",
    "chat/examples",
    "chat/benchmarks",
)
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def by_the_locale(tree: ast.Module) -> Iterator[int]:
    """Lines on which text is read or written in the encoding that the locale happens to have."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        wrong = (
            (method == "read_text" and not node.args)
            or (method == "write_text" and len(node.args) < 2)
            or (isinstance(node.func, ast.Name) and node.func.id == "open" and "b" not in _mode(node, named))
            or (method in ("run", "Popen", "check_output") and bool({"text", "universal_newlines"} & named.keys()))
        )
        if wrong and "encoding" not in named:
            yield node.lineno


def _mode(node: ast.Call, named: dict[str | None, Any]) -> str:
    given = node.args[1] if len(node.args) > 1 else named.get("mode")
    return str(given.value) if isinstance(given, ast.Constant) else "r" if given is None else ""


def test_no_text_is_read_by_the_locale() -> None:
    """Every file and program that is read or written as text has an encoding that the source says."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for line in by_the_locale(ast.parse(path.read_text("utf-8")))
    ]
    assert not wrong, "\n".join(wrong)
