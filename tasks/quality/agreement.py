"""How far validators agree, and what a model of their mistakes makes of their votes: reported, neither decides.

Pure. `unreadable` is a class of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.records import Candidate
from tasks.config.params import Validate
from tasks.quality.consensus import tally_votes

MANY = 20  # votes of a validator, on candidates with two or more, from which they enter Dawid–Skene
CROWD = 3  # such validators at least
SMOOTHING = 0.01  # votes added to each cell of a validator's table
STEPS = 1000  # of EM at most
STILL = 1e-6  # change of a probability below which EM has converged

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Ballot:
    """One vote, without what it is for."""

    item: str
    validator: str
    choice: int


@dataclass(frozen=True)
class Estimate:
    """labels: item → its likeliest class; certainty: item → that class' probability; skill: validator → the chance of
    a right vote; steps: of EM."""

    labels: dict[str, int]
    certainty: dict[str, float]
    skill: dict[str, float]
    steps: int


def agreement(candidates: Sequence[Candidate], rules: Validate) -> dict[str, Any]:
    """{"alpha", "votes", "candidates", "dawid_skene"}, the last None where votes are few.

    dawid_skene: {"candidates", "validators", "differs", "keys"}: of its candidates, those whose consensus is a class
    and another is likelier, how many and which. The verdict stays the consensus'.
    """
    found = alpha(counted(candidates))
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


def ballots(candidates: Iterable[Candidate]) -> list[Ballot]:
    """The votes that count and are many: of validators with MANY, on candidates with two or more."""
    cast = [
        Ballot(c.key, vote.validator, vote.choice)
        for c in candidates
        if c.wellformed and sum(vote.counted for vote in c.votes) >= 2
        for vote in c.votes
        if vote.counted
    ]
    each = Counter(ballot.validator for ballot in cast)
    return [ballot for ballot in cast if each[ballot.validator] >= MANY]


def dawid_skene(cast: Sequence[Ballot], smoothing: float = SMOOTHING) -> Estimate | None:
    """What the votes say if each validator mistakes classes in their own way (Dawid & Skene 1979, Maximum likelihood
    estimation of observer error-rates using the EM algorithm). None for votes of fewer than CROWD validators.

    EM over each item's class and each validator's table of mistakes, from the shares of the votes on. Differs: the
    tables are smoothed, so that what was never seen is not impossible.
    """
    cast = sorted(cast)  # sums in one order have one value
    items, item_M = _numbered([ballot.item for ballot in cast])
    validators, validator_M = _numbered([ballot.validator for ballot in cast])
    classes, choice_M = _numbered([ballot.choice for ballot in cast])
    if len(validators) < CROWD:
        return None
    share_NK = np.zeros((len(items), len(classes)))
    np.add.at(share_NK, (item_M, choice_M), 1.0)
    share_NK /= share_NK.sum(1, keepdims=True)
    steps, moved = 0, 1.0
    while steps < STEPS and moved > STILL:
        prior_K, table_VCK = _mistakes(share_NK, item_M, validator_M, choice_M, len(validators), smoothing)
        log_NK = np.tile(np.log(np.maximum(prior_K, 1e-12)), (len(items), 1))
        np.add.at(log_NK, item_M, np.log(np.maximum(table_VCK[validator_M, choice_M], 1e-12)))
        likely_NK = np.exp(log_NK - log_NK.max(1, keepdims=True))
        likely_NK /= likely_NK.sum(1, keepdims=True)
        steps, moved, share_NK = steps + 1, float(np.abs(likely_NK - share_NK).max()), likely_NK
    prior_K, table_VCK = _mistakes(share_NK, item_M, validator_M, choice_M, len(validators), smoothing)
    skill_V = np.einsum("vkk,k->v", table_VCK, prior_K)
    best_N = share_NK.argmax(1)
    return Estimate(
        labels={item: classes[int(best)] for item, best in zip(items, best_N, strict=True)},
        certainty=dict(zip(items, share_NK.max(1).tolist(), strict=True)),
        skill=dict(zip(validators, skill_V.tolist(), strict=True)),
        steps=steps,
    )


def _mistakes(
    share_NK: Floats,
    item_M: npt.NDArray[np.intp],
    validator_M: npt.NDArray[np.intp],
    choice_M: npt.NDArray[np.intp],
    validators: int,
    smoothing: float,
) -> tuple[Floats, Floats]:
    """How frequent each class is, and each validator's chances of a choice C where the class is K, V×C×K."""
    k = share_NK.shape[1]
    table_VCK = np.full((validators, k, k), smoothing)
    np.add.at(table_VCK, (validator_M, choice_M), share_NK[item_M])
    return share_NK.mean(0), table_VCK / np.maximum(table_VCK.sum(1, keepdims=True), 1e-12)


def _numbered(values: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """The different values in order, and the number of each."""
    distinct = sorted(set(values))
    number = {value: n for n, value in enumerate(distinct)}
    return distinct, np.array([number[value] for value in values], dtype=np.intp)
