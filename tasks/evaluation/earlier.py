"""The rules of rounds that opened before those of tasks/evaluation/masking.py and calibration.py.

A closed round's metrics.json follows from its record by the rules in its own params.yaml: a number under
`evaluate.masking` names masking by the gap, no `evaluate.resamples` names calibration by a bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.evaluation.calibration import BINS
from tasks.evaluation.metrics import Accuracy

SAMPLES = 200  # bootstrap samples of calibration's interval
BY_CHANCE = 0.01  # share of the images that Square may break after gradient attacks without a suspicion


def masking_by_gap(
    robust: Mapping[str, Accuracy], battery: Mapping[str, Mapping[str, int]], limit: float, n: int
) -> dict[str, Any]:
    """Whether gradients mislead the attacks that follow them: {"gap", "square", "transfer", "found"}.

    gap: FGSM minus PGD accuracy; a weaker attack that does much less harm says that gradients mislead the stronger, or
    that training learned the weaker one by heart. square: the share of n images that Square, which uses no gradient,
    broke where the attacks before it could not; transfer: the share that PGD images made on the target broke where none
    could. Each is None where the attacks were not run.
    """
    gap = robust["fgsm"]["accuracy"] - robust["pgd"]["accuracy"] if {"fgsm", "pgd"} <= robust.keys() else None
    square = battery["square"]["broken"] / n if "square" in battery else None
    transfer = battery["transfer"]["broken"] / n if "transfer" in battery else None
    blind = [share for share in (square, transfer) if share is not None]
    found = (gap is not None and gap > limit) or any(share > BY_CHANCE for share in blind)
    return {"gap": gap, "square": square, "transfer": transfer, "found": found}


def calibration_by_bootstrap(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """Expected calibration error (arXiv:1706.04599) over 15 bins of equal width: {"ece", "n", "low", "high", "bins"}.

    confidences: the probability that each answer was given, 0 to 1; right: whether it was right. low, high: 95% of 200
    bootstrap samples, moved so that their mean is the error found: each is biased upwards once more, and of a network
    that is well calibrated they would mostly lie above it. bins: those that are not empty, each with its "confidence"
    and "accuracy", means, and its "n".
    """
    if len(confidences) != len(right) or not right:
        raise ValueError(
            f"calibration needs as many answers as confidences, got {len(right)} answers of {len(confidences)}"
        )
    sure, hit = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)

    def error(index: Any) -> float:
        gaps = np.bincount(place[index], weights=(hit - sure)[index], minlength=BINS)
        return float(np.abs(gaps).sum() / len(index))

    n, chance = len(hit), np.random.default_rng(0)
    found, sampled = error(np.arange(n)), np.array([error(chance.integers(0, n, n)) for _ in range(SAMPLES)])
    low, high = (np.quantile(sampled, (0.025, 0.975)) + found - sampled.mean()).clip(0, 1)
    bins = [
        {"confidence": float(sure[at].mean()), "accuracy": float(hit[at].mean()), "n": int(at.sum())}
        for at in (place == i for i in range(BINS))
        if at.any()
    ]
    return {"ece": found, "n": n, "low": float(low), "high": float(high), "bins": bins}
