"""MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images, 28×28, grey; found in a folder or downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data.sets._pictures import fit
from data.shards import Images

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part, from root/MNIST/raw; downloaded there, with progress, if it is not there.

    FileNotFoundError names the folder and the files if neither works, ValueError a file that is broken.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    found = _found(root, split)
    pixels_NCHW = fit(found.data[:, None], size, channels)
    keys = tuple(f"mnist/{split}/{i:05d}" for i in range(len(pixels_NCHW)))
    return Images(pixels_NCHW, found.targets.to(torch.long), keys, tuple(str(i) for i in range(10)))


def _found(root: Path, split: str) -> MNIST:
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    missing = [name for name in FILES if not (raw / name).is_file()]
    if missing:
        try:
            MNIST(str(root), download=True)
        except (RuntimeError, OSError) as error:
            missing = [name for name in FILES if not (raw / name).is_file()]
            reason = str(error).strip().splitlines()[-1]
            raise FileNotFoundError(
                f"expected MNIST in {raw}, and it could not be downloaded ({reason}); missing: {', '.join(missing)}; "
                "put the four unpacked files there, or set data.root to the folder that holds MNIST/raw"
            ) from error
    try:
        return MNIST(str(root), train=split == "train", download=False)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"the {split} files of MNIST in {raw} are broken ({error}); delete them, and they are downloaded anew"
        ) from error
