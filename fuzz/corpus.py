"""The inputs that were kept: ``fuzz/corpus/TARGET.hex``, one a line, so that a change to them can be read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CORPUS", "load", "save", "unpack"]

CORPUS = Path(__file__).parent / "corpus"


def load(target: str) -> list[bytes]:
    """The inputs of a target; none if it has no file yet."""
    path = CORPUS / f"{target}.hex"
    return [bytes.fromhex(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def save(target: str, inputs: Iterable[bytes]) -> int:
    """Write them, the shortest first, each once; how many that are."""
    kept = sorted(set(inputs), key=lambda each: (len(each), each))
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target}.hex").write_text("".join(f"{each.hex()}\n" for each in kept), "ascii")
    return len(kept)


def unpack(inputs: Iterable[bytes], folder: Path) -> None:
    """Write each into a file of its own, which is how libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in inputs:
        (folder / hashlib.sha1(each, usedforsecurity=False).hexdigest()).write_bytes(each)
