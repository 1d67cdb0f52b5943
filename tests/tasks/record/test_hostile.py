"""Over two hundred malformed annotations and votes, sent to a real Label Studio beside good ones.

They are generated: every part of a sound drawing is replaced by everything that a hostile client could put there. Those
that come as a list are brought in by the server's own import of tasks with annotations, which keeps them as they are;
the others through people's sessions. What the server refuses is counted apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.core.api_error import ApiError
from malformed import (
    BODIES,
    GOOD,
    PATHS,
    SOUND,
    at,
    drawings,
    sound,
    voted,
    votes,
)
from open_round import Play, make_round, pulled_now
from rich.console import Console

from data.layout import Round
from data.records import DELETED, Candidate, Verdict
from data.sets import digits
from data.shards import read_candidates, write_candidates
from flows.reports import leaderboard as board
from tasks.judge import judge
from tasks.labelling import drawing, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio
from tasks.publish import publish_drawing, publish_validation
from tasks.quality import leaderboard
from tasks.quality.progress import Progress
from tasks.record.annotations import gather, read_lines
from tasks.record.history import voting_seconds
from tasks.validate import validate


def post(person: Account, task: int, body: str) -> int:
    """Send a body as it is; the status."""
    headers = {"X-CSRFToken": person._http.cookies.get("csrftoken") or "", "Referer": person.url}
    headers["Content-Type"] = "application/json"
    return person._http.post(f"/api/tasks/{task}/annotations/", content=body.encode(), headers=headers).status_code


@dataclass(frozen=True)
class Scene:
    """An open round after everything hostile was sent."""

    play: Play
    studio: LabelStudio
    people: dict[str, Account]
    stored: dict[int, str]  # task → what is wrong with the annotation that was sent for it and that the server took
    refused: dict[str, int]  # what it did not take, and its status

    def project(self, kind: projects.Kind) -> int:
        found = self.studio.find(projects.title(self.play.params.campaign, self.play.round, kind))
        assert found is not None
        return found

    def task(self, key: str) -> int:
        return self.studio.tasks(self.project("draw"))[key].id

    def made(self) -> list[Candidate]:
        play = self.play
        found = judge(play.record.candidates, play.round.workspace.round(0).challenger.model)
        return validate(found, play.record.votes, play.params.validate_)


def handed_in(round_: Round) -> None:
    """Take what was imported for handed in by its author: the record refuses it for that alone."""
    found = [replace(line, editor=line.editor or line.author) for line in read_lines(round_.annotations)]
    round_.annotations.write_text("".join(line.dump() for line in found))


def bring_in(studio: LabelStudio, project: int, tasks: list[dict[str, Any]]) -> dict[str, int]:
    """Import tasks with their annotations; the keys of those that the server refuses, and its status."""
    try:
        studio._sdk.projects.import_tasks(project, request=tasks)
    except ApiError as error:
        if len(tasks) == 1:
            return {tasks[0]["data"]["key"]: error.status_code or 0}
        half = len(tasks) // 2
        return bring_in(studio, project, tasks[:half]) | bring_in(studio, project, tasks[half:])
    return {}


@pytest.fixture(scope="module")
def scene(studio: LabelStudio, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    bad = drawings()
    play = make_round(
        tmp_path_factory.mktemp("hostile"),
        checkout,
        digits.load("train", root=checkout, size=None, channels=None, seed=0),
        collect={"drawings": len(bad) + len(BODIES) + len(SOUND)},
        validate={"consensus": 2, "max_votes": 5, "non_fooling_share": 1.0, "probes": 0},
    )
    params, round_ = play.params, play.round
    people = {
        n: studio.person(f"{n}.{params.campaign}@example.org", "correct-horse-7") for n in ("ann", "bob", "cat", "eve")
    }
    accounts = {email: number for number, email in studio.emails().items()}

    few = params.model_copy(update={"collect": params.collect.model_copy(update={"drawings": 0})})
    publish_drawing(studio, round_, few, play.spec)  # the page and the practice alone: the others bring their drawings
    project = studio.find(projects.title(params.campaign, round_, "draw"))
    assert project is not None
    names = [*bad, *BODIES, *SOUND]
    keys = dict(zip(names, projects.drawing_keys(round_, params), strict=True))

    def task(name: str, author: str, result: list[Any]) -> dict[str, Any]:
        data = {"image": drawing.blank(28, 1), "note": "", "key": keys[name]}
        made = {"completed_by": accounts[people[author].email], "result": result, "lead_time": 1.0}
        return {"data": data, "annotations": [made]}

    tasks = [task(name, "eve", result) for name, result in bad.items()]
    tasks += [task(name, "ann", sound()) for name in GOOD]
    said: dict[str, int] = {}
    for start in range(0, len(tasks), 64):
        said |= bring_in(studio, project, tasks[start : start + 64])
    publish_drawing(studio, round_, params, play.spec)
    free = studio.tasks(project)
    for name, body in BODIES.items():
        said[keys[name]] = post(people["eve"], free[keys[name]].id, body)
    counted = studio._tasks(project, "id,total_annotations,cancelled_annotations")
    holding = {t["id"] for t in counted if t["total_annotations"] or t["cancelled_annotations"]}
    sent = {name: free[keys[name]].id for name in (*bad, *BODIES)}
    stored = {task: name for name, task in sent.items() if task in holding}
    return Scene(
        play, studio, people, stored, {n: said.get(keys[n], 201) for n, task in sent.items() if task not in stored}
    )


def test_none_is_accepted_and_each_has_its_reason(scene: Scene) -> None:
    play = scene.play
    stored = scene.stored
    print(f"{len(stored)} stored, {len(scene.refused)} refused by the server: {scene.refused}")
    assert len(stored) >= 200
    assert all(status >= 400 for status in scene.refused.values()), scene.refused
    assert any(name in scene.refused for name in BODIES), "the server refuses what is no annotation at all"
    assert pulled_now(scene.studio, play.round) == len(stored) + len(GOOD)
    assert pulled_now(scene.studio, play.round) == 0, "nothing is new, whatever the record holds"
    assert not [c for c in scene.made() if c.wellformed], "whoever it claims to be of, it was imported"
    handed_in(play.round)
    assert pulled_now(scene.studio, play.round) == 0

    made = {c.annotation: c for c in scene.made()}
    record = gather(read_lines(play.round.annotations), "draw")
    assert {a.first.task_id for a in record} >= stored.keys()
    for annotation in record:
        candidate = made[annotation.first.id]
        name = stored.get(annotation.first.task_id)
        if name is None:
            assert (candidate.wellformed, candidate.intended, candidate.judged) == (True, 3, True)
            assert candidate.annotator == scene.people["ann"].email
            continue
        assert (candidate.wellformed, candidate.verdict) == (False, Verdict.REJECTED), name
        assert candidate.reason, name
        assert candidate.reason.isprintable(), name
        assert candidate.annotator == scene.people["eve"].email, name
        assert candidate.image == b"", name
    assert sum(c.wellformed for c in made.values()) == len(GOOD)

    file = play.round.folder / "hostile.parquet"
    write_candidates(file, list(made.values()))
    assert read_candidates(file) == sorted(made.values(), key=lambda c: c.key)
    tally = Progress.of(list(made.values()))
    assert (tally.collected, tally.malformed) == (len(GOOD), len(stored))
    rows = {row.account: row for row in leaderboard.annotators(list(made.values()))}
    assert (rows[scene.people["eve"].email].tries, rows[scene.people["eve"].email].malformed) == (0, len(stored))
    assert rows[scene.people["ann"].email].tries == len(GOOD)


def test_no_vote_of_theirs_counts_and_the_others_settle_it(scene: Scene) -> None:
    studio, play = scene.studio, scene.play
    pulled_now(studio, play.round)
    made = scene.made()
    first = next(c for c in made if c.wellformed)
    publish_validation(studio, play.record, [])
    bad = votes()
    accounts = {email: number for number, email in studio.emails().items()}
    eve = accounts[scene.people["eve"].email]
    key = projects.vote_key(play.params, first)
    cast = [{"completed_by": eve, "result": result, "lead_time": 1.0} for result in bad.values()]
    task = {"data": {"image": drawing.blank(28, 1), "key": key}, "annotations": cast}
    assert bring_in(studio, scene.project("validate"), [task]) == {}
    assert publish_validation(studio, play.record, made) == len(GOOD) - 1, "it is there already"
    number = studio.tasks(scene.project("validate"))[key].id
    for person in scene.people.values():
        if person.email not in (first.annotator, scene.people["eve"].email):
            person.submit(number, voted(), 1.0)
    assert pulled_now(studio, play.round) == len(bad) + 2
    assert pulled_now(studio, play.round) == 0
    handed_in(play.round)

    made = scene.made()
    settled = {c.key: c for c in made}[first.key]
    theirs = [vote for vote in settled.votes if vote.validator == scene.people["eve"].email]
    assert len(theirs) == len(bad)
    for vote in theirs:
        assert not vote.counted
        assert vote.reason
        assert vote.reason.isprintable()
    assert (settled.verdict, settled.wellformed) == (Verdict.VERIFIED, True)
    voters = leaderboard.validators(made, [], {1: play.params.validate_}, voting_seconds(play.record))
    rows = {row.account: row for row in voters}
    assert (rows[scene.people["eve"].email].votes, rows[scene.people["eve"].email].counted) == (len(bad), 0)
    found = board.Board(leaderboard.annotators(made), voters, [])
    assert scene.people["eve"].email in board.as_csv(found)
    with io.StringIO() as file:
        for title, people in (("annotators", found.annotators), ("validators", found.validators)):
            Console(file=file, width=300).print(board.table(title, people))
        assert scene.people["eve"].email in file.getvalue()


def test_an_author_s_latest_form_counts_and_nobody_else_s(scene: Scene) -> None:
    studio, play, ann = scene.studio, scene.play, scene.people["ann"]
    keys = dict(zip(SOUND, projects.drawing_keys(play.round, play.params)[-len(SOUND) :], strict=True))
    own = ann.submit(scene.task(keys["changed by its author"]), sound(), 1.0)
    pushed = ann.submit(scene.task(keys["changed by another"]), sound(), 1.0)
    gone = ann.submit(scene.task(keys["deleted"]), sound(), 1.0)
    for name in ("3", "4"):
        drawn = at(sound(), PATHS["the one class"], name)
        ann.save_draft(scene.task(keys["two drafts"]), drawn)
        ann.save_draft(scene.task(keys["two drafts, then submitted"]), drawn)
    ann.submit(scene.task(keys["two drafts, then submitted"]), sound(), 1.0)
    assert pulled_now(studio, play.round) == 4
    ann.edit(own, at(sound(), PATHS["the one class"], "7"))
    scene.people["eve"].edit(pushed, at(sound(), PATHS["the one class"], "7"))
    ann.delete(gone)
    assert pulled_now(studio, play.round) == 3
    made = {c.annotation: c for c in scene.made()}
    by_key = {c.key: c for c in made.values()}
    assert (made[own].wellformed, made[own].intended) == (True, 7)
    assert (made[pushed].wellformed, made[pushed].intended) == (True, 3)
    assert (made[gone].wellformed, made[gone].reason) == (False, DELETED)
    assert keys["two drafts"] not in by_key, "a draft is nothing that was handed in"
    assert by_key[keys["two drafts, then submitted"]].intended == 3
    forms = [line for line in read_lines(play.round.annotations) if line.id == gone]
    assert [line.deleted for line in forms] == [False, True]
    assert forms[0].raw["result"] == sound(), "what was pulled stays in the record"
