"""Places, galleries and what is healed, on candidates made by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from data.records import HUMAN, PLAYED, Candidate, Verdict
from data.shards import encode_png
from tasks.quality.leaderboard import annotators
from tasks.quality.progress import Progress
from tasks.quality.ranking import Rank, rank
from tasks.serving.players import shown_name

PENDING, VERIFIED, REJECTED = Verdict.PENDING, Verdict.VERIFIED, Verdict.REJECTED


def made(key: str, by: str, answer: int, verdict: Verdict = PENDING, round_: int = 2, source: str = HUMAN) -> Candidate:
    """A candidate meant as class 0, drawn as nobody drew before."""
    image = encode_png(noise(sum(key.encode())))
    return Candidate(
        key, round_, source, image, 0, annotator=by, answer=answer, verdict=verdict, at=f"2026-01-01T{key}"
    )


def noise(seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 28, 28), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


ALL = [
    made("a", "ann", 1, VERIFIED),
    made("b", "ann", 1),
    made("c", "ann", 0),
    made("d", "bob", 2, VERIFIED),
    made("e", "bob", 2, REJECTED),
    made("f", "bob", 2, VERIFIED, round_=1),
    made("g", "cat", 0),
    made("h", "", 3, VERIFIED, round_=1, source="pgd"),
    made("i", "dan", 1, VERIFIED),
]
NOW = {"a": 1, "b": 1, "d": 2, "e": 2, "f": 0, "h": 3, "i": 1}  # f is healed


def test_places_go_by_verified_fools_then_by_fools() -> None:
    seen = rank(ALL, NOW, 2)
    assert seen.ranks == (Rank("bob", 3, 3, 2), Rank("ann", 3, 2, 1), Rank("dan", 1, 1, 1), Rank("cat", 1, 0, 0))
    assert [seen.of(name)[0] for name in ("bob", "ann", "dan", "cat", "nobody")] == [1, 2, 3, 4, 4]
    level = rank([*ALL, made("j", "dan", 1)], {**NOW, "j": 1}, 2)
    assert [level.of(name)[0] for name in ("ann", "dan", "cat")] == [2, 2, 4]


def test_the_gallery_holds_what_is_verified_and_still_fools() -> None:
    seen = rank(ALL, NOW, 2)
    assert [fool.candidate.key for fool in seen.gallery] == ["i", "d", "a", "h"], "the newest first; f is healed"
    assert [(fool.candidate.key, fool.state) for fool in seen.own("bob")] == [
        ("e", "rejected"),
        ("d", "verified"),
        ("f", "healed"),
    ]
    assert [fool.state for fool in seen.own("ann")] == ["being read", "verified"]
    many = [replace(ALL[0], key=f"{n:03d}") for n in range(100)]
    assert len(rank(many, {c.key: 1 for c in many}, 2).gallery) == 24


def test_what_is_wanted_counts_the_open_round_alone() -> None:
    assert rank(ALL, NOW, 2).verified == 3
    assert rank(ALL, NOW, 1).verified == 1, "f; an attack is nobody"
    assert rank(ALL, NOW, None).verified == 0
    assert rank([], {}, 1).ranks == ()


def test_the_same_drawing_again_buys_no_place_and_no_training() -> None:
    """Shifted by a pixel, as a player may send it again and again."""
    one = noise(1)
    copies = [
        replace(made(f"{n}", "mia", 1, VERIFIED, source=PLAYED), image=encode_png(torch.roll(one, n % 3 - 1, 2)))
        for n in range(4)
    ]
    candidates = [*copies, *(made(f"{n}", "ann", 1, VERIFIED) for n in "ab")]
    seen = rank(candidates, {c.key: 1 for c in candidates}, 2)
    assert seen.ranks == (Rank("ann", 2, 2, 2), Rank("mia", 4, 1, 1))
    assert (seen.of("mia")[0], seen.verified) == (2, 3)
    assert [(row.account, row.verified_fools) for row in annotators(candidates)] == [("ann", 2), ("mia", 1)]
    tally = Progress.of(candidates)
    assert (tally.fooling, tally.verified_fooling, tally.duplicates) == (6, 3, 3)
    assert "3 of them verified, 0 pending, 0 malformed, 3 near-duplicates" in str(tally)
    earlier = [replace(c, round=1, key=f"1{c.key}") for c in copies]
    assert rank([*earlier, *candidates], dict.fromkeys([c.key for c in [*earlier, *candidates]], 1), 2).verified == 3


def test_a_round_of_thousands_is_looked_at_in_no_time_once_it_is_known() -> None:
    images = [encode_png(noise(n)) for n in range(500)]
    many = [
        replace(ALL[0], key=f"{n:04d}", annotator=f"{n % 60}@x", image=images[n % 500], intended=n % 10, at=f"{n:04d}")
        for n in range(3000)
    ]
    now = {c.key: 1 for c in many}
    first = rank(many, now, 2)
    began = time.monotonic()
    assert rank(many, now, 2) == first
    assert time.monotonic() - began < 1, "nothing is compared again"
    began = time.monotonic()
    assert rank([*many, made("x", "0@x", 1)], {**now, "x": 1}, 2) != first
    assert time.monotonic() - began < 2, "only with what its author made"


def test_malformed_candidates_are_no_try() -> None:
    assert rank([made("a", "ann", 1).rejected("no ink", wellformed=False)], {}, 2).ranks == ()


def test_nobodys_address_is_shown() -> None:
    assert shown_name("ann-b.my-campaign@play.invalid") == "ann-b"
    assert shown_name("annotator-1.x@simulated.invalid") == "simulated"
    assert shown_name("someone@example.org") == "an annotator"
