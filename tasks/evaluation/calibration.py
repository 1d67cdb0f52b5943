"""How far a network's probabilities can be taken at their word. Pure functions of what it answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15  # of confidence, of equal width
LEAST = 1e-12  # probability that a logarithm is taken of

Floats = npt.NDArray[np.float64]


def calibration(confidences: Sequence[float], right: Sequence[bool], samples: int) -> dict[str, Any]:
    """{"ece", "n", "debiased", "calibrated", "bins"}: two estimates of the calibration error over 15 bins, 0 to 1.

    confidences: the probability that each answer was given, 0 to 1; right: whether it was right. ece: the expected
    calibration error (arXiv:1706.04599), which chance makes greater than 0 of any network. debiased: the root of the
    mean squared error less what chance adds to it, 0 where that is all (Kumar et al., arXiv:1909.10155); bins of one
    image are left out of it, None if there is no other. calibrated: {"low", "high"}, between which the ece of a
    calibrated network with these confidences lies in 95% of `samples` draws: an ece within is no sign of
    miscalibration. bins: those that are not empty, each with its "confidence" and "accuracy", means, and its "n".
    """
    if len(confidences) != len(right) or not right:
        raise ValueError(
            f"calibration needs as many answers as confidences, got {len(right)} answers of {len(confidences)}"
        )
    confidence_N, right_N = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bin_N = np.minimum((confidence_N * BINS).astype(np.int64), BINS - 1)
    rng = np.random.default_rng(0)
    drawn = [_ece(confidence_N, rng.random(len(right_N)) < confidence_N, bin_N) for _ in range(samples)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    bins = [
        {"confidence": float(confidence_N[at].mean()), "accuracy": float(right_N[at].mean()), "n": int(at.sum())}
        for at in (bin_N == i for i in range(BINS))
        if at.any()
    ]
    return {
        "ece": _ece(confidence_N, right_N, bin_N),
        "n": len(right_N),
        "debiased": _debiased(bins),
        "calibrated": {"low": float(low), "high": float(high)},
        "bins": bins,
    }


def proper_scores(label_probabilities: Sequence[float], squares: Sequence[float]) -> dict[str, float]:
    """{"brier", "nll"}: scores that a network minimises by giving the true probabilities, the lower the better.

    label_probabilities: the probability of each image's label; squares: the sum of the squared probabilities of all
    classes. brier: the mean squared distance from the label's one-hot vector, 0 to 2; nll: the mean negative logarithm
    of the label's probability, in nats.
    """
    label_N, squares_N = np.asarray(label_probabilities, dtype=np.float64), np.asarray(squares, dtype=np.float64)
    return {
        "brier": float((1 - 2 * label_N + squares_N).mean()),
        "nll": float(-np.log(np.maximum(label_N, LEAST)).mean()),
    }


def _ece(confidence_N: Floats, right_N: npt.NDArray[Any], bin_N: npt.NDArray[np.int64]) -> float:
    return float(np.abs(np.bincount(bin_N, weights=right_N - confidence_N)).sum() / len(bin_N))


def _debiased(bins: Sequence[dict[str, Any]]) -> float | None:
    """The root of Σ n_b/n ((accuracy − confidence)² − accuracy (1 − accuracy)/(n_b − 1))."""
    several = [each for each in bins if each["n"] > 1]
    if not several:
        return None
    total = sum(
        each["n"]
        * ((each["accuracy"] - each["confidence"]) ** 2 - each["accuracy"] * (1 - each["accuracy"]) / (each["n"] - 1))
        for each in several
    )
    return math.sqrt(max(0.0, total / sum(each["n"] for each in several)))
