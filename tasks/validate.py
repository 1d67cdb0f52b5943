"""Votes → verdicts. Pure: the same votes in any order give the same verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data.records import UNREADABLE, Candidate, Verdict, Vote
from tasks.params import Validate
from tasks.trust import ASIDE, Aside, Conduct, Count, count, set_aside


def validate(
    candidates: Sequence[Candidate],
    votes: Mapping[str, Sequence[Vote]],
    rules: Validate,
    past: Mapping[str, Conduct] | None = None,
) -> list[Candidate]:
    """Every candidate with its votes and the verdict they give by now. A malformed one stays rejected.

    Votes are taken as they were cast, without those of accounts that are set aside: the first class on which
    `consensus` people agree settles the label, and the intended one is verified if it is that. Without consensus after
    `max_votes` the verdict is `unsettled`'s. past: what is known of the accounts from elsewhere.
    """
    aside = set_aside(candidates, votes, rules, past or {})
    return [_settled(c, count(votes.get(c.key, ()), rules, aside), aside, rules) for c in candidates]


def _settled(candidate: Candidate, votes: Count, aside: Mapping[str, Aside], rules: Validate) -> Candidate:
    if not candidate.wellformed:
        return candidate
    verdict, reason = _verdict(votes, candidate.intended, rules)
    author = aside.get(candidate.annotator) if candidate.by_people else None
    if author is not None and author.candidates:
        verdict, reason = Verdict.REJECTED, ASIDE + author.reason
    return replace(candidate, votes=votes.cast, verdict=verdict, reason=reason)


def _verdict(votes: Count, intended: int, rules: Validate) -> tuple[Verdict, str]:
    if votes.settled == intended:
        return Verdict.VERIFIED, ""
    if votes.settled == UNREADABLE:
        return Verdict.REJECTED, "validators found it unreadable"
    if votes.settled is not None:
        return Verdict.REJECTED, "validators saw another class"
    if votes.counted >= rules.max_votes:
        return Verdict(rules.unsettled), f"no consensus in {votes.counted} votes"
    return Verdict.PENDING, ""
