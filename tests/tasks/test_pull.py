"""The record of what people did, pulled from a real Label Studio; and what hostile lines in it come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.records import HUMAN, SIMULATED, UNREADABLE, Candidate, Verdict
from tasks import ink, projects, pull
from tasks.annotations import DELETED, Line, candidates, drawings, gather, lines
from tasks.judge import judge
from tasks.labelling import LabelStudio, Person
from tasks.projects import INTENDED, SEEN, drawing_keys
from tasks.publish import publish_drawing, publish_validation


def drawn(class_name: str, shade: int = 255) -> list[dict[str, Any]]:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[100:200, 100:200] = shade
    return [ink.region(alpha, "ink"), ink.chosen(INTENDED, "class", class_name)]


def seen(class_name: str) -> list[dict[str, Any]]:
    return [ink.chosen(SEEN, "seen", class_name)]


def account(studio: LabelStudio, play: Any, name: str) -> Person:
    return studio.person(f"{name}.{play.params.campaign}@example.org", "correct-horse-7")


def test_people_s_drawings_and_votes(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round(collect={"drawings": 6}, validate={"non_fooling_share": 1.0})
    round_, params, splits = play.round, play.params, play.splits
    publish_drawing(studio, round_, params, splits)
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
    assert pull.pull(studio, round_) == 6
    assert pull.pull(studio, round_) == 0

    ann.edit(changed, drawn("9", 180))
    bob.edit(spoilt, drawn("0"))
    studio._sdk.annotations.delete(gone)
    studio._sdk.tasks.delete(str(tasks[3]))
    assert pull.pull(studio, round_) == 4
    assert pull.pull(studio, round_) == 0

    made = {c.key: c for c in judge(candidates(round_, params, splits), round_.workspace.round(0).model)}
    assert len(made) == 6
    first = made["001/draw/0000"]
    assert (first.source, first.annotator, first.intended) == (HUMAN, f"ann.{params.campaign}@example.org", 3)
    assert (first.seconds, first.seed_image, first.wellformed) == (12.5, "", True)
    assert first.judged
    assert made["001/draw/0001"].intended == 9, "the author's latest form counts"
    malformed = {key: c.reason for key, c in made.items() if not c.wellformed}
    assert len(malformed) == 4
    assert all(c.verdict is Verdict.REJECTED and c.reason for c in made.values() if not c.wellformed)
    by_task = {key.rsplit("/", 1)[0]: reason for key, reason in malformed.items()}
    assert "another account" in by_task["001/draw/0002"]
    assert by_task["001/draw/0003"] == by_task["001/draw/0004"] == DELETED
    assert "has a drawing" in by_task["001/draw/0000"]

    publish_validation(studio, round_, list(made.values()), params)
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
    assert pull.pull(studio, round_) == 5
    votes = pull.votes(round_)
    on_first = [(v.validator.split(".")[0], v.choice, v.counted) for v in votes["001/draw/0000"]]
    assert on_first == [("ann", 3, False), ("bob", 3, True), ("bob", 3, False), ("eve", UNREADABLE, True)]
    assert [v.reason for v in votes["001/draw/0000"]][:3] == [
        "a vote on one's own candidate",
        "",
        "a second vote of the same person",
    ]
    assert [v.counted for v in votes["001/draw/0001"]] == [False]


def test_a_torn_line_is_mended_and_nothing_is_lost(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    publish_drawing(studio, play.round, play.params, play.splits)
    project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
    assert project is not None
    ann = account(studio, play, "ann")
    for task in studio.tasks(project).values():
        ann.submit(task.id, drawn("1"), 1.0)
    assert pull.pull(studio, play.round) == 1 + 4
    drawn_there = candidates(play.round, play.params, play.splits)
    assert [c.key for c in drawn_there] == drawing_keys(play.round, play.params), "the practice is in the record only"
    whole = play.round.annotations.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]), len(whole) - 7):
        play.round.annotations.write_bytes(whole[:-cut])
        assert len(lines(play.round.annotations)) < 5
        pull.pull(studio, play.round)
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
    "no account": line({"result": []}, author="", editor=""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_malformed_is_kept_with_its_reason(open_round: Callable[..., Any], name: str) -> None:
    play = open_round()
    good = line({"result": drawn("3"), "lead_time": 2.0}, id=8, task="001/draw/0001")
    stored = play.round.annotations
    pull.append(stored, [HOSTILE[name], good])
    made = drawings(gather(lines(stored), "draw"), play.round, play.params, play.splits)
    assert [c.wellformed for c in made] == [False, True], "and the good one beside it goes through"
    bad: Candidate = made[0]
    assert bad.verdict is Verdict.REJECTED
    assert bad.reason
    assert (bad.intended, bad.image) == (-1, b"")
    assert np.isfinite(bad.seconds)


def test_who_is_simulated_shows_in_the_account(open_round: Callable[..., Any]) -> None:
    play = open_round()
    who = "annotator-1.x@simulated.invalid"
    found = [
        line({"result": drawn("3")}, author=who, editor=who),
        line({"result": drawn("3")}, id=9, task="001/draw/0001"),
    ]
    made = drawings(gather(found, "draw"), play.round, play.params, play.splits)
    assert [c.source for c in made] == [SIMULATED, HUMAN]
    assert [bool(c.seed_image) for c in made] == [True, False], "people start from a blank canvas"


def test_the_author_may_take_back_what_another_account_did() -> None:
    forms = [
        line({"result": drawn("3")}),
        line({"result": drawn("0")}, editor="b@example.org"),
        line({"result": drawn("4")}),
    ]
    (annotation,) = gather(forms, "draw")
    assert annotation.fault == ""
    assert annotation.last.raw["result"] == drawn("4")
    (stolen,) = gather([forms[0], line({"result": drawn("0")}, author="b@example.org", editor="b@example.org")], "draw")
    assert "another account" in stolen.fault


def test_a_line_holds_any_text() -> None:
    hostile = line({"result": ["\ud800", "\0", "\u2028", "é\n"]})
    text = hostile.dump()
    assert text.count("\n") == 1
    assert Line(**json.loads(text)) == hostile
