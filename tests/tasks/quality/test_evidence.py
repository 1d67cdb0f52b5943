"""The evidence against an honest account: by hand, and how often chance alone brings it about."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.quality.evidence import log_evidence, log_together, lower_limit, median_rate


def test_it_is_the_mean_likelihood_of_all_rates_above_the_limit() -> None:
    """Two errors of two at a limit of a half: ∫ p² dp from ½ to 1, over ½, over ¼."""
    assert math.exp(log_evidence(2, 2, 0.5)) == pytest.approx((1 - 1 / 8) / 3 / 0.5 / 0.25)
    rates = np.linspace(0.35, 1, 200_001)
    mean = np.trapezoid(rates**6 * (1 - rates) ** 14, rates) / 0.65
    assert math.exp(log_evidence(6, 20, 0.35)) == pytest.approx(mean / (0.35**6 * 0.65**14), rel=1e-6)


def test_nothing_and_limits_that_nobody_can_pass() -> None:
    assert log_evidence(0, 0, 0.3) == 0
    assert log_evidence(5, 5, 1.0) == 0
    assert log_evidence(0, 5, 0.0) == 0
    assert log_evidence(1, 5, 0.0) == math.inf
    assert log_evidence(0, 100_000, 0.5) == -math.inf
    assert log_together([-math.inf]) == pytest.approx(-math.log(2))
    assert log_together([0.0, 0.0]) == 0, "a record that is empty costs nothing"
    assert log_together([math.inf, -math.inf]) > 600


def test_chance_reaches_it_with_probability_alpha_however_often_one_looks() -> None:
    """4,000 accounts at the limit itself, looked at after each of 200 cases: at most α are ever over it. An ordinary
    test of level α, repeated, catches several times as many."""
    rng, alpha, limit = np.random.default_rng(0), 0.05, 0.35
    errors = (rng.random((4000, 200)) < limit).cumsum(1)
    over = np.array(
        [
            [log_evidence(k, n, limit) >= -math.log(alpha) for k in range(n + 1)] + [False] * (200 - n)
            for n in range(1, 201)
        ]
    )
    ever = over[np.arange(200)[None, :], errors].any(1).mean()
    assert 0.005 < ever <= alpha
    z = (errors - limit * np.arange(1, 201)) / np.sqrt(limit * (1 - limit) * np.arange(1, 201))
    assert (z[:, 5:] > 1.645).any(1).mean() > 3 * alpha


def test_an_account_that_is_always_wrong_is_found_by_its_seventh_case() -> None:
    needed = next(n for n in range(1, 50) if log_evidence(n, n, 0.35) >= math.log(100))
    assert needed == 6
    assert lower_limit(6, 6, 0.01) == pytest.approx(0.365, abs=0.005)
    assert lower_limit(0, 6, 0.01) == 0
    assert lower_limit(0, 0, 0.01) == 0


def test_the_lower_limit_is_where_the_evidence_suffices() -> None:
    low = lower_limit(14, 20, 0.01)
    assert log_evidence(14, 20, low) == pytest.approx(math.log(100), abs=1e-6)
    assert 0.3 < low < 0.5


def test_the_median_weighs_each_share_by_its_cases() -> None:
    assert median_rate([]) == 0
    assert median_rate([(0, 0), (1, 2)]) == 0.5
    assert median_rate([(1, 1), (1, 10), (2, 10)]) == 0.2
    assert median_rate([(0, 10), (10, 10)]) == 0, "the lower of two"
