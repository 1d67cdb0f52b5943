"""Tasks for people: blank canvases for annotators, candidates for validators. Publishing twice adds nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from data.layout import Round
from data.records import Candidate, ImageSpec
from tasks.config.params import Params, read
from tasks.config.seeds import derive
from tasks.labelling import attached, projects
from tasks.labelling.client import LabelStudio
from tasks.labelling.image_digests import digest, picture, picture_digests
from tasks.labelling.task_keys import remember_keys
from tasks.quality.consensus import people_wanted
from tasks.record.candidates import probes
from tasks.record.published import EVERYBODY, drawing_tasks, editing_tasks, ensure_practice, page_of
from tasks.record.record import Record
from tasks.workspace.checkout import image_spec
from tasks.workspace.services import ServiceDown, Services

REOPENED = 5  # people to whom a task is given at most because what the ones before submitted was malformed


def publish_drawing(studio: LabelStudio, round_: Round, params: Params, spec: ImageSpec) -> int:
    """The round's drawing tasks: blank canvases on which an annotator draws a class of their choice. How many are new.

    The first is a practice that everybody is given and that does not count. A task holds its key, the canvas and a
    line of advice.
    """
    project = _project(studio, round_, params, spec, "draw")
    ensure_practice(studio, project, round_, params, spec)
    new = studio.publish(project, drawing_tasks(round_, params, spec))
    remember_keys(round_, studio, project, studio.task_data(project))
    return new


def publish_editing(studio: LabelStudio, round_: Round, params: Params, spec: ImageSpec) -> int:
    """The round's editing tasks, each over a seed image of its own. How many are new. None wanted: no project."""
    tasks = editing_tasks(round_, params, spec)
    if not tasks:
        return 0
    project = _project(studio, round_, params, spec, "edit")
    new = studio.publish(project, tasks)
    remember_keys(round_, studio, project, studio.task_data(project))
    return new


def reopen_spoiled(studio: LabelStudio, record: Record) -> int:
    """Give to one more person each drawing or editing task of which only malformed annotations came, such as one that
    was submitted without ink. How many."""
    round_, params = record.round, record.params
    wellformed = {c.key for c in record.candidates if c.wellformed}
    spoiled = {"/".join(c.key.split("/")[:3]) for c in record.candidates if not c.wellformed} - wellformed
    reopened = 0
    keys_of: dict[projects.Kind, Callable[[Round, Params], list[str]]]
    keys_of = {"draw": projects.drawing_keys, "edit": projects.editing_keys}
    for kind, keys in keys_of.items():
        spent = spoiled & set(keys(round_, params))
        project = studio.find(projects.title(params.campaign, round_, kind)) if spent else None
        for key, task in studio.tasks(project).items() if project is not None else ():
            if key in spent and not task.open and task.annotations < REOPENED:
                studio.ask_for(task.id, task.annotations + 1)
                reopened += 1
    return reopened


def _project(studio: LabelStudio, round_: Round, params: Params, spec: ImageSpec, kind: projects.Kind) -> int:
    page, instruction, votes = page_of(params, spec, kind)
    title = projects.title(params.campaign, round_, kind)
    return studio.ensure_project(title, page, instruction=instruction, votes=votes)


def attach_model(studio: LabelStudio, round_: Round, params: Params, services: Services) -> None:
    """Let annotators ask the model from within their pages. ServiceDown if Label Studio cannot reach it."""
    found = {kind: studio.find(projects.title(params.campaign, round_, kind)) for kind in projects.KINDS}
    if found["draw"] is None:
        raise ValueError(f"round {round_.name} has no drawing project yet; publish it first")
    if not (services.model_url and services.model_user and services.model_password):
        raise ServiceDown("model", services.model_url)
    attached.remember_address(round_.workspace, services.model_url)
    for kind, project in found.items():
        if project is None:
            continue
        if kind == "validate":  # no model answers there; it is told of the votes
            attached.restore_webhooks(studio, project, services.model_url)
        else:
            attached.attach_model(studio, project, services.model_url, services.model_user, services.model_password)


def publish_validation(
    studio: LabelStudio, record: Record, candidates: Sequence[Candidate], say: Callable[[str], None] = print
) -> int:
    """A validation task for each judged candidate that is due, and one more person for each that is still undecided.
    How many tasks are new.

    The task holds the image and a key that says nothing; the order is shuffled. It is first given to as many people as
    a consensus needs; while their votes disagree, to one more at a time up to `max_votes`. The probes are among the
    first, look the same, and are given to everybody. A task of nothing that is asked any more, because its drawing was
    corrected or withdrawn, is taken back; a picture that somebody changed is put back.
    """
    round_, params, channels = record.round, record.params, record.spec.channels
    judged = [c for c in candidates if due(c, params)]
    probes = record.probes if judged else []
    asked = sorted([*judged, *probes], key=lambda c: (derive(params.seed, "order", c.key), c.key))
    project = _project(studio, round_, params, record.spec, "validate")
    by_key = {projects.vote_key(params, c): c for c in asked}
    published = studio.tasks(project)

    def task(candidate: Candidate) -> dict[str, str]:
        return {"image": picture(candidate, channels)}

    pictures = {key: partial(task, c) for key, c in by_key.items() if key not in published}
    if studio.publish(project, pictures):
        remember_keys(round_, studio, project, studio.task_data(project))
    digests = picture_digests(round_, {key: by_key[key] for key in by_key.keys() & published.keys()}, channels)
    for key, other in published.items():
        if key not in by_key:
            if other.open:
                studio.ask_nobody(other)
        elif digest(other.image) != digests[key]:
            studio.show(other.id, {**task(by_key[key]), "key": key})
            say(f"put back the picture of task {other.id}, which somebody had changed; votes cast on it do not count")
    for_everybody = {projects.vote_key(params, probe) for probe in probes}
    if for_everybody - published.keys():
        published = studio.tasks(project)
    for key, candidate in by_key.items():
        people = EVERYBODY if key in for_everybody else people_wanted(candidate, params.validate_)
        if key in published and people > published[key].people:
            studio.ask_for(published[key].id, people)
    return len(pictures.keys() - for_everybody)


def due(candidate: Candidate, params: Params) -> bool:
    """Whether validators are asked about it: if it fools, and for a seeded share of those that do not."""
    if not (candidate.wellformed and candidate.judged):
        return False
    drawn = derive(params.seed, "non-fooling", candidate.key) / 2**31
    return candidate.fooling or drawn < params.validate_.non_fooling_share


def unfinished(studio: LabelStudio, round_: Round) -> int:
    """Tasks of the round that still want somebody; the practice and the probes, which always do, are none of them."""
    params, left = read(round_.params), 0
    for kind in projects.KINDS:
        project = studio.find(projects.title(params.campaign, round_, kind))
        if project is None:
            continue
        open_tasks = {key for key, task in studio.tasks(project).items() if task.open}
        if kind == "validate":
            shown = probes(round_, params, image_spec(round_.workspace).channels)
            open_tasks -= {projects.vote_key(params, probe) for probe in shown}
        else:
            keys = projects.drawing_keys if kind == "draw" else projects.editing_keys
            open_tasks &= set(keys(round_, params))
        left += len(open_tasks)
    return left
