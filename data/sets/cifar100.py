"""CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 colour photos of 32×32, a hundred (fine) classes.

Found in `root` as cifar-100-binary.tar.gz, packed or unpacked, or as folders train/<class>/*.png and
test/<class>/*.png (in `root` or in root/cifar100).
"""

from __future__ import annotations

from pathlib import Path

from data.sets import _cifar
from data.shards import Images

LAYOUT = _cifar.Layout(
    name="cifar100",
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    pickles=("cifar-100-python", "cifar-100-python.tar.gz"),
    parts={"train": ("train.bin",), "test": ("test.bin",)},
    names="fine_label_names.txt",
    labels=2,  # the coarse class, then the fine one
)


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part, the same whatever the seed; 32×32 and colour where size and channels are None."""
    return _cifar.load(LAYOUT, split, root=root, size=size, channels=channels)
