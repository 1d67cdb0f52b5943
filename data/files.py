"""Files written whole and known by their digest. No torch: every command may import this."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

_sealed: ContextVar[Mapping[Path, str] | None] = ContextVar("sealed", default=None)


class Sealed(ValueError):
    """A file was to become another than it has been declared to be."""

    def __init__(self, path: Path, wanted: str, got: str) -> None:
        super().__init__(f"{path} must keep its digest {wanted}, and would have {got}")
        self.path = path


def md5(path: Path) -> str:
    """The digest by which DVC knows a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write to a temporary name, flush to disk, rename: a reader sees all of it or none.

    Sealed, with nothing written, if the file is sealed and this is not its content.
    """
    blob = content.encode() if isinstance(content, str) else content
    wanted = (_sealed.get() or {}).get(path)
    if wanted and (got := hashlib.md5(blob, usedforsecurity=False).hexdigest()) != wanted:
        raise Sealed(path, wanted, got)
    with written_whole(path) as file:
        file.write(blob)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which has its name once all of it is on the disk. It is never sealed."""
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk is not filled further
        raise


@contextmanager
def sealed(digests: Mapping[Path, str]) -> Iterator[None]:
    """Within it these files, where `write_whole` writes them, must come out with these MD5 digests."""
    token = _sealed.set(digests)
    try:
        yield
    finally:
        _sealed.reset(token)


def write_json(path: Path, content: Any) -> None:
    """Sorted keys, a line's end, whole or not at all; refuses NaN, which is not JSON."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
