"""Who made what and who validated what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data.records import PLAYED, Candidate, Verdict, Vote
from data.shards import encode_png
from tasks.config.params import Validate
from tasks.quality.account_stats import ProbeAnswer
from tasks.quality.duplicates import duplicates
from tasks.quality.leaderboard import annotators, validators

RULES = Validate(consensus=2, max_votes=5, non_fooling_share=0.0, unsettled="pending")


def stroke(seed: int, *, shift: int = 0, size: int = 28) -> torch.Tensor:
    """A crooked line, another for each seed."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, size, size, dtype=torch.uint8)
    places = torch.randint(3, size - 7, (4, 2), generator=generator)
    for (y, x), (v, w) in zip(places[:-1].tolist(), places[1:].tolist(), strict=True):
        for part in torch.linspace(0, 1, 40).tolist():
            row, column = round(y + (v - y) * part), round(x + (w - x) * part) + shift
            picture[0, row : row + 3, column : column + 3] = 255
    return picture


def fool(number: int, pixels: torch.Tensor, who: str = "ann@x", **changes: object) -> Candidate:
    made = Candidate(
        f"001/draw/{number:04d}",
        1,
        "human",
        encode_png(pixels),
        intended=3,
        annotator=who,
        at=f"2026-01-01T00:00:{number:02d}Z",
        seconds=10.0,
        answer=5,
        verdict=Verdict.VERIFIED,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def noisy(pixels: torch.Tensor) -> torch.Tensor:
    noise = torch.randint(0, 20, pixels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return pixels // 2 + noise


@pytest.mark.parametrize("change", [lambda p: p, noisy, lambda p: torch.roll(p, 1, 2), lambda p: torch.roll(p, -1, 1)])
def test_the_same_drawing_again_is_no_second_fool(change: object) -> None:
    for seed in range(10):
        first = stroke(seed)
        again = change(first)  # type: ignore[operator]
        assert duplicates([fool(0, first), fool(1, again)]) == {"001/draw/0001"}


def test_another_drawing_is_one() -> None:
    made = [fool(n, stroke(n)) for n in range(30)]
    assert duplicates(made) == set()
    assert duplicates([fool(0, stroke(0)), fool(1, stroke(0), intended=4)]) == set(), "another class"
    assert duplicates([fool(0, stroke(0)), fool(1, stroke(0, size=32))]) == set(), "another size"
    blank = torch.zeros(1, 28, 28, dtype=torch.uint8)
    assert duplicates([fool(0, blank), fool(1, blank)]) == set(), "nothing is like nothing"


def test_who_tried_before_and_failed_loses_nothing() -> None:
    failed = fool(0, stroke(0), verdict=Verdict.REJECTED)
    assert duplicates([failed, fool(1, stroke(0))]) == {failed.key}


def test_an_annotator_s_row() -> None:
    made = [
        fool(0, stroke(0)),
        fool(1, stroke(0)),
        fool(2, stroke(2), verdict=Verdict.PENDING),
        fool(3, stroke(3), answer=3),
        fool(4, stroke(4)).rejected("no ink", wellformed=False),
        fool(5, stroke(0), "bob@x"),
        fool(6, stroke(0), "bob@x", verdict=Verdict.REJECTED, reason="set aside: 6 of 7 candidates …"),
        fool(7, stroke(0), "", source="pgd"),
    ]
    ann, bob = annotators(made)
    assert (ann.account, ann.tries, ann.malformed, ann.fools, ann.verified_fools, ann.duplicates) == (
        "ann@x",
        4,
        1,
        2,
        1,
        1,
    )
    assert (ann.mer, ann.seconds, ann.seconds_per_verified_fool, ann.set_aside) == (0.75, 40.0, 40.0, "")
    assert (bob.tries, bob.fools, bob.verified_fools, bob.set_aside) == (2, 1, 1, "6 of 7 candidates …")
    assert annotators([fool(0, stroke(0), answer=3)])[0].seconds_per_verified_fool is None
    (player,) = annotators([fool(n, stroke(n), "mia@play.invalid", source=PLAYED) for n in range(3)])
    assert (player.tries, player.verified_fools, player.mer) == (3, 3, None), "only fools are sent: no rate"


def test_a_validator_s_row() -> None:
    votes = (
        Vote("v@x", 3, 1, "1"),
        Vote("w@x", 3, 2, "2"),
        Vote("x@x", 4, 3, "3"),
        Vote("y@x", 3, 4, "4", counted=False, reason="set aside: 0 of 4 probes answered rightly"),
    )
    made = [fool(0, stroke(0), votes=votes), fool(1, stroke(1), votes=votes[:1])]
    answers = [ProbeAnswer("z@x", "p", 1, 1), ProbeAnswer("v@x", "p", 2, 1)]
    found = {row.account: row for row in validators(made, answers, {1: RULES}, {"v@x": 30.0})}
    v, w, x, y, z = (found[f"{name}@x"] for name in "vwxyz")
    assert (v.votes, v.counted, v.agreement, v.probes, v.probe_accuracy) == (2, 2, 1.0, 1, 0.0)
    assert (w.votes, w.agreement, w.probe_accuracy) == (1, 1.0, None)
    assert (v.verified_fools, v.seconds, v.seconds_per_verified_fool) == (2, 30.0, 15.0)
    assert (x.verified_fools, y.verified_fools, x.seconds_per_verified_fool) == (0, 0, None), "wrong, or not counted"
    assert x.agreement == 0.0
    assert (y.counted, y.set_aside) == (0, "0 of 4 probes answered rightly")
    assert (z.votes, z.agreement, z.probes, z.probe_accuracy) == (0, None, 1, 1.0)
    assert v.skill is None, "so few votes tell nothing"
    assert validators(made, [], {1: RULES}, {})[0].account == "v@x", "the most counted votes first"
