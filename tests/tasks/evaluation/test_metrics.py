from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import binomtest

from data.records import HUMAN, PLAYED, SIMULATED, Candidate, Verdict
from tasks.evaluation.metrics import (
    accuracy,
    by_source,
    error_rates,
    heal,
    mean_accuracy,
    rate,
    rated,
    split_by,
    wilson,
)


def made(key: str, *, answer: int = 1, verdict: Verdict = Verdict.VERIFIED, **more: object) -> Candidate:
    """A candidate of class 0; answer 1 fools."""
    plain = Candidate(key=key, round=1, source=SIMULATED, image=b"", intended=0, answer=answer, verdict=verdict)
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (1, 1), (359, 360), (5000, 10000)])
def test_wilson_is_scipy_s(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_accuracy_of_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        accuracy(0, 0)


def test_mean_accuracy_keeps_n_and_refuses_different_images() -> None:
    mean = mean_accuracy([accuracy(8, 10), accuracy(4, 10)])
    assert mean["accuracy"] == pytest.approx(0.6)
    assert mean["n"] == 10
    assert (mean["low"], mean["high"]) == pytest.approx(wilson(0.6, 10))
    with pytest.raises(ValueError, match="same images"):
        mean_accuracy([accuracy(8, 10), accuracy(4, 11)])


def test_rate_of_nothing_is_none() -> None:
    assert rate(0, 0) == {"rate": None, "n": 0, "low": None, "high": None}


def test_rates_of_a_round_counted_by_hand() -> None:
    candidates = [
        made("a"),
        made("b"),
        made("c", verdict=Verdict.PENDING),
        made("d", verdict=Verdict.REJECTED),
        made("e", answer=0),
        made("f", answer=0, verdict=Verdict.PENDING),  # settled or not, it fools nobody
        made("g", answer=-1, verdict=Verdict.REJECTED, wellformed=False, intended=-1),  # not collected
        made("h", source="pgd", seed_image="s1"),
        made("i", source=PLAYED),
    ]
    found = error_rates(rated(candidates))
    assert found == {
        "collected": 6,
        "fooling": 4,
        "verified_fooling": 2,
        "pending": 1,
        "mer": 4 / 6,
        "vmer": {"low": 2 / 6, "high": 3 / 6},
    }


def test_nothing_collected_has_no_rate() -> None:
    found = error_rates([])
    assert found["mer"] is None
    assert found["vmer"] == {"low": None, "high": None}


def test_unjudged_candidates_have_no_rate() -> None:
    with pytest.raises(ValueError, match="such as z; judge"):
        error_rates([made("z", answer=-1)])


def test_attacks_are_reported_apart_and_never_as_mer() -> None:
    candidates = [
        made("h", source=HUMAN),
        made("p1", source="pgd", seed_image="s1"),
        made("p2", source="pgd", seed_image="s2", answer=0, verdict=Verdict.PENDING),
        made("p3", source="pgd", seed_image="s3", verdict=Verdict.REJECTED),
        made("p4", source="pgd", seed_image="s4"),  # the target had its seed wrong anyway
    ]
    report = by_source(candidates, rightly_classified=["s1", "s2", "s3"])
    assert list(report) == ["human", "pgd"]
    assert report["human"]["mer"] == 1.0
    assert "mer" not in report["pgd"]
    assert report["pgd"]["attack_success_rate"] == pytest.approx(2 / 3)
    assert report["pgd"]["verified_rate"] == pytest.approx(2 / 3)
    assert report["pgd"]["collected"] == 4
    assert (report["pgd"]["fooling"], report["pgd"]["wrong_before"]) == (2, 1)
    earlier = by_source(candidates, rightly_classified=["s1", "s2", "s3"], seeds_must_be_right=False)
    assert earlier["pgd"]["fooling"] == 3, "what rounds opened before are held to"
    assert by_source(candidates, [])["pgd"]["fooling"] == 0, "no success rate, no fools"
    assert (report["pgd"]["verified"]["fooling"]["rate"], report["pgd"]["verified"]["non_fooling"]["n"]) == (2 / 3, 0)


def test_players_who_send_only_what_fools_have_no_rate_and_take_part_in_all_else() -> None:
    people = [made("a", source=HUMAN), made("b", source=HUMAN, answer=0)]
    played = [made(f"p{i}", source=PLAYED, annotator=f"{i}@x") for i in range(8)]
    assert error_rates(rated([*people, *played])) == error_rates(people)
    report = by_source([*people, *played], [])
    assert (report["human"]["mer"], report["human"]["vmer"]["low"]) == (0.5, 0.5)
    assert {name: value for name, value in report["played"].items() if name != "verified"} == {
        "collected": 8,
        "fooling": 8,
        "verified_fooling": 8,
        "pending": 0,
    }
    assert report["played"]["verified"]["fooling"]["rate"] == 1.0
    assert all(c.by_people for c in played)
    assert split_by(played) == "annotator"
    assert heal(played, dict.fromkeys((c.key for c in played), True), {}, 1)["n"] == 8


def test_labels_are_found_right_apart_where_the_target_was_fooled_and_where_not() -> None:
    candidates = [
        made("a", source=HUMAN),
        made("b", source=HUMAN, verdict=Verdict.REJECTED),
        made("c", source=HUMAN, answer=0),
        made("d", source=HUMAN, answer=0, verdict=Verdict.PENDING),
    ]
    found = by_source(candidates, [])["human"]["verified"]
    assert (found["fooling"]["rate"], found["fooling"]["n"]) == (1 / 2, 2)
    assert (found["non_fooling"]["rate"], found["non_fooling"]["n"]) == (1.0, 1), "who has no verdict is not counted"


def test_split_by() -> None:
    people = [made(f"k{i}", annotator=f"{i}@x") for i in range(5)]
    machines = [made(f"m{i}", source="pgd", annotator="") for i in range(5)]
    assert split_by([*people[:4], *machines]) == "task"
    assert split_by(people) == "annotator"


def test_heal_and_relapse() -> None:
    candidates = [
        made("old1", round=1, split="train"),
        made("old2", round=1, split="test"),
        made("old3", round=1, split="test"),
        made("new1", round=2, split="train"),
        made("new2", round=2, split="validation"),
        made("pending", round=2, verdict=Verdict.PENDING),
        made("harmless", round=2, answer=0),
    ]
    right = {"old1": True, "old2": False, "old3": True, "new1": True, "new2": False}
    target = {"old1": True, "old2": True, "old3": False, "new1": False, "new2": False}
    found = heal(candidates, right, target, number=2)
    assert (found["rate"], found["n"]) == (3 / 5, 5)
    assert (found["held_out"]["rate"], found["held_out"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (found["relapse"]["rate"], found["relapse"]["n"]) == (1 / 2, 2)
