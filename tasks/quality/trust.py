"""Whose votes and candidates count: what every account did in the campaign, and who is set aside for it.

Pure and worked out each time from the whole record: there is no list of bad accounts to keep, and who does better later
is let in again. Four records of an account are looked at, each of other votes or candidates than the others:

1. probes: answers to images whose class is known;
2. dissent: votes that differ from what most of the *other* voters saw;
3. rejected: own candidates that were settled on another class than the intended one;
4. siding: votes for the intended label on candidates that others settled on another class. Validators are not told that
   label, so who sees it often has it from somewhere.

What is tolerated is the campaign's own median of that rate and an excess (`validate.aside`): where pictures are hard,
everybody errs, and an honest person may err more than others do. An account is set aside once the evidence
(tasks/quality/evidence.py) that its rates are above that reaches 1/α; a group that votes for each other's wrong labels,
once its evidence does (tasks/quality/collusion.py). Their votes do not count, and their candidates are rejected where
these themselves speak against their author. One account or group goes at a time, the one with the most evidence, and
all labels are settled again before the next: while colluders win labels, honest people seem to dissent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from data.records import Candidate, Vote, is_simulated
from tasks.config.params import Aside, Validate
from tasks.quality.account_stats import AccountStats, account_stats, add_stats
from tasks.quality.collusion import find_group
from tasks.quality.consensus import SetAside, tally_votes
from tasks.quality.earlier import set_aside_by_shares
from tasks.quality.evidence import log_evidence, log_together, median_rate

MOST = 0.5  # rate of error that is tolerated at most: beyond it an account is wrong more often than right
AGAINST_AUTHOR = math.log(10)  # evidence of own candidates from which those of an account set aside are rejected too
WHAT = {
    "probes": "probes answered wrongly",
    "dissent": "votes differ from what the others saw",
    "rejected": "settled candidates show another class",
    "siding": "votes on mislabelled candidates are for the wrong label",
}


@dataclass(frozen=True)
class _Case:
    """What speaks for setting accounts aside."""

    log_evidence: float
    accounts: tuple[str, ...]
    why: SetAside


def set_aside(
    candidates: Sequence[Candidate],
    votes: Mapping[str, Sequence[Vote]],
    rules: Validate,
    past: Mapping[str, AccountStats],
) -> dict[str, SetAside]:
    """Account → why it is set aside. votes: by the key of the candidate; past: what is known of accounts besides the
    candidates at hand, from closed rounds and probes. The order of anything does not matter."""
    if rules.aside is None:
        return set_aside_by_shares(candidates, votes, rules, past)
    aside: dict[str, SetAside] = {}
    wellformed = [c for c in candidates if c.wellformed]
    while True:
        tallies = [(c, tally_votes(votes.get(c.key, ()), rules, aside)) for c in wellformed]
        stats = add_stats([past, account_stats(tallies, ())])
        new = [case for case in _cases(stats, rules.aside) if _is_news(case, aside)]
        if not new:
            return aside
        strongest = max(new, key=lambda case: (len(case.accounts) == 1, case.log_evidence, case.accounts))
        for account in strongest.accounts:
            if account not in aside or strongest.why.candidates:
                aside[account] = strongest.why


def _is_news(case: _Case, aside: Mapping[str, SetAside]) -> bool:
    return any(a not in aside or (case.why.candidates and not aside[a].candidates) for a in case.accounts)


def _cases(stats: Mapping[str, AccountStats], rules: Aside) -> list[_Case]:
    """Every account, and the group, against which the evidence suffices. Simulated accounts are held against the median
    of simulated accounts alone."""
    enough, cases = -math.log(rules.alpha), []
    for kind in (False, True):
        ours = {account: did for account, did in stats.items() if is_simulated(account) is kind}
        limits = _limits(ours.values(), rules)
        cases += [_case(account, did, limits) for account, did in ours.items()]
        group = find_group(ours, limits["siding"])
        if group is not None:
            what = f"{len(group.accounts)} accounts gave {group.sidings} of {group.against} votes on each other's"
            why = f"{what} mislabelled candidates for the wrong label{_passing(limits['siding'], group.log_evidence)}"
            cases.append(_Case(group.log_evidence, group.accounts, SetAside(why, candidates=False)))
    return [case for case in cases if case.log_evidence >= enough]


def _case(account: str, did: AccountStats, limits: Mapping[str, float]) -> _Case:
    """The evidence against one account."""
    counts = _counts(did)
    evidence = {name: log_evidence(*counts[name], limits[name]) for name in counts}
    together = log_together(evidence.values())
    speaking = sorted((name for name in counts if evidence[name] > 0), key=lambda name: -evidence[name])
    told = [f"{counts[name][0]} of {counts[name][1]} {WHAT[name]}" for name in speaking]
    passing = _passing(limits[speaking[0]], together) if speaking else ""
    return _Case(together, (account,), SetAside(", ".join(told) + passing, evidence["rejected"] >= AGAINST_AUTHOR))


def _passing(limit: float, evidence: float) -> str:
    return f"; up to {limit:.0%} is tolerated (evidence {min(1e6, math.exp(min(evidence, 20))):,.0f} to 1)"


def _limits(stats: Collection[AccountStats], rules: Aside) -> dict[str, float]:
    """The rate of error that is tolerated, by record: the median and the excess, at most MOST unless half do worse. The
    class of a probe is known, so there MOST holds for everybody."""
    excess = {**dict.fromkeys(WHAT, rules.excess), "siding": rules.siding}
    medians = {name: median_rate(_counts(did)[name] for did in stats) for name in WHAT}
    limits = {name: min(medians[name] + excess[name], MOST) for name in WHAT}
    return {name: limits[name] if name == "probes" else max(limits[name], medians[name]) for name in WHAT}


def _counts(did: AccountStats) -> dict[str, tuple[int, int]]:
    """Errors and cases, by record."""
    return {
        "probes": (did.probes - did.probes_right, did.probes),
        "dissent": (did.odd, did.judged),
        "rejected": (did.rejected, did.settled),
        "siding": (sum(k for k, _ in did.sided_with.values()), sum(n for _, n in did.sided_with.values())),
    }
