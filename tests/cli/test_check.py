"""`wireproto check`: the lock written and held, and what a change breaks since another one or a revision."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.contract.editing import BASE, edited

NAME = "example.v1.AskService.lock.json"
NARROWER = {"    key: str": "    key: bytes"}
RENAMED = {"    key: str": "    name: str"}
WIDER = {
    "    after: int = 0": "    after: int = 0\n    quick: Annotated[bool, Since(3)] = False",
    "version=2, methods": "version=3, methods",
}
_modules = iter(range(10_000))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a project, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def declared(changes: dict[str, str] | None = None) -> str:
    """MODULE:SERVICE of the base or an edit of it, in the working directory."""
    name = f"checked_{next(_modules)}"
    Path(f"{name}.py").write_text(BASE if changes is None else edited(changes), "utf-8")
    return f"{name}:SERVICE"


def test_a_lock_is_written_and_holds(folder: Path) -> None:
    """--write makes the file in contract/, and the same service is then what it says."""
    service = declared()
    done = run("check", service, "--write")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"contract/{NAME} written\n"
    assert run("check", service, "--write").stderr == ""
    done = run("check", service)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_a_change_is_told(folder: Path) -> None:
    """A service that is not what its lock says is status 1, with what it breaks and for whom."""
    run("check", declared(), "--write")
    done = run("check", declared(NARROWER))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "DropRequest.key: str -> bytes breaks pipe and msgpack at version 2, not protobuf; Python source as well",
        "    for old clients and old servers; opcodes 0x0002",
    ]
    assert "write it with --write" in done.stderr


def test_another_shape_is_told(folder: Path) -> None:
    """The words are those of the digests, and what the digest is of is told beside it."""
    run("check", declared(), "--write")
    one_way = {
        "DROP = Method": "DROP = OneWayMethod",
        "request=DropRequest, response=DropResponse": "request=DropRequest",
    }
    for changes, shape in (({"DROP = Method": "DROP = UploadMethod"}, "upload"), (one_way, "oneway")):
        done = run("check", declared(changes))
        assert done.exit_code == 1
        assert done.stdout.splitlines()[:3] == [
            f"Drop: unary -> {shape} breaks pipe, msgpack and protobuf at version 2; Python source as well",
            "    for old clients and old servers; opcodes 0x0002",
            "Drop (0x0002): another digest breaks TCP at version 2; source-compatible",
        ]


def test_a_change_that_breaks_nothing_wants_the_lock_written(folder: Path) -> None:
    """Without --against, also a sound change must be in the lock."""
    run("check", declared(), "--write")
    done = run("check", declared(WIDER))
    assert done.exit_code == 1
    assert "example.v1.AskService: version 3 is new: compatible" in done.stdout
    written = run("check", declared(WIDER), "--write")
    assert written.exit_code == 0
    assert "version 3 is new" in written.stderr
    assert run("check", declared(WIDER)).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        (WIDER, []),
        ({"timeout=5.0": "timeout=4.0"}, []),
        ({'("GONE", "SHY")': '("GONE",)'}, ["source"]),
        (RENAMED, ["text", "source"]),
        (NARROWER, ["wire", "text", "source"]),
    ],
)
def test_a_level_takes_in_those_before_it(folder: Path, changes: dict[str, str], fails: list[str]) -> None:
    """--level wire fails for bytes alone, text for names of tools too, source for names in Python as well."""
    run("check", declared(), "--write")
    service = declared(changes)
    for level in ("wire", "text", "source"):
        done = run("check", service, "--against", f"contract/{NAME}", "--level", level)
        assert done.exit_code == (level in fails), done.output


def test_a_released_version_is_not_written_over(folder: Path) -> None:
    """--release holds the versions up to N: neither --write nor any level lets a change pass; a new version does."""
    run("check", declared(), "--write", "--release", "2")
    before = Path("contract", NAME).read_text("utf-8")
    done = run("check", declared(NARROWER), "--write")
    assert done.exit_code == 1
    assert "version 2 is released and must not change" in done.stderr
    assert Path("contract", NAME).read_text("utf-8") == before
    done = run("check", declared(NARROWER))
    assert done.exit_code == 1
    assert "version 2 is released" in done.stdout
    assert run("check", declared(WIDER), "--write").exit_code == 0
    assert '"released": 2' in Path("contract", NAME).read_text("utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"[ASK, WATCH, DROP]": "[ASK, DROP]"},
        {
            "version=2, methods=[ASK, WATCH, DROP]": "version=1, methods=[ASK, WATCH]",
            "    extra: Annotated[bool, Since(2, ignorable=True)] = False\n": "",
            '    more: Annotated[str, Since(2)] = ""\n': "",
        },
    ],
)
def test_what_was_released_must_not_go(folder: Path, changes: dict[str, str]) -> None:
    """A method or a version that was released and is gone is told, not written, and no level lets it pass."""
    run("check", declared(), "--write", "--release", "2")
    service = declared(changes)
    for words in ([], ["--write"], ["--against", "contract"]):
        done = run("check", service, *words)
        assert done.exit_code == 1
        assert "is released and must not change" in done.output


def test_against_a_folder_or_a_file(folder: Path) -> None:
    """--against takes the folder of the locks, too."""
    run("check", declared(), "--write", "--lock", "old")
    service = declared(NARROWER)
    one, other = (run("check", service, "--against", each) for each in ("old", f"old/{NAME}"))
    assert one.exit_code == 1
    assert one.output == other.output


def test_the_lock_may_be_one_file(folder: Path) -> None:
    """--lock names the file itself when it ends in .json."""
    service = declared()
    assert run("check", service, "--lock", "my.json", "--write").stderr == "my.json written\n"
    assert run("check", service, "--lock", "my.json").exit_code == 0


def test_several_services_are_checked_at_once(folder: Path) -> None:
    """Each service has its own file in the folder, and one that fails is enough."""
    services = [declared(), "wireproto.control:CONTROL"]
    run("check", *services, "--write")
    assert sorted(path.name for path in Path("contract").iterdir()) == [
        NAME,
        "wirecontrol.v1.ControlService.lock.json",
    ]
    assert run("check", *services).exit_code == 0
    assert run("check", "wireproto.control:CONTROL", declared(NARROWER)).exit_code == 1


def test_programs_read_json(folder: Path) -> None:
    """--json prints the changes with all that is known of them, and keeps the exit status."""
    run("check", declared(), "--write")
    done = run("check", declared(NARROWER), "--against", "contract", "--json")
    assert done.exit_code == 1
    (report,) = json.loads(done.stdout)
    assert (report["service"], report["failed"], report["problems"]) == ("example.v1.AskService", True, [])
    assert report["changes"][0] == {
        "subject": "DropRequest.key",
        "what": "str -> bytes",
        "level": "wire",
        "breaks": ["msgpack", "pipe"],
        "keeps": ["protobuf"],
        "grpc": False,
        "versions": [2],
        "opcodes": [2],
        "peers": ["old clients", "old servers"],
        "text": False,
        "source": True,
        "note": "old servers do not take the values that are new",
    }
    done = run("check", declared(WIDER), "--against", "contract", "--json")
    assert (done.exit_code, json.loads(done.stdout)[0]["failed"]) == (0, False)


def test_a_codec_of_ones_own(folder: Path) -> None:
    """--codec says whose bytes are kept."""
    service = declared()
    run("check", service, "--write", "--codec", "msgpack", "--codec", "pipe")
    document = json.loads(Path("contract", NAME).read_text("utf-8"))
    assert document["codecs"] == ["msgpack", "pipe"]
    assert list(document["golden"]["1 0x0001 Watch request"][0]) == ["msgpack", "pipe"]
    assert "protobuf" not in run("check", declared(NARROWER)).stdout


# Revisions ------------------------------------------------------------------------------------------------------


def git(*words: str) -> None:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], check=True, capture_output=True, timeout=30)


def test_against_a_revision(folder: Path) -> None:
    """--against a branch, tag or commit takes the lock that was committed there, from any folder of the repository."""
    git("init", "-q", "-b", "trunk")
    run("check", declared(), "--write")
    git("add", "contract")
    git("commit", "-q", "-m", "Lock the contract")
    git("tag", "v1.0")
    service = declared(NARROWER)
    run("check", service, "--write")
    for revision in ("trunk", "v1.0", "HEAD"):
        done = run("check", service, "--against", revision)
        assert done.exit_code == 1, done.output
        assert done.stdout.startswith("DropRequest.key: str -> bytes")
    assert run("check", declared(), "--against", "trunk").exit_code == 0


def test_a_revision_without_a_lock(folder: Path) -> None:
    """A revision that git does not know, or one from before the lock, is wrong usage with what to do."""
    git("init", "-q", "-b", "trunk")
    git("commit", "-q", "--allow-empty", "-m", "Begin")
    service = declared()
    run("check", service, "--write")
    for revision, problem in (("nowhere", "git knows no such revision"), ("trunk", "has no contract/")):
        done = run("check", service, "--against", revision)
        assert done.exit_code == 2
        assert problem in done.stderr
    assert run("check", service, "--against=--output=x").exit_code == 2
    assert not Path("x").exists()


def test_outside_of_a_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no repository, or no git, a name that is no file is wrong usage."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    assert "no such revision" in run("check", declared(), "--against", "main").stderr
    monkeypatch.setenv("PATH", str(folder))
    done = run("check", declared(), "--against", "main")
    assert done.exit_code == 2
    assert "git is not installed" in done.stderr


# Wrong usage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "there is no lock contract"),
        (["--release", "1"], "belong to --write"),
        (["--codec", "pipe"], "belong to --write"),
        (["--write", "--against", "x"], "exclude each other"),
        (["--write", "--release", "3"], "has the versions 1 to 2"),
        (["--write", "--codec", "jason"], "jason"),
        (["--level", "wires"], "wires"),
        (["wireproto.control:CONTROL", "--lock", "one.json"], "give a folder"),
    ],
)
def test_wrong_usage_is_status_2(folder: Path, words: list[str], problem: str) -> None:
    """What the command line says wrong is explained, with status 2."""
    done = run("check", declared(), *words)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_a_file_that_is_no_lock_is_named(folder: Path) -> None:
    """A lock that cannot be read is wrong usage, with its name."""
    Path("contract").mkdir()
    Path("contract", NAME).write_text("{}")
    done = run("check", declared())
    assert done.exit_code == 2
    assert NAME in done.stderr
    Path("contract", NAME).write_bytes(b"\xff")
    assert run("check", declared()).exit_code == 2


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """What the file system refuses is status 1."""
    Path("contract").touch()
    done = run("check", declared(), "--write")
    assert done.exit_code in (1, 2)
    assert "contract" in done.stderr
