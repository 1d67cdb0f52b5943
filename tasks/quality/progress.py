"""Where an open round stands, in numbers: what people have made, what of it fools, what is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.records import Candidate
from tasks.quality.agreement import alpha, counted
from tasks.quality.consensus import ASIDE

MIN_DOUBLE_VOTED = 10  # candidates with two votes or more, from which agreement is spoken of


@dataclass(frozen=True)
class Progress:
    """Where a round stands, people's candidates alone."""

    collected: int
    fooling: int
    verified_fooling: int  # without near-duplicates of their author's
    pending: int  # fooling, without a verdict
    malformed: int
    alpha: float | None = None  # agreement of the validators; None where few candidates have two votes
    late: int = 0  # of the collected: made for an earlier round after it was frozen
    voters: int = 0  # accounts whose votes count
    aside: int = 0  # accounts whose votes do not, for they are set aside
    duplicates: int = 0  # fooling, and near-duplicates of their author's

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Progress:
        from tasks.quality.duplicates import new_fools

        people = [c for c in candidates if c.by_people]
        fooling, new = [c for c in people if c.fooling], new_fools(people)
        agreed = alpha(counted(people))
        votes = [vote for c in candidates for vote in c.votes]
        return cls(
            collected=sum(c.wellformed for c in people),
            fooling=len(fooling),
            verified_fooling=sum(c.verified for c in new),
            pending=sum(c.verdict == "pending" for c in fooling),
            malformed=sum(not c.wellformed for c in people),
            alpha=agreed["alpha"] if agreed["candidates"] >= MIN_DOUBLE_VOTED else None,
            late=sum(c.wellformed and c.late for c in people),
            voters=len({vote.validator for vote in votes if vote.counted}),
            aside=len({vote.validator for vote in votes if vote.reason.startswith(ASIDE)}),
            duplicates=len(fooling) - len(new),
        )

    def __str__(self) -> str:
        return (
            f"{self.collected} collected, {self.fooling} fooling, {self.verified_fooling} of them verified, "
            f"{self.pending} pending, {self.malformed} malformed"
            + (f", {self.duplicates} near-duplicates" if self.duplicates else "")
            + (f", {self.late} late" if self.late else "")
        )
