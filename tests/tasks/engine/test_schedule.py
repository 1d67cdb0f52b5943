"""Learning rates over a training, and what ends one early."""

from __future__ import annotations

import pytest

from tasks.engine.schedule import rate, why_stop


def history(*robust: float) -> list[dict[str, float]]:
    return [{"robust": each, "clean": 0.5 + i / 100} for i, each in enumerate(robust)]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", {0.0: 1, 0.5: 1, 0.99: 1}),
        ("cosine", {0.0: 1, 1 / 3: 0.75, 0.5: 0.5, 1.0: 0}),
        ("one_cycle", {0.0: 0, 0.2: 0.5, 0.4: 1, 0.7: 0.5, 1.0: 0}),
        ("step", {0.0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01}),
    ],
)
def test_the_learning_rate_follows_the_schedule(schedule: str, shares: dict[float, float]) -> None:
    for share, wanted in shares.items():
        assert rate(schedule, share) == pytest.approx(wanted, abs=1e-9)


def test_patience_counts_epochs_without_a_higher_robust_accuracy() -> None:
    assert why_stop(history(0.5, 0.4, 0.5), 3, 0.1, defended=True) == ""
    reason = why_stop(history(0.5, 0.4, 0.5, 0.45), 3, 0.1, defended=True)
    assert reason == "PGD accuracy on validation has not risen over 50.0% for 3 epochs (train.patience)"
    assert why_stop(history(0.0, 0.0, 0.0, 0.0), 3, 0.1, defended=False) == "", "clean accuracy rises"


def test_a_fall_of_pgd_accuracy_ends_a_training_that_promised_something() -> None:
    assert why_stop(history(0.1, 0.5, 0.36), None, 0.1, defended=True) == ""
    assert why_stop(history(0.1, 0.5, 0.34), None, 0.1, defended=False) == ""
    assert why_stop(history(0.5, 0.34), None, 0.5, defended=True) == "", "it began with one answer to every image"
    assert "fell from 50.0% to 34.0%" in why_stop(history(0.1, 0.5, 0.34), None, 0.1, defended=True)
