"""The round's projects, made again what they were published as: whoever has an account in Label Studio can change them.

What was pulled stands, whatever became of the project it was made in. What is still to do is published again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.labelling import projects
from tasks.labelling.attached import attached, own_addresses, restore_webhooks
from tasks.labelling.client import LabelStudio
from tasks.labelling.task_keys import remember_keys
from tasks.record.annotations import gather
from tasks.record.published import (
    drawing_tasks,
    editing_tasks,
    ensure_practice,
    locate,
    page_of,
    practice_task,
)
from tasks.record.record import Record
from tasks.workspace.services import Services


@dataclass(frozen=True)
class Restored:
    """What is left to do after a restoration."""

    detached: bool = False  # a project has not the campaign's model server, and it alone
    leaked_to: tuple[str, ...] = ()  # addresses that somebody had put in its place; they were sent its log-in


def restore(studio: LabelStudio, record: Record, services: Services, say: Callable[[str], None]) -> Restored:
    """Put titles, pages, settings, webhooks and tasks back; a line for each thing that had been changed. Pictures of
    validation tasks are `publish_validation`'s. services: with no address of a model server, none is compared."""
    detached, leaked_to = False, set[str]()
    for kind in projects.KINDS:
        project = _restore_project(studio, record, kind, say)
        if project is None:
            continue
        _restore_tasks(studio, record, kind, project, say)
        if not services.model_url:
            continue
        for url in restore_webhooks(studio, project, services.model_url):
            say(f"deleted a webhook that somebody had added to project {project}, which went to {url}")
        if kind == "validate":  # no model answers there
            continue
        servers = attached(studio, project)
        if servers != [(services.model_url, services.model_user, True)]:
            detached = True
        leaked_to |= {url for url, _, _ in servers} - {services.model_url, *own_addresses(record.round.workspace)}
    return Restored(detached, tuple(sorted(leaked_to)))


def _restore_project(
    studio: LabelStudio, record: Record, kind: projects.Kind, say: Callable[[str], None]
) -> int | None:
    """The project of this kind; None where the round has none yet, or `publish_validation` makes it."""
    params = record.params
    title = projects.title(params.campaign, record.round, kind)
    page, instruction, votes = page_of(params, record.spec, kind)
    recorded = gather([line for line in record.lines if not line.late], kind)
    titled = studio.find(title)
    found = locate(studio, None if titled is None else (titled, studio.annotations(titled)), recorded)
    if found is None and (kind == "validate" or (kind == "edit" and not params.collect.edits)):
        return None
    if found is None:
        say(f"the project {title!r} was gone and is made anew; what was pulled from it stands")
        return studio.ensure_project(title, page, instruction=instruction, votes=votes)
    if found[0] != titled:
        studio.rename(found[0], title)
        say(f"the project {found[0]} has its title {title!r} again, which somebody had changed")
    if changed := studio.put_back(found[0], page, instruction, votes):
        say(f"put back in the project {title!r}, which somebody had changed: {', '.join(changed)}")
    return found[0]


def _restore_tasks(
    studio: LabelStudio, record: Record, kind: projects.Kind, project: int, say: Callable[[str], None]
) -> None:
    """Put back what tasks hold, publish those that are gone and still to do, and take back those whose drawing stands
    though it was deleted."""
    expected = _tasks_of(record, kind)
    published = studio.task_data(project)
    keys = remember_keys(record.round, studio, project, published)
    changed = []
    for number, data in published.items():
        key = keys.get(studio.recorded_task(number))
        if key is None:
            continue
        original = {**expected.get(key, data if isinstance(data, dict) else {}), "key": key}
        if data != original:
            studio.show(number, original)
            changed.append(number)
    if changed:
        tasks_changed = f"{len(changed)} tasks of project {project} ({', '.join(map(str, changed[:5]))}, …)"
        one = f"task {changed[0]} of project {project}"
        say(f"put back what {one if len(changed) == 1 else tasks_changed} held, which somebody had changed")
    if kind == "validate":
        return
    if kind == "draw":
        ensure_practice(studio, project, record.round, record.params, record.spec)
    done = {c.key for c in record.candidates if c.by_people and c.wellformed}
    guide = projects.guide_key(record.round)
    if new := studio.publish(project, {k: task for k, task in expected.items() if k not in done and k != guide}):
        say(f"published {new} tasks again that are still to do and were gone from project {project}")
        remember_keys(record.round, studio, project, studio.task_data(project))
    tasks = studio.tasks(project)
    for key in done & tasks.keys():
        if tasks[key].open:
            studio.ask_nobody(tasks[key])


def _tasks_of(record: Record, kind: projects.Kind) -> dict[str, dict[str, str]]:
    """Key → what the task was published with besides. Of validation tasks nothing: their pictures are compared by
    digest."""
    given = (record.round, record.params, record.spec)
    if kind == "draw":
        return {projects.guide_key(record.round): practice_task(*given), **drawing_tasks(*given)}
    return editing_tasks(*given) if kind == "edit" else {}
