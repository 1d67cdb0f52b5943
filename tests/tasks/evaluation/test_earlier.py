"""The rules of rounds that opened before those of now."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.earlier import calibration_by_bootstrap, masking_by_gap
from tasks.evaluation.metrics import accuracy


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
