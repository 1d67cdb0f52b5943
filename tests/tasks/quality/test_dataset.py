"""What is wrong with a data set is told before it is frozen."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.sets import digits
from data.shards import Images
from tasks.quality import dataset
from tasks.quality.dataset import faults_of


def photos(n: int, seed: int, channels: int = 3, size: int = 32) -> Images:
    """Smooth pictures of two classes, no two alike."""
    rough = np.random.default_rng(seed).integers(0, 256, (n, channels, 6, 6)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(rough), (size, size), mode="bilinear")
    keys = tuple(f"{seed}/{i}.png" for i in range(n))
    return Images(smooth.to(torch.uint8), torch.arange(n) % 2, keys, ("cat", "dog"))


def changed(images: Images, pixels: dict[int, torch.Tensor]) -> Images:
    """The same with other pixels at some places."""
    pixels_NCHW = images.pixels_NCHW.clone()
    for i, new in pixels.items():
        pixels_NCHW[i] = new
    return replace(images, pixels_NCHW=pixels_NCHW)


def saved_again(pixels_CHW: torch.Tensor, quality: int) -> torch.Tensor:
    out = io.BytesIO()
    Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy()).save(out, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(out))).permute(2, 0, 1)


@pytest.fixture
def train() -> Images:
    return photos(60, seed=1)


@pytest.fixture
def test() -> Images:
    return photos(40, seed=2)


def test_sound_sets_have_no_fault(train: Images, test: Images) -> None:
    assert faults_of(train, test, {"more": photos(10, seed=3)}) == []
    given = {"root": None, "size": None, "channels": None, "seed": 0}
    assert faults_of(digits.load("train", **given), digits.load("test", **given), {}) == []


def test_images_that_are_trained_on_are_counted_in_every_set_that_is_measured_on(train: Images, test: Images) -> None:
    test = changed(test, {i: train.pixels_NCHW[i + 1] for i in range(17)})
    more = changed(photos(10, seed=3), {4: train.pixels_NCHW[0]})
    lines = faults_of(train, test, {"more": more})
    assert len(lines) == 2
    assert lines[0].startswith("17 of 40 test images are training images too, first 2/0.png = 1/1.png: ")
    assert lines[1].startswith("1 of 10 more images are training images too, first 3/4.png = 1/0.png: ")


@pytest.mark.parametrize("quality", [95, 80, 60])
def test_a_photo_that_was_saved_again_is_nearly_the_same(train: Images, test: Images, quality: int) -> None:
    test = changed(test, {3: saved_again(train.pixels_NCHW[5], quality)})
    (line,) = faults_of(train, test, {})
    assert line.startswith("1 of 40 test images are nearly the same as a training image, first 2/3.png = 1/5.png: ")


def test_of_sets_too_large_to_compare_copies_are_still_found(
    train: Images, test: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MOST_PAIRS", 60 * 40 - 1)
    test = changed(test, {3: saved_again(train.pixels_NCHW[5], 90), 4: train.pixels_NCHW[6]})
    (line,) = faults_of(train, test, {})
    assert line.startswith("1 of 40 test images are training images too")


def test_copies_among_training_images_are_told_apart_by_their_label(train: Images, test: Images) -> None:
    train = changed(train, {10: train.pixels_NCHW[0], 11: train.pixels_NCHW[0], 12: train.pixels_NCHW[0]})
    lines = faults_of(train, test, {})
    assert len(lines) == 2
    assert lines[0].startswith("1 training images stand in two classes, first 1/11.png = 1/0.png: ")
    assert lines[1].startswith("2 training images are copies of others, first 1/10.png = 1/0.png: ")


def test_small_and_uneven_classes(train: Images, test: Images) -> None:
    few = replace(train, labels_N=(torch.arange(60) >= 51).long())
    lines = faults_of(few, test, {})
    assert lines[0].startswith("fewer than 10 training images: dog (9)")
    assert lines[1].startswith("cat has 51 training images and dog 9, more than 5 to 1")
    assert faults_of(replace(train, labels_N=(torch.arange(60) >= 50).long()), test, {}) == [], "5 to 1 is not more"


def test_even_and_grey_images_are_counted(train: Images, test: Images) -> None:
    grey = train.pixels_NCHW[7, :1].expand(3, -1, -1)
    lines = faults_of(changed(train, {7: grey, 8: torch.zeros(3, 32, 32), 9: torch.full((3, 32, 32), 9)}), test, {})
    assert lines == [
        "2 of 60 training images are of one even colour, first 1/8.png",
        "1 of 60 training images are grey, among colour ones, first 1/7.png",
    ]
    all_grey = replace(train, pixels_NCHW=train.pixels_NCHW[:, :1].expand(-1, 3, -1, -1))
    assert faults_of(all_grey, test, {}) == []
