"""Groups of accounts that vote for each other's wrong labels. Pure.

Validators are shown neither the intended label nor the author. Where a drawing was settled on another class than its
author said, an honest validator sees the author's class only by an error. The search is for a group whose members do so
too often for each other. Its evidence is that of all their votes on each other's drawings, less the price of having
chosen this group among all there could be (a union bound: evenly over sizes, then over the groups of a size). So the
chance that any group of honest accounts is ever found stays under α, however the search goes about it.

A group is at most half of the accounts: where most see a class, it is the class. It does not sweep in those whom its
members merely sided with: a member has itself voted for the wrong label of another, and the votes between it and the
others weigh MEMBER to 1 by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tasks.quality.account_stats import AccountStats
from tasks.quality.evidence import log_evidence

STARTS = 20  # pairs that a search begins with, those with the most sidings
MEMBER = math.log(5)  # evidence of the votes between a member and the others
Pairs = Mapping[tuple[str, str], tuple[int, int]]  # validator and annotator → sidings, votes on mislabelled candidates


@dataclass(frozen=True)
class Group:
    """Accounts that side with each other. The counts are those of all among whom they were found, bystanders too."""

    accounts: tuple[str, ...]  # in order
    sidings: int  # votes for the intended label on each other's mislabelled candidates
    against: int  # votes on those
    log_evidence: float  # that they do so more often than the limit, after the choice of the group is paid for


def find_group(stats: Mapping[str, AccountStats], limit: float) -> Group | None:
    """The group with the most evidence; None where nobody sided with anybody. limit: the share of votes for the wrong
    label that is tolerated."""
    pairs = {(who, whose): counts for who, did in stats.items() for whose, counts in did.sided_with.items()}
    accounts = {account for pair in pairs for account in pair}
    mutual: dict[tuple[str, str], int] = {}
    near: dict[str, set[str]] = {}
    for (who, whose), (sidings, _) in pairs.items():
        if sidings:
            pair = (min(who, whose), max(who, whose))
            mutual[pair] = mutual.get(pair, 0) + sidings
            near.setdefault(who, set()).add(whose)
            near.setdefault(whose, set()).add(who)
    starts = sorted(mutual, key=lambda pair: (-mutual[pair], pair))[:STARTS]
    grown = [_grown(start, pairs, near, len(accounts), limit) for start in starts]
    groups = [group for each in grown if (group := _without_bystanders(each, pairs, limit))]
    return max(groups, key=lambda group: (group.log_evidence, group.accounts), default=None)


def _grown(start: tuple[str, str], pairs: Pairs, near: Mapping[str, set[str]], accounts: int, limit: float) -> Group:
    """The best group on the way from a pair, by taking in the account that brings the most evidence."""
    group = _group(start, *_between(pairs, *start), accounts, limit)
    best = group
    while len(group.accounts) < accounts // 2:
        outside = {account for member in group.accounts for account in near[member]} - set(group.accounts)
        larger = []
        for account in sorted(outside):
            more = [_between(pairs, account, member) for member in group.accounts]
            sidings, against = group.sidings + sum(k for k, _ in more), group.against + sum(n for _, n in more)
            larger.append(_group((*group.accounts, account), sidings, against, accounts, limit))
        if not larger:
            break
        group = max(larger, key=lambda each: each.log_evidence)
        if group.log_evidence > best.log_evidence:
            best = group
    return best


def _without_bystanders(group: Group, pairs: Pairs, limit: float) -> Group | None:
    """The group with those accounts only that are members by themselves; None if fewer than two are."""
    members = []
    for account in group.accounts:
        others = [other for other in group.accounts if other != account]
        both_ways = [_between(pairs, account, other) for other in others]
        weight = log_evidence(sum(k for k, _ in both_ways), sum(n for _, n in both_ways), limit)
        if weight >= MEMBER and any(pairs.get((account, other), (0, 0))[0] for other in others):
            members.append(account)
    return replace(group, accounts=tuple(members)) if len(members) > 1 else None


def _group(members: tuple[str, ...], sidings: int, against: int, accounts: int, limit: float) -> Group:
    size = len(members)
    choices = math.lgamma(accounts + 1) - math.lgamma(size + 1) - math.lgamma(accounts - size + 1)
    paid = log_evidence(sidings, against, limit) - math.log(accounts) - choices
    return Group(tuple(sorted(members)), sidings, against, paid)


def _between(pairs: Pairs, one: str, other: str) -> tuple[int, int]:
    """Sidings and votes on mislabelled candidates between two accounts, both ways."""
    (a, b), (c, d) = pairs.get((one, other), (0, 0)), pairs.get((other, one), (0, 0))
    return a + c, b + d
