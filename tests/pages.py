"""The three pages of the protocol as text, and what tests look up in them."""

import re
from pathlib import Path

__all__ = ["ALL", "CONTROL_PAGE", "DOCS", "PAGES", "VALUES_PAGE", "WIRE_PAGE", "rows", "section", "table"]

DOCS = Path(__file__).parent.parent / "docs"
WIRE_PAGE, VALUES_PAGE, CONTROL_PAGE = (
    (DOCS / f"{name}.md").read_text("utf-8") for name in ("wire", "values", "control")
)
PAGES = {"wire.md": WIRE_PAGE, "values.md": VALUES_PAGE, "control.md": CONTROL_PAGE}
ALL = "\n".join(PAGES.values())


def section(number: int) -> str:
    """The text of one section, its heading included; a number is one section of the three pages."""
    (found,) = re.findall(rf"^## {number}\. .*?(?=^## \d|\Z)", ALL, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


def rows(text: str, *head: str) -> list[list[str]]:
    """The cells of the rows of the only table of a text that begins with these columns, code marks removed."""
    begin = re.escape("| " + " | ".join(head) + " |")
    (found,) = re.findall(rf"^{begin}[^\n]*\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", text, re.MULTILINE)
    return [
        [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
        for row in found.strip().split("\n")
    ]


def table(*head: str) -> list[list[str]]:
    """The same for the only such table of all three pages."""
    return rows(ALL, *head)
