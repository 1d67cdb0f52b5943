"""The rules of rounds that opened before those of tasks/evaluation/masking.py.

A closed round's metrics.json follows from its record by the rules in its own params.yaml: a number under
`evaluate.masking` names masking by the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.metrics import Accuracy

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
