"""How strongly counts speak against an honest account, however often one has looked at them. Pure.

The evidence is an e-value: the likelihood of what was counted, averaged over all rates of error above a limit, as a
multiple of its likelihood at the limit. An account whose rate lies at the limit or below ever reaches evidence of 1/α
with probability α at most (Ville's inequality; Ramdas et al., arXiv:2210.01948): so it may be looked at after every
single vote, and no look costs anything. The rates at which the evidence stays under 1/α are a confidence interval that
holds at all looks at once; `lower_limit` is its lower end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from scipy.special import betaincc, betaln

STEPS = 40  # halvings of the search for a limit: to 10⁻¹²
HIGHEST = 690.0  # of a logarithm whose exponential is still a number


def log_evidence(wrong: int, n: int, limit: float) -> float:
    """The logarithm of the evidence that the rate of error is above `limit`, from `wrong` of n. 0 of nothing, and
    where no rate is above the limit; -inf where the counts are as far below it as a number can tell."""
    if n == 0 or limit >= 1:
        return 0.0
    if limit <= 0:
        return 0.0 if wrong == 0 else math.inf
    above = float(betaincc(wrong + 1, n - wrong + 1, limit))
    if above <= 0:
        return -math.inf
    mean = float(betaln(wrong + 1, n - wrong + 1)) + math.log(above) - math.log1p(-limit)
    return mean - wrong * math.log(limit) - (n - wrong) * math.log1p(-limit)


def log_together(parts: Iterable[float]) -> float:
    """The logarithm of the evidence of several records of one account, each counted on other things: ∏ (1 + e) / 2, the
    mean of the product of their evidence over all choices of some of them. So a record without a fault costs no more
    than a factor of two."""
    return sum(math.log1p(math.exp(min(part, HIGHEST))) - math.log(2) for part in parts)


def lower_limit(wrong: int, n: int, alpha: float) -> float:
    """The rate of error that is at least behind `wrong` of n, with a confidence of 1 - alpha at all looks at once."""
    low, high = 0.0, wrong / n if n else 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_evidence(wrong, n, middle) >= -math.log(alpha) else (low, middle)
    return low


def median_rate(counts: Iterable[tuple[int, int]]) -> float:
    """The median of shares (part, whole), each weighed by its whole; the lower of two. 0 of nothing."""
    rates = sorted((part / whole, whole) for part, whole in counts if whole)
    half, seen = sum(whole for _, whole in rates) / 2, 0
    for rate, whole in rates:
        seen += whole
        if seen >= half:
            return rate
    return 0.0
