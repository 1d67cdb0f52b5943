"""Poisson noise, shot noise: an image taken with little light (CIFAR-10-C, arXiv:1903.12261)."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging


class Params(Frozen):
    """Parameters of the shift."""

    photons: float = Field(ge=1)  # counted at a white pixel


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """Counts of light, each pixel's its own, as shares of white."""
    return imaging.poisson_noise(images_BCHW, params.photons, generator)
