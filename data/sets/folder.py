"""A team's own images: a folder for each class, below train/ and test/ or all in one, of any size, grey or colour.

data/sets/_class_folders.py says where they may lie. Of a file with several images, such as an animation, the first is
taken.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from data.decoding import Fit, decode, fitted, to_pixels
from data.memmap import room
from data.names import printable
from data.sets._class_folders import SUFFIXES, class_folders, files_below, find_parts, held_out, is_picture, key
from data.shards import Images

SIZE, CHANNELS = 28, 3
OPTIONS = ("fit", "test_share")  # keys of `data` that this set takes besides those that every set takes
NAMED = 5  # files named in an error
TELL_EVERY = 10.0  # seconds between two lines of progress


def load(
    split: str,
    *,
    root: Path,
    size: int | None,
    channels: int | None,
    seed: int,
    fit: Fit = "crop",
    test_share: float | None = None,
) -> Images:
    """The `train` or `test` part; the classes are the folders of the training part, in their order by name.

    Each image is brought to size×size as `fit` says (data/decoding.py). Files with other suffixes than `SUFFIXES` are
    passed over, and a line says how many.
    FileNotFoundError for a missing folder; ValueError for fewer than two classes, a class without training images, a
    class of test that train does not have, or files that are no sound images: they are counted, the first are named.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    parts, shape = find_parts(root, test_share, tested=split == "test"), (size or SIZE, channels or CHANNELS, fit)
    folders = class_folders(parts.train)
    if len(folders) < 2:
        got = f"{len(folders)}: {', '.join(folders)}" if folders else "none"
        raise ValueError(f"expected at least two classes, a folder each, in {parts.train}, got {got}")
    if parts.share is not None:
        return _one_part(split, root, (parts.train, parts.share), folders, seed, shape)
    if split == "train" and parts.note:
        print(parts.note, flush=True)
    folder = parts.test if split == "test" and parts.test is not None else parts.train
    return pictures(folder, root, tuple(folders), *shape, every=split == "train")


def pictures(
    folder: Path,
    root: Path,
    classes: Sequence[str],
    size: int,
    channels: int,
    fit: Fit = "crop",
    *,
    every: bool = False,
) -> Images:
    """The images in folder/<class>/*, named by their path under `root`; each class has some if `every`.

    The errors of `load`.
    """
    folders = class_folders(folder)
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise ValueError(f"{folder} has classes that train does not have: {', '.join(unknown[:NAMED])}")
    files = _labelled(folder, folders, classes)
    empty = sorted(set(range(len(classes))) - {label for _, label in files})
    if not files or (empty and every):
        named = ", ".join(str(folders.get(classes[label], folder / classes[label])) for label in empty[:NAMED])
        raise ValueError(f"every class needs images ({', '.join(SUFFIXES)}), and there are none in {named}")
    return _images(files, root, classes, (size, channels, fit))


def _one_part(
    split: str, root: Path, whole: tuple[Path, float], folders: dict[str, Path], seed: int, shape: tuple[int, int, Fit]
) -> Images:
    """The `train` or `test` part of images that lie together. whole: their folder, and the share of each class that is
    the test part."""
    folder, share = whole
    classes, taken = tuple(folders), list[tuple[Path, int]]()
    files = _labelled(folder, folders, classes, tell=split == "train")
    for label, name in enumerate(classes):
        own = [path for path, of in files if of == label]
        test = held_out(own, root, share, seed)
        if len(test) == len(own):
            raise ValueError(
                f"every class needs two different images at least, one of them to test with, and {folders[name]} has "
                f"{len(own)} files of {', '.join(SUFFIXES)}"
            )
        taken += [(path, label) for path in own if (path in test) == (split == "test")]
    if split == "train":
        n = len(files) - len(taken)
        print(f"  no test part in {root}: {n} of {len(files)} images are held out for testing", flush=True)
    return _images(taken, root, classes, shape)


def _labelled(
    folder: Path, folders: dict[str, Path], classes: Sequence[str], *, tell: bool = True
) -> list[tuple[Path, int]]:
    """The image files of each class, with its index."""
    of_class = {label: files_below(folders[name]) for label, name in enumerate(classes) if name in folders}
    if tell:
        _tell_others(folder, [path for paths in of_class.values() for path in paths if not is_picture(path)])
    return [(path, label) for label, paths in of_class.items() for path in paths if is_picture(path)]


def _tell_others(folder: Path, paths: Sequence[Path]) -> None:
    """Print how many files are passed over, by suffix: they may be photos that somebody misses later."""
    if paths:
        counts = Counter(printable(path.suffix.lower()) or "without a suffix" for path in paths)
        passed_over = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        print(f"  passed over in {folder}: {passed_over}; read are {', '.join(SUFFIXES)}", flush=True)


def _images(
    files: Sequence[tuple[Path, int]], root: Path, classes: Sequence[str], shape: tuple[int, int, Fit]
) -> Images:
    pixels_NCHW = _read([path for path, _ in files], *shape)
    labels_N = torch.tensor([label for _, label in files], dtype=torch.long)
    return Images(pixels_NCHW, labels_N, tuple(key(path, root) for path, _ in files), tuple(classes))


def _read(paths: Sequence[Path], size: int, channels: int, fit: Fit) -> torch.Tensor:
    pixels_NCHW = room(len(paths), channels, size, size)
    broken, told = list[str](), time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of malformed tags: they name no file, and the picture is read
        for i, path in enumerate(paths):
            try:
                picture = decode(path, channels, least=2 * size)  # a large JPEG at a fraction, never under this
                pixels_NCHW[i] = to_pixels(fitted(picture, size, fit))
            except ValueError as error:
                broken.append(f"{printable(path)}: {printable(str(error))}")
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                print(f"  read {i + 1} of {len(paths)} pictures", flush=True)
    if broken:
        more = f"\nand {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise ValueError(
            f"{len(broken)} of {len(paths)} files are no readable images; mend or remove them:\n"
            + "\n".join(broken[:NAMED])
            + more
        )
    return pixels_NCHW
