"""``wireproto proto``: a service as ``.proto`` text, for gRPC clients and everybody else's tools."""

import sys
from pathlib import Path

import click

from wireproto.cli.command import Command, Failure
from wireproto.cli.shadow import warn_of_shadows
from wireproto.cli.target import named_services
from wireproto.cli.text import write_utf8
from wireproto.errors import ConfigError
from wireproto.protos import generate, render

__all__ = ["command"]


@click.command("proto", cls=Command)
@click.argument("services", nargs=-1, metavar="[MODULE:SERVICE]...")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files there, in folders by package with a buf.yaml; .proto files of other services are deleted.",
)
@click.option("--check", is_flag=True, help="With --out: write nothing, and fail if a file is not what it would be.")
def command(services: tuple[str, ...], out: Path | None, check: bool) -> None:
    """Print the .proto file of MODULE:SERVICE, or of the application that is installed.

    Its messages have the bytes that the codec protobuf writes, so any protobuf library reads them.
    """
    chosen = named_services(services, "proto")
    warn_of_shadows(chosen)
    if out is None:
        if check:
            raise ConfigError("--check belongs to --out DIR, where the files are")
        write_utf8(sys.stdout)
        click.echo("\n".join(render(service) for service in chosen), nl=False)
        return
    try:
        wrong = generate(out, chosen, check=check)
    except OSError as error:
        raise Failure(f"--out {out} cannot be written: {error.strerror}") from error
    for path in wrong:
        said = "is not what the table says" if check else "written" if path.exists() else "deleted"
        click.echo(f"{path} {said}", err=True)
    if check and wrong:
        raise Failure("write them without --check, look at the difference, and commit it")
