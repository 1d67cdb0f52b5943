"""What the campaign's record says of people: answers to probes, and the closed rounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from round_states import mark_closed

from data.files import md5
from data.layout import Round, pointer
from data.records import UNREADABLE, Candidate, Vote
from data.shards import write_candidates
from tasks.labelling import drawing, projects
from tasks.quality.account_stats import AccountStats, ProbeAnswer
from tasks.record import history
from tasks.record.annotations import Line, append
from tasks.record.record import Record
from tasks.validate import validate
from tasks.workspace.git import git


def answer(play: Any, probe: Candidate, number: int, who: str, class_name: str) -> Line:
    """A validation annotation, as it is pulled."""
    task, at = projects.vote_key(play.params, probe), "2026-01-01T00:00:00Z"
    raw = {"result": [drawing.chosen(projects.SEEN, "seen", class_name)]}
    return Line("validate", task, 1, number, who, who, at, deleted=False, raw=raw)


def answered(play: Any, round_: Round, right: int, wrong: int) -> list[Line]:
    """Ann answers so many probes rightly, and so many wrongly, as far as there are any."""
    found = []
    for number, probe in enumerate(Record.read(round_).probes[: right + wrong]):
        name = play.spec.classes[(probe.intended + (number >= right)) % 10]
        found.append(answer(play, probe, 100 * round_.number + number, "ann@x", name))
    return found


def test_answers_to_probes(open_round: Callable[..., Any]) -> None:
    play = open_round(validate={"probes": 3})
    (first, second, third) = play.record.probes
    names = play.spec.classes
    lines = [
        answer(play, first, 1, "ann@x", names[first.intended]),
        answer(play, first, 2, "ann@x", names[first.intended - 1]),  # a second one
        answer(play, second, 3, "ann@x", names[second.intended - 1]),
        answer(play, third, 4, "ann@x", projects.UNREADABLE_CHOICE),
        answer(play, third, 5, "bob@x", "<b>"),
        replace(answer(play, third, 6, "eve@x", names[third.intended]), editor="mal@x"),
        replace(answer(play, first, 7, "eve@x", names[first.intended]), task="of no probe"),
    ]
    append(play.round.annotations, lines)
    answers = play.record.probe_answers
    assert [(answer.validator, answer.probe, answer.right) for answer in answers] == [
        ("ann@x", first.key, True),
        ("ann@x", second.key, False),
        ("ann@x", third.key, False),
    ]
    assert answers[2] == ProbeAnswer("ann@x", third.key, UNREADABLE, third.intended)
    assert play.record.candidates == []
    assert play.record.votes == {}


def test_the_time_of_voting_is_what_the_page_tells_if_that_is_sensible(open_round: Callable[..., Any]) -> None:
    play = open_round(validate={"probes": 1})
    (probe,) = play.record.probes
    first, second, third = (answer(play, probe, number, "ann@x", "3") for number in (1, 2, 3))
    other = answer(play, probe, 4, "bob@x", "3")
    drawn = replace(answer(play, probe, 5, "ann@x", "3"), kind="draw", raw={"lead_time": 100.0})
    told = [
        replace(line, raw={**line.raw, "lead_time": seconds})
        for line, seconds in ((first, 4.0), (second, 2.5), (third, float("nan")), (other, 7), (first, 5.0))
    ]
    append(play.round.annotations, [*told, drawn])
    assert history.voting_seconds(play.record) == {"ann@x": 7.5, "bob@x": 7.0}, "of each annotation its latest form"


def test_rounds_that_are_closed_count_and_must_be_here(open_round: Callable[..., Any]) -> None:
    play = open_round(validate={"probes": 8})
    workspace = play.round.workspace
    made = Candidate("001/draw/0000", 1, "human", b"", intended=3, annotator="eve@x", answer=4)
    made = replace(made, votes=(Vote("v@x", 5, 1, ""), Vote("w@x", 5, 2, "")))
    write_candidates(play.round.candidates, [made])
    append(play.round.annotations, answered(play, play.round, 1, 7))
    open_ = workspace.round(2)
    open_.folder.mkdir()
    shutil.copy(play.round.params, open_.params)
    append(open_.annotations, answered(play, open_, 0, 8))
    git(workspace, "init", "--quiet")
    git(workspace, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--allow-empty", "-m", "x")
    assert history.past_stats(Record.read(open_))["ann@x"].probes == 8, "round 001 is not closed"

    mark_closed(play.round)
    past = history.past_stats(Record.read(open_))
    assert past == {"ann@x": AccountStats(probes=16, probes_right=1), "eve@x": AccountStats(settled=1, rejected=1)} | {
        who: AccountStats(votes=1, against=1, sided_with={"eve@x": (0, 1)}) for who in ("v@x", "w@x")
    }
    assert history.past_stats(Record.read(open_)) == past, "worked out once, told the same"
    stricter = open_.params.read_text().replace("consensus: 2", "consensus: 3")
    assert stricter != open_.params.read_text()
    open_.params.write_text(stricter)
    assert history.past_stats(Record.read(open_)) == past, "a closed round is told by its own rules"
    votes = {made.key: [Vote("ann@x", 3, 1, ""), Vote("bob@x", 3, 2, "")]}
    (now,) = validate([made], votes, play.params.validate_, past)
    assert now.votes[0].reason == (
        "set aside: 15 of 16 probes answered wrongly; up to 50% is tolerated (evidence 181 to 1)"
    )
    assert now.votes[1].counted
    assert set(history.past_stats(play.record)) == {"ann@x"}, "a round is not evidence against itself"

    write_candidates(play.round.candidates, [])
    assert set(history.past_stats(Record.read(open_))) == {"ann@x"}, "what was worked out from other files is not told"

    record = play.round.annotations.read_bytes()
    pointer(play.round.annotations).write_text(f"outs: [{{md5: {md5(play.round.annotations)}}}]")
    assert set(history.past_stats(Record.read(open_))) == {"ann@x"}
    play.round.annotations.write_bytes(record.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="is not what was frozen: .* `dvc pull --force` brings its record"):
        history.past_stats(Record.read(open_))
    with pytest.raises(ValueError, match="is not what was frozen"):
        history.recorded(play.round)

    play.round.annotations.unlink()
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        history.past_stats(Record.read(open_))
