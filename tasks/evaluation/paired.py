"""Two networks' answers to the same images: what they can tell apart. Pure functions of counts, without torch.

Of n images b are lost and c are gained: the difference is d = (c − b) / n, and only the b + c on which the two networks
differ tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import bdtrc, ndtr, stdtrit

Z95 = 1.6448536269514722  # one-sided 95% of the normal distribution
POWER = 6.182557232019765  # (Z95 + one-sided 80%)²: n = POWER · ψ / δ² for 80% power
EXACT = 400  # uneven clusters up to which every combination of signs is counted
CLOSE = 1e-9  # of a difference of shares: 0.01 · 300 is a little less than 3


@dataclass(frozen=True)
class Paired:
    """Two networks' answers to the same images: only those on which they differ tell them apart."""

    both: int
    gained: int  # wrong before, right after
    lost: int  # right before, wrong after
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    @property
    def net(self) -> int:
        return self.gained - self.lost

    @property
    def difference(self) -> float:
        """Accuracy after less accuracy before, as a share."""
        return self.net / self.n

    @property
    def discordance(self) -> float:
        """The share of images on which the two differ, ψ."""
        return (self.gained + self.lost) / self.n

    def within(self, tolerance: float) -> bool:
        """Whether no more than that share of the images was lost, on balance."""
        return -self.net <= tolerance * self.n + CLOSE


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Count right (True) and wrong answers to the same images in the same order."""
    if len(before) != len(after):
        raise ValueError(f"paired counts need the same images, got {len(before)} and {len(after)} answers")
    seen = list(zip(before, after, strict=True))
    return Paired(
        both=sum(b and a for b, a in seen),
        gained=sum(a and not b for b, a in seen),
        lost=sum(b and not a for b, a in seen),
        neither=sum(not b and not a for b, a in seen),
    )


def binomial_tail(count: int, n: int, share: float) -> float:
    """The probability of `count` or more of n where each comes with that chance; 1 of nothing."""
    return rounded(bdtrc(count - 1, n, share)) if count > 0 else 1.0


def mcnemar(counts: Paired) -> float:
    """One-sided exact p that so many of the discordant images were gained by chance: Σ_{k≥c} C(b+c, k) / 2^(b+c)."""
    return binomial_tail(counts.gained, counts.gained + counts.lost, 0.5)


def sign_flip(nets: Sequence[int]) -> float:
    """One-sided exact p of clusters' net counts (gained less lost): how often their sum comes out as high or higher
    where each cluster's sign is a coin. At least 2^−A for A clusters that are not even; of many by the normal
    distribution, with half a count of continuity."""
    uneven = [abs(net) for net in nets if net]
    if len(uneven) > EXACT:
        return rounded(ndtr((1 - sum(nets)) / math.sqrt(sum(net * net for net in uneven))))
    ways = {0: 1}
    for net in uneven:
        flipped: dict[int, int] = {}
        for total, count in ways.items():
            for end in (total + net, total - net):
                flipped[end] = flipped.get(end, 0) + count
        ways = flipped
    return rounded(sum(count for total, count in ways.items() if total >= sum(nets)) / sum(ways.values()))


def tango(counts: Paired, z: float = Z95) -> tuple[float, float]:
    """Tango's score interval of the difference (Statistics in Medicine 17:891, 1998); 90% two-sided at z = 1.645.

    Each limit is where the score statistic, with the variance under that difference, reaches z. It holds where few
    images or none are discordant, as Wilson's does for one share.
    """
    n, gained, lost = counts.n, counts.gained, counts.lost
    if n < 1:
        raise ValueError("a difference needs at least one image, got none")

    def score(delta: float) -> float:
        # share: of the images lost, at its likeliest under this difference
        w = (2 * n - gained + lost) * delta - gained - lost
        share = (math.sqrt(max(w * w + 8 * n * lost * delta * (1 - delta), 0.0)) - w) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        away = gained - lost - n * delta
        if variance <= 0:
            return 0.0 if away == 0 else math.copysign(math.inf, away)
        return away / math.sqrt(variance)

    d = counts.difference
    return _root(lambda x: score(x) - z, -1.0, d), _root(lambda x: score(x) + z, d, 1.0)


def clustered(clusters: Sequence[Paired], z: float = Z95) -> tuple[float, float]:
    """The same interval where each cluster's images hang together, as one annotator's do: t over the clusters, at least
    as wide as Tango's of all images; the whole range of fewer than two clusters."""
    whole = total(clusters)
    if len(clusters) < 2:
        return -1.0, 1.0
    away = [each.net - whole.difference * each.n for each in clusters]
    a = len(clusters)
    error = math.sqrt(a / (a - 1) * math.fsum(x * x for x in away)) / whole.n
    half = rounded(stdtrit(a - 1, ndtr(z))) * error
    low, high = tango(whole, z)
    return max(-1.0, min(low, whole.difference - half)), min(1.0, max(high, whole.difference + half))


def total(parts: Sequence[Paired]) -> Paired:
    """All of the parts together."""
    return Paired(*(sum(getattr(part, name) for part in parts) for name in ("both", "gained", "lost", "neither")))


def images_to_decide(n: int, difference: float, low: float, high: float, margin: float) -> int:
    """How many images would decide, with 80% power and one-sided 5%, whether more than `margin` is lost, were the
    difference and the spread that the interval shows what they are seen to be.

    The smaller of two: enough that the lower limit rises above −margin, no gain being counted on, and, of a loss,
    enough that the upper one falls below 0.
    """
    needed = []
    if (room := margin + min(difference, 0.0)) > 0:
        needed.append((difference - low) / room)
    if difference < 0:
        needed.append((high - difference) / -difference)
    return math.ceil(n * POWER / Z95**2 * min(needed) ** 2)


def rounded(p: float) -> float:
    """To four digits: a library's last ones differ from machine to machine."""
    return float(f"{float(p):.4g}")


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes 0, by halving; the same number everywhere."""
    if falling(high) > 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
