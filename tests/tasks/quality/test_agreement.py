"""Agreement of validators: Krippendorff's alpha, and Dawid–Skene against another implementation and against truth."""

from __future__ import annotations

import random

import pytest

from data.records import HUMAN, UNREADABLE, Candidate, Verdict, Vote
from tasks.config.params import Validate
from tasks.quality.agreement import agreement, alpha
from tasks.quality.dawid_skene import CROWD, MANY, Ballot, ballots, dawid_skene
from tasks.validate import validate

RULES = Validate(consensus=2, max_votes=5, non_fooling_share=0.0, unsettled="pending")


def test_alpha_is_krippendorff_s() -> None:
    """His own example: four observers, twelve units with gaps, nominal: 0.743."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    found = alpha([[vote for vote in unit if vote is not None] for unit in zip(*observers, strict=True)])
    assert found["alpha"] == pytest.approx(0.743, abs=5e-4)
    assert (found["votes"], found["candidates"]) == (40, 11)


def test_alpha_by_hand() -> None:
    assert alpha([(1, 1), (2, 2), (UNREADABLE, UNREADABLE)])["alpha"] == 1
    # Two of each class, each pair split: observed 4 of 4, expected 8 of 12 ordered pairs.
    assert alpha([(1, 2), (2, 1)])["alpha"] == pytest.approx(1 - 1 / (8 / 12))
    assert alpha([(1, 1), (1, 1)]) == {"alpha": None, "votes": 4, "candidates": 2}
    assert alpha([(1,), (2,)]) == {"alpha": None, "votes": 0, "candidates": 0}


def voted(key: str, *choices: int, uncounted: int = 0, intended: int = 0) -> Candidate:
    """A candidate with votes of v0, v1, …; the first `uncounted` do not count."""
    votes = tuple(Vote(f"v{n}", choice, n, "", counted=n >= uncounted) for n, choice in enumerate(choices))
    return Candidate(key, 1, HUMAN, b"", intended, annotator="a", answer=9, votes=votes)


def test_few_votes_give_no_estimate() -> None:
    made = [voted(f"{n:02d}", 0, 0, 0) for n in range(MANY - 1)]
    found = agreement([*made, voted("alone", 0)], RULES)
    assert (found["candidates"], found["votes"], found["dawid_skene"]) == (MANY - 1, 3 * (MANY - 1), None)
    assert ballots(made) == []
    two = [voted(f"{n:02d}", 0, 0, 1, uncounted=1) for n in range(MANY)]
    assert {ballot.validator for ballot in ballots(two)} == {"v1", "v2"}
    assert dawid_skene(ballots(two)) is None, f"under {CROWD} validators"


def test_dawid_skene_is_crowd_kit_s() -> None:
    """Three validators on twelve items, two classes; the probabilities are those of crowd-kit 1.4.2's DawidSkene."""
    rows = "010011110110110111010011010001001100"
    wanted = [1, 0.32812, 1, 1, 1, 1, 1, 0.32812, 1, 0.04688, 0.04688, 1]
    cast = [Ballot(f"{n // 3:02d}", "abc"[n % 3], int(choice)) for n, choice in enumerate(rows)]
    found = dawid_skene(cast, smoothing=0.0)
    assert found is not None
    got = [p if found.labels[item] else 1 - p for item, p in found.certainty.items()]
    assert got == pytest.approx(wanted, abs=2e-4)
    shuffled = random.Random(0).sample(cast, len(cast))
    assert dawid_skene(shuffled, smoothing=0.0) == found, "the order does not matter"


def test_dawid_skene_finds_whose_votes_to_believe() -> None:
    """Two careful validators, and three who take three quarters of the 1s for 2s: there most votes are wrong."""
    rng = random.Random(0)
    cast, truth, plain = [], {}, 0
    for n in range(600):
        true = rng.randrange(3)
        truth[f"{n:03d}"] = true
        votes = []
        for name in ("ann", "bob", "lax1", "lax2", "lax3"):
            wrong = true == 1 and rng.random() < 0.75 if name.startswith("lax") else rng.random() < 0.05
            votes.append((2 if name.startswith("lax") else rng.randrange(3)) if wrong else true)
            cast.append(Ballot(f"{n:03d}", name, votes[-1]))
        plain += max(set(votes), key=votes.count) == true
    found = dawid_skene(cast)
    assert found is not None
    right = sum(found.labels[item] == true for item, true in truth.items())
    assert plain / 600 < 0.9, "the plurality is often wrong"
    assert right / 600 > 0.97
    assert found.skill["ann"] == pytest.approx(1 - 0.05 * 2 / 3, abs=0.03)
    assert found.skill["lax1"] == pytest.approx(1 - 0.75 / 3, abs=0.04)


def test_it_is_reported_and_decides_nothing() -> None:
    """v0 and v1 are right on 40 candidates and outvoted by three who take every 1 for a 0: the consensus stands."""
    made = [voted(f"{n:03d}", n % 2, n % 2, n % 2, 0, 0, intended=n % 2) for n in range(40)]
    outvoted = voted("outvoted", 1, 1, 0, 0, 0, intended=1)
    rules = RULES.model_copy(update={"consensus": 3})
    found = agreement([*made, outvoted], rules)
    assert found["dawid_skene"] == {"candidates": 41, "validators": 5, "differs": 1, "keys": ["outvoted"]}
    (now,) = validate([outvoted], {"outvoted": outvoted.votes}, rules)
    assert (now.verdict, now.reason) == (Verdict.REJECTED, "validators saw another class")
