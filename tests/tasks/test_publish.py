"""Tasks for people, on a real Label Studio."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.records import UNREADABLE, Candidate, Verdict, Vote
from data.shards import encode_png
from tasks import publish
from tasks.config.params import Validate
from tasks.labelling import label_config, projects
from tasks.labelling.client import LabelStudio
from tasks.quality import consensus
from tasks.record.pool import seed_images


def candidate(number: int, **changes: Any) -> Candidate:
    pixels = torch.full((1, 28, 28), number, dtype=torch.uint8)
    made = Candidate(f"001/pgd/{number}", 1, "pgd", encode_png(pixels), intended=3, answer=5, probability=0.9)
    return replace(made, **changes)


def picture(task: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(task["data"]["image"].split(",")[1])))


def raw(studio: LabelStudio, project: int) -> list[dict[str, Any]]:
    return list(studio.changed(project, "1970-01-01T00:00:00.000000Z"))


def test_a_practice_comes_first_then_blank_canvases(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    assert publish.publish_drawing(studio, play.round, play.params, play.spec) == 4
    assert publish.publish_drawing(studio, play.round, play.params, play.spec) == 0
    project = studio.find(f"{play.params.campaign} 001 draw")
    assert project is not None
    practice, *tasks = sorted(raw(studio, project), key=lambda task: int(task["id"]))
    assert [set(task["data"]) for task in tasks] == [{"image", "key", "note"}] * 4
    canvas = picture(tasks[0])
    assert canvas.size == (280, 280)
    assert canvas.getextrema() == (0, 0)
    assert practice["data"]["key"] == projects.guide_key(play.round)
    assert "does not count" in practice["data"]["note"]
    assert 0 < picture(practice).getextrema()[1] < 160, "faint, to be traced"
    people = studio.tasks(project)
    assert people[projects.guide_key(play.round)].people == publish.EVERYBODY
    assert {people[key].people for key in projects.drawing_keys(play.round, play.params)} == {1}
    assert publish.unfinished(studio, play.round) == 4


def test_editing_tasks_show_their_seed_images(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round(collect={"edits": 3})
    assert publish.publish_editing(studio, play.round, play.params, play.spec) == 3
    assert publish.publish_editing(studio, play.round, play.params, play.spec) == 0
    project = studio.find(projects.title(play.params.campaign, play.round, "edit"))
    assert project is not None
    shown = {task["data"]["key"]: np.array(picture(task)) for task in raw(studio, project)}
    for key, index in zip(shown, seed_images(1, play.params, len(play.pool)).edits, strict=True):
        assert (shown[key][::10, ::10] == play.pool.pixels_NCHW[index, 0].numpy()).all()


def test_no_edits_no_project(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    assert publish.publish_editing(studio, play.round, play.params, play.spec) == 0
    assert studio.find(projects.title(play.params.campaign, play.round, "edit")) is None


def test_a_second_project_of_the_same_title_is_not_used(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    title = projects.title(play.params.campaign, play.round, "draw")
    page = label_config.draw_page(play.pool.classes)
    first = studio.ensure_project(title, page, instruction="")
    assert studio.ensure_project(title, page, instruction="") == first
    assert studio.find(title[:-1]) is None, "a title is compared whole"
    publish.publish_drawing(studio, play.round, play.params, play.spec)
    assert len(raw(studio, first)) == 1 + 4, "a project that a half-dead run left empty is filled"


def test_what_validators_see_gives_nothing_away(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round(validate={"non_fooling_share": 0.5, "consensus": 2})
    fooling = [candidate(n) for n in range(10)]
    plain = [candidate(n, answer=3) for n in range(100, 140)]
    unjudged, broken = candidate(200, answer=-1), candidate(201, wellformed=False, image=b"")
    new = publish.publish_validation(studio, play.record, [*fooling, *plain, unjudged, broken])
    assert 10 + 8 <= new <= 10 + 32, "all that fool, and about half of the others"
    project = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert project is not None
    tasks = raw(studio, project)
    assert len(tasks) == new
    assert all(set(t["data"]) == {"image", "key"} for t in tasks)
    keys = {projects.vote_key(play.params, c): c.key for c in [*fooling, *plain]}
    order = [keys[t["data"]["key"]] for t in tasks]
    assert {c.key for c in fooling} <= set(order)
    assert order != sorted(order), "shuffled"
    assert publish.publish_validation(studio, play.record, [*plain, *fooling]) == 0


def test_probes_look_like_candidates_and_are_given_to_everybody(
    studio: LabelStudio, open_round: Callable[..., Any]
) -> None:
    play = open_round(validate={"probes": 3, "consensus": 2, "non_fooling_share": 0.0})
    assert publish.publish_validation(studio, play.record, [candidate(1, answer=3)]) == 0
    project = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert project is not None
    assert raw(studio, project) == [], "where there is nothing to hide among, no probe"
    made = [candidate(n) for n in range(9)]
    assert publish.publish_validation(studio, play.record, made) == 9
    known = play.record.probes
    assert [(p.source, p.by_people, len(p.image) > 0) for p in known] == [("probe", False, True)] * 3
    keys = {projects.vote_key(play.params, p) for p in known}
    tasks = sorted(raw(studio, project), key=lambda task: int(task["id"]))
    assert len(tasks) == 12
    assert {frozenset(t["data"]) for t in tasks} == {frozenset({"image", "key"})}
    assert {(len(t["data"]["key"]), picture(t).size, picture(t).mode) for t in tasks} == {(32, (280, 280), "L")}
    places = [number for number, task in enumerate(tasks) if task["data"]["key"] in keys]
    assert len(places) == 3
    assert places != [0, 1, 2], "among the others"
    assert places != [9, 10, 11], "among the others"
    people = {key: task.people for key, task in studio.tasks(project).items()}
    assert {people[key] for key in keys} == {publish.EVERYBODY}
    assert {n for key, n in people.items() if key not in keys} == {2}
    publish.publish_drawing(studio, play.round, play.params, play.spec)
    assert publish.unfinished(studio, play.round) == 9 + play.params.collect.drawings
    assert publish.publish_validation(studio, play.record, made) == 0
    assert len(raw(studio, project)) == 12


def test_undecided_candidates_are_given_to_one_more_person(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round(validate={"consensus": 2, "max_votes": 4})
    made = [candidate(1), candidate(2)]
    publish.publish_validation(studio, play.record, made)
    project = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert project is not None

    def people() -> list[int]:
        there = studio.tasks(project)
        return [there[projects.vote_key(play.params, c)].people for c in made]

    assert people() == [2, 2]
    split = (Vote("a@x", 3, 1, ""), Vote("b@x", 5, 2, ""))
    agreed = (Vote("a@x", 3, 3, ""), Vote("b@x", 3, 4, ""))
    made = [replace(made[0], votes=split), replace(made[1], votes=agreed, verdict=Verdict.VERIFIED)]
    publish.publish_validation(studio, play.record, made)
    assert people() == [3, 2]


@pytest.mark.parametrize(
    ("choices", "uncounted", "wanted"),
    [((), 0, 2), ((3,), 0, 2), ((3, 5), 0, 3), ((3, 5, 7), 0, 4), ((3, 5, 7, UNREADABLE), 0, 4), ((3,), 2, 4)],
)
def test_people_wanted(choices: tuple[int, ...], uncounted: int, wanted: int) -> None:
    rules = Validate(consensus=2, max_votes=4, non_fooling_share=0.0, unsettled="pending")
    cast = [Vote(f"{n}@x", choice, n, "") for n, choice in enumerate(choices)]
    cast += [Vote(f"u{n}@x", 3, 90 + n, "", counted=False, reason="own") for n in range(uncounted)]
    made = candidate(1, votes=tuple(cast))
    assert consensus.people_wanted(made, rules) == wanted
    assert consensus.votes_missing(made, rules) == wanted - len(cast)
    assert consensus.votes_missing(replace(made, verdict=Verdict.VERIFIED), rules) == 0
