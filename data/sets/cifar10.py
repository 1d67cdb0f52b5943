"""CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour photos of 32×32, ten classes.

Found in `root` as cifar-10-binary.tar.gz, packed or unpacked, or as folders train/<class>/*.png and test/<class>/*.png
(in `root` or in root/cifar10).
"""

from __future__ import annotations

from pathlib import Path

from data.sets import _cifar
from data.shards import Images

LAYOUT = _cifar.Layout(
    name="cifar10",
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    pickles=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    parts={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    names="batches.meta.txt",
    labels=1,
)


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part, the same whatever the seed; 32×32 and colour where size and channels are None."""
    return _cifar.load(LAYOUT, split, root=root, size=size, channels=channels)
