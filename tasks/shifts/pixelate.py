"""Pixelate: blocks of one colour, their grid where each image drew it (arXiv:1903.12261)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen


class Params(Frozen):
    """Parameters of the shift."""

    block: int = Field(ge=2, le=256)  # height = width of a block, pixels


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """Every pixel takes its block's middle pixel."""
    height, width = images_BCHW.shape[2:]
    start_B2 = torch.randint(0, params.block, (len(images_BCHW), 2), generator=generator, device=generator.device)
    rows_BH, columns_BW = (_middles(size, params.block, start_B2[:, i]) for i, size in enumerate((height, width)))
    which_BHW = (rows_BH[:, :, None] * width + columns_BW[:, None, :]).to(images_BCHW.device)
    which_BCP = which_BHW.flatten(1)[:, None].expand(-1, images_BCHW.shape[1], -1)
    return images_BCHW.flatten(2).gather(2, which_BCP).view(images_BCHW.shape)


def _middles(size: int, block: int, start_B: Tensor) -> Tensor:
    """For each image and pixel along one axis, the pixel in the middle of its block."""
    start_B1 = start_B[:, None]
    blocks = (torch.arange(size, device=start_B.device) + start_B1) // block
    return (blocks * block + block // 2 - start_B1).clamp(0, size - 1)
