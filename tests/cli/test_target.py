"""package.module:NAME on the command line, right and wrong."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wireproto.cli.target import resolve
from wireproto.errors import ConfigError
from wireproto.schema import Service


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a few modules in it, which are forgotten afterwards."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "__init__.py").touch()
    (tmp_path / "tables" / "books.py").write_text(
        "from wireproto.schema import Message, Method, Service\n"
        "class GoRequest(Message): pass\n"
        "class GoResponse(Message): pass\n"
        "GO = Method(opcode=1, name='Go', request=GoRequest, response=GoResponse)\n"
        "BOOKS = Service('example.v1.BooksService', version=1, methods=[GO])\n"
        "_HIDDEN = BOOKS\n"
        "NUMBER = 7\n"
    )
    (tmp_path / "tables" / "empty.py").touch()
    (tmp_path / "tables" / "needy.py").write_text("import no_such_library_anywhere\n")
    (tmp_path / "tables" / "raising.py").write_text("\n\n1 / 0\n")
    (tmp_path / "tables" / "misspelt.py").write_text("def broken(:\n")
    (tmp_path / "tables" / "declared.py").write_text(
        "from wireproto.schema import Service\nService('nodots', version=1, methods=[])\n"
    )
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "tables":
            del sys.modules[name]


@pytest.mark.usefixtures("folder")
def test_an_object_of_the_right_type_is_found() -> None:
    """The working directory is searched, whether or not it is on the path."""
    assert resolve("tables.books:BOOKS", Service).full_name == "example.v1.BooksService"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("tables.books", "does not say which Service; it has tables.books:BOOKS"),
        ("tables.books:", "does not say which Service; it has tables.books:BOOKS"),
        ("tables.books:BOKS", "no 'BOKS'; did you mean tables.books:BOOKS?"),
        ("tables.books:books", "no 'books'; did you mean tables.books:BOOKS?"),
        ("tables.books:elephant", "no 'elephant'; it has tables.books:BOOKS"),
        ("tables.books:NUMBER", "tables.books:NUMBER is of type int, not Service; it has tables.books:BOOKS"),
        ("tables.empty:BOOKS", "the module has no Service at all"),
        ("tables.boks:BOOKS", "there is no module 'tables.boks'; did you mean tables.books?"),
        ("table:BOOKS", "there is no module 'table'; did you mean tables?"),
        ("elephant:BOOKS", "there is no module 'elephant'; it was looked for in"),
        ("tables.needy:BOOKS", "it needs no_such_library_anywhere, which is not installed"),
        ("tables.raising:BOOKS", "ZeroDivisionError: division by zero"),
        ("tables.misspelt:BOOKS", "SyntaxError"),
        ("tables.declared:BOOKS", "tables.declared cannot be imported: "),
        ("tables/books.py:BOOKS", "is a path; write the module's name: tables.books:BOOKS"),
        ("./tables/books.py", "is a path; write the module's name: tables.books:NAME"),
        ("books.py:BOOKS", "is a path; write the module's name: books:BOOKS"),
        ("tables..books:BOOKS", "names no module; write package.module:NAME"),
        ("", "names no module; write package.module:NAME"),
        (":BOOKS", "names no module; write package.module:NAME"),
    ],
)
def test_a_wrong_target_is_explained(target: str, complaint: str) -> None:
    """Whatever is wrong with a target, the error says what to write, or where the module failed."""
    with pytest.raises(ConfigError) as caught:
        resolve(target, Service)
    assert complaint in str(caught.value)


@pytest.mark.usefixtures("folder")
def test_the_line_that_raised_is_named() -> None:
    """A module that raises while it is imported is reported with file and line."""
    with pytest.raises(ConfigError, match=r"raising\.py, line 3\)"):
        resolve("tables.raising:BOOKS", Service)
