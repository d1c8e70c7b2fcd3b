"""Commands and applications of other distributions: found, refused, and never in the way of anything else."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, ROOT, environment, run
from wireproto.cli import plugins, root

FOUND = """
import sys
from importlib.metadata import EntryPoint
from wireproto.cli import main, plugins

entries = [EntryPoint(*words.split()) for words in sys.argv.pop(1).splitlines()]
plugins.entry_points = lambda *, group: [entry for entry in entries if entry.group == group]
main()
"""
"""The command where only those entry points are installed that its first argument lists."""


class Installed:
    """The entry points that the command finds instead of those of this environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: list[EntryPoint] = []
        self.looks = 0
        monkeypatch.setattr(plugins, "entry_points", self._found)
        root._every.cache_clear()

    def _found(self, *, group: str) -> list[EntryPoint]:
        self.looks += 1
        return [entry for entry in self.entries if entry.group == group]

    def commands(self, value: str) -> None:
        """One of the group of commands, by its name in ``tests.cli.plugged`` or by module and name."""
        self._add("any", value, plugins.COMMANDS)

    def application(self, value: str, name: str) -> None:
        """One of the group of applications."""
        self._add(name, value, plugins.APPLICATIONS)

    def _add(self, name: str, value: str, group: str) -> None:
        self.entries.append(EntryPoint(name, value if ":" in value else f"tests.cli.plugged:{value}", group))

    def serve(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`wireproto serve` as a process to its end: it takes signals and logs for itself."""
        entries = "\n".join(f"{entry.name} {entry.value} {entry.group}" for entry in self.entries)
        return subprocess.run(
            [sys.executable, "-c", FOUND, entries, "serve", "--port", "0", "--no-grpc", *words],
            cwd=ROOT,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    yield Installed(monkeypatch)
    root._every.cache_clear()


# Commands.


def test_a_command_of_another_distribution_runs(installed: Installed) -> None:
    """It stands in --help with its line, has help of its own, and does what it does."""
    installed.commands("COMMANDS")
    assert "greet        Greet somebody." in run("--help").stdout
    assert run("greet", "--help").stdout.startswith("Usage: wireproto greet ")
    assert run("greet", "ann").stdout == "hello, ann\n"


def test_own_commands_do_not_look_for_others(installed: Installed) -> None:
    """A name of ours costs no look at what is installed; another one does."""
    installed.commands("COMMANDS")
    run("call", "--help")
    assert installed.looks == 0
    run("greet", "--help")
    assert installed.looks == 1


def test_a_wrong_name_is_suggested_from_all(installed: Installed) -> None:
    """The nearest name may be another distribution's."""
    installed.commands("COMMANDS")
    assert "Did you mean 'greet'?" in run("gret").stderr


def test_a_name_of_ours_stays_ours(installed: Installed) -> None:
    """A distribution that brings a command of our name loses that one only, and a line says so."""
    installed.commands("CLASH")
    done = run("--help")
    assert done.exit_code == 0
    assert "Not ours." not in done.stdout
    assert "wave         Wave." in done.stdout
    taken, wrong = done.stderr.splitlines()
    assert taken.endswith(": its command 'serve' is left out, for there is one of that name already")
    assert wrong.endswith(": its command 'bad' is left out, for 'no pair' is not (module, line of help)")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("NOTHING", "AttributeError"),
        ("NO_MAPPING", "is of type list, and is to be a mapping"),
        ("tests.cli.leaving:COMMANDS", "SystemExit: 3"),
        (":", "':' is not MODULE:NAME"),
    ],
)
def test_what_cannot_be_loaded_costs_a_line(installed: Installed, value: str, complaint: str) -> None:
    """One broken distribution is a line on stderr; the others' commands are there."""
    installed.commands(value)
    installed.commands("COMMANDS")
    done = run("greet", "ann")
    assert done.stdout == "hello, ann\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("wireproto: an installed distribution: ")
    assert complaint in line


