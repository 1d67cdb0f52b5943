"""A team's own images: root/train/<class>/* and root/test/<class>/*, PNG or JPEG, of any size, grey or colour."""

from __future__ import annotations

from pathlib import Path

import torch

from data.sets._pictures import fit
from data.shards import Images, decode_png

SUFFIXES = (".png", ".jpg", ".jpeg")
SIZE, CHANNELS = 28, 3
NAMED = 5  # unreadable files named in the error


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part; the classes are the folders of train, in their order by name.

    FileNotFoundError for a missing folder; ValueError for fewer than two classes, a class without images, a class of
    test that train does not have, or files that are no images: they are counted and the first are named.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    classes = _classes(root / "train")
    if len(classes) < 2:
        raise ValueError(f"at least two classes are wanted, a folder each, in {root / 'train'}, got {len(classes)}")
    unknown = sorted(set(_classes(root / split)) - set(classes))
    if unknown:
        raise ValueError(f"{root / split} has classes that train does not have: {', '.join(unknown[:NAMED])}")
    pixels, labels, keys, broken = [], [], [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / split / name).glob("*") if p.suffix.lower() in SUFFIXES)
        if not files and split == "train":
            raise ValueError(f"every class needs training images, {root / split / name} has no PNG or JPEG file")
        for path in files:
            try:
                image_CHW = decode_png(path.read_bytes(), channels or CHANNELS)
            except ValueError:
                broken.append(path)
                continue
            pixels.append(_square(image_CHW, size or SIZE))
            labels.append(label)
            keys.append(path.relative_to(root).as_posix())
    if broken:
        named = ", ".join(str(p) for p in broken[:NAMED])
        raise ValueError(
            f"{len(broken)} files under {root / split} are no readable images: {named}; mend or remove them"
        )
    if not pixels:
        raise ValueError(f"images are wanted under {root / split}/<class>/, got none")
    return Images(torch.stack(pixels), torch.tensor(labels), tuple(keys), tuple(classes))


def _square(image_CHW: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of the image, as large as it can be, at size×size."""
    height, width = image_CHW.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return fit(image_CHW[None, :, top : top + side, left : left + side], size, None)[0]


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"a folder of images is wanted at {folder} and is not there; check data.root")
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
