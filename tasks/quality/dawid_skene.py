"""What a model of each validator's mistakes makes of their votes: Dawid–Skene, and one chance a validator. Pure.

Reported, neither decides. `unreadable` is a class of its own. Probes, whose class is known, are gold in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.records import Candidate
from tasks.quality.account_stats import ProbeAnswer

MANY = 20  # votes of a validator, on candidates with two or more, from which they enter Dawid–Skene
CROWD = 3  # such validators at least
SOME = 5  # votes of a validator from which the one-coin model speaks of them
FEW = 4  # votes by which the one-coin model draws a validator's skill to the mean
SMOOTHING = 0.01  # votes added to each cell of a validator's table
STEPS = 1000  # of EM at most
STILL = 1e-6  # change of a probability below which EM has converged

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


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


def ballots(candidates: Iterable[Candidate], probes: Iterable[ProbeAnswer] = (), many: int = MANY) -> list[Ballot]:
    """The votes that count and are many: of validators with `many`, on candidates with two or more and on probes."""
    cast = [
        Ballot(c.key, vote.validator, vote.choice)
        for c in candidates
        if c.wellformed and sum(vote.counted for vote in c.votes) >= 2
        for vote in c.votes
        if vote.counted
    ]
    cast += [Ballot(answer.probe, answer.validator, answer.seen) for answer in probes]
    each = Counter(ballot.validator for ballot in cast)
    return [ballot for ballot in cast if each[ballot.validator] >= many]


def skill(candidates: Sequence[Candidate], probes: Sequence[ProbeAnswer]) -> dict[str, float]:
    """Validator → the chance of a right vote: by Dawid–Skene for those with many votes, by the one-coin model for the
    others. Empty where fewer than CROWD voted."""
    gold = {answer.probe: answer.truth for answer in probes}
    coin = one_coin(ballots(candidates, probes, many=SOME), gold)
    full = dawid_skene(ballots(candidates, probes), gold=gold)
    return (coin.skill if coin else {}) | (full.skill if full else {})


@dataclass(frozen=True)
class _Votes:
    """M votes by index, and the N×K shares of the votes on each item that EM begins with: one-hot where it is known."""

    items: list[str]
    validators: list[str]
    classes: list[int]
    item_M: Indices
    validator_M: Indices
    choice_M: Indices
    known_N: npt.NDArray[np.bool_]
    share_NK: Floats

    @classmethod
    def of(cls, cast: Iterable[Ballot], gold: Mapping[str, int]) -> _Votes:
        ordered = sorted(cast)  # sums in one order have one value
        items, item_M = _numbered([ballot.item for ballot in ordered])
        validators, validator_M = _numbered([ballot.validator for ballot in ordered])
        known = {row: gold[item] for row, item in enumerate(items) if item in gold}
        classes = sorted({*(ballot.choice for ballot in ordered), *known.values()})
        column = {class_: n for n, class_ in enumerate(classes)}
        choice_M = np.array([column[ballot.choice] for ballot in ordered], dtype=np.intp)
        share_NK = np.zeros((len(items), len(classes)))
        np.add.at(share_NK, (item_M, choice_M), 1.0)
        share_NK /= share_NK.sum(1, keepdims=True)
        for row, class_ in known.items():
            share_NK[row] = np.arange(len(classes)) == column[class_]
        known_N = np.array([row in known for row in range(len(items))], dtype=np.bool_)
        return cls(items, validators, classes, item_M, validator_M, choice_M, known_N, share_NK)

    def likely(self, log_NK: Floats) -> Floats:
        """The classes' probabilities by their logarithms, up to a constant; where the class is known, it stays."""
        likely_NK: Floats = np.exp(log_NK - log_NK.max(1, keepdims=True))
        likely_NK /= likely_NK.sum(1, keepdims=True)
        likely_NK[self.known_N] = self.share_NK[self.known_N]
        return likely_NK

    def estimate(self, share_NK: Floats, skill_V: Floats, steps: int) -> Estimate:
        return Estimate(
            labels={item: self.classes[int(best)] for item, best in zip(self.items, share_NK.argmax(1), strict=True)},
            certainty=dict(zip(self.items, share_NK.max(1).tolist(), strict=True)),
            skill=dict(zip(self.validators, skill_V.tolist(), strict=True)),
            steps=steps,
        )


