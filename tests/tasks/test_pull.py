"""The record of what people did, pulled from a real Label Studio; and what hostile lines in it come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from open_round import pulled_now

from data.records import DELETED, HUMAN, SIMULATED, UNREADABLE, Candidate, Verdict
from data.shards import decode_png
from tasks.judge import judge
from tasks.labelling import drawing as ink
from tasks.labelling import projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio
from tasks.labelling.http import LabellingError
from tasks.labelling.projects import INTENDED, SEEN, drawing_keys
from tasks.publish import publish_drawing, publish_validation, restore_projects, unfinished
from tasks.quality.consensus import people_wanted
from tasks.record.annotations import Line, append, gather, read_lines
from tasks.record.candidates import drawings
from tasks.validate import validate


def drawn(class_name: str, shade: int = 255) -> list[dict[str, Any]]:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[100:200, 100:200] = shade
    return [ink.region(alpha, "ink"), ink.chosen(INTENDED, "class", class_name)]


def seen(class_name: str) -> list[dict[str, Any]]:
    return [ink.chosen(SEEN, "seen", class_name)]


def account(studio: LabelStudio, play: Any, name: str) -> Account:
    return studio.person(f"{name}.{play.params.campaign}@example.org", "correct-horse-7")


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
    studio._sdk.annotations.delete(gone)
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
    assert by_task["001/draw/0003"] == by_task["001/draw/0004"] == DELETED
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


@dataclass
class Voting:
    """A round with one well-formed drawing, ann's, and its validation task."""

    studio: LabelStudio
    play: Any
    ann: Account
    drawing: int
    project: int
    task: int
    key: str

    def person(self, name: str) -> Account:
        return account(self.studio, self.play, name)

    def made(self) -> Candidate:
        """The candidate as it stands, after a pull."""
        pulled_now(self.studio, self.play.round)
        found = self.play.record.candidates
        judged = judge(found, self.play.round.workspace.round(0).challenger.model)
        (made,) = validate(judged, self.play.record.votes, self.play.params.validate_)
        return made

    def published(self) -> list[str]:
        """Publish what is due; what is said of it."""
        said: list[str] = []
        publish_validation(self.studio, self.play.record, [self.made()], said.append)
        return said


@pytest.fixture
def voting(studio: LabelStudio, open_round: Callable[..., Any]) -> Voting:
    play = open_round(validate={"non_fooling_share": 1.0, "consensus": 2, "max_votes": 5})
    publish_drawing(studio, play.round, play.params, play.spec)
    project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
    assert project is not None
    ann = account(studio, play, "ann")
    drawing = ann.submit(studio.tasks(project)[drawing_keys(play.round, play.params)[0]].id, drawn("3"), 1.0)
    scene = Voting(studio, play, ann, drawing, 0, 0, "")
    scene.published()
    found = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert found is not None
    ((key, task),) = studio.tasks(found).items()
    return replace(scene, project=found, task=task.id, key=key)


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


def test_a_page_that_somebody_changed_is_put_back(voting: Voting) -> None:
    def said() -> list[str]:
        return restore_projects(voting.studio, voting.play.round, voting.play.params, voting.play.spec)

    assert said() == []
    page = voting.studio.described(voting.project)["page"]
    voting.studio._sdk.projects.update(
        voting.project, label_config=page.replace("unreadable", "3"), show_skip_button=True
    )
    (line,) = said()
    assert line.endswith("label_config, show_skip_button")
    assert voting.studio.described(voting.project)["page"] == page
    assert said() == []


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


def test_a_project_that_is_gone_or_renamed_is_an_error(voting: Voting) -> None:
    title = projects.title(voting.play.params.campaign, voting.play.round, "draw")
    project = voting.studio.find(title)
    assert project is not None
    voting.studio._sdk.projects.update(project, title="renamed")
    with pytest.raises(LabellingError, match=f"no project titled '{title}'"):
        pulled_now(voting.studio, voting.play.round)
    voting.studio._sdk.projects.update(project, title=title)
    assert pulled_now(voting.studio, voting.play.round) == 0


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


def line(raw: dict[str, Any], **changes: Any) -> Line:
    made = Line("draw", "001/draw/0000", 1, 7, "a@example.org", "a@example.org", "2026-01-01T00:00:00Z", False, raw)
    return replace(made, **changes)


