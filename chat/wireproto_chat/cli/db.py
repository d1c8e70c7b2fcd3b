"""``wireproto db``: what an operator does to a chat's database."""

import shlex

import click

from wireproto.cli.command import CONTEXT, Command, Failure

__all__ = ["command"]

_STORE = click.option("--store", metavar="URL", help="The database, as serve --store takes it.")


@click.group(context_settings=CONTEXT)
def command() -> None:
    """Upgrade, check or back up the chat's database."""


@command.command(cls=Command)
@_STORE
@click.option("--no-backup", is_flag=True, help="Do not keep a copy of the database as it was.")
def upgrade(store: str | None, no_backup: bool) -> None:
    """Bring the database of an earlier release to this one's schema.

    Stop the server first. A copy of the database as it was is kept beside it. After an error it is as it was.
    """
    from wireproto_chat.store import maintenance

    before, after, kept = maintenance.upgrade(store, keep=not no_backup)
    if before == after:
        click.echo(f"schema {after}: there is nothing to do")
        return
    if kept is not None:
        click.echo(f"backup {shlex.quote(str(kept))}")
    click.echo(f"upgraded from schema {before} to {after}")


@command.command(cls=Command)
@_STORE
def check(store: str | None) -> None:
    """Read all of the database and see whether it is whole. The server may be running.

    Exit status 1 when it is not; what is wrong is printed.
    """
    from wireproto_chat.store import maintenance

    wrong = maintenance.check(store)
    for sentence in wrong:
        click.echo(sentence)
    if wrong:
        raise Failure("the database is damaged; restore a backup")
    click.echo("ok")


@command.command(cls=Command)
@_STORE
@click.argument("file")
def backup(store: str | None, file: str) -> None:
    """Copy the database to FILE, which must not exist, as it is at this moment. The server may be running.

    FILE is a database like the other: serve --store FILE.
    """
    from wireproto_chat.store import maintenance

    click.echo(f"backup {shlex.quote(str(maintenance.backup(store, file)))}")