def dawid_skene(
    cast: Sequence[Ballot], smoothing: float = SMOOTHING, gold: Mapping[str, int] | None = None
) -> Estimate | None:
    """What the votes say if each validator mistakes classes in their own way (Dawid & Skene 1979, Maximum likelihood
    estimation of observer error-rates using the EM algorithm). None for votes of fewer than CROWD validators.

    EM over each item's class and each validator's table of mistakes, from the shares of the votes on. Differs: the
    tables are smoothed, so that what was never seen is not impossible. gold: items whose class is known; they say what
    validators do, and nothing of how frequent classes are.
    """
    votes = _Votes.of(cast, gold or {})
    if len(votes.validators) < CROWD:
        return None
    share_NK, steps, moved = votes.share_NK, 0, 1.0
    while steps < STEPS and moved > STILL:
        prior_K, table_VCK = _mistakes(votes, share_NK, smoothing)
        log_NK = np.tile(np.log(np.maximum(prior_K, 1e-12)), (len(votes.items), 1))
        seen_MK = table_VCK[votes.validator_M, votes.choice_M]
        np.add.at(log_NK, votes.item_M, np.log(np.maximum(seen_MK, 1e-12)))
        likely_NK = votes.likely(log_NK)
        steps, moved, share_NK = steps + 1, float(np.abs(likely_NK - share_NK).max()), likely_NK
    prior_K, table_VCK = _mistakes(votes, share_NK, smoothing)
    return votes.estimate(share_NK, np.einsum("vkk,k->v", table_VCK, prior_K), steps)


def one_coin(cast: Sequence[Ballot], gold: Mapping[str, int] | None = None) -> Estimate | None:
    """What the votes say if each validator is right with one chance, and else as likely to see any other class: one
    number a validator, for few votes. None for votes of fewer than CROWD validators, or of one class alone.

    EM from the shares of the votes on. Each chance is drawn to that of all votes together by FEW votes. gold: items
    whose class is known.
    """
    votes = _Votes.of(cast, gold or {})
    if len(votes.validators) < CROWD or len(votes.classes) < 2:
        return None
    share_NK, steps, moved = votes.share_NK, 0, 1.0
    while steps < STEPS and moved > STILL:
        skill_M = np.clip(_chances(votes, share_NK), 1e-9, 1 - 1e-9)[votes.validator_M]
        wrong_M = np.log((1 - skill_M) / (len(votes.classes) - 1))
        log_NK = np.zeros(share_NK.shape)
        np.add.at(log_NK, votes.item_M, wrong_M[:, None])
        np.add.at(log_NK, (votes.item_M, votes.choice_M), np.log(skill_M) - wrong_M)
        likely_NK = votes.likely(log_NK)
        steps, moved, share_NK = steps + 1, float(np.abs(likely_NK - share_NK).max()), likely_NK
    return votes.estimate(share_NK, _chances(votes, share_NK), steps)


def _chances(votes: _Votes, share_NK: Floats) -> Floats:
    """Each validator's chance of a right vote."""
    right_M = share_NK[votes.item_M, votes.choice_M]
    right_V, n_V = np.bincount(votes.validator_M, weights=right_M), np.bincount(votes.validator_M)
    return np.asarray((right_V + FEW * right_M.mean()) / (n_V + FEW), dtype=np.float64)


def _mistakes(votes: _Votes, share_NK: Floats, smoothing: float) -> tuple[Floats, Floats]:
    """How frequent each class is, and each validator's chances of a choice C where the class is K, V×C×K."""
    k = share_NK.shape[1]
    table_VCK = np.full((len(votes.validators), k, k), smoothing)
    np.add.at(table_VCK, (votes.validator_M, votes.choice_M), share_NK[votes.item_M])
    unknown_NK = share_NK if votes.known_N.all() else share_NK[~votes.known_N]
    return unknown_NK.mean(0), table_VCK / np.maximum(table_VCK.sum(1, keepdims=True), 1e-12)


def _numbered(values: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """The different values in order, and the number of each."""
    distinct = sorted(set(values))
    number = {value: n for n, value in enumerate(distinct)}
    return distinct, np.array([number[value] for value in values], dtype=np.intp)