HOSTILE: dict[str, Line] = {
    "no result": line({}),
    "result is null": line({"result": None}),
    "result is text": line({"result": "<script>"}),
    "result holds null": line({"result": [None]}),
    "no ink": line({"result": drawn("3")[1:]}),
    "no class": line({"result": drawn("3")[:1]}),
    "two classes": line({"result": [*drawn("3"), *drawn("4")[1:]]}),
    "unknown class": line({"result": drawn("<b>3</b>\0\x1b[31m")}),
    "class is NaN": line({"result": [*drawn("3")[:1], ink.chosen(INTENDED, "c", float("nan"))]}),  # type: ignore[arg-type]
    "another tag": line({"result": [*drawn("3"), {"from_name": "x", "type": "choices", "value": {}}]}),
    "skipped": line({"result": drawn("3"), "was_cancelled": True}),
    "too large": line({"result": None, "oversize": 9_000_000}),
    "another editor": line({"result": drawn("3")}, editor="b@example.org"),
    "unknown task": line({"result": drawn("3")}, task="../../etc/passwd"),
    "another round's task": line({"result": drawn("3")}, task="002/draw/0000"),
    "huge lead time": line({"result": [], "lead_time": 1e400}),
    "lead time is text": line({"result": [], "lead_time": "now"}),
    "no account": line({"result": drawn("3")}, author="", editor=""),
    "imported": line({"result": drawn("3")}, editor=""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_malformed_is_kept_with_its_reason(open_round: Callable[..., Any], name: str) -> None:
    play = open_round()
    good = line({"result": drawn("3"), "lead_time": 2.0}, id=8, task="001/draw/0001")
    stored = play.round.annotations
    append(stored, [HOSTILE[name], good])
    made = drawings(gather(read_lines(stored), "draw"), play.round, play.params, play.spec)
    assert [c.wellformed for c in made] == [False, True], "and the good one beside it goes through"
    bad: Candidate = made[0]
    assert bad.verdict is Verdict.REJECTED
    assert bad.reason
    assert (bad.intended, bad.image) == (-1, b"")
    assert np.isfinite(bad.seconds)


def test_no_round_is_read_without_what_the_machine_made(open_round: Callable[..., Any]) -> None:
    """In a clone that was given Git's files alone, its candidates would be missing from the shard without a word."""
    play = open_round()
    assert play.record.candidates == []
    play.round.attack.unlink()
    with pytest.raises(FileNotFoundError, match=r"attack\.parquet is missing; `dvc pull` brings it"):
        _ = play.record.candidates


def test_who_is_simulated_shows_in_the_account(open_round: Callable[..., Any]) -> None:
    play = open_round()
    who = "annotator-1.x@simulated.invalid"
    found = [
        line({"result": drawn("3")}, author=who, editor=who),
        line({"result": drawn("3")}, id=9, task="001/draw/0001"),
    ]
    made = drawings(gather(found, "draw"), play.round, play.params, play.spec)
    assert [c.source for c in made] == [SIMULATED, HUMAN]
    assert [bool(c.seed_image) for c in made] == [True, False], "people start from a blank canvas"


def test_what_counts_is_the_latest_form_that_the_author_gave_it() -> None:
    own, other = line({"result": drawn("3")}), line({"result": drawn("0")}, editor="b@example.org")
    again = line({"result": drawn("4")})
    stolen = line({"result": drawn("0")}, author="b@example.org", editor="b@example.org")
    account_gone = line({"result": drawn("3")}, author="", editor="")
    for forms, wanted in (
        ([own, other], own),
        ([own, other, again], again),
        ([own, stolen], own),
        ([own, account_gone], own),
        ([other, again], again),
    ):
        (annotation,) = gather(forms, "draw")
        assert annotation.last is wanted
        assert annotation.fault(annotation.last) == ""
        assert annotation.latest is forms[-1]
    for forms, why in (([other], "another account"), ([line({}, editor="")], "imported"), ([account_gone], "is gone")):
        (annotation,) = gather(forms, "draw")
        assert why in annotation.fault(annotation.last)


def test_a_line_holds_any_text() -> None:
    hostile = line({"result": ["\ud800", "\0", "\u2028", "é\n"]})
    text = hostile.dump()
    assert text.count("\n") == 1
    assert Line(**json.loads(text)) == hostile
