"""Votes → verdicts. Pure: the same votes in any order give the same verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data.records import UNREADABLE, Candidate, Verdict, Vote
from tasks.params import Validate


def validate(candidates: Sequence[Candidate], votes: Mapping[str, Sequence[Vote]], rules: Validate) -> list[Candidate]:
    """Every candidate with its votes and the verdict they give by now. A malformed one stays rejected.

    Votes are taken as they were cast: the first class on which `consensus` people agree settles the label, and the
    intended one is verified if it is that. Without consensus after `max_votes` the verdict is `unsettled`'s.
    """
    return [_settled(c, votes.get(c.key, ()), rules) if c.wellformed else c for c in candidates]


def _settled(candidate: Candidate, votes: Sequence[Vote], rules: Validate) -> Candidate:
    cast: list[Vote] = []
    tally: Counter[int] = Counter()
    settled: int | None = None
    for vote in sorted(votes, key=lambda v: (v.annotation, v.validator)):
        if vote.counted and tally.total() >= rules.max_votes:
            cast.append(replace(vote, counted=False, reason=f"more than {rules.max_votes} votes"))
            continue
        cast.append(vote)
        if vote.counted:
            tally[vote.choice] += 1
            if settled is None and tally[vote.choice] >= rules.consensus:
                settled = vote.choice
    verdict, reason = _verdict(settled, candidate.intended, tally.total(), rules)
    return replace(candidate, votes=tuple(cast), verdict=verdict, reason=reason)


def _verdict(settled: int | None, intended: int, counted: int, rules: Validate) -> tuple[Verdict, str]:
    if settled == intended:
        return Verdict.VERIFIED, ""
    if settled == UNREADABLE:
        return Verdict.REJECTED, "validators found it unreadable"
    if settled is not None:
        return Verdict.REJECTED, "validators saw another class"
    if counted >= rules.max_votes:
        return Verdict(rules.unsettled), f"no consensus in {counted} votes"
    return Verdict.PENDING, ""
