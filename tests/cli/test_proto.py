"""`wireproto proto`: .proto text on stdout, or files."""

from pathlib import Path

from tests.cli.conftest import run
from tests.cli.services import OTHER, SHOP
from wireproto.protos import render


def test_it_prints_the_file() -> None:
    """Each service named is printed as its file's text."""
    assert run("proto", "tests.cli.services:SHOP").stdout == render(SHOP)
    both = run("proto", "tests.cli.services:SHOP", "tests.cli.services:OTHER").stdout
    assert both == f"{render(SHOP)}\n{render(OTHER)}"


def test_it_writes_the_files(tmp_path: Path) -> None:
    """--out writes a module of files, and says which."""
    done = run("proto", "tests.cli.services:SHOP", "--out", str(tmp_path))
    (file,) = tmp_path.rglob("*.proto")
    assert file.read_text("utf-8") == render(SHOP)
    assert f"{file} written" in done.stderr
    assert done.stdout == ""
    assert run("proto", "tests.cli.services:SHOP", "--out", str(tmp_path)).stderr == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """What the file system refuses is status 1 with the folder."""
    (tmp_path / "file").touch()
    done = run("proto", "tests.cli.services:SHOP", "--out", str(tmp_path / "file" / "below"))
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
