"""How far validators agree: reported, it decides nothing. Pure. `unreadable` is a class of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from data.records import Candidate
from tasks.config.params import Validate
from tasks.quality.consensus import tally_votes
from tasks.quality.dawid_skene import ballots, dawid_skene
from tasks.quality.first_votes import first_votes


def agreement(candidates: Sequence[Candidate], rules: Validate, resamples: int | None = None) -> dict[str, Any]:
    """{"alpha", "low", "high", "votes", "candidates", "with_set_aside", "dawid_skene"}, the last None where votes are
    few.

    Alpha is that of the first two votes that count (tasks/quality/first_votes.py); with_set_aside: the same with the
    votes of accounts that are set aside. resamples: behind the interval; None in rounds opened before there was one,
    whose alpha is that of all votes that count, without interval and with_set_aside.

    dawid_skene: {"candidates", "validators", "differs", "keys"}: of its candidates, those whose consensus is a class
    and another is likelier, how many and which. The verdict stays the consensus'.
    """
    if resamples is None:
        found = alpha(counted(candidates))
    else:
        found = first_votes(candidates, rules, resamples, with_set_aside=False)
        found["with_set_aside"] = first_votes(candidates, rules, resamples, with_set_aside=True)
    estimate = dawid_skene(ballots(candidates))
    if estimate is None:
        return {**found, "dawid_skene": None}
    settled = {c.key: tally_votes(c.votes, rules).settled for c in candidates if c.key in estimate.labels}
    differs = sorted(key for key, class_ in settled.items() if class_ not in (None, estimate.labels[key]))
    return {
        **found,
        "dawid_skene": {
            "candidates": len(estimate.labels),
            "validators": len(estimate.skill),
            "differs": len(differs),
            "keys": differs,
        },
    }


def counted(candidates: Iterable[Candidate]) -> list[list[int]]:
    """For each well-formed candidate, the votes that count."""
    return [[vote.choice for vote in c.votes if vote.counted] for c in candidates if c.wellformed]


def alpha(units: Iterable[Sequence[int]]) -> dict[str, Any]:
    """{"alpha", "votes", "candidates"}. units: for each candidate, the votes on it that count.

    alpha: Krippendorff's, nominal (Krippendorff 2011, Computing Krippendorff's alpha-reliability), over the units with
    two votes or more. 1 is perfect, 0 chance, below 0 worse. None where nothing is paired, or where every vote is the
    same, of which chance could make nothing else.
    """
    paired_votes = [Counter(choices) for choices in units if len(choices) >= 2]
    totals = sum(paired_votes, Counter[int]())
    n = totals.total()
    expected = n * n - sum(m * m for m in totals.values())
    # Ordered pairs of different votes on one candidate, each candidate weighed by its votes but one.
    observed = sum((u.total() ** 2 - sum(m * m for m in u.values())) / (u.total() - 1) for u in paired_votes)
    return {
        "alpha": 1 - (n - 1) * observed / expected if expected else None,
        "votes": n,
        "candidates": len(paired_votes),
    }
