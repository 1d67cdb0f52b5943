"""Files written whole and known by their digest. No torch: every command may import this."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def md5(path: Path) -> str:
    """The digest by which DVC knows a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write to a temporary name, flush to disk, rename: a reader sees all of it or none."""
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
