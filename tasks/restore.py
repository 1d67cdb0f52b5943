"""The round's projects, made again what they were published as: whoever has an account in Label Studio can change them.

What was pulled stands, whatever became of the project it was made in. What is still to do is published again.
"""

from __future__ import annotations

from collections.abc import Callable

from tasks.labelling import projects
from tasks.labelling.client import LabelStudio
from tasks.record.annotations import gather
from tasks.record.published import drawing_tasks, editing_tasks, ensure_practice, locate, page_of
from tasks.record.record import Record


def restore(studio: LabelStudio, record: Record, say: Callable[[str], None]) -> list[projects.Kind]:
    """Put titles, pages, settings and tasks back; a line for each thing that had been changed. Validation tasks are
    `publish_validation`'s. The kinds of the projects that were made anew, to which no model is attached yet."""
    round_, params, spec = record.round, record.params, record.spec
    anew: list[projects.Kind] = []
    for kind in projects.KINDS:
        title = projects.title(params.campaign, round_, kind)
        page, instruction, votes = page_of(params, spec, kind)
        recorded = gather([line for line in record.lines if not line.late], kind)
        titled = studio.find(title)
        found = locate(studio, None if titled is None else (titled, studio.annotations(titled)), recorded)
        if found is None and (kind == "validate" or (kind == "edit" and not params.collect.edits)):
            continue  # not made yet, or made by publish_validation
        if found is None:
            project = studio.ensure_project(title, page, instruction=instruction, votes=votes)
            say(f"the project {title!r} was gone and is made anew; what was pulled from it stands")
            anew.append(kind)
        else:
            project = found[0]
            if project != titled:
                studio.rename(project, title)
                say(f"the project {project} has its title {title!r} again, which somebody had changed")
            if changed := studio.put_back(project, page, instruction, votes):
                say(f"put back in the project {title!r}, which somebody had changed: {', '.join(changed)}")
        if kind != "validate":
            _restore_tasks(studio, record, kind, project, say)
    return anew


def _restore_tasks(
    studio: LabelStudio, record: Record, kind: projects.Kind, project: int, say: Callable[[str], None]
) -> None:
    """Publish the tasks that are gone and still to do; take back those whose drawing stands though it was deleted."""
    make = drawing_tasks if kind == "draw" else editing_tasks
    done = {c.key for c in record.candidates if c.by_people and c.wellformed}
    tasks = make(record.round, record.params, record.spec)
    if kind == "draw":
        ensure_practice(studio, project, record.round, record.params, record.spec)
    published = studio.tasks(project)
    new = studio.publish(project, {key: task for key, task in tasks.items() if key not in done})
    if new:
        say(f"published {new} tasks again that are still to do and were gone from project {project}")
    for key in done & published.keys():
        if published[key].open:
            studio.ask_nobody(published[key])
