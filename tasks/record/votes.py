"""The round's record → the votes on its candidates and the answers to its probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.layout import Round
from data.records import DELETED, UNREADABLE, Candidate, ImageSpec, Vote
from tasks.config.params import Params
from tasks.labelling import drawing
from tasks.labelling.image_digests import picture_digests
from tasks.labelling.projects import (
    SEEN,
    UNREADABLE_CHOICE,
    vote_key,
)
from tasks.quality.account_stats import ProbeAnswer
from tasks.record.annotations import Line, gather

_VOTE_TYPES: drawing.Types = {SEEN: ("choices",)}


def votes(
    recorded: Sequence[Line], candidates: Sequence[Candidate], round_: Round, params: Params, spec: ImageSpec
) -> dict[str, list[Vote]]:
    """The votes on each candidate that has any, by the candidate's key, in the order in which they were cast.

    A person's first vote on a candidate counts, in the latest form that this person gave it, and stays when it is
    deleted: anybody may delete there. Never the author's own, and none that was cast on another picture. The others are
    kept with the reason why they do not count. A vote whose image is another by now is not among them; the record keeps
    it. recorded: the lines of the round's record.
    """
    by_task = {vote_key(params, c): c for c in candidates if c.wellformed}
    annotations = [a for a in gather(recorded, "validate") if a.first.task in by_task]
    digests = picture_digests(round_, {a.first.task: by_task[a.first.task] for a in annotations}, spec.channels)
    choices = (*spec.classes, UNREADABLE_CHOICE)
    by_candidate: dict[str, list[Vote]] = {}
    for annotation in annotations:
        form, candidate = annotation.last, by_task[annotation.first.task]
        cast = by_candidate.setdefault(candidate.key, [])
        author = annotation.first.author
        choice, reason = UNREADABLE, annotation.fault(form)
        try:
            chosen = drawing.choice(form.raw.get("result"), SEEN, choices, _VOTE_TYPES)
            choice = chosen if chosen < len(spec.classes) else UNREADABLE
        except ValueError as error:
            reason = reason or str(error)
        if not reason and form.shown not in ("", digests[annotation.first.task]):
            reason = "cast on another picture, which somebody put into the task"
        if not reason and author == candidate.annotator:
            reason = "a vote on one's own candidate"
        if not reason and any(vote.counted and vote.validator == author for vote in cast):
            reason = "a second vote of the same person"
        note = DELETED if annotation.deleted else ""
        cast.append(Vote(author, choice, annotation.first.id, form.at, counted=not reason, reason=reason or note))
    return by_candidate


def probe_answers(probes: Sequence[Candidate], votes: Mapping[str, Sequence[Vote]]) -> list[ProbeAnswer]:
    """What validators answered to probes; `unreadable` is wrong, and one answer a person counts. votes: by the key of
    the probe."""
    return [
        ProbeAnswer(vote.validator, probe.key, vote.choice, probe.intended)
        for probe in probes
        for vote in votes.get(probe.key, ())
        if vote.counted
    ]
