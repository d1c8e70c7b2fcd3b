"""Write the files that follow from the code: ``python tools/generate.py``, or compare them with ``--check``."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from wireproto_chat.contract import CHAT

from wireproto.conformance.service import CONFORMANCE
from wireproto.contract import Lock
from wireproto.control import CONTROL
from wireproto.protos import generate
from wireproto.schema import Service

ROOT = Path(__file__).parent.parent


# A program, and no module of a package.
CALCULATOR: Service = runpy.run_path(str(ROOT / "examples" / "calculator.py"))["CALCULATOR"]

LOCKED = (CHAT, CONTROL, CALCULATOR, CONFORMANCE)
"""The services in the box; `make check` runs `wireproto check` on them."""


def protos(*, check: bool) -> list[Path]:
    """``protos/``: the opcode tables as ``.proto`` files, a module of buf's."""
    return generate(ROOT / "protos", [CHAT, CONTROL, CONFORMANCE], check=check)


def contracts(*, check: bool) -> list[Path]:
    """``contract/``: the lock of each service, but for the versions in it that are released."""
    wrong = []
    for service in LOCKED:
        path = ROOT / "contract" / f"{service.full_name}.lock.json"
        there = path.read_text("utf-8") if path.exists() else ""
        before = Lock.parse(there) if there else None
        if before is not None and (problems := before.problems(service, released_only=True)):
            sys.exit("\n".join([f"{path.relative_to(ROOT)} is not written:", *problems]))
        text = Lock.of(service, before=before).text()
        if text != there:
            wrong.append(path)
            if not check:
                path.write_text(text, "utf-8")
    return wrong


GENERATORS: list[Callable[..., list[Path]]] = [protos, contracts]
"""Each writes what it makes unless ``check``, and gives back the files that are not, or were not, as they should be."""


def main() -> None:
    """Write what differs; with ``--check`` only name it, and fail if there is anything."""
    check = sys.argv[1:] == ["--check"]
    wrong = [path for generator in GENERATORS for path in generator(check=check)]
    for path in wrong:
        sys.stderr.write(f"{path.relative_to(ROOT)}: {'is not what the code says' if check else 'written'}\n")
    if check and wrong:
        sys.exit("run make generate, look at the difference, and commit it")


if __name__ == "__main__":
    main()
