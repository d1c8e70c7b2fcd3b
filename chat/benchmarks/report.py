"""Measure the chat and write ``chat/docs/performance.md``: ``python chat/benchmarks/report.py [--quick]``.

Wants a machine at rest. Each figure is the median of some rounds, with the least and the greatest.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).resolve().parent
PAGE: Final = FOLDER.parent / "docs" / "performance.md"


class Part(NamedTuple):
    """A section of the page: its heading, what it is about, and the options of its benchmark."""

    title: str
    words: str
    options: str = "--rounds 3"
    quick: str = "--rounds 1"


PARTS: Final = {
    "sends": Part(
        "Durable sends",
        "Sends with an idempotency key, each answered when it is on the disk, by one connection and by 64 that wait\n"
        "for their answers, beside sqlite3 alone with the same statements in batches of the same size.",
        quick="--rounds 1 --seconds 1",
    ),
    "live": Part(
        "Live delivery",
        "1,000 accounts that are online, 300 sends a second: from the answer to the sender until the message is at\n"
        "its recipient. Below 0 it came before the answer.",
        quick="--rounds 1 --seconds 2",
    ),
    "lists": Part(
        "Lists",
        "Pages of 100,000 accounts: of a pattern that matches many, and of one that matches none of the names that\n"
        "one call may look at.",
        quick="--rounds 1 --accounts 10000 --pages 50",
    ),
    "drain": Part(
        "Draining",
        "10,000 undelivered messages taken by one client: by a stream that is acknowledged a page at a time, and a\n"
        "page at a time.",
    ),
}


def measure(name: str, options: str) -> list[dict[str, Any]]:
    """The rounds of one benchmark, which shows on stderr how far it is."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *options.split(), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", timeout=600, check=True)
    rounds: list[dict[str, Any]] = json.loads(done.stdout)
    return rounds


def section(name: str, part: Part, options: str) -> Iterator[str]:
    """The lines of a part: what it is, the command, and a row for each figure."""
    rounds = measure(name, options)
    yield from (f"## {part.title}", "", part.words, "", f"`python chat/benchmarks/{name}.py {options}`", "")
    yield "| figure | median | least | greatest |"
    yield "|---|---|---|---|"
    for figure in rounds[0]:
        values = [each[figure] for each in rounds]
        row = (statistics.median(values), min(values), max(values))
        yield f"| {figure.replace('_', ' ')} | {' | '.join(f'{value:,.2f}' for value in row)} |"
    yield ""


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    quick = parser.parse_args().quick
    lines = [
        "# What the chat costs",
        "",
        "Written by `make bench`, with `python chat/benchmarks/report.py`; do not edit.",
        "",
        f"CPython {platform.python_version()}, clients and server on one machine of {os.cpu_count()} processors.",
        "",
    ]
    for name, part in PARTS.items():
        lines += section(name, part, part.quick if quick else part.options)
    PAGE.write_text("\n".join(lines), "utf-8")
    print(f"wrote {PAGE.relative_to(FOLDER.parent.parent)}", file=sys.stderr)


if __name__ == "__main__":
    main()
