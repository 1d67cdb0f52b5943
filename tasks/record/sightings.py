"""What the model server saw of a round's annotations before they were pulled, with the authors that they had then.

Label Studio tells it of each annotation at once, and it looks: whoever changes the author, or deletes an annotation
before the next pull, comes too late. What it saw lies in `.dadc/seen`, as lines of the record, until a pull takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from data.layout import Round
from tasks.labelling.client import LabelStudio
from tasks.record.annotations import Line, append, read_lines, repair
from tasks.record.inbox import new_lines
from tasks.record.record import Record


@contextmanager
def taken(record: Record) -> Iterator[list[Line]]:
    """The lines that were seen and are not in the record; they are forgotten once what is done within has recorded
    them. The watch waits meanwhile."""
    with _lock(record.round):
        path = _path(record.round)
        yield _unrecorded(record)
        path.unlink(missing_ok=True)


def _unrecorded(record: Record) -> list[Line]:
    """A pull that was killed may have recorded them, and the watch may see what was just recorded."""
    seen = read_lines(_path(record.round))
    ids = {line.id for line in seen}
    recorded = {line.dump() for line in record.lines if line.id in ids}
    return [line for line in seen if line.dump() not in recorded]


class Watch:
    """Looks at the open round again and again, and writes down what is new; one thread uses it."""

    def __init__(self) -> None:
        self._latest: Record | None = None

    def look(self, studio: LabelStudio, round_: Round) -> int:
        """How many lines are new."""
        latest = self._latest
        if latest is None or latest.round != round_:
            record = Record.read(round_)
            latest = record.extended(_unrecorded(record))
        new = new_lines(studio, latest)
        with _lock(round_):
            repair(_path(round_))
            append(_path(round_), new)
        self._latest = latest.extended(new)
        return len(new)


def _lock(round_: Round) -> FileLock:
    path = round_.workspace.local / "locks" / "seen.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _path(round_: Round) -> Path:
    return round_.workspace.local / "seen" / f"{round_.name}.jsonl"
