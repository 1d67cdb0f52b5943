"""The record of what people did, pulled from a real Label Studio, whatever others do there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from open_round import pulled_now
from voting_scene import Voting, account, drawn, seen

from data.records import DELETED, HUMAN, UNREADABLE, Verdict
from data.shards import decode_png
from tasks.judge import judge
from tasks.labelling import drawing as ink
from tasks.labelling import projects
from tasks.labelling.client import LabelStudio
from tasks.labelling.projects import drawing_keys
from tasks.publish import publish_drawing, publish_validation, unfinished
from tasks.pull import pull
from tasks.quality.consensus import people_wanted
from tasks.record.annotations import read_lines
from tasks.record.sightings import Watch


def test_people_s_drawings_and_votes(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round(collect={"drawings": 6}, validate={"non_fooling_share": 1.0})
    round_, params = play.round, play.params
    publish_drawing(studio, round_, params, play.spec)
    project = studio.find(projects.title(params.campaign, round_, "draw"))
    assert project is not None
    tasks = [studio.tasks(project)[key].id for key in drawing_keys(round_, params)]
    ann, bob = account(studio, play, "Ann"), account(studio, play, "bob")

    ann.submit(tasks[0], drawn("3"), 12.5)
    changed = ann.submit(tasks[1], drawn("4"), 1.0)
    spoilt = ann.submit(tasks[2], drawn("5"), 1.0)
    bob.submit(tasks[3], drawn("6")[:1], 1.0)
    gone = bob.submit(tasks[4], drawn("7", 200), 1.0)
    bob.submit(tasks[0], drawn("8"), 1.0)
    assert pulled_now(studio, round_) == 6
    assert pulled_now(studio, round_) == 0

    ann.edit(changed, drawn("9", 180))
    bob.edit(spoilt, drawn("0"))
    bob.delete(gone)
    studio._sdk.tasks.delete(str(tasks[3]))
    assert pulled_now(studio, round_) == 4
    assert pulled_now(studio, round_) == 0

    made = {c.key: c for c in judge(play.record.candidates, round_.workspace.round(0).challenger.model)}
    assert len(made) == 6
    first = made["001/draw/0000"]
    assert (first.source, first.annotator, first.intended) == (HUMAN, f"ann.{params.campaign}@example.org", 3)
    assert (first.seconds, first.seed_image, first.wellformed) == (12.5, "", True)
    assert first.judged
    assert made["001/draw/0001"].intended == 9, "the author's latest form counts"
    assert made["001/draw/0002"].intended == 5, "whatever another account made of it"
    malformed = {key: c.reason for key, c in made.items() if not c.wellformed}
    assert len(malformed) == 3
    assert all(c.verdict is Verdict.REJECTED and c.reason for c in made.values() if not c.wellformed)
    by_task = {key.rsplit("/", 1)[0]: reason for key, reason in malformed.items()}
    assert by_task["001/draw/0004"] == DELETED
    assert "class" in by_task["001/draw/0003"], "who deletes a whole task withdraws nobody's drawing"
    assert "has a drawing" in by_task["001/draw/0000"]

    publish_validation(studio, play.record, list(made.values()))
    voting = studio.find(projects.title(params.campaign, round_, "validate"))
    assert voting is not None
    task = studio.tasks(voting)[projects.vote_key(params, first)].id
    other = studio.tasks(voting)[projects.vote_key(params, made["001/draw/0001"])].id
    eve = account(studio, play, "eve")
    ann.submit(task, seen("3"), 1.0)  # her own
    mended = bob.submit(task, seen("4"), 1.0)
    bob.submit(task, seen("3"), 1.0)  # a second one
    eve.submit(task, seen("unreadable"), 1.0)
    bob.edit(mended, seen("3"))
    pushed = bob.submit(other, seen("9"), 1.0)
    eve.edit(pushed, seen("1"))
    assert pulled_now(studio, round_) == 5
    votes = play.record.votes
    on_first = [(v.validator.split(".")[0], v.choice, v.counted) for v in votes["001/draw/0000"]]
    assert on_first == [("ann", 3, False), ("bob", 3, True), ("bob", 3, False), ("eve", UNREADABLE, True)]
    assert [v.reason for v in votes["001/draw/0000"]][:3] == [
        "a vote on one's own candidate",
        "",
        "a second vote of the same person",
    ]
    assert [v.counted for v in votes["001/draw/0001"]] == [False], "what he said is not known"


def test_nobody_votes_in_another_s_name(voting: Voting) -> None:
    others = [voting.person(name).email for name in ("bob", "cat")]
    known = {email: number for number, email in voting.studio.emails().items()}
    cast = [{"completed_by": known[email], "result": seen("3"), "lead_time": 1.0} for email in others]
    task = {"data": {"image": voting.studio.tasks(voting.project)[voting.key].image, "key": voting.key}}
    voting.studio._sdk.projects.import_tasks(voting.project, request=[{**task, "annotations": cast}])
    made = voting.made()
    assert (made.verdict, len(made.votes)) == (Verdict.PENDING, 2)
    assert all(not vote.counted and "imported" in vote.reason for vote in made.votes)


def test_a_vote_stays_whatever_others_make_of_it(voting: Voting) -> None:
    cast = [voting.person(name).submit(voting.task, seen("8"), 1.0) for name in ("bob", "cat")]
    assert voting.made().verdict is Verdict.REJECTED
    eve = voting.person("eve")
    eve.edit(cast[0], seen("3"))
    voting.studio._sdk.annotations.delete(cast[1])
    eve.submit(voting.task, seen("3"), 1.0)
    made = voting.made()
    assert made.verdict is Verdict.REJECTED
    assert [(vote.choice, vote.counted) for vote in made.votes] == [(8, True), (8, True), (3, True)]
    assert [vote.reason for vote in made.votes] == ["", DELETED, ""]
    assert people_wanted(made, voting.play.params.validate_) == 2, "as many as are there still"


def test_what_was_voted_on_cannot_be_called_another_class(voting: Voting) -> None:
    voting.ann.edit(voting.drawing, drawn("4"))
    assert voting.made().intended == 4, "nobody has voted yet"
    voting.person("bob").submit(voting.task, seen("1"), 1.0)
    voting.ann.edit(voting.drawing, drawn("1"))
    voting.person("cat").submit(voting.task, seen("1"), 1.0)
    made = voting.made()
    assert (made.intended, made.verdict) == (4, Verdict.REJECTED)
    voting.ann.edit(voting.drawing, drawn("1", 180))
    assert voting.made().image == made.image, "nor is another drawing put in its place"


def test_no_vote_counts_for_a_picture_that_somebody_put_in(voting: Voting) -> None:
    other = ink.picture(decode_png(voting.made().image, 1).flip(2))
    voting.studio.show(voting.task, {"image": other, "key": voting.key})
    bob = voting.person("bob").submit(voting.task, seen("3"), 1.0)
    (said,) = voting.published()
    assert "which somebody had changed" in said
    assert voting.published() == []
    voting.person("cat").submit(voting.task, seen("3"), 1.0)
    made = voting.made()
    assert [(vote.annotation == bob, vote.counted) for vote in made.votes] == [(True, False), (False, True)]
    assert "another picture" in made.votes[0].reason


def test_tasks_of_what_was_corrected_are_taken_back(voting: Voting) -> None:
    for shade in (240, 220):
        voting.ann.edit(voting.drawing, drawn("3", shade))
        voting.published()
    key = projects.vote_key(voting.play.params, voting.made())
    assert list(voting.studio.tasks(voting.project)) == [key]
    left = len(drawing_keys(voting.play.round, voting.play.params)) - 1
    assert unfinished(voting.studio, voting.play.round) == left + 1
    voting.studio._sdk.projects.import_tasks(voting.project, request=[{"data": {"image": "", "key": "of nobody"}}])
    voting.studio._sdk.projects.import_tasks(voting.project, request=[{"data": {"image": "no key"}}])
    voting.published()
    assert unfinished(voting.studio, voting.play.round) == left + 1


def test_who_takes_over_or_deletes_before_the_pull_comes_too_late(voting: Voting) -> None:
    """Seen by the model server's watch, which Label Studio tells of each annotation at once."""
    studio, round_, project = voting.studio, voting.play.round, voting.find("draw")
    assert project is not None
    bob, cat, eve = map(voting.person, ("bob", "cat", "eve"))
    (number,) = [number for number, email in studio.emails().items() if email == eve.email]
    tasks = [studio.tasks(project)[key].id for key in drawing_keys(round_, voting.play.params)]
    stolen, gone = (cat.submit(task, drawn("5"), 1.0) for task in tasks[1:3])
    vote = bob.submit(voting.task, seen("3"), 1.0)
    watch = Watch()
    assert watch.look(studio, round_) == 3
    for annotation in (stolen, vote):
        eve._ask("PATCH", f"/api/annotations/{annotation}/", {"completed_by": number})
    eve.delete(gone)
    said: list[str] = []
    pull(studio, voting.play.record, said.append)
    record = voting.play.record
    made = {c.annotation: c for c in record.candidates}
    assert [(made[i].annotator, made[i].wellformed) for i in (stolen, gone)] == [(cat.email, True)] * 2
    (cast,) = record.votes[made[voting.drawing].key]
    assert (cast.validator, cast.counted) == (bob.email, True)
    assert [line.split(" was given to ")[1].split(";")[0] for line in said] == [eve.email, eve.email]
    assert pulled_now(studio, round_) == 0
    watch.look(studio, round_)
    assert pulled_now(studio, round_) == 0, "what the pull saw first is not recorded twice"


