"""What validators are shown: the digest of each task's picture, by which a task is known that somebody gave another.

It is kept in `.dadc/shown`, since a picture takes a millisecond to draw. Removing it loses nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from data.files import write_whole
from data.layout import Round
from data.records import Candidate
from data.shards import decode_png
from tasks.labelling import drawing


def digest(picture: object) -> str:
    """Of a task's `data.image`, whatever that is."""
    return hashlib.sha256(str(picture).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def picture(candidate: Candidate, channels: int) -> str:
    """The candidate as validators see it, a data URI."""
    return drawing.picture(decode_png(candidate.image, channels))


def picture_digests(round_: Round, by_task: Mapping[str, Candidate], channels: int) -> dict[str, str]:
    """Key of a validation task, which changes with the image → the digest of the picture that belongs to it."""
    kept = round_.workspace.local / "shown" / f"{round_.name}.json"
    known: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    new = {key: digest(picture(c, channels)) for key, c in by_task.items() if key not in known}
    if new:
        write_whole(kept, json.dumps(known | new) + "\n")
    known |= new
    return {key: known[key] for key in by_task}
