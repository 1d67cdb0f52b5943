"""Label Studio → the round's record, annotations.jsonl.

A pull that was killed, or runs twice, loses and doubles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tasks.labelling.client import LabelStudio
from tasks.record.annotations import append, gather, repair
from tasks.record.inbox import new_lines
from tasks.record.record import Record
from tasks.record.sightings import taken


def pull(studio: LabelStudio, record: Record, say: Callable[[str], None] = lambda _: None) -> Record:
    """Append to the round's annotations.jsonl what is new in its projects, as the model server saw it meanwhile and as
    it is now, and what came late in those of closed rounds; the record with it.

    say: is told of a project that is gone, and of annotations that changed hands.
    """
    with taken(record) as seen:
        new = [*seen, *new_lines(studio, record.extended(seen), say)]
        new.sort(key=lambda line: line.task_at)
        repair(record.round.annotations)
        append(record.round.annotations, new)
    extended = record.extended(new)
    for line in changed_hands(extended, {line.id for line in new}):
        say(line)
    return extended


def changed_hands(record: Record, ids: Iterable[int]) -> list[str]:
    """A line for each of these annotations that another account has taken for its own; its first author keeps it."""
    chosen, lines = set(ids), []
    for kind in ("draw", "edit", "validate"):
        for annotation in gather([line for line in record.lines if line.id in chosen], kind):
            others = [line.author for line in annotation.forms if line.author != annotation.first.author]
            if others:
                what = f"annotation {annotation.first.id} of task {annotation.first.task}"
                lines.append(f"{what} was given to {others[-1]}; it stays {annotation.first.author}'s, who made it")
    return lines
