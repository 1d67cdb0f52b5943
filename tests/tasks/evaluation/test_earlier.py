"""The rules of rounds that opened before those of now."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.config.params import Promote
from tasks.evaluation.earlier import Scores, calibration_by_bootstrap, gate_by_drops, masking_by_gap
from tasks.evaluation.metrics import accuracy

PROMOTE = Promote(clean_drop=0.1, robust_drop=0.2)


def test_masking_was_found_by_fgsm_and_by_square() -> None:
    assert masking_by_gap({"pgd": accuracy(5, 10)}, {}, 0.15, 10) == {
        "gap": None,
        "square": None,
        "transfer": None,
        "found": False,
    }
    both = {"fgsm": accuracy(8, 10), "pgd": accuracy(5, 10)}
    assert masking_by_gap(both, {}, 0.15, 10)["gap"] == pytest.approx(0.3)
    assert masking_by_gap(both, {}, 0.15, 10)["found"]
    assert not masking_by_gap(both, {}, 0.31, 10)["found"]
    broken = {"square": {"tried": 50, "broken": 3}}
    assert masking_by_gap(both, broken, 0.31, 100) == {
        "gap": pytest.approx(0.3),
        "square": 0.03,
        "transfer": None,
        "found": True,
    }
    assert not masking_by_gap(both, {"square": {"tried": 50, "broken": 1}}, 0.31, 100)["found"]
    found = masking_by_gap(both, {"transfer": {"tried": 50, "broken": 4}}, 0.31, 100)
    assert (found["transfer"], found["found"]) == (0.04, True)


def test_calibration_is_the_papers_by_hand() -> None:
    """Ten answers at 0.95, nine right; ten at 0.55, three right: ½·0.05 + ½·0.25."""
    found = calibration_by_bootstrap([0.95] * 10 + [0.55] * 10, [True] * 9 + [False] + [True] * 3 + [False] * 7)
    assert found["ece"] == pytest.approx(0.15)
    assert found["n"] == 20
    assert found["low"] < found["ece"] < found["high"]
    assert [(b["confidence"], b["accuracy"], b["n"]) for b in found["bins"]] == [
        (pytest.approx(0.55), 0.3, 10),
        (pytest.approx(0.95), 0.9, 10),
    ]
    assert calibration_by_bootstrap([1.0] * 4, [True] * 4)["ece"] == 0
    with pytest.raises(ValueError, match="as many answers as confidences, got 1 answers of 2"):
        calibration_by_bootstrap([0.5, 0.5], [True])


def test_calibrations_interval_holds_its_error() -> None:
    """Of networks that are right as often as they say, whose error is small and its samples' larger."""
    draws = np.random.default_rng(0)
    for _ in range(40):
        sure = draws.uniform(0.5, 1, 500)
        found = calibration_by_bootstrap(sure.tolist(), (draws.random(500) < sure).tolist())
        assert 0 <= found["low"] <= found["ece"] <= found["high"] < 0.12


def right(count: int, n: int = 10) -> tuple[bool, ...]:
    return (True,) * count + (False,) * (n - count)


def test_the_gate_by_drops_promotes_the_first() -> None:
    assert gate_by_drops(None, Scores(right(1), right(0)), PROMOTE)["promoted"]


@pytest.mark.parametrize(
    ("challenger", "promoted", "word"),
    [
        (Scores(right(8), right(6), right(2)), True, "rose"),
        (Scores(right(7), right(5), right(4)), True, "rose"),  # what was lost is won back
        (Scores(right(8), right(5), right(1)), False, "nothing was gained"),
        (Scores(right(6), right(9), right(9)), False, "clean accuracy fell by 2 of 10"),
        (Scores(right(9), right(2), right(9)), False, "robust accuracy fell by 3 of 10"),
        (Scores(right(7), right(4), right(1)), False, "nothing was gained"),
    ],
)
def test_gate_by_drops(challenger: Scores, promoted: bool, word: str) -> None:
    verdict = gate_by_drops(Scores(right(8), right(5), right(1)), challenger, PROMOTE)
    assert verdict["promoted"] is promoted
    assert any(word in reason for reason in verdict["reasons"])


def test_the_gate_by_drops_needs_the_same_figures() -> None:
    with pytest.raises(ValueError, match="same figures"):
        gate_by_drops(Scores(right(8), right(5), right(1)), Scores(right(8), right(5)), PROMOTE)
