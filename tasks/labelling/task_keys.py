"""Which task of Label Studio was published under which key: whoever has an account there can change the key.

It is kept in `.dadc/tasks`, as each task was first seen. Where it is missing, the key counts that the task bears.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import write_whole
from data.layout import Round
from tasks.labelling.client import LabelStudio


def known_keys(round_: Round, project: int) -> dict[int, str]:
    """The record's id of each task of the project → its key."""
    return {int(number): key for number, key in _read(round_).get(str(project), {}).items()}


def remember_keys(round_: Round, studio: LabelStudio, project: int, data: Mapping[int, Any]) -> dict[int, str]:
    """Write down the keys of a project's tasks; those that are known now. Of several tasks with one key the one that is
    known has it, or the oldest. A task that is gone is forgotten: Label Studio may give its id to another.

    data: as `LabelStudio.task_data` gives it.
    """
    before = known_keys(round_, project)
    tasks = {studio.recorded_task(number): held for number, held in sorted(data.items())}
    known = {number: key for number, key in before.items() if number in tasks}
    taken = set(known.values())
    for number, held in tasks.items():
        key = held.get("key") if isinstance(held, dict) else None
        if isinstance(key, str) and number not in known and key not in taken:
            known[number] = key
            taken.add(key)
    if known != before:
        write_whole(_path(round_), json.dumps({**_read(round_), str(project): known}) + "\n")
    return known


def _read(round_: Round) -> dict[str, dict[str, str]]:
    path = _path(round_)
    content: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _path(round_: Round) -> Path:
    return round_.workspace.local / "tasks" / f"{round_.name}.json"
