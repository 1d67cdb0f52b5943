"""MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images, 28×28, grey; found in a folder or downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from data.sets._pictures import fit
from data.shards import Images

FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part, from root/MNIST/raw; downloaded there, with progress, if it is not there.

    FileNotFoundError names the folder and the files where neither works.
    """
    from torchvision.datasets import MNIST

    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    raw = root / "MNIST" / "raw"
    try:
        found = MNIST(str(root), train=split == "train", download=False)
    except RuntimeError:
        try:
            found = MNIST(str(root), train=split == "train", download=True)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"MNIST was wanted in {raw}, is not there, and could not be downloaded "
                f"({str(error).splitlines()[-1]}); "
                f"put {FILES} there, or set data.root to the folder that holds MNIST/raw"
            ) from error
    pixels_N1HW = found.data[:, None]
    classes = tuple(str(i) for i in range(10))
    keys = tuple(f"mnist/{split}/{i:05d}" for i in range(len(pixels_N1HW)))
    return Images(fit(pixels_N1HW, size, channels), found.targets.to(torch.long), keys, classes)
