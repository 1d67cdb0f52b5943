"""A set of small pictures in one file that travels: a sheet for each class, WebP without loss, in a zip archive.

CIFAR-10's 35,000 pictures take 57 MiB so, and 103 MiB as bytes.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.shards import Images

ABOUT = "about.json"  # {"classes": […], "size": pixels, "counts": {"train": {class: n}, "test": {class: n}}}


def pack(folder: Path, file: Path, train: int) -> None:
    """Write train/<class>/* and test/<class>/* of a folder, of the first so many a class that they come to `train`.

    ValueError for a folder without both parts, or of pictures that differ in size.
    """
    classes = sorted(each.name for each in (folder / "train").iterdir() if each.is_dir())
    counts: dict[str, dict[str, int]] = {"train": {}, "test": {}}
    size = None
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for split, limit in (("train", train // len(classes)), ("test", None)):
            for name in classes:
                paths = sorted((folder / split / name).iterdir())[:limit]
                pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
                size = size or (pictures[0].shape[0] if pictures else None)
                if not pictures or any(each.shape != (size, size, 3) for each in pictures):
                    raise ValueError(f"{folder / split / name} must hold square pictures of one size, {size} pixels")
                counts[split][name] = len(pictures)
                archive.writestr(f"{split}/{name}.webp", _sheet(pictures))
                print(f"{split} {name}: {len(pictures)} pictures", flush=True)
        archive.writestr(ABOUT, json.dumps({"classes": classes, "size": size, "counts": counts}))


def read(file: Path, split: str) -> Images:
    """The `train` or `test` part, class by class."""
    with zipfile.ZipFile(file) as archive:
        about = json.loads(archive.read(ABOUT))
        parts, labels, size = [], [], about["size"]
        for label, name in enumerate(about["classes"]):
            sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(archive.read(f"{split}/{name}.webp")))))
            rows, columns, n = sheet.shape[0] // size, sheet.shape[1] // size, about["counts"][split][name]
            pictures = sheet.view(rows, size, columns, size, 3).permute(0, 2, 4, 1, 3)
            parts.append(pictures.reshape(-1, 3, size, size)[:n])
            labels += [label] * n
    keys = tuple(f"{split}/{i}" for i in range(len(labels)))
    return Images(torch.cat(parts), torch.tensor(labels), keys, tuple(about["classes"]))


def _sheet(pictures: list[Any]) -> bytes:
    size, columns = pictures[0].shape[0], math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.zeros((rows, size, columns, size, 3), np.uint8)
    for i, picture in enumerate(pictures):
        sheet[i // columns, :, i % columns] = picture
    target = io.BytesIO()
    image = Image.fromarray(sheet.reshape(rows * size, columns * size, 3))
    image.save(target, "WEBP", lossless=True, quality=75, method=4)
    return target.getvalue()
