"""Speckle noise: Gaussian, in proportion to the pixel (arXiv:1903.12261)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen


class Params(Frozen):
    """Parameters of the shift."""

    sigma: float = Field(gt=0, le=2)  # standard deviation at a white pixel


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """images · (1 + σ·N(0, 1)), clipped to [0, 1]."""
    drawn_BCHW = torch.randn(images_BCHW.shape, generator=generator, device=generator.device).to(images_BCHW.device)
    return (images_BCHW * (1 + params.sigma * drawn_BCHW)).clamp(0, 1)
