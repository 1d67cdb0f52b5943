"""The round's record → the votes on its candidates and the answers to its probes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from data.layout import Round
from data.records import DELETED, UNREADABLE, Candidate, Vote
from tasks.config.params import Params, read
from tasks.labelling import drawing
from tasks.labelling.image_digests import picture_digests
from tasks.labelling.projects import (
    SEEN,
    UNREADABLE_CHOICE,
    vote_key,
)
from tasks.quality.trust import ProbeAnswer
from tasks.record.annotations import gather, lines
from tasks.record.candidates import candidates, probes

_VOTE_TYPES = {SEEN: "choices"}


def votes(round_: Round, params: Params, splits: dict[str, Any], given: Sequence[Candidate]) -> dict[str, list[Vote]]:
    """The votes on each candidate that has any, by the candidate's key, in the order in which they were cast.

    A person's first vote on a candidate counts, in the latest form that this person gave it, and stays when it is
    deleted: anybody may delete there. Never the author's own, and none that was cast on another picture. The others are
    kept with the reason why they do not count. A vote whose image is another by now is not among them; the record keeps
    it.
    """
    by_task = {vote_key(params, c): c for c in given if c.wellformed}
    cast_on = [a for a in gather(lines(round_.annotations), "validate") if a.first.task in by_task]
    belongs = picture_digests(round_, {a.first.task: by_task[a.first.task] for a in cast_on}, splits["channels"])
    found: dict[str, list[Vote]] = {}
    for annotation in cast_on:
        form, candidate = annotation.last, by_task[annotation.first.task]
        cast = found.setdefault(candidate.key, [])
        author = annotation.first.author
        choice, reason = UNREADABLE, annotation.fault(form)
        try:
            names = (*splits["classes"], UNREADABLE_CHOICE)
            chosen = drawing.choice(form.raw.get("result"), SEEN, names, _VOTE_TYPES)
            choice = chosen if chosen < len(splits["classes"]) else UNREADABLE
        except ValueError as error:
            reason = reason or str(error)
        if not reason and form.shown not in ("", belongs[annotation.first.task]):
            reason = "cast on another picture, which somebody put into the task"
        if not reason and author == candidate.annotator:
            reason = "a vote on one's own candidate"
        if not reason and any(vote.counted and vote.validator == author for vote in cast):
            reason = "a second vote of the same person"
        told = DELETED if annotation.deleted else ""
        cast.append(Vote(author, choice, annotation.first.id, form.at, counted=not reason, reason=reason or told))
    return found


def probe_answers(round_: Round, params: Params, splits: dict[str, Any]) -> list[ProbeAnswer]:
    """What validators answered to the round's probes; `unreadable` is wrong, and one answer a person counts."""
    known = probes(round_, params, splits)
    cast = votes(round_, params, splits, known)
    return [
        ProbeAnswer(vote.validator, vote.choice == probe.intended)
        for probe in known
        for vote in cast.get(probe.key, ())
        if vote.counted
    ]


def cast_votes(round_: Round) -> dict[str, list[Vote]]:
    """The votes on the round's candidates, by the candidate's key."""
    params = read(round_.params)
    splits: dict[str, Any] = json.loads(round_.workspace.splits.read_text(encoding="utf-8"))
    return votes(round_, params, splits, candidates(round_, params, splits))
