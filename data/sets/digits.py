"""scikit-learn's handwritten digits: 1,797 real 8×8 images by 43 people (UCI optdigits), embedded in the package.

Upscaled to 20×20 and centred on 28×28, as MNIST's digits are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import interpolate, pad

from data.shards import Images

SIZE, INNER = 28, 20
TEST = 5  # one image in so many is a test image


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` (1,437) or `test` (360) part; the same on every machine, whatever the seed. Needs no file."""
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    size, channels = size or SIZE, channels or 1
    if size < INNER:
        raise ValueError(f"data.size of at least {INNER} is wanted for digits, got {size}")
    found = load_digits()
    eighths_N1HW = torch.from_numpy(found.images).to(torch.float32)[:, None]
    inner = round(size * INNER / SIZE)
    large = interpolate(eighths_N1HW * (255 / 16), size=(inner, inner), mode="bilinear", align_corners=False)
    before = (size - inner) // 2
    after = size - inner - before
    pixels = pad(large, (before, after, before, after)).round().clamp(0, 255).to(torch.uint8)
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
