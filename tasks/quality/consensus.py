"""How the votes on a candidate settle its label. Pure: the same votes in any order give the same verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from data.records import DELETED, SKIPPED, UNREADABLE, Candidate, Verdict, Vote
from tasks.config.params import Validate

ASIDE = "set aside: "  # how the reason begins for which a vote or a candidate of such an account does not count


@dataclass(frozen=True, slots=True)
class SetAside:
    """Why an account is set aside."""

    reason: str
    candidates: bool  # whether its candidates are rejected too


@dataclass(frozen=True, slots=True)
class VoteTally:
    """The votes on a candidate, counted. cast: all of them, with what does not count marked; settled: the class, or
    UNREADABLE, that `consensus` people agreed on first, None so far; counted: how many count."""

    cast: tuple[Vote, ...]
    settled: int | None
    counted: int


def tally_votes(votes: Iterable[Vote], rules: Validate, aside: Mapping[str, SetAside] | None = None) -> VoteTally:
    """Count the votes in the order in which they were cast, up to `max_votes`."""
    cast: list[Vote] = []
    tally: Counter[int] = Counter()
    settled: int | None = None
    for vote in sorted(votes, key=lambda v: (v.annotation, v.validator)):
        if vote.counted and aside and vote.validator in aside:
            cast.append(replace(vote, counted=False, reason=ASIDE + aside[vote.validator].reason))
        elif vote.counted and tally.total() >= rules.max_votes:
            cast.append(replace(vote, counted=False, reason=f"more than {rules.max_votes} votes"))
        else:
            cast.append(vote)
            tally[vote.choice] += vote.counted
            if settled is None and vote.counted and tally[vote.choice] >= rules.consensus:
                settled = vote.choice
    return VoteTally(tuple(cast), settled, tally.total())


def settle(candidate: Candidate, votes: VoteTally, aside: Mapping[str, SetAside], rules: Validate) -> Candidate:
    if not candidate.wellformed:
        return candidate
    verdict, reason = verdict_of(votes, candidate.intended, rules)
    author = aside.get(candidate.annotator) if candidate.by_people else None
    if author is not None and author.candidates:
        verdict, reason = Verdict.REJECTED, ASIDE + author.reason
    return replace(candidate, votes=votes.cast, verdict=verdict, reason=reason)


def verdict_of(votes: VoteTally, intended: int, rules: Validate) -> tuple[Verdict, str]:
    if votes.settled == intended:
        return Verdict.VERIFIED, ""
    if votes.settled == UNREADABLE:
        return Verdict.REJECTED, "validators found it unreadable"
    if votes.settled is not None:
        return Verdict.REJECTED, "validators saw another class"
    if votes.counted >= rules.max_votes:
        return Verdict(rules.unsettled), f"no consensus in {votes.counted} votes"
    return Verdict.PENDING, ""


def reasons_aside(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Account → why it is set aside, by what does not count of it: the reason at its latest vote or candidate."""
    latest: dict[str, tuple[str, str]] = {}
    for candidate in candidates:
        marked = [(vote.validator, vote.at, vote.reason) for vote in candidate.votes]
        for account, at, reason in (*marked, (candidate.annotator, candidate.at, candidate.reason)):
            if reason.startswith(ASIDE):
                latest[account] = max(latest.get(account, ("", "")), (at, reason.removeprefix(ASIDE)))
    return {account: reason for account, (_, reason) in sorted(latest.items())}


def people_wanted(candidate: Candidate, rules: Validate) -> int:
    """How many annotations the candidate's task is to have, those that do not count included."""
    return sum(vote.reason not in (DELETED, SKIPPED) for vote in candidate.votes) + votes_missing(candidate, rules)


def votes_missing(candidate: Candidate, rules: Validate) -> int:
    """How many more votes settle the candidate's label, if they agree with most of those that count."""
    counted = [vote.choice for vote in candidate.votes if vote.counted]
    if candidate.verdict is not Verdict.PENDING or len(counted) >= rules.max_votes:
        return 0
    best = max((counted.count(choice) for choice in counted), default=0)
    return min(rules.consensus - best, rules.max_votes - len(counted))
