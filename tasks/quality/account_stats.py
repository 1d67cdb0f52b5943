"""What every account did in a campaign, as counts that can be added up over rounds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data.records import UNREADABLE, Candidate, Vote
from tasks.config.params import Validate
from tasks.quality.consensus import ASIDE, VoteTally, tally_votes


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """A validator's answer to a probe."""

    validator: str
    probe: str  # its key
    seen: int  # class index, or UNREADABLE
    truth: int  # class index

    @property
    def right(self) -> bool:
        return self.seen == self.truth


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
    judged: int = 0  # votes that are not `against`, on candidates on which others voted for a class
    odd: int = 0  # of those, for another class than most of the others saw
    # Annotator → sidings and against, where the settled class has more votes than the intended one. A consensus is the
    # first to be reached: later votes may have drawn level with it, and then it is no evidence against them.
    sided_with: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: AccountStats) -> AccountStats:
        pairs = dict(self.sided_with)
        for annotator, (sidings, against) in other.sided_with.items():
            before = pairs.get(annotator, (0, 0))
            pairs[annotator] = (before[0] + sidings, before[1] + against)
        return AccountStats(**{name: getattr(self, name) + getattr(other, name) for name in COUNTS}, sided_with=pairs)


COUNTS = tuple(name for name in AccountStats.__dataclass_fields__ if name != "sided_with")


def account_stats(
    candidates: Iterable[tuple[Candidate, VoteTally]], probes: Iterable[ProbeAnswer]
) -> dict[str, AccountStats]:
    """What every account did. Votes of accounts that are set aside are looked at all the same."""
    counts: dict[str, Counter[str]] = {}
    pairs: dict[str, dict[str, tuple[int, int]]] = {}

    def add(account: str, **numbers: int) -> None:
        counts.setdefault(account, Counter()).update(numbers)

    for answer in probes:
        add(answer.validator, probes=1, probes_right=answer.right)
    for candidate, votes in candidates:
        if votes.settled is None or votes.settled == UNREADABLE:
            continue
        wrong = votes.settled != candidate.intended
        if candidate.by_people:
            add(candidate.annotator, settled=1, rejected=wrong)
        choices = Counter(vote.choice for vote in votes.cast if vote.counted)
        for vote in votes.cast:
            if vote.choice == UNREADABLE or not (vote.counted or vote.reason.startswith(ASIDE)):
                continue
            add(vote.validator, votes=1, dissents=vote.choice != votes.settled)
            if wrong and candidate.by_people:
                sided = vote.choice == candidate.intended
                add(vote.validator, against=1, sidings=sided)
                if choices[votes.settled] > choices[candidate.intended]:
                    before = pairs.setdefault(vote.validator, {}).get(candidate.annotator, (0, 0))
                    pairs[vote.validator][candidate.annotator] = (before[0] + sided, before[1] + 1)
                continue
            others = seen_by_others(vote, choices)
            if others - {UNREADABLE}:
                add(vote.validator, judged=1, odd=vote.choice not in others)
    return {
        account: AccountStats(**{name: tally[name] for name in COUNTS}, sided_with=pairs.get(account, {}))
        for account, tally in counts.items()
    }


def seen_by_others(vote: Vote, choices: Mapping[int, int]) -> set[int]:
    """The choice of most of the other voters, or the choices if they are level. choices: how many made each, among the
    votes that count, with this one if it counts."""
    others = {choice: n - (vote.counted and choice == vote.choice) for choice, n in choices.items()}
    most = max(others.values(), default=0)
    return {choice for choice, n in others.items() if n == most > 0}


def closed_round_stats(candidates: Iterable[Candidate], rules: Validate) -> dict[str, AccountStats]:
    """What every account did on a closed round's candidates."""
    return account_stats(((c, tally_votes(c.votes, rules)) for c in candidates if c.wellformed), ())


def add_stats(parts: Iterable[Mapping[str, AccountStats]]) -> dict[str, AccountStats]:
    """What every account did in all of them."""
    total: dict[str, AccountStats] = {}
    for part in parts:
        for account, stats in part.items():
            total[account] = total[account] + stats if account in total else stats
    return total
