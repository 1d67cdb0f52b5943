"""What comes after a round was frozen goes to the next one; what is deleted is kept; nothing is unaccounted for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from open_round import Play, make_round, pulled_now, under_git
from round_states import mark_closed

from data.files import write_whole
from data.records import DELETED, Verdict
from data.shards import write_candidates
from flows.audit.reconcile import reconcile
from flows.campaign import Campaign
from tasks.judge import judge
from tasks.labelling import drawing, projects
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.projects import INTENDED, drawing_keys
from tasks.publish import publish_drawing
from tasks.record.annotations import pulled
from tasks.record.record import Record
from tasks.workspace.git import commit
from tasks.workspace.rounds import write_index
from tasks.workspace.services import find_services


def drawn(name: str) -> list[dict[str, Any]]:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[100:200, 100:200] = 255
    return [drawing.region(alpha, "ink"), drawing.chosen(INTENDED, "class", name)]


@pytest.fixture
def studio(services: Path) -> LabelStudio:
    return connect(find_services(services))


def freeze(play: Play) -> None:
    """Close round 001 as `dadc close` does, as far as later rounds look at it."""
    round_ = play.round
    found = judge(play.record.candidates, round_.workspace.round(0).challenger.model)
    write_candidates(round_.candidates, [replace(c, verdict=Verdict.VERIFIED) if c.wellformed else c for c in found])
    write_whole(round_.lineage, json.dumps({"pulled": pulled(play.record.lines, round_)}))
    mark_closed(round_)


def test_what_comes_late_goes_to_the_next_round(studio: LabelStudio, tmp_path: Path, checkout: Path) -> None:
    play = make_round(tmp_path, checkout)
    under_git(play)
    workspace, name = play.round.workspace, play.params.campaign
    publish_drawing(studio, play.round, play.params, play.spec)
    project = studio.find(projects.title(name, play.round, "draw"))
    assert project is not None
    keys, there = drawing_keys(play.round, play.params), studio.tasks(project)
    ann = studio.person(f"ann.{name}@example.org", "correct-horse-7")
    ann.submit(there[projects.guide_key(play.round)].id, drawn("1"), 1.0)
    first = ann.submit(there[keys[0]].id, drawn("1"), 1.0)
    ann.submit(there[keys[1]].id, drawn("2")[:1], 1.0)  # no class
    assert pulled_now(studio, play.round) == 3
    freeze(play)
    frozen = play.round.annotations.read_bytes()

    second = workspace.round(2)
    second.folder.mkdir()
    shutil.copy(play.round.params, second.params)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    write_candidates(second.attack, [])
    commit(workspace, "Open round 002", second.params)
    publish_drawing(studio, second, play.params, play.spec)
    late = ann.submit(there[keys[2]].id, drawn("3"), 1.0)
    ann.submit(there[keys[0]].id, drawn("4"), 1.0)  # of a task that has its drawing
    assert pulled_now(studio, second) == 2
    assert pulled_now(studio, second) == 0, "once"
    seconds = studio.find(projects.title(name, second, "draw"))
    assert seconds is not None
    ann.submit(studio.tasks(seconds)[drawing_keys(second, play.params)[0]].id, drawn("8"), 1.0)
    assert pulled_now(studio, second) == 1
    assert pulled_now(studio, second) == 0, "what lies in one project is not missed in the other"
    found = Record.read(second).candidates
    assert [(c.key.startswith(keys[2]), c.round, c.wellformed, c.late) for c in found if c.wellformed and c.late] == [
        (True, 2, True, True)
    ]
    (twice,) = [c for c in found if not c.wellformed]
    assert (twice.round, twice.reason) == (2, "the task has a drawing already")
    judged = judge(found, workspace.round(0).challenger.model)
    assert all(c.judged for c in judged if c.wellformed), "anew, by the target of the round it goes to"

    studio._sdk.annotations.delete(first)
    ann.submit(there[keys[3]].id, drawn("5"), 1.0)  # as many as before
    assert pulled_now(studio, second) == 1
    assert play.round.annotations.read_bytes() == frozen, "a closed round's record stays"
    told = reconcile(Campaign(workspace, play.params, play.spec))
    assert told[0] == "round 001: 5 annotations in Label Studio = 1 malformed + 3 late + 1 practice"
    assert "round 001: 1 deleted in Label Studio after they were pulled, kept here" in told
    ann.submit(there[keys[3]].id, drawn("6"), 1.0)
    told = reconcile(Campaign(workspace, play.params, play.spec))
    assert told[0] == "round 001: 6 annotations in Label Studio = 1 malformed + 3 late + 1 practice + 1 not pulled"

    ann.edit(late, drawn("7"))
    assert pulled_now(studio, second) == 2
    by_id = {c.annotation: c for c in Record.read(second).candidates}
    assert (by_id[late].intended, by_id[late].late) == (7, True), "may be corrected while its new round is open"
    ann.delete(late)
    assert pulled_now(studio, second) == 1
    assert pulled_now(studio, second) == 0
    by_id = {c.annotation: c for c in Record.read(second).candidates}
    assert by_id[late].reason == DELETED

    title = projects.title(name, play.round, "draw")
    studio._sdk.projects.update(project, title="renamed")
    told = reconcile(Campaign(workspace, play.params, play.spec))
    assert told[0] == f"round 001: Label Studio has no project {title!r}; was it renamed, or deleted?"
    assert not any("deleted in Label Studio" in line for line in told)
