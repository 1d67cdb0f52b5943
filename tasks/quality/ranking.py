"""Who fooled the model, with what, and what a newer model has healed: from the candidates alone, nothing is counted.

What players may see of each other: the intended class of a drawing only once its label is verified, since those who
still have to vote on it play as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.records import Candidate, Verdict
from tasks.quality.duplicates import new_fools

SHOWN = 24  # images at most in a gallery


@dataclass(frozen=True)
class Rank:
    """One person's part in the campaign."""

    annotator: str
    sent: int  # well-formed candidates
    fools: int  # without near-duplicates of earlier ones, as on the leaderboard
    verified: int  # of those, with a verified label


@dataclass(frozen=True)
class Fool:
    """A candidate that fooled the target of its round, and what the target of today makes of it."""

    candidate: Candidate
    now: int  # class index

    @property
    def healed(self) -> bool:
        return self.now == self.candidate.intended

    @property
    def state(self) -> str:
        """In a word, for its author."""
        if self.healed:
            return "healed"
        return {Verdict.VERIFIED: "verified", Verdict.REJECTED: "rejected"}.get(self.candidate.verdict, "being read")


@dataclass(frozen=True)
class Ranking:
    """How a campaign stands."""

    ranks: tuple[Rank, ...]  # the first place first
    fools: tuple[Fool, ...]  # the newest first
    verified: int  # fools of people in the open round with a verified label, near-duplicates once

    @property
    def gallery(self) -> list[Fool]:
        """What is known to fool the target of today."""
        return [fool for fool in self.fools if fool.candidate.verified and not fool.healed][:SHOWN]

    def of(self, annotator: str) -> tuple[int, Rank]:
        """Place and part of a person; those who are level share a place, and who sent nothing is last."""
        own = next((r for r in self.ranks if r.annotator == annotator), Rank(annotator, 0, 0, 0))
        return 1 + sum((r.verified, r.fools) > (own.verified, own.fools) for r in self.ranks), own

    def own(self, annotator: str) -> list[Fool]:
        """What a person fooled the model with."""
        return [fool for fool in self.fools if fool.candidate.annotator == annotator][:SHOWN]


def rank(candidates: Sequence[Candidate], now: Mapping[str, int], open_round: int | None) -> Ranking:
    """candidates: of all rounds, judged and with their verdicts; now: key → answer of the target of today, for every
    fooling one."""
    people = [c for c in candidates if c.by_people and c.wellformed]
    sent, new = Counter(c.annotator for c in people), new_fools(people)
    fools, verified = Counter(c.annotator for c in new), Counter(c.annotator for c in new if c.verified)
    ranks = [Rank(annotator, sent[annotator], fools[annotator], verified[annotator]) for annotator in sent]
    ranks.sort(key=lambda r: (-r.verified, -r.fools, r.sent, r.annotator))
    newest = sorted((c for c in candidates if c.fooling), key=lambda c: (c.round, c.at, c.key), reverse=True)
    return Ranking(
        ranks=tuple(ranks),
        fools=tuple(Fool(c, now[c.key]) for c in newest),
        verified=sum(c.verified for c in new_fools(c for c in people if c.round == open_round)),
    )
