"""Tiny ImageNet (CS231n): 100,000 and 10,000 photos of 64×64, two hundred classes of 500 and 50.

Found in `root` as the unpacked folder tiny-imagenet-200. Its own test part has no labels, so `test` is its `val`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from data.sets._pictures import fit, read_pictures
from data.shards import Images

FOLDER, SIDE = "tiny-imagenet-200", 64


def load(split: str, *, root: Path, size: int | None, channels: int | None, seed: int) -> Images:
    """The `train` or `test` part, the same whatever the seed; 64×64 and colour where size and channels are None."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    folder = next((place for place in (root / FOLDER, root) if (place / "wnids.txt").is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            f"tiny_imagenet: expected in {root} (data.root): the folder {FOLDER}/ with wnids.txt, words.txt, train/ "
            f"and val/; unpack {FOLDER}.zip there"
        )
    wnids = _lines(folder / "wnids.txt")
    files = _train(folder, wnids) if split == "train" else _val(folder, wnids)
    pixels = fit(read_pictures([path for path, _ in files], SIDE, channels or 3), size, channels)
    labels = torch.tensor([label for _, label in files], dtype=torch.long)
    keys = tuple(f"tiny_imagenet/{path.stem}" for path, _ in files)
    return Images(pixels, labels, keys, _names(folder, wnids))


def _train(folder: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    files = []
    for label, wnid in enumerate(wnids):
        found = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not found:
            raise FileNotFoundError(f"{folder / 'train' / wnid / 'images'} holds no *.JPEG; unpack the whole archive")
        files += [(path, label) for path in found]
    return files


def _val(folder: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    annotations, label_of = folder / "val" / "val_annotations.txt", {wnid: i for i, wnid in enumerate(wnids)}
    files = []
    for number, line in enumerate(_lines(annotations), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in label_of:
            raise ValueError(
                f"{annotations}:{number}: expected a file's name, a tab and a class of wnids.txt, got {line!r}"
            )
        files.append((folder / "val" / "images" / name, label_of[wnid]))
    return files


def _names(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first word that words.txt gives each class; with its identifier where two classes share a word."""
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    missing = [wnid for wnid in wnids if wnid not in words]
    if missing:
        raise ValueError(f"{folder / 'words.txt'} names no {missing[0]}, which wnids.txt lists: it is cut short")
    first = [words[wnid].split(",")[0].strip() for wnid in wnids]
    often = Counter(first)
    return tuple(f"{name} ({wnid})" if often[name] > 1 else name for name, wnid in zip(first, wnids, strict=True))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"expected {path}, and there is none; unpack the whole archive")
    return [line.rstrip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
