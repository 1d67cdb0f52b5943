"""Gaussian blur, each image by a width of its own (arXiv:1903.12261)."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging
from tasks.shifts._kernels import convolved, gaussians


class Params(Frozen):
    """Parameters of the shift."""

    sigma: float = Field(gt=0, le=50)  # largest standard deviation, pixels; drawn from half of it on


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The images under a Gaussian, the edge's pixels going on outside."""
    sigma_B = imaging.uniform(images_BCHW, params.sigma / 2, params.sigma, generator)
    return convolved(images_BCHW, gaussians(sigma_B))
