"""People's error rates, MER and vMER, with intervals that know who made what. Pure functions of candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.records import HUMAN, SIMULATED, Candidate
from tasks.evaluation.metrics import wilson


def one_kind(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that MER and vMER count: people's, or where there are none simulated people's. Never both."""
    by_kind = {kind: [c for c in candidates if c.source == kind] for kind in (HUMAN, SIMULATED)}
    return by_kind[HUMAN] or by_kind[SIMULATED]


def intervals(candidates: Sequence[Candidate], samples: int) -> dict[str, Any]:
    """{"annotators", "mer", "vmer"}: how many made the well-formed candidates, and the 95% interval of both rates,
    {"low", "high"}, None where nothing was collected.

    vMER counts candidates without a verdict as not verified; what they may still add is no matter of chance and stands
    apart. Candidates of one annotator resemble each other, so annotators are drawn with replacement, then for each as
    many of their candidates as they made: `samples` times, always with the same random numbers. No interval is narrower
    than Wilson's, which takes every candidate for independent; with one annotator it speaks of that annotator alone.
    """
    collected = [c for c in candidates if c.wellformed]
    if not collected:
        return {"annotators": 0, "mer": None, "vmer": None}
    made = Counter(c.annotator for c in collected)
    fooling = Counter(c.annotator for c in collected if c.fooling)
    verified = Counter(c.annotator for c in collected if c.fooling and c.verified)
    return {
        "annotators": len(made),
        "mer": _interval([(fooling[account], n) for account, n in sorted(made.items())], samples),
        "vmer": _interval([(verified[account], n) for account, n in sorted(made.items())], samples),
    }


def _interval(counts: Sequence[tuple[int, int]], samples: int) -> dict[str, float]:
    """Of the share of all hits, from each annotator's hits and n."""
    hits_A, n_A = np.array(counts).T
    rng, annotators = np.random.default_rng(0), len(n_A)
    n_SA = rng.multinomial(annotators, np.full(annotators, 1 / annotators), size=samples) * n_A
    rate_S = rng.binomial(n_SA, hits_A / n_A).sum(1) / n_SA.sum(1)
    drawn_low, drawn_high = np.quantile(rate_S, (0.025, 0.975))
    low, high = wilson(float(hits_A.sum() / n_A.sum()), int(n_A.sum()))
    return {"low": min(low, float(drawn_low)), "high": max(high, float(drawn_high))}
