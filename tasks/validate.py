"""Votes → verdicts. Pure: the same votes in any order give the same verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.records import Candidate, Vote
from tasks.config.params import Validate
from tasks.quality.account_stats import AccountStats
from tasks.quality.consensus import settle, tally_votes
from tasks.quality.trust import set_aside


def validate(
    candidates: Sequence[Candidate],
    votes: Mapping[str, Sequence[Vote]],
    rules: Validate,
    past: Mapping[str, AccountStats] | None = None,
) -> list[Candidate]:
    """Every candidate with its votes and the verdict they give by now. A malformed one stays rejected.

    Votes are taken as they were cast, without those of accounts that are set aside: the first class on which
    `consensus` people agree settles the label, and the intended one is verified if it is that. Without consensus after
    `max_votes` the verdict is `unsettled`'s. past: what is known of the accounts from elsewhere.
    """
    aside = set_aside(candidates, votes, rules, past or {})
    return [settle(c, tally_votes(votes.get(c.key, ()), rules, aside), aside, rules) for c in candidates]
