"""The split of a set's training part: seeded, stratified, disjoint."""

from __future__ import annotations

import pytest
import torch

from data.shards import Images
from data.splitting import split_train


def images(counts: tuple[int, ...]) -> Images:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    pixels = torch.arange(len(labels)).to(torch.uint8).view(-1, 1, 1, 1)
    return Images(pixels, labels, tuple(f"k{i}" for i in range(len(labels))), tuple("abcdef"[: len(counts)]))


@pytest.mark.parametrize("limit", [None, 150, 10_000])
def test_the_parts_are_disjoint_and_as_large_as_asked(limit: int | None) -> None:
    whole = images((100, 60, 40))
    parts = split_train(whole, pool=20, validation=30, limit=limit, seed=0)
    n = 150 if limit == 150 else 200
    assert {name: len(part) for name, part in parts.items()} == {"train": n - 50, "pool": 20, "validation": 30}
    keys = [key for part in parts.values() for key in part.keys]
    assert len(set(keys)) == n
    of = dict(
        zip(whole.keys, zip(whole.labels_N.tolist(), whole.pixels_NCHW.flatten().tolist(), strict=True), strict=True)
    )
    for part in parts.values():
        for key, label, pixel in zip(
            part.keys, part.labels_N.tolist(), part.pixels_NCHW.flatten().tolist(), strict=True
        ):
            assert of[key] == (label, pixel)


def test_every_part_holds_the_classes_in_their_shares() -> None:
    for part in split_train(images((100, 60, 40)), pool=20, validation=30, limit=None, seed=3).values():
        wanted = torch.tensor([0.5, 0.3, 0.2]) * len(part)
        assert (torch.bincount(part.labels_N, minlength=3) - wanted).abs().max() <= 1


def test_the_seed_decides_and_nothing_else() -> None:
    whole = images((50, 50))
    one, same, other = (split_train(whole, pool=20, validation=20, limit=None, seed=seed) for seed in (1, 1, 2))
    assert one["pool"].keys == same["pool"].keys
    assert one["pool"].keys != other["pool"].keys
    assert set(one["pool"].keys) != set(other["pool"].keys)


def test_too_few_images_say_what_to_change() -> None:
    whole = images((6, 6))
    assert len(split_train(whole, pool=5, validation=5, limit=None, seed=0)["train"]) == 2
    with pytest.raises(
        ValueError, match=r"12 training images cannot give 6 to the pool and 5 to validation.*data\.pool"
    ):
        split_train(whole, pool=6, validation=5, limit=None, seed=0)
    with pytest.raises(ValueError, match="11 training images cannot give"):
        split_train(whole, pool=5, validation=5, limit=11, seed=0)


def test_one_class_and_an_empty_class_are_named() -> None:
    with pytest.raises(ValueError, match="expected at least two classes, got 1: a"):
        split_train(images((9,)), pool=1, validation=1, limit=None, seed=0)
    with pytest.raises(ValueError, match="every class needs training images, none of b was found"):
        split_train(images((5, 0, 5)), pool=1, validation=1, limit=None, seed=0)


def test_a_class_that_training_would_lose_is_named() -> None:
    with pytest.raises(ValueError, match="no image of b would be left to train on"):
        split_train(images((40, 1)), pool=20, validation=10, limit=None, seed=0)