def test_a_line_names_the_distribution(tmp_path: Path) -> None:
    """What pip would show is what a complaint names: the distribution, not its module."""
    folder = tmp_path / "broken_extra-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-extra\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[wireproto.commands]\nx = broken_extra.cli:COMMANDS\n")
    done = subprocess.run(
        [sys.executable, "-m", "wireproto", "--help"],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "wireproto: the distribution broken-extra: broken_extra.cli:COMMANDS cannot be loaded: " in done.stderr


@pytest.mark.parametrize("name", ["gone", "empty", "leaving"])
def test_a_command_that_cannot_be_imported_is_a_sentence(installed: Installed, name: str) -> None:
    """A module that is not there, has no command, or leaves the process ends that command only, and says which."""
    installed.commands("BROKEN")
    done = run(name)
    assert done.exit_code == 1
    assert f"the command {name}, which another distribution brings, cannot be loaded: " in done.stderr
    assert "Traceback" not in done.stderr
    assert run("--help").exit_code == 0


def test_an_unknown_command_says_where_others_come_from(installed: Installed) -> None:
    """Whoever wants the chat's command and has no chat is told what to install."""
    assert "pip install wireproto-chat" in run("chat").stderr


# Applications.


def test_the_application_that_is_installed_is_served(installed: Installed) -> None:
    """serve without an argument opens it with its options, shows its words, ends when it says so, and closes it."""
    installed.application("SHELF", "shelf")
    done = installed.serve("--shelf", "oak")
    assert done.returncode == 1
    assert done.stdout.startswith("ready tcp=127.0.0.1:")
    assert done.stdout.endswith(" shelf=oak\n")
    assert "serving example.v1.ShopService" in done.stderr
    assert "the shelf is closed\n" in done.stderr
    assert "the server stopped by itself: the shelf fell down" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_options_have_help_and_variables(installed: Installed) -> None:
    """serve --help shows them, --help last, and WIREPROTO_SERVE_SHELF is --shelf."""
    installed.application("SHELF", "shelf")
    options = run("serve", "--help").stdout.partition("Options:")[2]
    assert "--shelf TEXT" in options
    assert options.index("--shelf") < options.index("--help")
    assert installed.serve(WIREPROTO_SERVE_SHELF="ash").stdout.endswith(" shelf=ash\n")
    assert installed.serve().stdout.endswith(" shelf=pine\n")


def test_an_option_of_what_is_not_served_is_refused(installed: Installed) -> None:
    """Handlers that are named leave no room for the application's options, nor it for those of handlers."""
    installed.application("SHELF", "shelf")
    done = run("serve", "tests.cli.services:shop", "--shelf", "oak")
    assert done.exit_code == 2
    assert "--shelf belongs to the application shelf, which is not served here" in done.stderr
    done = run("serve", "--authenticate", "tests.cli.services:doorman")
    assert done.exit_code == 2
    assert "the application shelf knows its own accounts" in done.stderr


def test_an_option_of_ours_stays_ours(installed: Installed) -> None:
    """An application whose option means something else already is left out, with a line."""
    installed.application("CLASHING", "clash")
    installed.application("SHELF", "shelf")
    done = run("serve", "--help")
    assert "--shelf TEXT" in done.stdout
    assert "its application 'clash' is left out, for --port, port means something else already" in done.stderr


def test_none_is_told_what_to_name_or_install(installed: Installed) -> None:
    """Without an application the commands say that a service can be named and where one is to be had."""
    for name, argument in (("serve", "MODULE:HANDLERS"), ("ops", "MODULE:SERVICE"), ("proto", "MODULE:SERVICE")):
        done = run(name)
        assert done.exit_code == 2
        assert f"name your own, wireproto {name} {argument}, or install one: pip install wireproto-chat" in done.stderr


def test_one_that_is_broken_is_not_said_to_be_missing(installed: Installed) -> None:
    """Where the only application cannot be loaded, nobody is told to install one."""
    installed.application("no_such_module:X", "shelf")
    for name in ("serve", "ops", "proto"):
        done = run(name)
        assert done.exit_code == 2
        assert "no_such_module:X cannot be loaded" in done.stderr
        assert "the application shelf is installed and cannot be served; the line above says why" in done.stderr
        assert "pip install" not in done.stderr


def test_of_two_one_must_be_named(installed: Installed) -> None:
    """With two applications the commands list them, and take the name of one."""
    installed.application("SHELF", "shelf")
    installed.application("BARE", "other")
    for name in ("serve", "ops", "proto"):
        done = run(name)
        assert done.exit_code == 2
        assert "other (example.v1.OtherService), shelf (example.v1.ShopService)" in done.stderr
        assert f"wireproto {name} other" in done.stderr
    assert "service OtherService" in run("proto", "other").stdout
    assert "Paint" in run("ops", "shelf").stdout
    assert installed.serve("shelf").stdout.endswith(" shelf=pine\n")
    done = run("serve", "shelf", "tests.cli.services:shop")
    assert done.exit_code == 2
    assert "the application shelf is served by itself" in done.stderr


def test_the_only_one_is_what_ops_and_proto_print(installed: Installed) -> None:
    """ops and proto without an argument are about the application that is installed."""
    installed.application("SHELF", "shelf")
    assert run("ops").stdout == run("ops", "tests.cli.services:SHOP").stdout
    assert run("proto").stdout == run("proto", "tests.cli.services:SHOP").stdout


@pytest.mark.parametrize(
    ("refusal", "status", "sentence"),
    [
        ("config", 1, "the shelf is full"),
        ("failure", 9, "the shelf is wet"),
        ("missing", 2, "grpc is not installed; run: pip install 'wireproto[grpc]'"),
    ],
)
def test_one_that_cannot_be_opened_is_a_sentence(
    installed: Installed, refusal: str, status: int, sentence: str
) -> None:
    """What open raises ends the command with a sentence and a status, before anything listens."""
    installed.application("SHELF", "shelf")
    done = installed.serve(REFUSAL=refusal)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"wireproto: {sentence}\n")


def test_a_second_one_of_a_name_is_left_out(installed: Installed) -> None:
    """Two distributions with an application of one name: the first is taken, and a line says so."""
    installed.application("BARE", "shelf")
    installed.application("SHELF", "shelf")
    done = run("proto")
    assert "service OtherService" in done.stdout
    assert done.stderr.count("its application 'shelf' is left out") == 1
