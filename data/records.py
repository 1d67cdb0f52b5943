"""What a round remembers of a candidate. Plain values: no torch, no files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

UNREADABLE = -1  # a vote: this image shows none of the classes
HUMAN = "human"
SIMULATED = "simulated"
PROBE = "probe"  # of what validators are tested with; never in a shard
PLAYED = "played"  # people's too, from the players' page, where only what fools is sent: a rate of it says nothing
RATED = (HUMAN, SIMULATED)  # the sources that MER and vMER count
PEOPLE = (*RATED, PLAYED)
SIMULATED_DOMAIN = "simulated.invalid"  # of accounts; reserved (RFC 2606): no person has an address there
DELETED = "deleted after it was pulled"  # reasons for which an annotation does not count
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What every image of a campaign has in common."""

    classes: tuple[str, ...]  # in the order of the label's indices
    channels: int  # 1 or 3
    size: int  # height = width in pixels


def is_simulated(account: str) -> bool:
    """Whether an account is one of the simulation's."""
    return account.rpartition("@")[2] == SIMULATED_DOMAIN


class Verdict(StrEnum):
    """What the validators made of a candidate's intended label."""

    VERIFIED = "verified"
    REJECTED = "rejected"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's answer to one candidate."""

    validator: str  # account, lower-case e-mail
    choice: int  # class index, or UNREADABLE
    annotation: int  # id in Label Studio
    at: str  # ISO 8601, UTC
    counted: bool = True
    reason: str = ""  # why it does not count


@dataclass(frozen=True, slots=True)
class Candidate:
    """A submitted image with its intended label, and all that was found out about it.

    A malformed one (no ink, no class, a broken image) stays in the record with an empty
    image, `wellformed=False`, verdict `rejected` and the reason; it is not collected.
    """

    key: str  # unique in the campaign
    round: int
    source: str  # human, simulated, played, or an attack's name
    image: bytes  # PNG at the network's own size
    intended: int  # class index; -1 if malformed
    annotator: str = ""  # account, lower-case e-mail; empty for machines
    seed_image: str = ""  # key of the pool image it started from; empty for a blank canvas
    annotation: int = 0  # id in Label Studio; 0 for machines
    at: str = ""  # ISO 8601, UTC
    seconds: float = 0.0  # time the annotator took
    answer: int = -1  # the target's class; -1 until judged
    probability: float = 0.0  # that the target gave to its answer
    votes: tuple[Vote, ...] = ()
    verdict: Verdict = Verdict.PENDING
    reason: str = ""
    wellformed: bool = True
    split: str = ""  # train, validation or test, once frozen

    @property
    def judged(self) -> bool:
        return self.answer >= 0

    @property
    def fooling(self) -> bool:
        return self.wellformed and self.judged and self.answer != self.intended

    @property
    def verified(self) -> bool:
        return self.verdict is Verdict.VERIFIED

    @property
    def late(self) -> bool:
        """Whether it was made for an earlier round than the one that judges it, after that was frozen."""
        return not self.key.startswith(f"{self.round:03d}/")

    @property
    def by_people(self) -> bool:
        return self.source in PEOPLE

    @property
    def rated(self) -> bool:
        """Whether MER and vMER count it."""
        return self.source in RATED

    def rejected(self, reason: str, *, wellformed: bool = True) -> Candidate:
        """The same candidate with verdict `rejected` and why."""
        return replace(self, verdict=Verdict.REJECTED, reason=reason, wellformed=wellformed)
