"""What the sets share: pictures from files, and pixels brought to a campaign's size and channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from data.memmap import room
from data.shards import decode_png

_CHUNK = 4096  # images resized at once
_NAMED = 5  # broken files named in an error
_LUMA = (19595, 38470, 7471)  # of red, green and blue, in 65536ths (ITU-R 601, as Pillow rounds it)


def read_pictures(paths: Sequence[Path], side: int, channels: int) -> torch.Tensor:
    """PNG or JPEG files of side×side pixels → uint8 N×channels×side×side.

    ValueError names and counts the files that cannot be read or have another size.
    """
    pixels_NCHW = room(len(paths), channels, side, side)
    broken: list[str] = []
    for i, path in enumerate(paths):
        try:
            pixels_CHW = decode_png(path.read_bytes(), channels)
        except (ValueError, OSError) as error:
            broken.append(f"{path}: {error}")
            continue
        if pixels_CHW.shape[1:] != (side, side):
            broken.append(f"{path}: {side}×{side} pixels wanted, got {pixels_CHW.shape[2]}×{pixels_CHW.shape[1]}")
            continue
        pixels_NCHW[i] = pixels_CHW
    if broken:
        more = f"\nand {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise ValueError(
            f"{len(broken)} of {len(paths)} pictures cannot be used; mend or remove them:\n"
            + "\n".join(broken[:_NAMED])
            + more
        )
    return pixels_NCHW


def fit(pixels_NCHW: torch.Tensor, size: int | None, channels: int | None) -> torch.Tensor:
    """uint8 pixels of a size×size square and so many channels; None keeps what the pixels have.

    Colour becomes grey by its luma, grey becomes colour by repetition; resizing is bilinear, antialiased.
    """
    if channels == 1 and pixels_NCHW.shape[1] == 3:
        pixels_NCHW = torch.cat([_grey(part) for part in _chunks(pixels_NCHW)])
    elif channels == 3 and pixels_NCHW.shape[1] == 1:
        pixels_NCHW = pixels_NCHW.expand(-1, 3, -1, -1).contiguous()
    if size is not None and pixels_NCHW.shape[2:] != (size, size):
        resized_NCHW = room(*pixels_NCHW.shape[:2], size, size)
        for into, part in zip(_chunks(resized_NCHW), _chunks(pixels_NCHW), strict=True):
            into.copy_(_resized(part, size))
        return resized_NCHW
    return pixels_NCHW


def _chunks(pixels_NCHW: torch.Tensor) -> list[torch.Tensor]:
    return [pixels_NCHW[at : at + _CHUNK] for at in range(0, len(pixels_NCHW), _CHUNK)]


def _grey(pixels_N3HW: torch.Tensor) -> torch.Tensor:
    luma = sum(weight * pixels_N3HW[:, i].int() for i, weight in enumerate(_LUMA))
    return ((torch.as_tensor(luma) + (1 << 15)) >> 16).to(torch.uint8)[:, None]


def _resized(pixels_NCHW: torch.Tensor, size: int) -> torch.Tensor:
    found = interpolate(pixels_NCHW.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return found.round_().clamp_(0, 255).to(torch.uint8)
