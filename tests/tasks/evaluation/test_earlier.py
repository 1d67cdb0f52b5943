"""The rules of rounds that opened before those of now."""

from __future__ import annotations

import pytest

from tasks.evaluation.earlier import masking_by_gap
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
