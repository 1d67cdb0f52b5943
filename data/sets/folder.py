"""A team's own images: root/train/<class>/* and root/test/<class>/*, of any size, grey or colour.

Of a file with several images, such as an animation, the first is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from data.memmap import room
from data.shards import Images

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # Pillow's names: no other reader of its is handed a file
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SIZE, CHANNELS = 28, 3
NAMED = 5  # files named in an error


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part; the classes are the folders of train, in their order by name.

    Files with other suffixes than `SUFFIXES` are passed over, and a line says how many.
    Of each image the middle is taken, as large a square as it has, and brought to `size`, antialiased.
    FileNotFoundError for a missing folder; ValueError for fewer than two classes, a class without training images, a
    class of test that train does not have, or files that are no sound images: they are counted, the first are named.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    folder = root / split
    classes = _classes(root / "train")
    if len(classes) < 2:
        got = f"{len(classes)}: {', '.join(classes)}" if classes else "none"
        raise ValueError(f"at least two classes are wanted, a folder each, in {root / 'train'}, got {got}")
    return pictures(folder, root, classes, size or SIZE, channels or CHANNELS, every=split == "train")


def pictures(
    folder: Path, root: Path, classes: Sequence[str], size: int, channels: int, *, every: bool = False
) -> Images:
    """The images in folder/<class>/*, named by their path under `root`; each class has some if `every`.

    The errors of `load`.
    """
    unknown = sorted(set(_classes(folder)) - set(classes))
    if unknown:
        raise ValueError(f"{folder} has classes that train does not have: {', '.join(unknown[:NAMED])}")
    there = [(path, label) for label, name in enumerate(classes) for path in _files(folder / name)]
    files = [(path, label) for path, label in there if _known(path)]
    _tell_others(folder, [path for path, _ in there if not _known(path)])
    empty = sorted(set(range(len(classes))) - {label for _, label in files})
    if not files or (empty and every):
        named = ", ".join(str(folder / classes[label]) for label in empty[:NAMED])
        raise ValueError(f"every class needs images ({', '.join(SUFFIXES)}), none were found in {named}")
    pixels_NCHW = _read([path for path, _ in files], size, channels)
    labels_N = torch.tensor([label for _, label in files], dtype=torch.long)
    return Images(pixels_NCHW, labels_N, tuple(p.relative_to(root).as_posix() for p, _ in files), tuple(classes))


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"a folder of images is wanted at {folder} and is not there; set data.root to the folder that holds "
            "train/<class>/ and test/<class>/"
        )
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """All that lies below, nothing hidden: notebooks keep copies of pictures in .ipynb_checkpoints.

    A link that leads nowhere is among them, as a picture that cannot be read.
    """
    below = (path for path in folder.rglob("*") if path.is_file() or (path.is_symlink() and not path.exists()))
    return sorted(p for p in below if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _known(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _tell_others(folder: Path, paths: Sequence[Path]) -> None:
    """Print how many files are passed over, by suffix: they may be photos that somebody misses later."""
    if paths:
        counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
        told = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        print(f"  passed over in {folder}: {told}; read are {', '.join(SUFFIXES)}", flush=True)


def _read(paths: list[Path], size: int, channels: int) -> torch.Tensor:
    pixels_NCHW = room(len(paths), channels, size, size)
    broken = []
    for i, path in enumerate(paths):
        try:
            pixels_NCHW[i] = _picture(path, size, channels)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            broken.append(f"{path}: {error}")
    if broken:
        more = f"\nand {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise ValueError(
            f"{len(broken)} of {len(paths)} files are no readable images; mend or remove them:\n"
            + "\n".join(broken[:NAMED])
            + more
        )
    return pixels_NCHW


def _picture(path: Path, size: int, channels: int) -> torch.Tensor:
    """The middle square of an image file as uint8 channels×size×size, the way up that its camera noted."""
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path, formats=FORMATS) as opened:
        opened.draft(mode, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction, never under this
        picture = ImageOps.exif_transpose(opened)
        if picture.mode == "F":  # whose white may be 1, or 255, or anything
            raise ValueError("its pixels are floating-point numbers, of which none is known to be white")
        if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut at 255
            deep = np.asarray(picture, dtype=np.int64)
            if deep.min() < 0 or deep.max() > 65535:
                raise ValueError("its pixels have more than 16 bits")
            picture = Image.fromarray((deep // 257).astype(np.uint8))
        fitted = ImageOps.fit(picture.convert(mode), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted).reshape(size, size, channels)).permute(2, 0, 1)
