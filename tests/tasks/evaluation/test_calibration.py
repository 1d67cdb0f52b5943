"""Calibration: by hand, and how often a calibrated network is accused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.evaluation.calibration import calibration, proper_scores
from tasks.evaluation.earlier import calibration_by_bootstrap


def calibrated(rng: np.random.Generator, n: int) -> tuple[list[float], list[bool]]:
    """Confidences from 0.5 to 1 and answers that are right that often."""
    sure_N = 0.5 + 0.5 * rng.beta(4, 1, n)
    return sure_N.tolist(), (rng.random(n) < sure_N).tolist()


def test_it_is_the_papers_by_hand() -> None:
    """Ten sure answers with one error, ten unsure ones with three hits: gaps of .05 and .25."""
    found = calibration([0.95] * 10 + [0.55] * 10, [True] * 9 + [False] + [True] * 3 + [False] * 7, samples=100)
    assert found["ece"] == pytest.approx(0.15)
    squared = (0.05**2 - 0.9 * 0.1 / 9 + 0.25**2 - 0.3 * 0.7 / 9) / 2
    assert found["debiased"] == pytest.approx(math.sqrt(squared))
    assert [(each["n"], each["accuracy"]) for each in found["bins"]] == [(10, 0.3), (10, 0.9)]
    assert calibration([1.0] * 4, [True] * 4, samples=10)["calibrated"] == {"low": 0.0, "high": 0.0}
    assert calibration([0.9], [True], samples=10)["debiased"] is None
    with pytest.raises(ValueError, match="as many answers as confidences, got 1 answers of 2"):
        calibration([0.5, 0.5], [True], samples=10)


@pytest.mark.parametrize("n", [160, 2000])
def test_a_calibrated_network_lies_in_the_band_nineteen_times_in_twenty(n: int) -> None:
    """The interval that was reported before leaves out its true error, 0, nearly always."""
    rng = np.random.default_rng(n)
    sets = [calibrated(rng, n) for _ in range(60)]
    found = [calibration(*each, samples=200) for each in sets]
    inside = sum(each["calibrated"]["low"] <= each["ece"] <= each["calibrated"]["high"] for each in found)
    assert inside >= 52, "of 60; a band of 95% has fewer with a probability of 0.01"
    assert sum(calibration_by_bootstrap(*each)["low"] > 0 for each in sets[:20]) >= 15


def test_a_network_that_is_too_sure_is_outside_and_its_error_is_estimated_without_bias() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        sure, _ = calibrated(rng, 500)
        right = (rng.random(500) < np.array(sure) - 0.1).tolist()
        found.append(calibration(sure, right, samples=100))
    assert all(each["ece"] > each["calibrated"]["high"] for each in found)
    assert np.mean([each["debiased"] ** 2 for each in found]) == pytest.approx(0.01, abs=0.0015)
    assert np.mean([each["ece"] ** 2 for each in found]) > 0.0105


def test_brier_and_negative_log_likelihood_are_those_of_all_classes() -> None:
    probabilities_NK, labels_N = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array([0, 1])
    label_N, squares_N = probabilities_NK[[0, 1], labels_N], (probabilities_NK**2).sum(1)
    found = proper_scores(label_N.tolist(), squares_N.tolist())
    assert found["brier"] == pytest.approx(((probabilities_NK - np.eye(3)[labels_N]) ** 2).sum(1).mean())
    assert found["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)
    assert proper_scores([0.0], [1.0])["nll"] < 30, "a probability of 0 is no infinity"
