"""Stripe: an upright band in which light and dark change places (MNIST-C, arXiv:1906.02337)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen


class Params(Frozen):
    """Parameters of the shift."""

    width: float = Field(gt=0, le=1)  # of the band, share of the image's width


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The images, inverted within a band whose place each image draws."""
    columns = images_BCHW.shape[3]
    wide = max(1, round(params.width * columns))
    left_B = torch.randint(0, columns - wide + 1, (len(images_BCHW),), generator=generator, device=generator.device)
    across = torch.arange(columns, device=images_BCHW.device) - left_B.to(images_BCHW.device)[:, None]
    inside_B11W = ((across >= 0) & (across < wide))[:, None, None, :]
    return torch.where(inside_B11W, 1 - images_BCHW, images_BCHW)
