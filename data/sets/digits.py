"""scikit-learn's handwritten digits: 1,797 real 8×8 images by 43 people (UCI optdigits), embedded in the package.

Upscaled to 20×20 and centred on 28×28, as MNIST's digits are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import pad

from data.shards import Images

SIZE, INNER = 28, 20
SMALLEST = 12  # pixels; under it the digits would be made smaller than they are
WRITTEN, INK = 8, 16  # pixels and ink levels of the originals
TEST = 5  # one image in so many is a test image


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` (1,433) or `test` (364) part; the same on every machine, whatever the seed. Needs no file."""
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    size, channels = size or SIZE, channels or 1
    if size < SMALLEST:
        raise ValueError(f"expected data.size of at least {SMALLEST} for digits, got {size}")
    found = load_digits()
    large = _upscaled(torch.from_numpy(found.images).long(), round(size * INNER / SIZE))
    before = (size - large.shape[-1]) // 2
    after = size - large.shape[-1] - before
    pixels = pad(large[:, None], (before, after, before, after))
    labels = torch.from_numpy(found.target).to(torch.long)
    # every fifth image of each class, in the order of the file, so that writers are spread over both parts
    rank = torch.empty_like(labels)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        rank[own] = torch.arange(len(own))
    chosen = ((rank % TEST == 0) == (split == "test")).nonzero().flatten()
    keys = tuple(f"digits/{i:04d}" for i in chosen.tolist())
    classes = tuple(str(i) for i in range(10))
    return Images(pixels[chosen].expand(-1, channels, -1, -1).contiguous(), labels[chosen], keys, classes)


def _upscaled(levels_NHW: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear, in whole numbers throughout: floats round to other pixels on other processors."""
    half = 2 * side  # a weight of 1, in the unit of the weights
    weights = torch.zeros(side, WRITTEN, dtype=torch.long)
    for i in range(side):
        place = max((2 * i + 1) * WRITTEN - side, 0)
        below = min(place // half, WRITTEN - 1)
        share = place - below * half
        weights[i, below] += half - share
        weights[i, min(below + 1, WRITTEN - 1)] += share
    white = INK * half * half
    scaled = (weights @ levels_NHW @ weights.T) * 255
    return ((2 * scaled + white) // (2 * white)).to(torch.uint8)
