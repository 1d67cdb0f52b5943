"""Additive Gaussian noise, independent in every pixel and channel."""

from __future__ import annotations

import torch
from pydantic import Field

from tasks.config.params import Frozen
from tasks.engine import imaging


class Params(Frozen):
    """Parameters of the shift."""

    sigma: float = Field(gt=0, le=1)  # standard deviation, pixels in [0, 1]


def shift(images_BCHW: torch.Tensor, params: Params, generator: torch.Generator) -> torch.Tensor:
    """images + σ·N(0, 1), clipped to [0, 1]."""
    return imaging.gaussian_noise(images_BCHW, params.sigma, generator)
