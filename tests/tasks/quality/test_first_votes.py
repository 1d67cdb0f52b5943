"""Agreement from the first two votes: by hand, without the bias of asking on until people agree, and weighed."""

from __future__ import annotations

import random

import pytest

from data.records import HUMAN, Candidate, Vote
from tasks.config.params import Validate
from tasks.quality.agreement import agreement, alpha, counted
from tasks.quality.first_votes import first_votes

RULES = Validate(consensus=2, max_votes=5, non_fooling_share=0.25, unsettled="pending")


def voted(key: str, *choices: int, fooling: bool = True, aside: int = 0) -> Candidate:
    """A candidate with votes of v0, v1, …; the first `aside` of accounts that are set aside."""
    votes = tuple(
        Vote(f"v{n}", choice, n, "", counted=n >= aside, reason="set aside: for a test" if n < aside else "")
        for n, choice in enumerate(choices)
    )
    return Candidate(key, 1, HUMAN, b"", 0, annotator="a", answer=9 if fooling else 0, votes=votes)


def test_it_is_krippendorff_s_of_the_first_two() -> None:
    made = [voted("a", 1, 1), voted("b", 2, 2), voted("c", 1, 2, 2, 2), voted("d", 1)]
    found = first_votes(made, RULES, 200, with_set_aside=False)
    assert found["alpha"] == pytest.approx(alpha([(1, 1), (2, 2), (1, 2)])["alpha"])
    assert (found["votes"], found["candidates"]) == (6, 3)
    assert found["low"] <= found["alpha"] <= found["high"]
    assert found == first_votes(made, RULES, 200, with_set_aside=False)
    nothing = {"alpha": None, "low": None, "high": None, "votes": 0, "candidates": 0}
    assert first_votes([voted("d", 1)], RULES, 10, with_set_aside=False) == nothing
    assert first_votes([voted("a", 1, 1)], RULES, 10, with_set_aside=False)["alpha"] is None


def test_what_was_seldom_asked_about_weighs_as_much_as_it_stands_for() -> None:
    """A candidate that did not fool stands for four: the same as four of it that fooled."""
    sampled = first_votes(
        [voted("a", 1, 1), voted("b", 2, 2, fooling=False), voted("c", 1, 2)], RULES, 50, with_set_aside=False
    )
    share_agreed = 5 / 6  # of six candidates
    totals = {1: (2 + 1) / 12, 2: (8 + 1) / 12}
    expected = (36 - sum((6 * share) ** 2 for share in totals.values())) / 30
    assert sampled["alpha"] == pytest.approx(1 - (1 - share_agreed) / expected)


def test_accounts_set_aside_stand_apart() -> None:
    made = [voted(f"{n}", 1 + (n + 1) % 2, 1 + n % 2, 1 + n % 2, aside=1) for n in range(20)]
    found = agreement(made, RULES, 100)
    assert found["alpha"] == 1
    assert found["with_set_aside"]["alpha"] < 0
    assert set(agreement(made, RULES)) == {"alpha", "votes", "candidates", "dawid_skene"}, "a round opened before"


def test_asking_on_until_people_agree_is_no_agreement() -> None:
    """Votes until two agree: the first two have the alpha of five people who all vote, all votes together a greater
    one."""
    rng = random.Random(0)
    made, everybody = [], []
    for n in range(4000):
        true = rng.randrange(3)
        seen = [rng.randrange(3) if rng.random() < 0.4 else true for _ in range(5)]
        stop = next((k for k in range(2, 6) if max(seen[:k].count(c) for c in seen[:k]) == 2), 5)
        made.append(voted(f"{n:04d}", *seen[:stop]))
        everybody.append(seen)
    fair = alpha(everybody)["alpha"]
    first = first_votes(made, RULES, 50, with_set_aside=False)
    assert first["low"] < fair < first["high"]
    assert first["alpha"] == pytest.approx(fair, abs=0.02)
    assert alpha(counted(made))["alpha"] > fair + 0.05
