"""The rules of rounds that opened before those of tasks/evaluation/masking.py, calibration.py and gate.py.

A closed round's metrics.json follows from its record by the rules in its own params.yaml: a number under
`evaluate.masking` names masking by the gap, no `evaluate.resamples` names calibration by a bootstrap,
`promote.clean_drop` and `promote.robust_drop` name a gate by the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.config.params import Promote
from tasks.evaluation.calibration import BINS
from tasks.evaluation.metrics import Accuracy
from tasks.evaluation.paired import paired

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


@dataclass(frozen=True)
class Scores:
    """A network on the validation split, image by image: True where it is right.

    clean; robust: under every attack; candidates: verified fooling ones that nobody trained on, may be empty.
    """

    clean: tuple[bool, ...]
    robust: tuple[bool, ...]
    candidates: tuple[bool, ...] = ()

    def shares(self) -> dict[str, float]:
        """Each figure that there is, as a share."""
        parts = {"clean": self.clean, "robust": self.robust, "candidates": self.candidates}
        return {name: sum(part) / len(part) for name, part in parts.items() if part}


def gate_by_drops(champion: Scores | None, challenger: Scores, promote: Promote) -> dict[str, Any]:
    """Whether the challenger becomes champion: {"promoted", "gain", "champion", "challenger", "reasons"}.

    It must lose no more than `clean_drop` of the clean and `robust_drop` of the robust images, on balance, and the
    mean of its figures (clean, robust and, where there are any, candidates) must be higher than the champion's: what
    is lost within the tolerance is won back elsewhere. Without a champion the first challenger is promoted.
    """
    after = challenger.shares()
    if champion is None:
        return {
            "promoted": True,
            "gain": None,
            "champion": {},
            "challenger": after,
            "reasons": ["first of its campaign"],
        }
    before = champion.shares()
    if before.keys() != after.keys():
        raise ValueError(f"a gate needs the same figures of both, got {sorted(before)} and {sorted(after)}")
    assert promote.clean_drop is not None
    assert promote.robust_drop is not None
    reasons = []
    for name, allowed in (("clean", promote.clean_drop), ("robust", promote.robust_drop)):
        change = paired(getattr(champion, name), getattr(challenger, name))
        if not change.within(allowed):
            reasons.append(f"{name} accuracy fell by {-change.net} of {change.n} images, {allowed:.1%} may be lost")
    gain = sum(after[name] - before[name] for name in after) / len(after)
    if gain <= 1e-9:
        reasons.append(f"nothing was gained: the mean of {', '.join(after)} changed by {gain:+.2%}")
    return {
        "promoted": not reasons,
        "gain": gain,
        "champion": before,
        "challenger": after,
        "reasons": reasons or [f"the mean of {', '.join(after)} rose by {gain:.2%}"],
    }
