"""A contact sheet: a few images of every class side by side, exactly as the network will see them."""

from __future__ import annotations

from pathlib import Path

import torch

from data.shards import Images, to_image

A_CLASS = 12  # images in a row
CLASSES = 40  # rows at most
GAP = 2  # white pixels between two images
SIDE = 64  # pixels that an image has on the sheet at least


def write(path: Path, images: Images) -> list[str]:
    """Write the sheet as PNG, a row for each class in their order, evenly spread over the class; the rows' classes."""
    size, enlarged = images.size, max(1, -(-SIDE // images.size))
    rows = images.classes[:CLASSES]
    side = size * enlarged + GAP
    sheet = torch.full((images.channels, len(rows) * side + GAP, A_CLASS * side + GAP), 255, dtype=torch.uint8)
    for row in range(len(rows)):
        of_class = (images.labels_N == row).nonzero().flatten()
        for column, i in enumerate(of_class[:: max(1, -(-len(of_class) // A_CLASS))].tolist()):
            large = images.pixels_NCHW[i].repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2)
            top, left = GAP + row * side, GAP + column * side
            sheet[:, top : top + size * enlarged, left : left + size * enlarged] = large
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(sheet).save(path, format="PNG")
    return list(rows)
