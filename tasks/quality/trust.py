"""Whose votes and candidates count: what every account did in the campaign, and who is set aside for it.

Pure and recomputed each time from the whole record: nobody is set aside by a list that somebody keeps, and who does
better later is let in again. Four rules, each a share with a least number before it says anything:

1. probes: a validator who answers too few of the images whose class is known;
2. dissent: a validator who too often sees another class than the consensus;
3. rejected: an annotator whose candidates too often show another class than they say;
4. siding: a validator who, where the consensus saw another class than the annotator said, too often sees what the
   annotator said. Validators are not told that, so they have it from somewhere.

Set aside by any of them, an account's votes do not count; by the third, its candidates are rejected as well. After the
probes, which need no consensus, one account goes at a time, the worst of the first rule under which there is one, and
all labels are settled again before the next is looked for: while colluders win labels, honest people seem to dissent,
and to side with who was right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from data.records import UNREADABLE, Candidate, Vote
from tasks.config.params import Validate
from tasks.quality.consensus import ASIDE, SetAside, VoteTally, tally_votes


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """A validator's answer to a probe."""

    validator: str
    right: bool


@dataclass(frozen=True, slots=True)
class AccountStats:
    """What an account did, as counts."""

    probes: int = 0  # answered
    probes_right: int = 0
    votes: int = 0  # for a class, on candidates settled on a class
    dissents: int = 0  # of those, for another class than the consensus
    against: int = 0  # of the votes, on people's candidates that were settled on another class than the intended one
    sidings: int = 0  # of those, for the intended class
    settled: int = 0  # own candidates settled on a class
    rejected: int = 0  # of those, on another class than the intended one

    def __add__(self, other: AccountStats) -> AccountStats:
        return AccountStats(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def account_stats(
    candidates: Iterable[tuple[Candidate, VoteTally]], probes: Iterable[ProbeAnswer]
) -> dict[str, AccountStats]:
    """What every account did. Votes of accounts that are set aside are looked at all the same."""
    tallies: dict[str, Counter[str]] = {}

    def add(account: str, **found: int) -> None:
        tallies.setdefault(account, Counter()).update(found)

    for answer in probes:
        add(answer.validator, probes=1, probes_right=answer.right)
    for candidate, votes in candidates:
        if votes.settled is None or votes.settled == UNREADABLE:
            continue
        wrong = votes.settled != candidate.intended
        if candidate.by_people:
            add(candidate.annotator, settled=1, rejected=wrong)
        for vote in votes.cast:
            if vote.choice == UNREADABLE or not (vote.counted or vote.reason.startswith(ASIDE)):
                continue
            add(vote.validator, votes=1, dissents=vote.choice != votes.settled)
            if wrong and candidate.by_people:
                add(vote.validator, against=1, sidings=vote.choice == candidate.intended)
    names = [field.name for field in fields(AccountStats)]
    return {account: AccountStats(**{name: tally[name] for name in names}) for account, tally in tallies.items()}


def closed_round_stats(candidates: Iterable[Candidate], rules: Validate) -> dict[str, AccountStats]:
    """What every account did on a closed round's candidates."""
    return account_stats(((c, tally_votes(c.votes, rules)) for c in candidates if c.wellformed), ())


def add_stats(parts: Iterable[Mapping[str, AccountStats]]) -> dict[str, AccountStats]:
    """What every account did in all of them."""
    found: dict[str, AccountStats] = {}
    for part in parts:
        for account, did in part.items():
            found[account] = found[account] + did if account in found else did
    return found


def set_aside(
    candidates: Sequence[Candidate],
    votes: Mapping[str, Sequence[Vote]],
    rules: Validate,
    past: Mapping[str, AccountStats],
) -> dict[str, SetAside]:
    """Account → why it is set aside. votes: by the key of the candidate; past: what is known of accounts besides the
    candidates at hand, from closed rounds and probes. The order of anything does not matter."""
    aside = {
        account: SetAside(f"{did.probes_right} of {did.probes} probes answered rightly", candidates=False)
        for account, did in past.items()
        if did.probes >= rules.probe_votes and did.probes_right < rules.probe_accuracy * did.probes
    }
    sound = [c for c in candidates if c.wellformed]
    while True:
        now = [(c, tally_votes(votes.get(c.key, ()), rules, aside)) for c in sound]
        worst = max(
            (
                (rank, account, why)
                for account, did in add_stats([past, account_stats(now, ())]).items()
                for rank, why in _offences(did, rules)
                if not (account in aside and (aside[account].candidates or not why.candidates))
            ),
            key=lambda found: (found[0], found[1]),
            default=None,
        )
        if worst is None:
            return aside
        aside[worst[1]] = worst[2]


def _offences(did: AccountStats, rules: Validate) -> list[tuple[tuple[int, float], SetAside]]:
    """Each rule that an account breaks: its rank, the higher the sooner, and the reason in words."""
    shares = [
        (did.sidings, did.against, rules.validator_siding, "votes on mislabelled candidates are for the wrong label"),
        (did.rejected, did.settled, rules.annotator_rejected, "settled candidates show another class"),
        (did.dissents, did.votes, rules.validator_dissent, "votes differ from the consensus"),
    ]
    return [
        ((rule, part / whole - limit), SetAside(f"{part} of {whole} {what}", candidates=rule == 1))
        for rule, (part, whole, limit, what) in enumerate(shares)
        if whole >= rules.judged_from and part > limit * whole
    ]
