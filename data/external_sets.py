"""Test images from elsewhere, of a campaign's classes: a folder for each class, or the official corrupted files.

A folder is read as data/sets/folder.py reads its own, from folder/<class>/ or folder/test/<class>/.
CIFAR-10-C and CIFAR-100-C (arXiv:1903.12261) are a file for each kind, such as fog.npy, uint8 N×H×W×C, and labels.npy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data.decoding import Fit
from data.memmap import room
from data.sets import _pictures
from data.sets.folder import pictures
from data.shards import Images

LABELS = "labels"
SEVERITIES = 5  # of each kind, one after the other in its file
_OFFICIAL = re.compile(r"[^/]+/(\d{5,})")  # a key that `_corrupted` gave; a file's has a suffix
_CHUNK = 2000  # images brought to the campaign's size at once


def load_other(folder: Path, classes: Sequence[str], *, size: int, channels: int, fit: Fit = "crop") -> Images:
    """All images there, brought to the campaign's size and channels; `fit` is `data.fit`.

    FileNotFoundError or ValueError: what is not there, or broken, or of a class that the campaign does not have.
    """
    if (folder / f"{LABELS}.npy").is_file():
        return _corrupted(folder, classes, size, channels)
    place = folder / "test" if (folder / "test").is_dir() else folder
    return pictures(place, folder, classes, size, channels, fit)


def corrupted(folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The official files: kind → uint8 N×C×H×W over its file, and int64 N, the labels of every kind. No pickles."""
    files = sorted(path for path in folder.glob("*.npy") if path.stem != LABELS)
    if not files or not (folder / f"{LABELS}.npy").is_file():
        raise FileNotFoundError(f"expected labels.npy and a file for each kind, such as fog.npy, in {folder}")
    labels_N = torch.from_numpy(_array(folder / f"{LABELS}.npy", 1).astype(np.int64))
    kinds = {}
    for path in files:
        pixels_NHWC = _array(path, 4)
        if pixels_NHWC.dtype != np.uint8 or len(pixels_NHWC) != len(labels_N):
            got = f"{pixels_NHWC.dtype} {pixels_NHWC.shape}"
            raise ValueError(f"{path} must hold {len(labels_N)} uint8 images, as many as labels.npy, got {got}")
        kinds[path.stem] = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2)
    return kinds, labels_N


def originals(keys: Sequence[str], labels: Sequence[object]) -> int:
    """How many different images these are. In official files each stands once for every kind and severity."""
    found = [_OFFICIAL.fullmatch(key) for key in keys]
    numbers = {match[1] for match in found if match}
    if not all(found):
        return len(keys)
    n, rest = divmod(len(numbers), SEVERITIES)
    once = list(labels[: len(numbers)])
    return n if n and not rest and once == once[:n] * SEVERITIES else len(numbers)


def _corrupted(folder: Path, classes: Sequence[str], size: int, channels: int) -> Images:
    kinds, labels_N = corrupted(folder)
    n, last = len(labels_N), len(classes) - 1
    if n and not (0 <= int(labels_N.min()) and int(labels_N.max()) <= last):
        got = f"{int(labels_N.min())} to {int(labels_N.max())}"
        raise ValueError(f"{folder / 'labels.npy'} must hold the campaign's classes, 0 to {last}, got {got}")
    pixels_NCHW = room(n * len(kinds), channels, size, size)
    for i, found_NCHW in enumerate(kinds.values()):
        for at in range(0, n, _CHUNK):
            part = found_NCHW[at : at + _CHUNK].contiguous()
            pixels_NCHW[i * n + at : i * n + at + len(part)] = _pictures.fit(part, size, channels)
    keys = tuple(f"{kind}/{i:05d}" for kind in kinds for i in range(n))
    return Images(pixels_NCHW, labels_N.repeat(len(kinds)), keys, tuple(classes))


def _array(path: Path, dimensions: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    try:
        # copy-on-write, for torch wants to be able to write
        found: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no sound .npy file ({error}); bring it again") from error
    if found.ndim != dimensions:
        raise ValueError(f"{path} must have {dimensions} dimensions, got {found.ndim}: {found.shape}")
    return found