def test_who_signs_up_during_a_pull_is_known_by_name(voting: Voting, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LabelStudio.emails
    told: list[dict[int, str]] = []

    def slow(studio: LabelStudio) -> dict[int, str]:
        told.append(real(studio))
        if len(told) == 1:  # bob comes between this answer and the next question
            with monkeypatch.context() as patch:
                patch.setattr(LabelStudio, "emails", real)
                voting.person("bob").submit(voting.task, seen("3"), 1.0)
        return told[-1]

    monkeypatch.setattr(LabelStudio, "emails", slow)
    made = voting.made()
    assert [vote.validator.split(".")[0] for vote in made.votes] == ["bob"]
    assert len(told) == 2


def test_a_torn_line_is_mended_and_nothing_is_lost(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    publish_drawing(studio, play.round, play.params, play.spec)
    project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
    assert project is not None
    ann = account(studio, play, "ann")
    for task in studio.tasks(project).values():
        ann.submit(task.id, drawn("1"), 1.0)
    assert pulled_now(studio, play.round) == 1 + 4
    drawn_there = play.record.candidates
    assert [c.key for c in drawn_there] == drawing_keys(play.round, play.params), "the practice is in the record only"
    whole = play.round.annotations.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]), len(whole) - 7):
        play.round.annotations.write_bytes(whole[:-cut])
        assert len(read_lines(play.round.annotations)) < 5
        pulled_now(studio, play.round)
        assert play.round.annotations.read_bytes() == whole, f"cut by {cut}"
