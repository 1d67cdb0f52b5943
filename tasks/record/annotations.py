"""A round's record, annotations.jsonl: one line for each form of each annotation, as Label Studio gave it.

A line is one form of one annotation, or says that it was deleted; nothing is ever changed, lines are only appended.
"""

from __future__ import annotations

import gc
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from data.layout import Round
from data.records import SKIPPED
from tasks.labelling.client import UNTOLD
from tasks.labelling.projects import Kind

DELETED_BY = "deleted_by"  # the account that deleted an annotation; empty where that is not known


@dataclass(frozen=True)
class Line:
    """One form of one annotation."""

    kind: Kind
    task: str  # the task's key
    task_id: int
    id: int  # of the annotation
    author: str  # e-mail of the account it was submitted with
    editor: str  # e-mail of the account that changed it last
    task_at: str  # when the task last changed, ISO 8601 UTC; the cursor is the latest of these
    deleted: bool
    raw: dict[str, Any]  # the annotation as Label Studio gave it; if deleted: {DELETED_BY: e-mail}
    late: str = ""  # the closed round in whose project it was made, after that round was frozen; empty: this one's
    shown: str = ""  # of a vote, the digest of the task's picture when this was pulled

    @property
    def own(self) -> bool:
        """Whether its author handed it in like this; nobody did what was imported."""
        return not self.deleted and self.author == self.editor != ""

    @property
    def at(self) -> str:
        return str(self.raw.get("updated_at", ""))

    @property
    def seconds(self) -> float:
        """The time it took, as the page says; 0 if that is no sensible number."""
        lead = self.raw.get("lead_time")
        usable = isinstance(lead, int | float) and math.isfinite(lead) and 0 <= lead < 1e9
        return float(lead) if isinstance(lead, int | float) and usable else 0.0

    def dump(self) -> str:
        """A line of JSON, ASCII only: whatever a string holds, it can be written."""
        return json.dumps(self.__dict__, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Annotation:
    """All forms of one annotation, in the order in which they were pulled."""

    forms: tuple[Line, ...]

    @property
    def first(self) -> Line:
        return self.forms[0]

    @cached_property
    def latest(self) -> Line:
        """The latest form that was not the news of its deletion, whoever gave it."""
        return next((line for line in reversed(self.forms) if not line.deleted), self.forms[0])

    @cached_property
    def own(self) -> tuple[Line, ...]:
        """The forms that its author gave it."""
        return tuple(line for line in self.forms if line.own and line.author == self.first.author)

    @property
    def last(self) -> Line:
        """The form that counts, if any does: the author's latest, whatever others made of it."""
        return self.own[-1] if self.own else self.latest

    @property
    def deleted(self) -> bool:
        return self.forms[-1].deleted

    @property
    def withdrawn(self) -> bool:
        """Whether its author deleted it: others can too, and what they delete stands. Lines of before do not say who
        deleted, and were taken for the author's."""
        return self.deleted and self.forms[-1].raw.get(DELETED_BY, self.first.author) == self.first.author

    def fault(self, form: Line) -> str:
        """Why one of its forms does not count whatever it holds; empty if it may."""
        if not form.own or form.author != self.first.author:
            changed = f"changed by another account than its author's, {form.editor!r}"
            return changed if form.editor else "handed in by nobody: it was imported, or its account is gone"
        if form.raw.get("was_cancelled"):
            return SKIPPED
        if UNTOLD in form.raw:
            return "expected an annotation that Label Studio can tell, and it fails at this one"
        if "oversize" in form.raw:
            return f"expected an annotation of at most 8 MiB, got {form.raw['oversize']!r} characters"
        return ""


def read_lines(path: Path) -> list[Line]:
    """The whole lines of the record; a last one that a crash tore is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().decode("ascii").split("\n")[:-1]
    collecting = gc.isenabled()
    gc.disable()  # nothing made here is garbage, and looking for some takes as long as reading
    try:
        return [Line(**json.loads(line)) for line in whole]
    finally:
        if collecting:
            gc.enable()


def gather(recorded: Iterable[Line], kind: Kind) -> list[Annotation]:
    """The annotations of one project, by id."""
    forms: dict[int, list[Line]] = {}
    for line in recorded:
        if line.kind == kind:
            forms.setdefault(line.id, []).append(line)
    return [Annotation(tuple(forms[number])) for number in sorted(forms)]


def pulled(recorded: Iterable[Line], round_: Round) -> dict[str, int]:
    """How many annotations of each project a round's record holds that are neither deleted nor skipped: `001 draw`
    → 24. What came late is counted with the round it was made for."""
    last: dict[tuple[str, Kind, int], Line] = {}
    for line in recorded:
        last[line.late or round_.name, line.kind, line.id] = line
    counts = Counter(
        f"{name} {kind}"
        for (name, kind, _), line in last.items()
        if not (line.deleted or line.raw.get("was_cancelled"))
    )
    return dict(sorted(counts.items()))


OVERLAP = timedelta(seconds=10)  # asked for again: a change may be stamped before and stored after another


def cursor(annotations: Iterable[Annotation]) -> str | None:
    """From when on tasks are asked for: the latest change in the record, less an overlap. None if there is none."""
    latest = max((_time(line.task_at) for annotation in annotations for line in annotation.forms), default=None)
    return None if latest is None else (latest - OVERLAP).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def append(path: Path, new: Sequence[Line]) -> None:
    """Add lines at the end and flush them to disk. In the order of `task_at`, so that the cursor of a torn file is not
    beyond what was lost."""
    if not new:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write("".join(line.dump() for line in new).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def repair(path: Path) -> None:
    """Cut off a last line that a crash tore; it will be pulled again."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
