"""The gate's verdicts against what must come out: no gain without one, no loss let through, no ratchet."""

from __future__ import annotations

import pytest

from tasks.config.params import Margins, Promote
from tasks.evaluation.gate import (
    Rival,
    Sheet,
    alpha_of_round,
    comparison,
    gate,
    holm,
    overall,
    soundness,
)
from tasks.evaluation.gate_words import line

MARGINS = Margins(clean=0.01, robust=0.02, ood=0.01, fools=0.05)
PROMOTE = Promote(margins=MARGINS, undecided="keep")
N = 2000


def sheet(*, clean: int = 1900, robust: int = 1000, ood: int = 1700, **fools: list[list[bool]]) -> Sheet:
    """So many right answers of N images; whoever has more right has those of who has fewer right too."""
    counted = {"clean": clean, "robust": robust, "ood": ood}
    return {name: [[i < right] for i in range(N)] for name, right in counted.items()} | fools


def test_the_first_is_promoted() -> None:
    assert gate(sheet(), None, [], None, PROMOTE, 0)["promoted"]


def test_the_same_network_gains_nothing_and_loses_nothing() -> None:
    verdict = gate(sheet(), Rival(0, sheet()), [], None, PROMOTE, 1)
    assert (verdict["verdict"], verdict["promoted"]) == ("no worse", False)
    assert verdict["reasons"] == ["no figure is better"]
    assert {name: each["verdict"] for name, each in verdict["target"].items()} == dict.fromkeys(
        ("clean", "robust", "ood"), "no worse"
    )


@pytest.mark.parametrize(
    ("changes", "verdict", "promoted"),
    [
        ({"robust": 1040}, "better", True),
        ({"robust": 1040, "clean": 1890}, "better", True),  # half of its margin is lost
        ({"robust": 1040, "clean": 1880}, "worse", False),
        ({"robust": 1400, "ood": 1600}, "worse", False),
        ({"robust": 1003}, "no worse", False),  # three more of 2,000 may be chance
    ],
)
def test_a_challenger_must_gain_somewhere_and_lose_nowhere(
    changes: dict[str, int], verdict: str, promoted: bool
) -> None:
    found = gate(sheet(**changes), Rival(0, sheet()), [], None, PROMOTE, 1)
    assert (found["verdict"], found["promoted"]) == (verdict, promoted)


def few(clean: int, robust: int) -> Sheet:
    return {"clean": [[i < clean] for i in range(100)], "robust": [[i < robust] for i in range(100)]}


@pytest.mark.parametrize("undecided", ["keep", "promote"])
def test_what_few_images_cannot_decide_is_undecided(undecided: str) -> None:
    """Three of 100 lost may be none or eight; a gain of 30 beside it is sure."""
    promote = Promote(margins=MARGINS, undecided=undecided)  # type: ignore[arg-type]
    found = gate(few(92, 60), Rival(0, few(93, 30)), [], None, promote, 1)
    clean = found["target"]["clean"]
    assert (clean["verdict"], found["target"]["robust"]["verdict"]) == ("undecided", "better")
    assert (found["verdict"], found["promoted"]) == ("undecided", undecided == "promote")
    assert clean["more"] > 100
    assert f"undecided, about {clean['more']:,} more would decide" in found["reasons"][0]
    same = gate(few(92, 31), Rival(0, few(93, 30)), [], None, promote, 1)
    assert not same["promoted"], "without a gain nothing is promoted, whatever is undecided"


def test_losses_within_the_margin_do_not_add_up() -> None:
    """A point less robust than the target, which is a point less so than an earlier champion."""
    first, target, third = sheet(robust=1040, ood=1000), sheet(robust=1020, ood=1200), sheet(robust=1000, ood=1400)
    alone = gate(third, Rival(1, target), [], None, PROMOTE, 2)
    assert alone["promoted"]
    beside = gate(third, Rival(1, target), [Rival(0, {"robust": first["robust"]})], None, PROMOTE, 2)
    assert (beside["verdict"], beside["promoted"], beside["best"]["robust"]["round"]) == ("worse", False, 0)
    assert beside["reasons"][0].startswith("against round 000: robust -2.0 points")


def annotators(right: int, people: int = 12, each: int = 10) -> list[list[bool]]:
    return [[i < right for i in range(each)] for _ in range(people)]


def test_new_fools_are_compared_with_the_reference_alone() -> None:
    """The target has none of them right, for that chose them: against it any other network gains."""
    target, plain = sheet(fools=annotators(0)), sheet(fools=annotators(3))
    chance = gate(plain, Rival(0, target), [], plain, PROMOTE, 1)
    assert "fools" not in chance["target"]
    assert (chance["verdict"], chance["promoted"], chance["data"]) == ("no worse", False, "no worse")
    learned = gate(sheet(fools=annotators(7)), Rival(0, target), [], plain, PROMOTE, 1)
    assert (learned["gained"], learned["promoted"], learned["data"]) == (["fools"], True, "better")
    untold = gate(sheet(fools=annotators(7)), Rival(0, target), [], None, PROMOTE, 1)
    assert (untold["promoted"], untold["data"]) == (False, None)


def test_few_annotators_prove_nothing_however_many_fools_they_made() -> None:
    three = gate(
        sheet(fools=annotators(9, 3, 40)), Rival(0, sheet()), [], sheet(fools=annotators(1, 3, 40)), PROMOTE, 1
    )
    assert three["reference"]["fools"]["p"] == 1 / 8
    assert not three["promoted"]


def test_ood_counts_images_and_not_images_times_shifts() -> None:
    before, after = [[True, True, True, False]] * 50, [[True, True, False, False]] * 50
    found = comparison(before, after, 0.01, by_image=True)
    assert (found["n"], found["clusters"], found["difference"]) == (50, 50, -0.25)


def test_holm_stops_at_the_first_that_is_not_refused() -> None:
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03}, 0.05) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.03}, 0.05) == {"a"}
    assert holm({"a": 0.02, "b": 0.02, "c": 0.02}, 0.05) == set()
    assert holm({}, 0.05) == set()


def test_rounds_spend_no_more_than_alpha() -> None:
    assert alpha_of_round(0.05, 1) == pytest.approx(0.0304, abs=1e-4)
    assert 0.0499 < sum(alpha_of_round(0.05, r) for r in range(1, 2000)) < 0.05


def test_the_worst_verdict_is_that_of_all() -> None:
    assert overall(["better", "worse", "undecided"], gained=True) == "worse"
    assert overall(["better", "undecided"], gained=True) == "undecided"
    assert overall(["no worse"], gained=True) == "better"
    assert overall([], gained=False) == "no worse"


def test_a_network_that_tells_no_classes_apart_is_named() -> None:
    labels = [0, 1, 2, 0] * 25
    assert "one class to all of 100" in soundness([0] * 100, labels)["fault"]
    assert "no better than chance" in soundness([0, 1, 1, 1] * 25, labels)["fault"]
    assert soundness(labels, labels)["fault"] == ""


def test_a_comparison_in_words() -> None:
    verdict = gate(sheet(robust=1040), Rival(0, sheet()), [], None, PROMOTE, 1)
    assert line("earlier_fools", verdict["target"]["robust"]).startswith("earlier fools +2.0 points [+1.")
    assert line("robust", verdict["target"]["robust"]).endswith("n 2000: better")
