"""A campaign's Label Studio projects as a file, and such a file → projects of another server.

Kept: projects with their pages, tasks, how many people each is for, annotations as they were last, with author and
time taken. Not kept: when and by whom else an annotation was changed and what was skipped, which the record has;
drafts, passwords, and settings made by hand in Label Studio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data.layout import Round
from tasks.config.params import read
from tasks.labelling import id_map as moving
from tasks.labelling.client import UNTOLD, LabelStudio
from tasks.labelling.projects import KINDS, title
from tasks.workspace.rounds import rounds
from tasks.workspace.services import Services


def take(studio: LabelStudio, collected: Sequence[Round]) -> list[dict[str, Any]]:
    """Every project of these rounds: {"title", "page", "instruction", "votes", "tasks"}, with the record's ids."""
    emails, taken = studio.emails(), []
    for round_ in collected:
        for kind in KINDS:
            project = studio.find(title(read(round_.params).campaign, round_, kind))
            if project is None:
                continue
            tasks = list(studio.recorded(project, "1970-01-01T00:00:00.000000Z", also="overlap"))
            for task in tasks:
                for raw in task["annotations"]:
                    raw["author"] = emails.get(raw.get("completed_by"), "")
            taken.append({**studio.described(project), "tasks": sorted(tasks, key=lambda task: int(task["id"]))})
    return taken


def put(
    studio: LabelStudio, services: Services, taken: Sequence[dict[str, Any]], say: Callable[[str], None]
) -> moving.IdMap:
    """Put projects into a server that has none of them, under accounts of the same addresses; which id became which.

    Cut short and begun again, it makes nothing twice.
    """
    ids = [int(each["id"]) for p in taken for task in p["tasks"] for each in (task, *task["annotations"])]
    known = moving.IdMap(beyond=(max(ids, default=0) // moving.BEYOND + 1) * moving.BEYOND)
    for project in taken:
        number = studio.ensure_project(
            project["title"], project["page"], instruction=project["instruction"], votes=project["votes"]
        )
        by_key = {task["data"]["key"]: task for task in project["tasks"]}
        data = {key: {k: v for k, v in task["data"].items() if k != "key"} for key, task in by_key.items()}
        studio.publish(number, data)
        there = studio.tasks(number)
        for key, task in by_key.items():
            known.tasks[str(there[key].id)] = int(task["id"])
            if there[key].people != task["overlap"]:
                studio.ask_for(there[key].id, task["overlap"])
        made = _annotations(studio, services, by_key, {key: there[key].id for key in by_key}, known)
        say(f"{project['title']}: {len(by_key)} tasks, {made} annotations")
        stamps = {int(a["id"]): a["updated_at"] for t in studio.changed(number, None) for a in t["annotations"]}
        for own, entry in known.annotations.items():
            if int(own) in stamps:
                entry["at"] = stamps[int(own)]
    return known


def _annotations(
    studio: LabelStudio,
    services: Services,
    tasks: dict[str, dict[str, Any]],
    ids: dict[str, int],
    known: moving.IdMap,
) -> int:
    """Submit each annotation as its author; how many there are now."""
    work: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for key, task in tasks.items():
        for annotation in task["annotations"]:
            raw = {name: value for name, value in annotation.items() if name != "author"}
            if raw.get("was_cancelled") or UNTOLD in raw or not annotation["author"]:
                known.kept.setdefault(str(task["id"]), []).append(raw)
            else:
                work.setdefault(annotation["author"], []).append((ids[key], {**raw, "author": annotation["author"]}))
    for author, own in sorted(work.items()):
        person = studio.person(author, services.password_for(author))
        try:
            for task_id, annotation in own:
                raw = {name: value for name, value in annotation.items() if name != "author"}
                new = person.submit_once(task_id, raw["result"], float(raw.get("lead_time") or 0.0))
                known.annotations[str(new)] = {"id": raw["id"], "raw": raw, "at": ""}
        finally:
            person.close()
    return sum(len(own) for own in work.values())


def collected(round_: Round) -> list[Round]:
    """The rounds that have projects, up to this one."""
    return [r for r in rounds(round_.workspace) if 0 < r.number <= round_.number]
