"""MER and vMER: whose they are, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from data.records import HUMAN, SIMULATED, Candidate, Verdict
from tasks.evaluation.metrics import wilson
from tasks.evaluation.people_rates import intervals, one_kind


def drawn(
    account: str, number: int, fools: bool, source: str = HUMAN, verdict: Verdict = Verdict.VERIFIED
) -> Candidate:
    answer = 4 if fools else 3
    return Candidate(
        f"{account}/{number}", 1, source, b"", 3, annotator=account, answer=answer, probability=0.9, verdict=verdict
    )


def campaign(rng: np.random.Generator, annotators: int, each: int) -> list[Candidate]:
    """Annotators whose own rates lie between 0 and 1, one half in the mean."""
    rates = rng.beta(1.5, 1.5, annotators)
    return [drawn(f"{a}", n, bool(rng.random() < rates[a])) for a in range(annotators) for n in range(each)]


def test_the_interval_holds_the_rate_of_people_and_not_of_these_candidates_alone() -> None:
    """Of 100 campaigns of fifteen annotators with twenty drawings each; Wilson's, for independent drawings, misses."""
    rng, held, wilson_held = np.random.default_rng(0), 0, 0
    for _ in range(100):
        made = campaign(rng, 15, 20)
        found = intervals(made, 300)["mer"]
        held += found["low"] <= 0.5 <= found["high"]
        low, high = wilson(sum(c.fooling for c in made) / len(made), len(made))
        wilson_held += low <= 0.5 <= high
    assert held >= 88
    assert wilson_held <= 75


def test_it_is_never_narrower_than_wilson_s_and_the_same_each_time() -> None:
    made = [drawn("a", n, n < 5) for n in range(10)] + [drawn("b", n, n < 5) for n in range(10)]
    found = intervals(made, 500)
    low, high = wilson(0.5, 20)
    assert found["mer"]["low"] <= low < high <= found["mer"]["high"]
    assert found == intervals(made[::-1], 500)
    assert found["annotators"] == 2
    certain = intervals([drawn("a", n, True) for n in range(10)], 100)["mer"]
    assert certain["high"] == 1
    assert certain["low"] == pytest.approx(wilson(1.0, 10)[0])


def test_what_is_pending_is_no_part_of_the_interval() -> None:
    made = [drawn("a", n, True, verdict=Verdict.PENDING if n < 5 else Verdict.VERIFIED) for n in range(10)]
    assert intervals(made, 200)["vmer"] == intervals([drawn("a", n, n >= 5) for n in range(10)], 200)["mer"]
    assert intervals([], 10) == {"annotators": 0, "mer": None, "vmer": None}


def test_people_and_simulated_people_are_never_counted_together() -> None:
    people, simulated = [drawn("a", 0, True)], [drawn("s", n, False, SIMULATED) for n in range(3)]
    assert one_kind([*people, *simulated]) == people
    assert one_kind(simulated) == simulated
