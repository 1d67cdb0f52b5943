"""Which candidates a network is trained on, and the images that an epoch sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data.records import Candidate, Verdict
from data.shards import Images, encode_png
from tasks.config.params import TrainCandidates
from tasks.engine.training_set import training_set

CHOICES = TrainCandidates(weight=0.5, repeat=3, non_fooling=False)


def images(n: int, size: int = 8) -> Images:
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 128, (n, 1, size, size), generator=torch.Generator().manual_seed(1))
    pixels = (noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return Images(pixels, labels, tuple(f"k{i}" for i in range(n)), ("a", "b"))


def candidate(key: str, **changes: object) -> Candidate:
    """A verified fooling candidate of class 1 in the train split."""
    blob = encode_png(torch.full((1, 8, 8), 7, dtype=torch.uint8))
    made = Candidate(key, 1, "simulated", blob, 1, answer=0, verdict=Verdict.VERIFIED, split="train")
    return replace(made, **changes)  # type: ignore[arg-type]


CANDIDATES = [
    candidate("yes"),
    candidate("pending", verdict=Verdict.PENDING),
    candidate("rejected", verdict=Verdict.REJECTED),
    candidate("harmless", answer=1),
    candidate("test", split="test"),
    candidate("validation", split="validation"),
]


def test_only_verified_fooling_candidates_of_the_train_split_are_trained_on() -> None:
    made = training_set(images(4), CANDIDATES, CHOICES)
    assert len(made.labels) == 5
    assert made.labels[4] == 1
    assert (made.pixels(torch.tensor([4, 0]))[0] == 7).all()
    assert torch.equal(made.pixels(torch.tensor([4, 2, 0]))[1:], images(4).pixels_NCHW[[2, 0]])
    assert made.weights.tolist() == [1, 1, 1, 1, 0.5]
    assert made.order.tolist() == [0, 1, 2, 3, 4, 4, 4]


def test_non_fooling_ones_train_when_asked() -> None:
    made = training_set(images(4), CANDIDATES, CHOICES.model_copy(update={"non_fooling": True}))
    assert len(made.labels) == 6


def test_weight_zero_leaves_the_base_split() -> None:
    assert len(training_set(images(4), CANDIDATES, CHOICES.model_copy(update={"weight": 0.0})).order) == 4


def test_candidates_of_another_size_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"images of \(1, 16, 16\)"):
        training_set(images(4, size=16), CANDIDATES, CHOICES)
