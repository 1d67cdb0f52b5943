"""When gradients are said to be masked, and that an honest network seldom is."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.config.params import Gradients
from tasks.evaluation.masking import guess, masking, one_step, warning

RULES = Gradients(images=200, queries=300, starts=20, allowed=0.01, alpha=0.01)
N = 400


def some(count: int, n: int = N) -> list[bool]:
    return [True] * count + [False] * (n - count)


def honest(**changed: list[bool]) -> dict[str, list[bool] | list[int]]:
    """Columns of a network that stands on 240 of 400 images under PGD, and falls at the large radius."""
    labels = [i % 10 for i in range(N)]
    columns: dict[str, list[bool] | list[int]] = {
        "label": labels,
        "attack_fgsm": answers(labels, 280),
        "attack_pgd": answers(labels, 240),
        "zero_clean": some(0),
        "zero_start": some(0),
        "zero_cross_entropy": some(0),
        "differs": some(0),
        "probabilities": some(0),
        "asked_square": some(200),
        "fell_square": some(2),
        "asked_random": some(200),
        "fell_random": some(0),
        "asked_large": some(200),
        "fell_large": some(195),
    }
    return columns | changed


def answers(labels: list[int], right: int) -> list[int]:
    return [label if i < right else (label + 1) % 10 for i, label in enumerate(labels)]


def test_an_honest_network_is_not_accused() -> None:
    report = masking(honest(), RULES)
    assert (report["found"], report["alarms"], report["differs"], report["probabilities"]) == (False, [], 0, False)
    assert report["signs"]["fell_square"] == {"shown": 2, "of": 200, "allowed": 0.01, "p": 0.5954}
    assert report["signs"]["stands_at_large_radius"]["allowed"] == 0.1
    assert warning({"masking": report}) == ""


@pytest.mark.parametrize(
    ("changed", "alarm"),
    [
        ({"zero_clean": some(20)}, "zero_clean"),
        ({"zero_start": some(20)}, "zero_start"),
        ({"zero_cross_entropy": some(20)}, "zero_cross_entropy"),
        ({"fell_square": some(12)}, "fell_square"),
        ({"fell_random": some(12)}, "fell_random"),
        ({"tried_transfer": some(240), "broke_transfer": some(14)}, "broke_transfer"),
        ({"fell_large": some(150)}, "stands_at_large_radius"),
        ({"attack_fgsm": answers([i % 10 for i in range(N)], 220)}, "fgsm_beats_pgd"),
        ({"differs": some(1)}, "forward_passes_differ"),
    ],
)
def test_every_sign_is_an_alarm(changed: dict[str, list[bool]], alarm: str) -> None:
    report = masking(honest(**changed), RULES)
    assert (report["found"], report["alarms"]) == (True, [alarm])
    assert alarm in warning({"masking": report})


def test_what_was_not_looked_at_is_no_sign() -> None:
    """Images outside `asked_…` are not counted, and what was not looked for at all is null, not false."""
    report = masking(honest(asked_square=some(1), fell_square=some(40)), RULES)
    assert report["signs"]["fell_square"]["of"] == 1
    assert report["found"] is False
    report = masking(honest(), None)
    assert (report["found"], report["signs"]) == (None, {})


def test_probabilities_are_told_and_are_no_alarm() -> None:
    report = masking(honest(probabilities=some(N)), RULES)
    assert (report["found"], report["probabilities"]) == (False, True)
    assert "gives probabilities" in warning({"masking": report})


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Networks that show each sign on as many images as is allowed, by chance."""
    rng, accused = np.random.default_rng(0), 0
    for _ in range(500):
        drawn = {name: (rng.random(N) < 0.01).tolist() for name in ("zero_clean", "zero_start", "zero_cross_entropy")}
        drawn |= {name: (rng.random(N) < 0.01).tolist() for name in ("fell_square", "fell_random")}
        drawn["fell_large"] = (rng.random(N) < 0.9).tolist()
        accused += masking(honest(**drawn), RULES)["found"]
    assert accused / 500 <= 0.02


def test_a_loss_learned_by_heart_is_one_step_overfitting_and_a_plain_one_is_not() -> None:
    columns = honest(attack_fgsm=answers([i % 10 for i in range(N)], 340))  # type: ignore[arg-type]
    report = one_step(columns, 0.15, defended=True)
    assert report["gap"] == pytest.approx(0.25)
    assert 0.2 < report["low"] < 0.25
    assert report["found"] is True
    assert "one-step over-fitting" in warning({"masking": masking(columns, RULES), "one_step": report})
    assert one_step(columns, 0.15, defended=False) == {"gap": None, "low": None, "found": None}
    assert one_step(columns, 0.24, defended=True)["found"] is False, "25 points of 400 images may be 24"
    del columns["attack_fgsm"]
    assert one_step(columns, 0.15, defended=True)["found"] is None
    assert masking(columns, RULES)["found"] is False


def test_a_guess_is_the_commonest_class() -> None:
    assert guess([0, 0, 0, 1, 2]) == 0.6
