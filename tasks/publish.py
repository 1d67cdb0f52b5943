"""Tasks for people: blank canvases for annotators, candidates for validators. Publishing twice adds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.layout import Round
from data.records import Candidate, Verdict
from data.shards import decode_png
from tasks import ink, projects, stage
from tasks.annotations import DELETED
from tasks.labelling import LabelStudio
from tasks.params import Params, Validate, read
from tasks.seeds import derive
from tasks.services import ServiceDown, Services


def publish_drawing(studio: LabelStudio, round_: Round, params: Params, splits: dict[str, Any]) -> int:
    """The round's drawing tasks: blank canvases on which an annotator draws a class of their choice. How many are new.

    A task holds its key and the canvas, nothing else.
    """
    project = studio.ensure_project(
        projects.title(params.campaign, round_, "draw"),
        projects.draw_page(splits["classes"]),
        instruction=projects.DRAW_HELP,
    )
    canvas = ink.blank(splits["size"], splits["channels"])
    return studio.publish(project, {key: {"image": canvas} for key in projects.drawing_keys(round_, params)})


def attach_model(studio: LabelStudio, round_: Round, params: Params, services: Services) -> None:
    """Let annotators ask the model from within the drawing page. ServiceDown if Label Studio cannot reach it."""
    project = studio.find(projects.title(params.campaign, round_, "draw"))
    if project is None:
        raise ValueError(f"round {round_.name} has no drawing project yet; publish it first")
    if not (services.model_url and services.model_user and services.model_password):
        raise ServiceDown("model", services.model_url)
    studio.attach_model(project, services.model_url, services.model_user, services.model_password)


def publish_validation(studio: LabelStudio, round_: Round, candidates: Sequence[Candidate], params: Params) -> int:
    """A validation task for each judged candidate that is due, and one more person for each that is still undecided.
    How many tasks are new.

    The task holds the image and a key that says nothing; the order is shuffled. It is first given to as many people as
    a consensus needs; while their votes disagree, to one more at a time up to `max_votes`.
    """
    wanted = sorted(
        (c for c in candidates if due(c, params)), key=lambda c: (derive(params.seed, "order", c.key), c.key)
    )
    base = stage.base(round_.workspace)
    project = studio.ensure_project(
        projects.title(params.campaign, round_, "validate"),
        projects.validate_page(base.classes),
        instruction=projects.VALIDATE_HELP,
        votes=params.validate_.consensus,
    )
    by_key = {projects.vote_key(params, c): c for c in wanted}
    there = studio.tasks(project)
    pictures = {
        key: {"image": ink.picture(decode_png(c.image, base.channels))} for key, c in by_key.items() if key not in there
    }
    studio.publish(project, pictures)
    for key, candidate in by_key.items():
        people = people_wanted(candidate, params.validate_)
        if key in there and people > there[key].people:
            studio.ask_for(there[key].id, people)
    return len(pictures)


def due(candidate: Candidate, params: Params) -> bool:
    """Whether validators are asked about it: if it fools, and for a seeded share of those that do not."""
    if not (candidate.wellformed and candidate.judged):
        return False
    drawn = derive(params.seed, "non-fooling", candidate.key) / 2**31
    return candidate.fooling or drawn < params.validate_.non_fooling_share


def people_wanted(candidate: Candidate, rules: Validate) -> int:
    """How many annotations the candidate's task is to have, those that do not count included."""
    counted = [vote.choice for vote in candidate.votes if vote.counted]
    there = sum(vote.reason != DELETED for vote in candidate.votes)
    if candidate.verdict is not Verdict.PENDING or len(counted) >= rules.max_votes:
        return there
    best = max((counted.count(choice) for choice in counted), default=0)
    return there + min(rules.consensus - best, rules.max_votes - len(counted))


def unfinished(studio: LabelStudio, round_: Round) -> int:
    """Tasks of the round that still want somebody."""
    campaign = read(round_.params).campaign
    found = [studio.find(projects.title(campaign, round_, kind)) for kind in projects.KINDS]
    return sum(studio.counts(project)[0] for project in found if project is not None)
