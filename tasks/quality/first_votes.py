"""Agreement of the first two people who voted on each candidate. Pure.

A candidate is voted on until enough people agree, so the undecided ones have the most votes, and all votes together
agree otherwise than people do. The first two are cast before anybody knows. Of candidates that did not fool the target
only a share is voted on; each of those weighs as much as those that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.records import Candidate
from tasks.config.params import Validate
from tasks.quality.consensus import ASIDE

Floats = npt.NDArray[np.float64]


def first_votes(
    candidates: Sequence[Candidate], rules: Validate, resamples: int, *, with_set_aside: bool
) -> dict[str, Any]:
    """{"alpha", "low", "high", "votes", "candidates"}: Krippendorff's alpha, nominal, over the well-formed candidates
    with two votes or more, and its 95% interval over `resamples` draws of candidates, always the same ones.

    candidates: judged, with their votes as cast. with_set_aside: whether votes of accounts that are set aside are among
    them; those that do not count for another reason never are. All but the counts is None where alpha is undefined:
    nothing was voted on twice, or every vote is the same.
    """
    pairs, weights = [], []
    for candidate in candidates:
        choices = [
            vote.choice
            for vote in candidate.votes
            if vote.counted or (with_set_aside and vote.reason.startswith(ASIDE))
        ]
        if candidate.wellformed and len(choices) >= 2:
            pairs.append(choices[:2])
            share = 1.0 if candidate.fooling else rules.non_fooling_share
            weights.append(1 / share if share else 1.0)
    counts = {"votes": 2 * len(pairs), "candidates": len(pairs)}
    if not pairs:
        return {"alpha": None, "low": None, "high": None, **counts}
    _, choice_NV = np.unique(np.array(pairs), return_inverse=True)
    choice_NV, weight_N = choice_NV.reshape(-1, 2), np.array(weights)
    alpha = _alpha(choice_NV, weight_N)
    if alpha is None:
        return {"alpha": None, "low": None, "high": None, **counts}
    rng, n = np.random.default_rng(0), len(pairs)
    draws = [rng.integers(0, n, n) for _ in range(resamples)]
    drawn = [each for index in draws if (each := _alpha(choice_NV[index], weight_N[index])) is not None]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (alpha, alpha)
    return {"alpha": alpha, "low": float(low), "high": float(high), **counts}


def _alpha(choice_NV: npt.NDArray[np.int64], weight_N: Floats) -> float | None:
    """Krippendorff's alpha of N pairs of votes, each weighed; the weights are scaled to N."""
    weight_N = weight_N * (len(weight_N) / weight_N.sum())
    total_K = np.bincount(choice_NV.ravel(), weights=weight_N.repeat(2))
    n = 2 * len(weight_N)
    expected = n * n - float((total_K**2).sum())
    observed = 2 * float(weight_N[choice_NV[:, 0] != choice_NV[:, 1]].sum())
    return 1 - (n - 1) * observed / expected if expected > 1e-9 else None
