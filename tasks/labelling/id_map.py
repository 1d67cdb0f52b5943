"""A campaign whose Label Studio projects were put into another server: there, tasks and annotations have other ids.

The record goes on with the ids it has. `.dadc/moved.json` says which is which; what is made on the new server gets ids
beyond all of the old one's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.files import write_whole
from data.layout import Workspace

BEYOND = 10**9  # added to an id of the new server that stands for none of the old one


@dataclass
class IdMap:
    """Ids of the server (as text, keys of JSON) → those of the record."""

    tasks: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # {"id", "raw"} by record, {"at"} on the server
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # raw, by task: what no server takes (skipped)
    beyond: int = 0

    def recorded(self, tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Tasks as the server gives them → as the record knows them; what nobody has touched since is the old form."""
        for task in tasks:
            number = self.task_in_record(task["id"])
            found = []
            for raw in task["annotations"]:
                known = self.annotations.get(str(raw["id"]))
                if known is None:
                    found.append({**raw, "id": raw["id"] + self.beyond})
                elif raw["updated_at"] == known["at"]:
                    found.append(known["raw"])
                else:
                    found.append({**raw, "id": known["id"]})
            yield {**task, "id": number, "annotations": [*found, *self.kept.get(str(number), ())]}

    def task_on_server(self, recorded: int) -> int:
        """The server's id of a task that the record knows by another."""
        moved = (int(number) for number, known in self.tasks.items() if known == recorded)
        return next(moved, recorded - self.beyond if recorded >= self.beyond else recorded)

    def task_in_record(self, number: int) -> int:
        """The record's id of a task of the server."""
        return self.tasks.get(str(number), number + self.beyond)


def path(workspace: Workspace) -> Path:
    """Where the ids are written down; it is about this machine's server."""
    return workspace.local / "moved.json"


def read(at: Path | None) -> IdMap:
    """What was written; nothing moved where there is no file."""
    return IdMap(**json.loads(at.read_text(encoding="utf-8"))) if at is not None and at.exists() else IdMap()


def write(at: Path, moved: IdMap) -> None:
    """Write it down."""
    write_whole(at, json.dumps(asdict(moved), sort_keys=True) + "\n")
