"""``wireproto ops``: the opcode table of a service, for people and for programs."""

import sys

import click

from wireproto.cli.command import Command
from wireproto.cli.target import named_services
from wireproto.cli.values import dumps, to_json
from wireproto.control import SHAPE_WORDS, MethodDescription, ServiceDescription, describe

__all__ = ["command"]

_HEAD = (
    "OPCODE",
    "METHOD",
    "SHAPE",
    "REQUEST",
    "RESPONSE",
    "SINCE",
    "UNTIL",
    "REQUIRES",
    "ERRORS",
    "COMPRESS",
    "RESUMABLE",
    "DRAINS",
    "SLOW",
    "REASONS",
)


@click.command("ops", cls=Command)
@click.argument("service", required=False, metavar="[MODULE:SERVICE]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole description, with messages, fields and enums.")
def command(service: str | None, as_json: bool) -> None:
    """Print the opcode table of MODULE:SERVICE, or of the application that is installed.

    Aligned on a terminal, without the reasons for want of room; tab-separated with a heading when piped, a dash where
    there is nothing.
    """
    (chosen,) = named_services(() if service is None else (service,), "ops")
    description = describe(chosen)
    if as_json:
        click.echo(dumps(to_json(description), indent=2 if sys.stdout.isatty() else None))
    elif sys.stdout.isatty():
        click.echo(f"{description.full_name}, {_versions(description)}\n")
        for line in _aligned(_rows(description)):
            click.echo(line)
    else:
        for row in _rows(description):
            click.echo("\t".join(row))


def _versions(description: ServiceDescription) -> str:
    if description.oldest == 1:
        return f"version {description.version}"
    return f"versions {description.oldest} to {description.version}"


def _rows(description: ServiceDescription) -> list[tuple[str, ...]]:
    return [_HEAD, *map(_row, description.methods)]


def _row(method: MethodDescription) -> tuple[str, ...]:
    return (
        f"0x{method.opcode:04x}",
        method.name,
        f"server-{SHAPE_WORDS[method.shape]}" if method.by_server else SHAPE_WORDS[method.shape],
        method.request,
        method.response or "-",
        str(method.since),
        "-" if method.until is None else str(method.until),
        method.requires or "-",
        ",".join(method.errors) or "-",
        "yes" if method.compress else "-",
        method.resumable or "-",
        "yes" if method.drains else "-",
        method.slow or "-",
        ",".join(method.reasons) or "-",
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their longest cell, but for the last; one without a single value is left out."""
    kept = [index for index in range(len(_HEAD) - 1) if any(row[index] != "-" for row in rows[1:])]
    widths = [max(len(row[index]) for row in rows) for index in kept]
    return [
        "  ".join(row[index].ljust(width) for index, width in zip(kept, widths, strict=True)).rstrip() for row in rows
    ]
