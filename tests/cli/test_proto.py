"""`wireproto proto`: .proto text on stdout, or files."""

import sys
from pathlib import Path

import pytest

from tests.cli import services
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


def test_check_compares_and_writes_nothing(tmp_path: Path) -> None:
    """--check is quiet where the files are as they should be, and fails, with their names, where they are not."""
    words = ["proto", "tests.cli.services:SHOP", "--out", str(tmp_path), "--check"]
    done = run(*words)
    assert done.exit_code == 1
    assert "shop.proto is not what the table says" in done.stderr
    assert list(tmp_path.iterdir()) == []
    run(*words[:-1])
    (file,) = tmp_path.rglob("*.proto")
    done = run(*words)
    assert (done.exit_code, done.output) == (0, "")
    file.write_text("changed")
    assert run(*words).exit_code == 1
    assert file.read_text() == "changed"
    done = run("proto", "tests.cli.services:SHOP", "--check")
    assert done.exit_code == 2
    assert "--check belongs to --out DIR" in done.stderr


@pytest.mark.parametrize("words", [["proto"], ["check", "--lock", "contract", "--write"]], ids=["proto", "check"])
def test_a_package_that_hides_the_stubs_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose proto package is called like a Python package gets a warning that names the cure."""
    text = Path(services.__file__).read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    for name, package in (("shadowed_shop", "shadowed_shop.v1"), ("clear_shop", "shopapi.v1")):
        Path(f"{name}.py").write_text(text.replace("example.v1.ShopService", f"{package}.ShopService"))
        monkeypatch.delitem(sys.modules, name, raising=False)
    done = run(words[0], "shadowed_shop:SHOP", *words[1:])
    assert done.exit_code == 0
    assert "warning: the Python package 'shadowed_shop' hides the stubs" in done.stderr
    assert "Service('shadowed_shopapi.v1.ShopService', ...)" in done.stderr
    assert "warning" not in run(words[0], "clear_shop:SHOP", *words[1:]).stderr
