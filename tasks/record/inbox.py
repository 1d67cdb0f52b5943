"""What Label Studio holds for a round and its record does not.

It is asked for by cursor: only tasks that changed since the record's latest line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from data.layout import Round
from tasks.config.params import read
from tasks.labelling.client import LabelStudio
from tasks.labelling.image_digests import digest
from tasks.labelling.projects import KINDS, Kind, title
from tasks.labelling.task_keys import known_keys
from tasks.record.annotations import DELETED_BY, Annotation, Line, cursor, gather, pulled, read_lines
from tasks.record.history import frozen_record
from tasks.record.published import locate
from tasks.record.record import Record
from tasks.workspace.rounds import closed, rounds

TRIES = 3  # looks at what changed, while people submit between it and the count of all
MAX_RAW = 8 * 2**20  # characters of one annotation that the record keeps
Projects = dict[str, tuple[int, int]]  # title → id and annotations in it
Emails = Mapping[int, str]  # account → its e-mail
_EVER = "1970-01-01T00:00:00.000000Z"


class Accounts(dict[int, str]):
    """Account → its e-mail; asked for again where somebody signed up and submitted since."""

    def __init__(self, studio: LabelStudio, emails: Emails) -> None:
        super().__init__(emails)
        self.studio = studio

    def __missing__(self, number: int) -> str:
        self.update(self.studio.emails())
        return self.setdefault(number, f"account {number}")


def new_lines(studio: LabelStudio, record: Record, say: Callable[[str], None] = lambda _: None) -> list[Line]:
    """What Label Studio holds for the round and the record does not, in the order of `task_at`; nothing is written.

    A project that is gone took its annotations along; they are deleted by nobody knows whom.
    """
    campaign, round_ = record.params.campaign, record.round
    with ThreadPoolExecutor(1) as asker:  # both at once
        accounts = asker.submit(studio.emails)
        existing = studio.projects(campaign)
    emails = Accounts(studio, accounts.result())
    in_time = [line for line in record.lines if not line.late]
    new: list[Line] = []
    for kind in KINDS:
        name, recorded = title(campaign, round_, kind), gather(in_time, kind)
        found = locate(studio, existing.get(name), recorded)
        if found is not None:
            project, total = found
            new += with_keys(project_changes(studio, project, kind, recorded, emails, total), round_, project)
        elif live := [annotation for annotation in recorded if not annotation.deleted]:
            new += [_deleted(annotation, annotation.forms[-1].task_at, by="") for annotation in live]
            say(f"Label Studio has no project {name!r} any more: it was deleted; what was pulled from it stands")
    new += late(studio, record, existing, emails)
    return sorted(new, key=lambda line: line.task_at)


def late(studio: LabelStudio, record: Record, existing: Projects, emails: Emails) -> list[Line]:
    """Drawings and edits made in projects of closed rounds after these were frozen, and not in any record yet.

    The last closed round is looked at each time, an earlier one when the number of its annotations has changed.
    existing, emails: as `studio` gives them.
    """
    round_ = record.round
    if not any(0 < r.number < round_.number for r in rounds(round_.workspace)):
        return []
    earlier = [r for r in closed(round_.workspace) if 0 < r.number < round_.number]
    if not earlier:
        return []
    frozen = [json.loads(r.lineage.read_text(encoding="utf-8")).get("pulled", {}) for r in earlier]
    now = pulled(record.lines, round_)
    found: list[Line] = []
    for each in earlier:
        for kind in ("draw", "edit"):
            project, total = existing.get(title(read(each.params).campaign, each, kind), (None, 0))
            name = f"{each.name} {kind}"
            taken = sum(counts.get(name, 0) for counts in (*frozen, now))
            if project is None or (total == taken and each is not earlier[-1]):
                continue
            records = {r.name: read_lines(frozen_record(r)) for r in earlier if r.number >= each.number}
            frozen_ids = {line.id for lines in records.values() for line in lines}
            recorded = [
                line
                for name, lines in {**records, round_.name: record.lines}.items()
                for line in lines
                if (line.late or name) == each.name and line.kind == kind
            ]
            changes = project_changes(studio, project, kind, gather(recorded, kind), emails, total)
            since = [replace(line, late=each.name) for line in changes if line.id not in frozen_ids]
            found += with_keys(since, each, project)
    return found


def with_keys(lines: Iterable[Line], round_: Round, project: int) -> list[Line]:
    """Lines under the keys by which their tasks were published, whatever keys these bear by now."""
    keys = known_keys(round_, project)
    return [line if line.deleted else replace(line, task=keys.get(line.task_id, line.task)) for line in lines]


def project_changes(
    studio: LabelStudio, project: int, kind: Kind, recorded: Sequence[Annotation], emails: Emails, total: int
) -> list[Line]:
    """What a project holds and the record does not: new forms of annotations, and which are gone.

    total: how many annotations it held a moment ago, without skipped ones.
    """
    lines = [line for annotation in recorded for line in annotation.forms]
    found: list[Line] = []
    for _ in range(TRIES):
        found += _differences(studio.recorded(project, cursor(recorded)), kind, recorded, emails)
        recorded = gather(lines + found, kind)
        if total == sum(not (a.deleted or a.latest.raw.get("was_cancelled")) for a in recorded):
            return found
        total = studio.annotations(project)
    # a whole task was deleted, which no cursor shows: look at everything
    tasks = list(studio.recorded(project, _EVER))
    found += _differences(tasks, kind, recorded, emails)
    task_ids, changed = {int(task["id"]) for task in tasks}, {line.id for line in found}
    gone = [a for a in recorded if not a.deleted and a.first.task_id not in task_ids and a.first.id not in changed]
    return found + [_deleted(a, a.forms[-1].task_at, by="") for a in gone]


def _differences(
    tasks: Iterable[dict[str, Any]], kind: Kind, recorded: Sequence[Annotation], emails: Emails
) -> list[Line]:
    forms = {a.first.id: a for a in recorded}
    by_task: dict[int, set[int]] = {}
    for annotation in recorded:
        if not annotation.deleted:
            by_task.setdefault(annotation.first.task_id, set()).add(annotation.first.id)
    found = []
    for task in tasks:
        annotations = [_line(kind, task, raw, emails) for raw in task["annotations"]]
        for line in annotations:
            before = forms.get(line.id)
            if before is None or before.deleted or before.latest.raw != line.raw:
                found.append(line)
        gone = by_task.get(int(task["id"]), set()) - {line.id for line in annotations}
        if gone:
            by = _last_editor(task, emails)
            found += [_deleted(forms[number], task["updated_at"], by) for number in sorted(gone)]
    return found


def _line(kind: Kind, task: dict[str, Any], raw: dict[str, Any], emails: Emails) -> Line:
    author, editor = _account(raw.get("completed_by"), emails), _account(raw.get("updated_by"), emails)
    size = len(json.dumps(raw))
    if size > MAX_RAW:
        raw = {**raw, "result": None, "oversize": size}
    data = task["data"] if isinstance(task["data"], dict) else {}
    return Line(
        kind=kind,
        task=str(data.get("key", "")),
        task_id=int(task["id"]),
        id=int(raw["id"]),
        author=author,
        editor=editor,
        task_at=task["updated_at"],
        deleted=False,
        raw=raw,
        shown=digest(data.get("image")) if kind == "validate" else "",
    )


def _deleted(annotation: Annotation, at: str, by: str) -> Line:
    """by: the account that deleted it; empty where that is not known."""
    last, raw = annotation.latest, {DELETED_BY: by}
    return Line(last.kind, last.task, last.task_id, last.id, last.author, last.editor, at, deleted=True, raw=raw)


def _last_editor(task: dict[str, Any], emails: Emails) -> str:
    """The account that changed a task, or deleted an annotation of it, last."""
    editors = task.get("updated_by")
    last = editors[0] if isinstance(editors, list) and editors and isinstance(editors[0], dict) else {}
    return _account(last.get("user_id"), emails)


def _account(number: object, emails: Emails) -> str:
    if not isinstance(number, int):
        return ""
    return emails[number]
